"""The dashboard's state of the topics, in bounded memory; one thread adds to it, others read."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dashboard.decoder import RecordDecoder
from dashboard.panels.dead_letters import DeadLetters
from dashboard.panels.drift import DriftPanel
from dashboard.panels.experiments import ExperimentPanel
from dashboard.panels.kpis import KpiLines
from dashboard.panels.quality import LiveCalibration, LiveQuality
from dashboard.panels.scores import Latencies, ScoreMix
from dashboard.panels.traffic import TopicFlow
from udfs.contracts.outputs import RECORDS

#: How long a topic may be silent before the pages show it; None where silence is normal.
SILENT_AFTER_MS: dict[str, int | None] = {
    "clicks": 30_000,
    "scores": 30_000,
    "dead_letters": None,
    "profiles": None,
    "shadow_scores": None,
    "outcomes": 300_000,
    "model_quality": 600_000,
    "sessions": 600_000,
    "kpis": 600_000,
    "experiments": 600_000,
    "drift": 600_000,
}

#: Topics that are read record by record; of the others a sample is enough, or their offsets are.
FOLLOWED = ("dead_letters", "kpis", "model_quality", "experiments", "drift")
SAMPLED = ("scores", "outcomes")


class DashboardState:
    """The state of all topics. Hold `lock` to read several values at the same moment."""

    def __init__(self, topics: Mapping[str, str], budget_ms: int):
        """Take the names of topics by role, and the latency budget in milliseconds."""
        self.lock = threading.RLock()
        self.flows = {role: TopicFlow(topics[role], after) for role, after in SILENT_AFTER_MS.items()}
        self.decoders = {role: RecordDecoder(RECORDS[role]) for role in FOLLOWED + SAMPLED}
        self.latencies = Latencies(budget_ms)
        self.mix = ScoreMix()
        self.rejected = DeadLetters()
        self.kpis = KpiLines()
        self.quality = LiveQuality()
        self.calibration = LiveCalibration()
        self.experiments = ExperimentPanel()
        self.drift = DriftPanel()
        self.broker_lost_ms: int | None = None
        self.broker_error = "no response yet"
        self.broker_asked = False

    def broker_answers(self) -> None:
        with self.lock:
            self.broker_asked, self.broker_lost_ms, self.broker_error = True, None, ""

    def broker_lost(self, now_ms: int, error: str) -> None:
        """Record that the broker does not answer, since now or since the first such call."""
        with self.lock:
            self.broker_asked, self.broker_error = True, error
            self.broker_lost_ms = self.broker_lost_ms or now_ms

    def observe(self, now_ms: int, ends: Mapping[str, Mapping[int, int] | None]) -> None:
        """Record the end offsets of topics, by role and partition; None for a topic that does not exist."""
        with self.lock:
            for role, offsets in ends.items():
                if offsets is None:
                    self.flows[role].missing()
                else:
                    self.flows[role].observe(now_ms, offsets)

    def take(self, role: str, now_ms: int, values: Sequence[bytes | None], times_ms: Sequence[int] = ()) -> list:
        """Add records of a topic, with Kafka's timestamps; returns those that can be used."""
        with self.lock:
            records = self.decoders[role].decode(values)
            if role == "dead_letters":
                # Where all can be decoded, as nearly always, each has its own time; else about the same.
                times_ms = times_ms if len(times_ms) == len(records) else [now_ms] * len(records)
                for record, time_ms in zip(records, times_ms):
                    self.rejected.add(time_ms, record)
            elif role == "scores":
                self.mix.add(now_ms, records)
            elif role == "outcomes":
                self.calibration.add(records)
            else:
                single = {
                    "kpis": self.kpis.add,
                    "model_quality": self.quality.add,
                    "experiments": self.experiments.add,
                    "drift": self.drift.add,
                }[role]
                return [record for record in records if self._is_taken(role, single, record)]
            return records

    def _is_taken(self, role: str, add: Callable[[Any], None], record: Any) -> bool:
        """Add a record to a panel; whether it could be added."""
        try:
            add(record)
        except OverflowError as error:  # a time of more than 64 bits, which no job writes
            self.decoders[role].reject(error)
            return False
        return True
