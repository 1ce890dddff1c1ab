"""Latency histograms where metrics only count: a cumulative counter for each bucket, as Prometheus has them."""

import numpy as np

#: Upper bounds of the latency buckets, milliseconds.
LATENCY_BOUNDS_MS = (5, 10, 20, 50, 100, 200, 500, 1_000, 10_000)


def cumulative_counts(latencies_ms: np.ndarray, bounds_ms: tuple[int, ...] = LATENCY_BOUNDS_MS) -> np.ndarray:
    """How many of the n latencies are at most each bound, and last how many there are: int64[len(bounds) + 1].

    >>> cumulative_counts(np.array([3.0, 5.0, 7.0]), (1, 5)).tolist()
    [0, 2, 3]
    """
    return np.append(np.searchsorted(np.sort(latencies_ms), bounds_ms, side="right"), len(latencies_ms))
