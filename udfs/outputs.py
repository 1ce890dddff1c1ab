"""The records that the score job writes, as docs/contracts publishes them, and their JSON."""

from datetime import UTC, datetime, timedelta

import msgspec


class Score(msgspec.Struct, gc=False):
    """A score of one accepted click."""

    user_id: str
    event_id: str | None
    event_name: str
    event_time: int
    score: float
    decision: bool
    arm: str
    model_version: str
    scored_at: int
    source_partition: int
    source_offset: int


class FeatureVector(msgspec.Struct, gc=False):
    """The exact vector that was scored; `features` is float32, little endian, in the order of the model's features."""

    user_id: str
    event_id: str | None
    event_time: int
    score: float
    model_version: str
    feature_schema_hash: str
    features: bytes
    source_partition: int
    source_offset: int


class ShadowScores(msgspec.Struct, gc=False):
    """What the shadow models say of one click; a score is at the place of its version."""

    user_id: str
    event_id: str | None
    event_time: int
    model_version: str
    score: float
    shadow_versions: list[str]
    shadow_scores: list[float]
    scored_at: int
    source_partition: int
    source_offset: int


class DeadLetter(msgspec.Struct, gc=False):
    """A rejected record, and why."""

    topic: str
    partition: int
    offset: int
    timestamp: str
    reason: str
    message: str
    original: bytes | None


to_json = msgspec.json.Encoder().encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = (
    (end.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1) for end in (datetime.min, datetime.max)
)


def iso_time(time_ms: int) -> str:
    """A time in ISO 8601, UTC; one before the year 1 or after 9999, which Kafka allows, as the nearest that has a name.

    >>> iso_time(1_800_000_000_123), iso_time(2**62)
    ('2027-01-15T08:00:00.123Z', '9999-12-31T23:59:59.999Z')
    """
    time = _EPOCH + timedelta(milliseconds=min(max(time_ms, _FIRST_MS), _LAST_MS))
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
