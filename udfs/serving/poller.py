"""Keeping up with what is to serve: a thread that looks, builds and checks, so that batches never wait for it."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Wanted = TypeVar("Wanted")
Built = TypeVar("Built")


class Follower(Generic[Wanted, Built]):
    """Holds what was built last; `current` changes between two uses of it, never during one.

    `look` says what is wanted and a number that changes with it, `build` makes it, checked and warmed up. Whatever
    either raises leaves the current one in place: it is logged, counted in `refused`, and tried again at the next look.
    """

    def __init__(
        self,
        look: Callable[[], tuple[int, Wanted]],
        build: Callable[[Wanted], Built],
        current: Built,
        number: int,
        interval_s: float,
    ):
        self._look, self._build = look, build
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follower", daemon=True)
        self.current = current
        self.number = number
        self.refused = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for a build that is going on."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def look_once(self) -> None:
        """Look for a change, and follow it."""
        try:
            number, wanted = self._look()
            if number == self.number:
                return
            self.current = self._build(wanted)
            self.number = number
            log.info("serving entry %d of the ledger", number)
        except Exception as error:  # whatever is wrong with what is new, the old one serves
            self.refused += 1
            log.warning("refused, entry %d goes on serving: %s", self.number, error)

    def _follow(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.look_once()
