"""What the jobs told in the course of the demo's day, as far as it is read."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec


class ScoreOutcome(msgspec.Struct):
    event_id: str
    event_time: int
    score: float
    model_version: str
    label: bool
    evaluated: bool


class ShadowScores(msgspec.Struct):
    event_id: str
    shadow_versions: list[str]
    shadow_scores: list[float]


class KpiSums(msgspec.Struct):
    window: str
    window_start: int
    kpi: str
    arm: str | None
    placement: str | None
    numerator: float
    denominator: float


class MovedFeature(msgspec.Struct):
    name: str
    psi: float | None


class DriftRecord(msgspec.Struct):
    window_start: int
    window_end: int
    model_version: str
    level: str
    moved: list[str]
    features: list[MovedFeature]


class EffectRecord(msgspec.Struct):
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


_KINDS = {
    "outcomes": ScoreOutcome,
    "shadow_scores": ShadowScores,
    "kpis": KpiSums,
    "drift": DriftRecord,
    "experiments": EffectRecord,
}


@dataclass
class DayOutcome:
    """What was sent and what came back so far. One thread sends, another one receives."""

    roles: dict[str, str]  # of topics, by their names
    sent: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # of records, by role
    outcomes: list[ScoreOutcome] = field(default_factory=list)
    shadow_scores: list[ShadowScores] = field(default_factory=list)
    kpis: list[KpiSums] = field(default_factory=list)
    drift: list[DriftRecord] = field(default_factory=list)
    experiments: list[EffectRecord] = field(default_factory=list)

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
