"""Latency from the producer of a click to the consumer of its score, with kafka-python at both ends."""

import multiprocessing
import threading
import time
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from typing import Any

import msgspec
import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from jobs.common.settings import TopicNames
from jobs.ops.replay.producer import FOR_LATENCY, at_rate, send
from tools.bench.context import HOURS, USERS, BenchContext, fresh_run
from tools.console import note, step
from tools.stack import flink_client
from training.data.sources import Record
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.outputs import Score

MAX_CLICKS = 500_000  # distinct clicks, which are then repeated
SETTLE_SECONDS = 5
MEASURED_SECONDS = 20
WARM_UP_RATE, WARM_UP_SECONDS = 3_000, 60
DRAIN_SECONDS = 300  # a rate that the job can't keep up with shows as latency, not as a failure
#: By guarantee, the settings over the shipped ones, and the rates in events per second.
GUARANTEES = {
    "at-least-once": ((), (500, 2_000, 10_000)),
    "exactly-once": (("delivery.guarantee=exactly-once", "checkpoints.interval=1 s"), (2_000,)),
}
IN_WORDS = {"at-least-once": "at least once", "exactly-once": "exactly once, one checkpoint per second"}
SHIPPED = ("state.backend=rocksdb", "source.start=latest")


def measure(context: BenchContext) -> dict:
    """Latencies by delivery guarantee: of the job's first minute and, once it is warm, at each rate."""
    stack = context.cluster()
    figures: dict = {}
    for guarantee, (changed, rates) in GUARANTEES.items():
        name = f"latency-{guarantee}"
        overrides = [*fresh_run(name, "clicks", "scores"), *SHIPPED, *changed, f"job.name={name}"]
        topics = context.create_topics(overrides).topics
        step(f"Latency, {guarantee}: first minute, at {WARM_UP_RATE:,} events/s")
        with context.running(overrides):
            result = warm_up(stack.bootstrap_servers, topics)
            note(latency_words(result))
            figures[guarantee] = {"first_minute": result, "at": {}}
            for rate in rates:
                step(f"Latency, {guarantee}, at {rate:,} events/s")
                result = latency_figures(stack.bootstrap_servers, topics, rate, SETTLE_SECONDS + MEASURED_SECONDS)
                figures[guarantee]["at"][str(rate)] = result
                note(latency_words(result))
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    cells = []
    for guarantee, latencies in figures.items():
        name = IN_WORDS[guarantee]
        cells.append((f"{name}, first minute at {WARM_UP_RATE:,} events/s", latency_words(latencies["first_minute"])))
        cells += [(f"{name}, at {int(rate):,} events/s", latency_words(at)) for rate, at in latencies["at"].items()]
    return cells


def latency_words(latency: dict) -> str:
    return f"p50 {latency['p50']:,} ms, p99 {latency['p99']:,} ms"


def warm_up(bootstrap_servers: str, topics: TopicNames) -> dict[str, float]:
    """Warm up a job that has just started for a minute; returns the figures of that minute, its start included."""
    return latency_figures(bootstrap_servers, topics, WARM_UP_RATE, WARM_UP_SECONDS, settle_seconds=0)


def latency_figures(
    bootstrap_servers: str, topics: TopicNames, rate: int, seconds: int, settle_seconds: int = SETTLE_SECONDS
) -> dict[str, float]:
    """The number of measured latencies, and their p50 and p99 in ms."""
    measured = latencies(bootstrap_servers, topics, rate, seconds, settle_seconds)
    p50, p99 = np.percentile(measured, [50, 99]).round(1).tolist()
    return {"events": len(measured), "p50": p50, "p99": p99}


def latencies(
    bootstrap_servers: str, topics: TopicNames, rate: int, seconds: int, settle_seconds: int = SETTLE_SECONDS
) -> np.ndarray:
    """Producer-to-consumer latencies in ms of clicks that a separate process sends, without the first seconds."""
    receiver = Receiver(bootstrap_servers, topics.scores)
    receiver.start()
    try:
        sent = in_a_process(_send_steadily, bootstrap_servers, topics.clicks, rate, seconds)
        flink_client.wait_for(lambda: receiver.count >= sent, DRAIN_SECONDS, f"the scores of {sent:,} clicks")
    finally:
        receiver.stop()
    return settled(receiver.times, settle_seconds)


def settled(times_ms: array, settle_seconds: float) -> np.ndarray:
    """Latencies in ms from the times when each click was sent and its score received, without the first seconds."""
    sent_ms, received_ms = np.array(times_ms).reshape(-1, 2).T
    return (received_ms - sent_ms)[sent_ms >= sent_ms.min() + settle_seconds * 1000]


class Receiver(threading.Thread):
    """Reads new records of a topic of scores as soon as they are committed."""

    def __init__(self, bootstrap_servers: str, topic: str):
        super().__init__(daemon=True)
        self.times = array("d")  # of each score, when its click was sent and when it was received, in ms
        self._times_lock = threading.Lock()
        self._stopping = threading.Event()
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=10,
            metrics_enabled=False,
        )
        partitions = [TopicPartition(topic, number) for number in self._consumer.partitions_for_topic(topic)]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:  # seeking is lazy: fix the position now, before anybody sends
            self._consumer.position(partition)

    @property
    def count(self) -> int:
        return len(self.times) // 2

    def run(self) -> None:
        read = msgspec.json.Decoder(Score).decode
        while not self._stopping.is_set():
            batches = self._consumer.poll(timeout_ms=100)
            now_ms = time.time() * 1000
            with self._times_lock:
                for records in batches.values():
                    for record in records:
                        self.times.extend((read(record.value).event_time, now_ms))

    def take(self) -> array:
        """The times since the last call, which are forgotten."""
        with self._times_lock:
            taken, self.times = self.times, array("d")
        return taken

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._consumer.close()


def in_a_process(function, *arguments):
    """The result of a function in a new process, undisturbed by this one's memory and threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _send_steadily(bootstrap_servers: str, topic: str, rate: int, seconds: int) -> int:
    """Send clicks stamped with the time at which they are sent; returns their number."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, **FOR_LATENCY)
    clicks = list(islice(simulate(Simulation(USERS, HOURS)).clicks(), min(rate * seconds, MAX_CLICKS)))
    sent = send(producer, topic, stamped(at_rate(islice(cycle(clicks), rate * seconds), rate)))
    producer.close()
    return sent.delivered


def stamped(clicks: Iterable[dict[str, Any]]) -> Iterator[Record]:
    """The records of clicks, changed in place, whose event time is the time at which they are taken."""
    run = int(time.time())
    for number, click in enumerate(clicks):
        click["event_time"] = time.time_ns() // 1_000_000
        click["event_id"] = f"{run}-{number}"  # a click that is sent again would not be scored
        yield click["user_id"].encode(), msgspec.json.encode(click), None
