"""A circuit breaker, which pauses calls that fail repeatedly."""

import time
from collections.abc import Callable

#: The number of failures in a row that open the breaker, and the seconds that it then stays open.
FAILURES = 3
PAUSE_S = 30.0


class Breaker:
    """Counts failures in a row. While it is open, make no calls; after that, one more failure opens it again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._failures = 0
        self._closed_from = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether to make calls."""
        return self._clock() >= self._closed_from

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> bool:
        """Count a failure; returns whether it opened the breaker."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        self._failures = FAILURES - 1
        self._closed_from = self._clock() + PAUSE_S
        return True
