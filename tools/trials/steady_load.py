"""Clicks at a steady rate, phase after phase, from a process of their own, which the measuring one does not disturb."""

import math
import multiprocessing
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from typing import Any, NamedTuple

from kafka import KafkaProducer

from jobs.ops.replay.producer import FOR_LATENCY, at_rate, send
from tools.bench.latency import stamped
from training.data.sources import Record
from training.simulation.clickstream import Simulation, simulate

USERS, HOURS = 5_000, 24
DISTINCT = 100_000  # clicks, which are then repeated
HOT_USER = "hot"
STOP_SECONDS = 60


class Phase(NamedTuple):
    """A stretch of time; `hot` is the share of its events that are one user's."""

    rate: float  # clicks per second
    seconds: float = math.inf
    hot: float = 0.0


class SteadyLoad:
    """Sends the clicks of phases to a topic, or until `stop`. A click's event time is the time at which it is sent."""

    def __init__(self, bootstrap_servers: str, topic: str, phases: Sequence[Phase]):
        context = multiprocessing.get_context("spawn")
        self._enough, self._ready = context.Event(), context.Event()
        self._results, results = context.Pipe(duplex=False)
        arguments = (bootstrap_servers, topic, phases, self._enough, self._ready, results)
        self._process = context.Process(target=_send, args=arguments, name="load", daemon=True)

    def start(self) -> None:
        """Returns when it begins to send."""
        self._process.start()
        while not self._ready.wait(1.0):
            if not self._process.is_alive():
                raise RuntimeError(f"the load ended before it began (exit code {self._process.exitcode})")

    def stop(self) -> int:
        """End it; returns the number of clicks sent. Raises RuntimeError if not all of them could be."""
        self._enough.set()
        return self.finish(STOP_SECONDS)

    def finish(self, seconds: float) -> int:
        """Like `stop`, when all phases are over."""
        answered = self._results.poll(seconds)
        delivered, failures = self._results.recv() if answered else (0, "it does not answer")
        self._process.join(STOP_SECONDS)
        if failures:
            raise RuntimeError(f"clicks could not be sent: {failures}")
        return delivered


def with_hot_key(clicks: Iterator[dict[str, Any]], share: float) -> Iterator[dict[str, Any]]:
    """The clicks, so many of which are now those of one user, evenly."""
    owed = 0.0
    for click in clicks:
        owed += share
        if owed >= 1:
            owed -= 1
            click = click | {"user_id": HOT_USER}
        yield click


def _send(servers: str, topic: str, phases: Sequence[Phase], enough: Any, ready: Any, results: Any) -> None:
    producer = KafkaProducer(bootstrap_servers=servers, **FOR_LATENCY)
    clicks = cycle(list(islice(simulate(Simulation(USERS, HOURS)).clicks(), DISTINCT)))
    ready.set()
    paced = chain.from_iterable(_phase(clicks, phase) for phase in phases)
    sent = send(producer, topic, _until(enough, stamped(paced)))
    producer.close()
    results.send((sent.delivered, dict(sent.failures)))


def _phase(clicks: Iterator[dict[str, Any]], phase: Phase) -> Iterator[dict[str, Any]]:
    count = None if math.isinf(phase.seconds) else round(phase.rate * phase.seconds)
    return at_rate(islice(with_hot_key(clicks, phase.hot), count), phase.rate)


def _until(enough: Any, records: Iterator[Record]) -> Iterator[Record]:
    for number, record in enumerate(records):
        if number % 100 == 0 and enough.is_set():  # a look costs a system call
            return
        yield record
