"""The verdict on an experiment: each KPI's effect, its significance, its guardrail, and the action to take.

`judge` alone decides: for the report, topic `experiments`, the dashboard and ramps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.cell_sums import DROPPED, MOVED, SESSIONS, USER, CellSums, Columns
from udfs.measurement.design import Experiment, Stretch
from udfs.measurement.effects import Effect, NoEffectError, Ratio, holm, measure_effect
from udfs.measurement.kpis import Kpi, Term, terms_of
from udfs.measurement.sample_ratio import SRM_ALPHA, sample_ratio_p

GuardrailState = Literal["held", "broken", "open"]


@dataclass(frozen=True)
class KpiResult:
    """A KPI's effect, its significance and the state of its guardrail."""

    kpi: Kpi
    effect: Effect | None  # None: no data
    no_data: str | None = None  # the reason, in a few words
    cap: float | None = None  # what a session counts for at most in the numerator; None: not winsorised
    uncapped: Effect | None = None  # the effect without the cap
    is_better: bool = False  # after Holm's correction over all KPIs
    is_worse: bool = False
    margin: float | None = None  # the share by which the KPI may be worse; None: no guardrail
    guardrail: GuardrailState | None = None


class StretchUsers(NamedTuple):
    """A stretch of an experiment, and the users of its arms."""

    stretch: Stretch
    treatment: int
    baseline: int


@dataclass(frozen=True)
class Verdict:
    """The state of an experiment: the action to take, the decision in words, and the figures behind it."""

    experiment: Experiment
    action: ExperimentAction
    decision: str
    stretches: tuple[StretchUsers, ...]
    #: By arm; who was there in two stretches counts twice.
    users: dict[str, int]
    sessions: dict[str, int]
    #: Users who were in both arms of a stretch, and their sessions that were dropped.
    moved_users: int
    dropped_sessions: int
    sample_ratio_p: float | None  # None without users
    findings: dict[str, KpiResult]

    @property
    def guardrails(self) -> dict[str, KpiResult]:
        """The results of the KPIs that have a guardrail."""
        return {name: finding for name, finding in self.findings.items() if finding.guardrail}


def judge(
    experiment: Experiment,
    sums: CellSums,
    kpis: Mapping[str, Kpi],
    caps: Mapping[str, float],
    margins: Mapping[str, float] | None = None,
) -> Verdict:
    """The verdict on an experiment, from the sums over its users.

    `caps` limit the numerator of a session, by KPI; `margins` are the guardrails by KPI, those of the KPIs by default.
    """
    terms = terms_of(kpis, caps)
    columns = Columns(len(terms))
    if margins is None:
        margins = {name: kpi.guardrail for name, kpi in kpis.items() if kpi.guardrail is not None}
    findings = {
        name: _measured(sums, columns, terms, kpi, caps.get(name), margins.get(name)) for name, kpi in kpis.items()
    }
    findings = _with_significance(findings)
    stretches = tuple(
        StretchUsers(stretch, *(round(sums.sums(2 * number + side)[USER]) for side in (0, 1)))
        for number, stretch in enumerate(experiment.stretches)
    )
    ratio_p = sample_ratio_p(
        (part.treatment, part.baseline, part.stretch.treatment_share, part.stretch.baseline_share) for part in stretches
    )
    action = choose_action(ratio_p, findings)
    return Verdict(
        experiment=experiment,
        action=action,
        decision=decision_text(action, ratio_p, findings, _named(experiment)),
        stretches=stretches,
        users=_by_arm(experiment, sums, USER),
        sessions=_by_arm(experiment, sums, SESSIONS),
        moved_users=_summed(sums, MOVED),
        dropped_sessions=_summed(sums, DROPPED),
        sample_ratio_p=ratio_p,
        findings=findings,
    )


def guardrail_state(effect: Effect | None, kpi: Kpi, margin: float) -> GuardrailState:
    """The state of a guardrail: open while the relative interval, if there is one, has the margin in it."""
    if effect is None or effect.relative is None:
        return "open"
    _, low, high = effect.relative
    worst, best = (low, high) if kpi.direction == "up" else (-high, -low)
    return "held" if worst >= -margin else "broken" if best < -margin else "open"


