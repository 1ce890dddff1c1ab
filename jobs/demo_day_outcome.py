"""What the jobs told in the course of the demo's day, and what that amounts to."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import numpy as np
from rich.console import Group
from rich.table import Table
from sklearn.metrics import roc_auc_score

from training.simulate import Clickstream

MOVED_SHOWN = 8


class _Outcome(msgspec.Struct):
    event_id: str
    event_time: int
    score: float
    model_version: str
    label: bool
    evaluated: bool


class _Shadows(msgspec.Struct):
    event_id: str
    shadow_versions: list[str]
    shadow_scores: list[float]


class _Sums(msgspec.Struct):
    window: str
    window_start: int
    kpi: str
    arm: str | None
    placement: str | None
    numerator: float
    denominator: float


class _Feature(msgspec.Struct):
    name: str
    psi: float | None


class _Drift(msgspec.Struct):
    window_start: int
    window_end: int
    model_version: str
    level: str
    moved: list[str]
    features: list[_Feature]


class _Effect(msgspec.Struct):
    at: int
    kpi: str
    treatment: str
    baseline: str
    treatment_users: int
    baseline_users: int
    treatment_value: float | None
    baseline_value: float | None
    difference: float | None
    low: float | None
    high: float | None
    is_better: bool
    is_worse: bool
    guardrail: str | None
    decision: str


_KINDS = {"outcomes": _Outcome, "shadow_scores": _Shadows, "kpis": _Sums, "drift": _Drift, "experiments": _Effect}


@dataclass
class DayOutcome:
    """What was sent and what came back so far. One thread sends, another one receives."""

    roles: dict[str, str]  # of topics, by their names
    sent: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # of records, by role
    outcomes: list[_Outcome] = field(default_factory=list)
    shadow_scores: list[_Shadows] = field(default_factory=list)
    kpis: list[_Sums] = field(default_factory=list)
    drift: list[_Drift] = field(default_factory=list)
    experiments: list[_Effect] = field(default_factory=list)

    def received(self, topic: str, value: bytes, _now: float) -> None:
        """Take a record of one of the topics."""
        role = self.roles[topic]
        if role in _KINDS:
            getattr(self, role).append(msgspec.json.decode(value, type=_KINDS[role]))
        self.counts[role] += 1

    @property
    def answered(self) -> int:
        return self.counts["scores"] + self.counts["dead_letters"]

    def progress(self, time_ms: int) -> str:
        """One line on how far it is."""
        line = f"{clock_time(time_ms)}  {self.sent} sent, {self.counts['scores']} scored, "
        line += f"{self.counts['outcomes']} outcomes, {self.counts['sessions']} sessions"
        if self.drift:
            newest = max(self.drift, key=lambda record: record.window_end)
            line += f"; drift: {newest.level} at {clock_time(newest.window_end)}"
            line += f" ({', '.join(newest.moved[:3])})" if newest.moved else ""
        if self.experiments:
            line += f"; {self.experiments[-1].decision}"
        return line


def clock_time(time_ms: int) -> str:
    """Hour and minute, UTC.

    >>> clock_time(5_400_000)
    '01:30'
    """
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%H:%M}"


def report(day: Clickstream, outcome: DayOutcome, experiment_ms: int, shift_ms: int) -> dict:
    """The figures of build/demo_day.json."""
    return {
        "events": outcome.sent,
        "records": dict(outcome.counts.most_common()),
        "models": model_figures(outcome.outcomes, outcome.shadow_scores, day.propensity, shift_ms),
        "kpis": kpi_figures(outcome.kpis, experiment_ms),
        "experiment": experiment_figures(outcome.experiments),
        "drift": drift_figures(outcome.drift, shift_ms),
    }


def model_figures(
    outcomes: Sequence[_Outcome], shadows: Sequence[_Shadows], propensity: np.ndarray, shift_ms: int
) -> list[dict]:
    """How good scores were, and could have been: of each model, serving or in shadow, before and after the shift."""
    told = {_number(outcome.event_id): outcome for outcome in outcomes if outcome.evaluated}
    scores = defaultdict(list)
    for number, outcome in told.items():
        scores[outcome.model_version, "serves"].append((number, outcome.score))
    for shadow in shadows:
        number = _number(shadow.event_id)
        for version, score in zip(shadow.shadow_versions, shadow.shadow_scores):
            if number in told:
                scores[version, "in shadow"].append((number, score))
    figures = []
    for (version, role), pairs in scores.items():
        for when, after in (("before the shift", False), ("after the shift", True)):
            chosen = [(number, score) for number, score in pairs if (told[number].event_time >= shift_ms) == after]
            if chosen:
                labels = np.array([told[number].label for number, _ in chosen])
                rows, of_model = (np.array(column) for column in zip(*chosen))
                figures.append(
                    {
                        "model": version,
                        "role": role,
                        "when": when,
                        "scores": len(chosen),
                        "positive_rate": round(float(labels.mean()), 4),
                        "mean_score": round(float(of_model.mean()), 4),
                        "auc": _auc(labels, of_model),
                        "best_possible_auc": _auc(labels, propensity[rows]),
                    }
                )
    return figures


def _number(event_id: str) -> int:
    """Of an event in its stream, from its id."""
    return int(event_id.rpartition("-")[2])


def _auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return round(float(roc_auc_score(labels, scores)), 4) if 0 < labels.mean() < 1 else None


def kpi_figures(sums: Sequence[_Sums], since_ms: int) -> dict[str, dict[str, float | None]]:
    """The value of each KPI, and of click-through by placement, in each arm, of the hours from then on."""
    totals = defaultdict(lambda: np.zeros(2))
    for row in sums:
        if row.window == "hour" and row.window_start >= since_ms and row.arm is not None:
            kpi = row.kpi if row.placement is None else f"{row.kpi}, {row.placement}"
            totals[kpi, row.arm] += row.numerator, row.denominator
    figures = defaultdict(dict)
    for (kpi, arm), (numerator, denominator) in sorted(totals.items()):
        figures[kpi][arm] = round(numerator / denominator, 4) if denominator else None
    return dict(figures)


def experiment_figures(effects: Sequence[_Effect]) -> dict | None:
    """The newest state of the experiment, None when nothing was told."""
    newest = {effect.kpi: effect for effect in sorted(effects, key=lambda effect: effect.at)}
    if not newest:
        return None
    last = max(newest.values(), key=lambda effect: effect.at)
    return {
        "decision": last.decision,
        "users": {last.treatment: last.treatment_users, last.baseline: last.baseline_users},
        "kpis": [msgspec.to_builtins(effect) for effect in newest.values()],
    }


def drift_figures(records: Sequence[_Drift], shift_ms: int) -> dict[str, dict]:
    """Of each model: levels of the windows before and after the shift, its first alarm after it, what moved most."""
    figures = {}
    for version in sorted({record.model_version for record in records}):
        of_model = sorted(
            (record for record in records if record.model_version == version), key=lambda record: record.window_end
        )
        before = [record for record in of_model if record.window_end <= shift_ms]
        after = [record for record in of_model if record.window_start >= shift_ms]
        alarms = (record for record in of_model if record.window_end > shift_ms and record.level == "alarm")
        first = next(alarms, None)
        indices = _mean_index(before), _mean_index(after)
        most = sorted(indices[1], key=lambda name: -indices[1][name])[:MOVED_SHOWN]
        figures[version] = {
            "levels_before": dict(Counter(record.level for record in before)),
            "levels_after": dict(Counter(record.level for record in after)),
            "alarm_after_minutes": None if first is None else (first.window_end - shift_ms) // 60_000,
            "moved": [{"feature": name, "before": indices[0].get(name), "after": indices[1][name]} for name in most],
        }
    return figures


def _mean_index(records: Sequence[_Drift]) -> dict[str, float]:
    """Each feature's PSI, the mean over windows."""
    indices = defaultdict(list)
    for record in records:
        for feature in record.features:
            if feature.psi is not None:
                indices[feature.name].append(feature.psi)
    return {name: round(float(np.mean(values)), 4) for name, values in indices.items()}


