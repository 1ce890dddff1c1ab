"""Polling: a thread that loads and checks what is new, such as models of the registry; batches never wait for it."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

Content = TypeVar("Content")
Built = TypeVar("Built")


class Poller(Generic[Content, Built]):
    """Holds the newest object built of what is polled; `current` changes between two uses of it, never during one.

    `read` returns the content and a number that changes with it, `build` makes the object, checked and warmed up. If
    either raises, the current object stays: the error is logged, counted in `refused`, and both are tried again at the
    next poll. The thread calls `then` with each object that has become the current one. `name` gives what the log calls
    the content of a number.
    """

    def __init__(
        self,
        read: Callable[[], tuple[int, Content]],
        build: Callable[[Content], Built],
        current: Built,
        number: int,
        interval_s: float,
        then: Callable[[Built], None] = lambda _: None,
        name: Callable[[int], str] = "entry {}".format,
    ):
        self._read, self._build, self._then, self._name = read, build, then, name
        self._interval_s = interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="poller", daemon=True)
        self.current = current
        self.number = number
        self.refused = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread; waits for a build in progress."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def poll_once(self) -> None:
        """Read the content, and build it if it has changed."""
        try:
            number, content = self._read()
            if number == self.number:
                return
            self.current = self._build(content)
            self.number = number
            log.info("serving %s", self._name(number))
        except Exception as error:  # whatever is wrong with the new content, the current object keeps serving
            self.refused += 1
            log.warning("refused, %s goes on serving: %s", self._name(self.number), error)

    def _finish(self) -> None:
        try:
            self._then(self.current)
        except Exception as error:  # it serves as it is
            log.warning("%s serves as it is: %s", self._name(self.number), error)

    def _poll(self) -> None:
        self._finish()
        while not self._stopped.wait(self._interval_s):
            before = self.current
            self.poll_once()
            if self.current is not before:
                self._finish()
