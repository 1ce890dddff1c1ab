"""Judge an experiment by the moments of two arms: each KPI's effect, its significance, and the action to take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.effects import LEAST_USERS, SRM_ALPHA, Effect, Moments, holm, measure_effect, sample_ratio_p
from udfs.measurement.kpis import Kpi

#: Which of a user's four values are multiplied, in the order of the products in an arm's flat sums.
PAIRS = tuple(combinations_with_replacement(range(4), 2))


@dataclass(frozen=True)
class ArmStatistics:
    """An arm of an experiment: its number of users, and their moments by KPI."""

    name: str
    users: int
    moments: dict[str, Moments]

    @classmethod
    def of_sums(cls, name: str, sums: Sequence[float], kpis: Sequence[str]) -> "ArmStatistics":
        """Parse flat sums: the users and, for each KPI in order, four sums and the sums of the products PAIRS."""
        users, size = round(sums[0]), 4 + len(PAIRS)
        moments = {}
        for kpi, start in zip(kpis, range(1, len(sums), size), strict=True):
            products = np.zeros((4, 4))
            for (row, column), total in zip(PAIRS, sums[start + 4 : start + size], strict=True):
                products[row, column] = products[column, row] = total
            moments[kpi] = Moments(users, np.array(sums[start : start + 4]), products)
        return cls(name, users, moments)


@dataclass(frozen=True)
class KpiResult:
    """A KPI's effect, its significance and the state of its guardrail."""

    kpi: Kpi
    effect: Effect
    is_better: bool  # after Holm's correction over all KPIs
    is_worse: bool
    guardrail: str | None  # held, broken or open; None: the KPI has none


@dataclass(frozen=True)
class Verdict:
    """The state of an experiment: the action to take, the decision in words, and the figures behind it."""

    action: ExperimentAction
    decision: str
    treatment: str
    baseline: str
    users: dict[str, int]
    sample_ratio_p: float | None
    findings: dict[str, KpiResult]  # of the KPIs that can be measured yet


def judge(
    treatment: ArmStatistics,
    baseline: ArmStatistics,
    kpis: Mapping[str, Kpi],
    shares: Mapping[str, float] | None = None,
) -> Verdict:
    """The Verdict on two arms; their user counts are checked against the `shares` that they should have.

    A KPI is measured when both arms have LEAST_USERS effective users for it.
    """
    arms = treatment, baseline
    users = {arm.name: arm.users for arm in arms}
    ratio_p = sample_ratio_p(users, shares) if shares and any(users.values()) else None
    effects = {
        name: measure_effect(treatment.moments[name], baseline.moments[name])
        for name in kpis
        if all(arm.moments[name].effective_users >= LEAST_USERS for arm in arms)
    }
    significant = holm({name: effect.p_value for name, effect in effects.items()})
    findings = {name: _finding(kpis[name], effect, name in significant) for name, effect in effects.items()}
    action = choose_action(ratio_p, findings)
    decision = decision_text(action, ratio_p, findings, treatment.name)
    return Verdict(action, decision, treatment.name, baseline.name, users, ratio_p, findings)


def _finding(kpi: Kpi, effect: Effect, is_significant: bool) -> KpiResult:
    sign = 1 if kpi.direction == "up" else -1
    worst, best = sorted((sign * effect.low, sign * effect.high))
    guardrail = None
    if kpi.guardrail is not None:
        margin = kpi.guardrail * abs(effect.baseline)
        guardrail = "held" if worst >= -margin else "broken" if best < -margin else "open"
    better = sign * effect.difference > 0
    return KpiResult(kpi, effect, is_significant and better, is_significant and not better, guardrail)


def choose_action(ratio_p: float | None, findings: Mapping[str, KpiResult]) -> ExperimentAction:
    """Decide what to do, by the p-value of the arms' user counts and by the findings on the KPIs."""
    if ratio_p is not None and ratio_p < SRM_ALPHA:
        return ExperimentAction.FIX_FIRST
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
        case ExperimentAction.STOP:
            return f"Stop {treatment}: {_listed(_got_worse(findings))} worsened."
        case ExperimentAction.SHIP:
            return f"Ship {treatment}: {better} improved, and all guardrails hold."
    if better:
        return f"Keep running: {better} improved, but guardrails are inconclusive for {_listed(_still_open(findings))}."
    return "Keep running: no significant difference yet."


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
