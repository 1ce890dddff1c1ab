"""Clicks that keep flowing while a test does something to the job."""

import json
import threading
import time
from collections.abc import Iterator

from jobs.ops.replay.producer import at_rate
from tests.support.e2e.pipeline import Pipeline

#: At least, between two batches to a partition. With a tenth of it, a flow of 50 clicks per second takes a fifth of a
#: core more: producer, broker and job spend much more on a batch than on its records.
BATCH_MS = 200


class FlowingClicks(threading.Thread):
    """Clicks of all `users` in turn at a steady rate, until `stop`; with `broken_every`, one in so many is broken."""

    def __init__(self, pipe: Pipeline, rate: int, users: list[str], broken_every: int | None = None):
        super().__init__()
        self._pipe, self._rate, self._users, self._broken_every = pipe, rate, users, broken_every
        self._enough = threading.Event()
        self.delivered = 0

    def run(self) -> None:
        self.delivered = self._pipe.send("clicks", at_rate(self._clicks(), self._rate), linger_ms=BATCH_MS)

    def stop(self) -> None:
        self._enough.set()
        self.join()

    def _clicks(self) -> Iterator[tuple[bytes, bytes, None]]:
        number = 0
        while not self._enough.is_set():
            user = self._users[number % len(self._users)]
            click = {"user_id": user, "event_name": "scroll", "event_time": time.time_ns() // 1_000_000}
            is_broken = self._broken_every and number % self._broken_every == 0
            yield user.encode(), b"{" if is_broken else json.dumps(click).encode(), None
            number += 1
