"""The load: clicks of a simulated shop at a steady rate, some of them broken, while faults come and go."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Days of a shop that end so early that no event is ahead of its record, nor those that are sent a day later."""
    end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    return simulate(Simulation(USERS, 24 * DAYS, seed, end - timedelta(days=DAYS), late_share=0.02))


class Load(threading.Thread):
    """Sends clicks until `stop`. While `clock_off_ms` is set, the events' times are wrong by that much."""

    def __init__(self, bootstrap_servers: str, topic: str, stream: Clickstream, rate: float):
        super().__init__(name="load", daemon=True)
        self._servers, self._topic, self._stream, self._rate = bootstrap_servers, topic, stream, rate
        self._enough, self._pausing, self._idle, self._resumed = (threading.Event() for _ in range(4))
        self.clock_off_ms = 0
        self.problem: str | None = None

    def run(self) -> None:
        records = self._records()
        try:
            while self._send_some(records):
                self._idle.set()
                self._resumed.wait()
        except Exception as error:  # the thread's: the run has to end, and say why
            self.problem = f"the load ended: {error!r}"

    def stop(self) -> None:
        """Raises RuntimeError if not all clicks were sent."""
        self._enough.set()
        self.join()
        if self.problem:
            raise RuntimeError(self.problem)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is sent meanwhile, and what was sent before is in the topic. Later clicks know its new partitions."""
        self._resumed.clear()
        self._idle.clear()
        self._pausing.set()
        while not self._idle.wait(0.1) and self.is_alive():
            pass
        try:
            yield
        finally:
            self._pausing.clear()
            self._resumed.set()

    def _send_some(self, records: Iterator[Record]) -> bool:
        """Send records until a pause or the end; returns whether it is a pause."""
        producer = KafkaProducer(
            bootstrap_servers=self._servers,
            max_request_size=4_000_000,
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            reconnect_backoff_max_ms=1_000,
            enable_idempotence=True,
            **FOR_LATENCY,
        )
        try:
            sent = send(producer, self._topic, at_rate(self._some(records), self._rate), record_timestamps=False)
        finally:
            producer.close()
        if sent.failures:
            self.problem = f"{sent.failed} clicks could not be sent: {dict(sent.failures)}"
        elif not self._enough.is_set() and not self._pausing.is_set():
            self.problem = "the simulated days are over before the faults are"
        return self._pausing.is_set() and not self.problem

    def _some(self, records: Iterator[Record]) -> Iterator[Record]:
        for record in records:
            yield record
            if self._enough.is_set() or self._pausing.is_set():
                return

    def _records(self) -> Iterator[Record]:
        key = b""
        for value, reason in with_broken(self._clicks(), BROKEN_SHARE, self._stream.seed):
            if reason is None:
                key = msgspec.json.decode(value)["user_id"].encode()
            elif reason is Reason.TIME_IN_FUTURE:  # ahead of its record, and not only of the simulated day
                value = BREAK[reason](msgspec.json.decode(value) | {"event_time": now_ms()})
            yield key, value, None  # a broken copy goes where its click goes

    def _clicks(self) -> Iterator[dict[str, Any]]:
        for click in self._stream.clicks():
            yield click | {"event_time": click["event_time"] + self.clock_off_ms} if self.clock_off_ms else click
