"""Dead letters: their numbers by reason, and the newest of each."""

from collections import Counter, deque

from dashboard.panels.series import Series
from udfs.contracts.outputs import DeadLetter
from udfs.contracts.rejects import Reason

MINUTES = 180
SAMPLES = 8  # of each reason
SHOWN_BYTES = 400
OTHER = "other"
_REASONS = frozenset(reason.value for reason in Reason)


class DeadLetters:
    """The dead letters that were read; `skipped` counts those that were not."""

    def __init__(self) -> None:
        self.skipped = 0
        self._counts: Counter[str] = Counter()
        self._by_minute: dict[str, Series] = {}
        self._samples: dict[str, deque[dict]] = {}

    def add(self, came_ms: int, record: DeadLetter) -> None:
        reason = record.reason if record.reason in _REASONS else OTHER
        self._counts[reason] += 1
        self._by_minute.setdefault(reason, Series(MINUTES, 60_000)).add(came_ms, 1)
        self._samples.setdefault(reason, deque(maxlen=SAMPLES)).append(
            {
                "at": came_ms,
                "reason": record.reason[:100],
                "counted_as": reason,
                "topic": record.topic[:249],
                "partition": record.partition,
                "offset": record.offset,
                "message": record.message[:SHOWN_BYTES],
                **_shown(record.original),
            }
        )

    def summary(self, now_ms: int) -> dict:
        """Counts by reason, most first; counts in the last MINUTES; the newest of each reason, newest first."""
        since_ms = now_ms - MINUTES * 60_000
        samples = [sample for kept in self._samples.values() for sample in kept]
        return {
            "skipped": self.skipped,
            "reasons": [{"reason": reason, "count": count} for reason, count in self._counts.most_common()],
            "by_minute": {reason: _columns(series, since_ms) for reason, series in self._by_minute.items()},
            "samples": sorted(samples, key=lambda sample: (-sample["at"], -sample["offset"])),
        }


def _shown(original: bytes | None) -> dict:
    """The first bytes as text, and the number of all bytes."""
    if original is None:
        return {"original": None, "bytes": 0}
    return {"original": original[:SHOWN_BYTES].decode("utf-8", "backslashreplace"), "bytes": len(original)}


def _columns(series: Series, since_ms: int) -> dict:
    starts, values = series.read(since_ms)
    return {"times": starts.tolist(), "counts": values[:, 0].tolist()}
