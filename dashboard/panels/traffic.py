"""The traffic of a topic and the time since its last record, from its offsets alone."""

from collections.abc import Mapping
from typing import Literal

from dashboard.panels.series import Series

#: quiet: there are no records, which is normal; silent: there are no records where some are expected.
State = Literal["unknown", "missing", "empty", "flowing", "quiet", "silent"]

SECONDS, MINUTES = 600, 360
RATE_SECONDS = 10
QUIET_AFTER_MS = 60_000


class TopicFlow:
    """The end offsets of one topic as time goes by.

    Transactions use offsets too, one for each that ends and partition: under exactly-once a rate is too high by those.
    """

    def __init__(self, topic: str, silent_after_ms: int | None):
        """`silent_after_ms`: how long the topic may be silent before a warning; None if silence is normal."""
        self.topic = topic
        self.silent_after_ms = silent_after_ms
        self.records = 0  # that the topic holds or has held, by its end offsets
        self.newest_ms: int | None = None  # when the newest record came
        self.by_second = Series(SECONDS, 1_000)
        self.by_minute = Series(MINUTES, 60_000)
        self._ends: dict[int, int] | None = None
        self._observed_ms = 0
        self._exists: bool | None = None

    def missing(self) -> None:
        """Record that the topic does not exist."""
        self._exists, self._ends = False, None

    def observe(self, now_ms: int, ends: Mapping[int, int]) -> None:
        """Record the current end offsets by partition."""
        self._exists = True
        if self._ends is not None:
            came = sum(max(0, end - self._ends.get(number, 0)) for number, end in ends.items())
            self._spread(now_ms, came)
            if came:
                self.newest_ms = now_ms
        self._ends = dict(ends)
        self.records = sum(ends.values())
        self._observed_ms = now_ms

    def last_record_at(self, time_ms: int) -> None:
        """Record the Kafka timestamp of the newest record, for one that arrived before the first observation."""
        self.newest_ms = max(self.newest_ms or 0, time_ms)

    def rate(self, seconds: int = RATE_SECONDS) -> float | None:
        """Records per second, over the last seconds; None before there are two observations."""
        if len(self.by_second) < 2:
            return None
        now_ms = self._observed_ms
        starts, counts = self.by_second.read(now_ms - now_ms % 1_000 - seconds * 1_000)
        whole = starts < now_ms - now_ms % 1_000  # the current second is not over
        return float(counts[whole, 0].mean()) if whole.any() else None

    def state(self, now_ms: int) -> State:
        if self._exists is None:
            return "unknown"
        if not self._exists:
            return "missing"
        if not self.records:
            return "empty"
        limit_ms = self.silent_after_ms or QUIET_AFTER_MS
        if self.newest_ms is not None and now_ms - self.newest_ms <= limit_ms:
            return "flowing"
        return "silent" if self.silent_after_ms else "quiet"

    def _spread(self, now_ms: int, came: int) -> None:
        """Spread arrivals over the time since the last observation, so that a lost broker causes no burst when back."""
        began = min(self._observed_ms, now_ms - 1)
        for series, kept_ms in ((self.by_second, SECONDS * 1_000), (self.by_minute, MINUTES * 60_000)):
            first = max(began, now_ms - kept_ms)
            start = first - first % series.width_ms
            while start < now_ms:
                part = min(now_ms, start + series.width_ms) - max(first, start)
                series.add(start, came * part / (now_ms - began))
                start += series.width_ms
