"""Metrics of latencies and rejects, made of counters and integer gauges: all that Python metric groups offer."""

import time
from collections.abc import Callable
from math import modf

import numpy as np

from udfs.contracts.rejects import Reason

#: Upper bounds of the latency buckets, milliseconds.
LATENCY_BOUNDS_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)
COUNT_SECONDS = 0.2


def cumulative_counts(latencies_ms: np.ndarray, bounds_ms: tuple[int, ...] = LATENCY_BOUNDS_MS) -> np.ndarray:
    """The number of the n latencies that are at most each bound, and last n itself: int64[len(bounds) + 1].

    >>> cumulative_counts(np.array([3.0, 5.0, 7.0]), (1, 5)).tolist()
    [0, 2, 3]
    """
    return np.append(np.searchsorted(np.sort(latencies_ms), bounds_ms, side="right"), len(latencies_ms))


class LatencyMetric:
    """A cumulative latency histogram out of Flink counters `<name>_bucket{le=...}` and `<name>_sum`.

    With a budget, the counter `<name>_over_budget` counts those above it. Latencies are collected and counted every
    COUNT_SECONDS: counting row by row would take longer than scoring.
    """

    def __init__(self, group, name: str, budget_ms: int | None = None, clock: Callable[[], float] = time.monotonic):
        labels = [*map(str, LATENCY_BOUNDS_MS), "+Inf"]
        self._counters = [group.add_group("le", label).counter(f"{name}_bucket") for label in labels]
        self._counters.append(group.counter(f"{name}_sum"))
        self._budget_ms = budget_ms
        if budget_ms is not None:
            self._counters.append(group.counter(f"{name}_over_budget"))
        self._clock = clock
        self._collected: list[float] = []
        self._rest_ms = 0.0  # of the sum, which is counted in whole milliseconds
        self._count_at = clock()

    def observe(self, *latencies_ms: float) -> None:
        """Record latencies in milliseconds."""
        self._collected += latencies_ms
        now = self._clock()
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            self._count(np.array(self._collected))
            self._collected.clear()

    def _count(self, latencies_ms: np.ndarray) -> None:
        self._rest_ms, whole_ms = modf(self._rest_ms + float(latencies_ms.sum()))
        counts = [*cumulative_counts(latencies_ms).tolist(), int(whole_ms)]
        if self._budget_ms is not None:
            counts.append(int((latencies_ms > self._budget_ms).sum()))
        for counter, count in zip(self._counters, counts):
            if count:
                counter.inc(count)


class RejectedMetric:
    """Counts rejects by reason, and lays out the columns that describe them."""

    def __init__(self, group, topic: str):
        group = group.add_group("topic", topic)
        self._counters = {
            reason.value: group.add_group("reason", reason.value).counter("rejected") for reason in Reason
        }

    def count(self, reason: str) -> None:
        """Count one reject."""
        self._counters[reason].inc()

    def columns(self, payloads: list, reasons: list, messages: list) -> dict[str, list]:
        """The reason, message and original columns: originals travel on only where they are dead letters."""
        originals = [None] * len(payloads)
        for row, reason in enumerate(reasons):
            if reason is not None:
                self.count(reason)
                originals[row] = payloads[row]
        return {"reason": reasons, "message": messages, "original": originals}