def report_tables(figures: dict) -> Group:
    """The figures for people."""
    models = _table(
        "Live scores against what came of them", "model", "when", "scores", "bought", "AUC", "best possible"
    )
    for row in figures["models"]:
        models.add_row(
            f"{row['model']} {row['role']}",
            row["when"],
            str(row["scores"]),
            f"{row['positive_rate']:.1%}, {row['mean_score']:.1%} promised",
            _figure(row["auc"]),
            _figure(row["best_possible_auc"]),
        )
    arms = sorted({arm for values in figures["kpis"].values() for arm in values})
    kpis = _table("KPIs by arm, since the challenger has its full share", "KPI", *arms)
    for name, values in figures["kpis"].items():
        kpis.add_row(name, *(_figure(values.get(arm)) for arm in arms))
    return Group(models, kpis, *_experiment_tables(figures["experiment"]), *_drift_tables(figures["drift"]))


def _experiment_tables(experiment: dict | None) -> list:
    if experiment is None:
        return ["Experiment: no record came"]
    users = ", ".join(f"{count} users of {arm}" for arm, count in experiment["users"].items())
    table = _table(
        f"Experiment, {users}: {experiment['decision']}", "KPI", "treatment", "baseline", "difference", "95 %", ""
    )
    for effect in experiment["kpis"]:
        told = "better" if effect["is_better"] else "worse" if effect["is_worse"] else "open"
        table.add_row(
            effect["kpi"],
            *(_figure(effect[name]) for name in ("treatment_value", "baseline_value", "difference")),
            f"{_figure(effect['low'])} to {_figure(effect['high'])}",
            told + (f", guardrail {effect['guardrail']}" if effect["guardrail"] else ""),
        )
    return [table]


def _drift_tables(drift: dict[str, dict]) -> list:
    if not drift:
        return ["Drift: no record came"]
    tables = []
    for version, found in drift.items():
        minutes = found["alarm_after_minutes"]
        alarm = "no alarm after the shift" if minutes is None else f"alarm {minutes} min after the shift"
        levels = "; ".join(
            f"{when}: {', '.join(f'{count} {level}' for level, count in found[key].items()) or 'none'}"
            for when, key in (("windows before", "levels_before"), ("after", "levels_after"))
        )
        table = _table(f"Drift of {version}: {alarm} ({levels})", "moved most", "PSI before", "after")
        for row in found["moved"]:
            table.add_row(row["feature"], _figure(row["before"]), _figure(row["after"]))
        tables.append(table)
    return tables


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