def choose_action(ratio_p: float | None, findings: Mapping[str, KpiResult]) -> ExperimentAction:
    """Decide what to do, by the p-value of the arms' user counts and by the findings on the KPIs."""
    if ratio_p is not None and ratio_p < SRM_ALPHA:
        return ExperimentAction.FIX_FIRST
    if not any(finding.effect for finding in findings.values()):
        return ExperimentAction.NO_DATA
    if _got_worse(findings):
        return ExperimentAction.STOP
    if _got_better(findings) and not _still_open(findings):
        return ExperimentAction.SHIP
    return ExperimentAction.KEEP_RUNNING


def decision_text(
    action: ExperimentAction, ratio_p: float | None, findings: Mapping[str, KpiResult], treatment: str
) -> str:
    """Render an action with its reason."""
    better = _listed(_got_better(findings))
    match action:
        case ExperimentAction.FIX_FIRST:
            return (
                f"Fix first: sample ratio mismatch (p = {ratio_p:.2g}). The arms' user counts do not match their "
                "traffic shares, so the effects below cannot be trusted."
            )
        case ExperimentAction.NO_DATA:
            return "No data: the sessions say nothing of any KPI yet."
        case ExperimentAction.STOP:
            return f"Stop {treatment}: {_listed(_got_worse(findings))} worsened."
        case ExperimentAction.SHIP:
            return f"Ship {treatment}: {better} improved, and all guardrails hold."
    no_data = [name for name in _still_open(findings) if findings[name].effect is None]
    inconclusive = [name for name in _still_open(findings) if findings[name].effect is not None]
    if better:
        doubts = [f"guardrails are inconclusive for {_listed(inconclusive)}"] if inconclusive else []
        doubts += [f"there is no data for the guardrails on {_listed(no_data)}"] if no_data else []
        return f"Keep running: {better} improved, but {', and '.join(doubts)}."
    without = f" No data for the guardrails on {_listed(no_data)}." if no_data else ""
    return f"Keep running: no significant difference yet.{without}"


def _measured(
    sums: CellSums, columns: Columns, terms: Sequence[Term], kpi: Kpi, cap: float | None, margin: float | None
) -> KpiResult:
    def measured(cap: float | None) -> Effect:
        ratio = Ratio(terms.index(Term(kpi.numerator, cap)), terms.index(Term(kpi.denominator)))
        return measure_effect(sums, columns, ratio)

    effect = no_data = None
    try:
        effect = measured(cap)
        uncapped = effect if cap is None else measured(None)
    except NoEffectError as error:
        no_data, uncapped = str(error), None
    guardrail = None if margin is None else guardrail_state(effect, kpi, margin)
    return KpiResult(kpi, effect, no_data, cap, None if cap is None else uncapped, margin=margin, guardrail=guardrail)


def _with_significance(findings: dict[str, KpiResult]) -> dict[str, KpiResult]:
    significant = holm({name: finding.effect.p_value for name, finding in findings.items() if finding.effect})
    for name in significant:
        finding = findings[name]
        better = (finding.effect.difference > 0) == (finding.kpi.direction == "up")
        findings[name] = KpiResult(**(vars(finding) | {"is_better": better, "is_worse": not better}))
    return findings


def _by_arm(experiment: Experiment, sums: CellSums, column: int) -> dict[str, int]:
    return {
        arm.name: round(sum(sums.sums(2 * number + side)[column] for number in range(len(experiment.stretches))))
        for side, arm in enumerate(experiment.arms)
    }


def _summed(sums: CellSums, column: int) -> int:
    return round(sum(sums.sums(cell)[column] for cell, other in sums.products if cell == other))


def _named(experiment: Experiment) -> str:
    arm, version = experiment.treatment
    return f"{arm} {version}" if version else arm


def _got_better(findings: Mapping[str, KpiResult]) -> list[str]:
    return [name for name, finding in findings.items() if finding.is_better]


def _got_worse(findings: Mapping[str, KpiResult]) -> list[str]:
    """The KPIs that got worse, those with a broken guardrail first."""
    broken = [name for name, finding in findings.items() if finding.guardrail == "broken"]
    return list(dict.fromkeys([*broken, *(name for name, finding in findings.items() if finding.is_worse)]))


def _still_open(findings: Mapping[str, KpiResult]) -> list[str]:
    return [name for name, finding in findings.items() if finding.guardrail == "open"]


def _listed(kpis: Sequence[str]) -> str:
    """The names of KPIs as words."""
    return ", ".join(kpis).replace("_", " ")
