"""The load: clicks of a simulated shop at a steady rate, some of them broken, while faults come and go."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from kafka import KafkaProducer

from jobs.ops.replay.producer import FOR_LATENCY, at_rate, send
from training.data.sources import Record
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.malformed import BREAK, with_broken
from udfs.config.durations import now_ms
from udfs.contracts.rejects import Reason

DAYS, USERS = 10, 400
BROKEN_SHARE = 0.01
#: A broker may be away for longer than a producer waits by default; no click is to be lost on the way to the topic.
DELIVERY_TIMEOUT_MS = 600_000


def simulated(seed: int) -> Clickstream:
    """Days of a shop that end today, so that no event is ahead of its record."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return simulate(Simulation(USERS, 24 * DAYS, seed, end - timedelta(days=DAYS), late_share=0.02))


class Load(threading.Thread):
    """Sends clicks until `stop`. While `clock_off_ms` is set, the events' times are wrong by that much."""

    def __init__(self, bootstrap_servers: str, topic: str, stream: Clickstream, rate: float):
        super().__init__(name="load", daemon=True)
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap_servers,
            max_request_size=4_000_000,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            reconnect_backoff_max_ms=1_000,
            enable_idempotence=True,
            **FOR_LATENCY,
        )
        self._topic, self._stream, self._rate = topic, stream, rate
        self._enough = threading.Event()
        self.clock_off_ms = 0
        self.problem: str | None = None

    def run(self) -> None:
        try:
            sent = send(self._producer, self._topic, at_rate(self._records(), self._rate), record_timestamps=False)
            if sent.failures:
                self.problem = f"{sent.failed} clicks could not be sent: {dict(sent.failures)}"
            elif not self._enough.is_set():
                self.problem = "the simulated days are over before the faults are"
        except Exception as error:  # the thread's: the run has to end, and say why
            self.problem = f"the load ended: {error!r}"

    def stop(self) -> None:
        """Raises RuntimeError if not all clicks were sent."""
        self._enough.set()
        self.join()
        self._producer.close()
        if self.problem:
            raise RuntimeError(self.problem)

    def _records(self) -> Iterator[Record]:
        key = b""
        for value, reason in with_broken(self._clicks(), BROKEN_SHARE, self._stream.seed):
            if self._enough.is_set():
                return
            if reason is None:
                key = msgspec.json.decode(value)["user_id"].encode()
            elif reason is Reason.TIME_IN_FUTURE:  # ahead of its record, and not only of the simulated day
                value = BREAK[reason](msgspec.json.decode(value) | {"event_time": now_ms()})
            yield key, value, None  # a broken copy goes where its click goes

    def _clicks(self) -> Iterator[dict[str, Any]]:
        for click in self._stream.clicks():
            yield click | {"event_time": click["event_time"] + self.clock_off_ms} if self.clock_off_ms else click
