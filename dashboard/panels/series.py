"""Numbers by time, in memory of a fixed size."""

import numpy as np


class Series:
    """The newest buckets of time, `width_ms` each, with `columns` numbers in each of them.

    A bucket takes the place of the one that is `buckets` older. Numbers older than all kept buckets are ignored.
    """

    def __init__(self, buckets: int, width_ms: int, columns: int = 1):
        self.width_ms = width_ms
        self.newest_ms = -1  # the start time of the newest bucket, -1 while there is none
        self._starts = np.full(buckets, -1, np.int64)
        self._values = np.zeros((buckets, columns))

    def add(self, time_ms: int, *values: float) -> None:
        """Add to the numbers in the bucket of a time."""
        place = self._place(time_ms)
        if place is not None:
            self._values[place] += values

    def put(self, time_ms: int, *values: float) -> None:
        """Replace the numbers in the bucket of a time."""
        place = self._place(time_ms)
        if place is not None:
            self._values[place] = values

    def read(self, since_ms: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """The start times of the buckets, int64[n], oldest first, and their numbers, float64[n, columns]."""
        order = np.argsort(self._starts, kind="stable")
        order = order[self._starts[order] >= max(since_ms, 0)]
        return self._starts[order], self._values[order]

    def __len__(self) -> int:
        return int((self._starts >= 0).sum())

    def _place(self, time_ms: int) -> int | None:
        """The place of a time's bucket, emptied first if an older one was there; None if a newer one is."""
        start = time_ms - time_ms % self.width_ms
        place = start // self.width_ms % len(self._starts)
        if self._starts[place] > start:
            return None
        if self._starts[place] < start:
            self._starts[place] = start
            self.newest_ms = max(self.newest_ms, start)
            self._values[place] = 0
        return place
