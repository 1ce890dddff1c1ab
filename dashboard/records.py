"""The records of topics, as far as the dashboard reads them; docs/topics.md says what the fields mean."""

from typing import TypeVar

import msgspec

Record = TypeVar("Record")


class Score(msgspec.Struct):
    score: float
    decision: bool
    arm: str
    model_version: str
    scored_at: int
    source_partition: int
    source_offset: int


class Outcome(msgspec.Struct):
    score: float
    arm: str
    model_version: str
    label: bool
    evaluated: bool


class DeadLetter(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    timestamp: str
    reason: str
    message: str | None = None
    original: str | None = None


class Kpi(msgspec.Struct):
    window: str
    window_start: int
    kpi: str
    numerator: float
    denominator: float
    arm: str | None = None
    placement: str | None = None


class Quality(msgspec.Struct):
    event_minute: int
    model_version: str
    arm: str
    scores: float
    log_loss: float
    mean_score: float
    positive_rate: float
    roc_auc: float | None = None
    average_precision: float | None = None


class Effect(msgspec.Struct):
    at: int
    treatment: str
    baseline: str
    kpi: str
    treatment_users: int
    baseline_users: int
    decision: str
    treatment_value: float | None = None
    baseline_value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    is_better: bool = False
    is_worse: bool = False
    guardrail: str | None = None
    sample_ratio_p: float | None = None


class FeatureDrift(msgspec.Struct):
    name: str
    level: str
    missing: float
    unseen: float
    shares: list[float]
    psi: float | None = None


class Drift(msgspec.Struct):
    window_start: int
    window_end: int
    model_version: str
    rows: int
    level: str
    moved: list[str]
    features: list[FeatureDrift]
    score_psi: float | None = None
    label_rate: float | None = None


class Reader:
    """Decodes records of one kind, and counts those that are not of it."""

    def __init__(self, kind: type[Record]):
        self._decode = msgspec.json.Decoder(kind).decode
        self.unreadable = 0
        self.last_error = ""

    def read(self, values: list[bytes | None]) -> list:
        """The records that can be read."""
        found = []
        for value in values:
            try:
                found.append(self._decode(value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.unreadable += 1
                self.last_error = str(error)
        return found
