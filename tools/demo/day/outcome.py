"""The records that the jobs wrote during the demo's day, as far as its figures need them."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from udfs.contracts.outputs import RECORDS, DriftWindow, ExperimentResult, KpiValue, Outcome, ShadowScores

#: Topics whose records are kept.
KEPT = ("outcomes", "shadow_scores", "kpis", "drift", "experiments")
_DECODERS = {role: msgspec.json.Decoder(RECORDS[role]) for role in KEPT}


@dataclass
class DayOutcome:
    """The records sent and received so far. One thread sends, another one receives."""

    roles: dict[str, str]  # of topics, by their names
    sent: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # of records, by role
    outcomes: list[Outcome] = field(default_factory=list)
    shadow_scores: list[ShadowScores] = field(default_factory=list)
    kpis: list[KpiValue] = field(default_factory=list)
    drift: list[DriftWindow] = field(default_factory=list)
    experiments: list[ExperimentResult] = field(default_factory=list)

    def received(self, topic: str, value: bytes, _now: float) -> None:
        """Add a record of one of the topics."""
        role = self.roles[topic]
        if role in _DECODERS:
            getattr(self, role).append(_DECODERS[role].decode(value))
        self.counts[role] += 1

    @property
    def answered(self) -> int:
        return self.counts["scores"] + self.counts["dead_letters"]

    def progress(self, time_ms: int) -> str:
        """One line of progress."""
        line = f"{clock_time(time_ms)}  sent {self.sent:,}, scored {self.counts['scores']:,}, "
        line += f"outcomes {self.counts['outcomes']:,}, sessions {self.counts['sessions']:,}"
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
