"""A circuit breaker: what fails again and again is left alone for a while."""

import time
from collections.abc import Callable

#: So many failures in a row open it, for so long.
FAILURES = 3
PAUSE_S = 30.0


class Breaker:
    """Counts failures in a row. While it is open nothing is to be tried; then one more failure opens it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._failures = 0
        self._closed_from = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether to try."""
        return self._clock() >= self._closed_from

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> bool:
        """Returns whether this failure opened it."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self._failures = FAILURES - 1
        self._closed_from = self._clock() + PAUSE_S
        return True
