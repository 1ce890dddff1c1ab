"""How long a click is on its way, from its producer to whoever consumes its score: for `make bench`."""

import multiprocessing
import time
from array import array
from collections.abc import Iterator
from itertools import cycle, islice

import msgspec
import numpy as np
from kafka import KafkaProducer

from jobs import flink_client
from jobs.replay_send import FOR_LATENCY, at_rate, send
from jobs.settings import Topics
from jobs.watch_scores import TopicWatcher
from training.records import Record
from training.simulate import Simulation, simulate

USERS, HOURS = 20_000, 48
MOST_CLICKS = 500_000  # different ones; then they come again
SETTLE_SECONDS = 5
DRAIN_SECONDS = 300  # a rate that the job can't keep up with shows as latency, not as a failure


class _Score(msgspec.Struct):
    event_time: int


def latencies(bootstrap_servers: str, topics: Topics, rate: int, seconds: int) -> np.ndarray:
    """Producer to consumer, in ms, of the clicks that a process of its own sends; the first seconds are left out."""
    times = array("d")  # of each score, when its click was sent and when it was received, in ms

    def take(_topic: str, value: bytes, now: float) -> None:
        times.extend((msgspec.json.decode(value, type=_Score).event_time, now * 1000))

    watcher = TopicWatcher(bootstrap_servers, [topics.scores], take, from_beginning=False)
    watcher.start()
    sent = in_a_process(_send_steadily, bootstrap_servers, topics.clicks, rate, seconds)
    flink_client.wait_for(lambda: len(times) >= 2 * sent, DRAIN_SECONDS, f"the scores of {sent} clicks")
    watcher.stop()
    sent_ms, received_ms = np.array(times).reshape(-1, 2).T
    return (received_ms - sent_ms)[sent_ms >= sent_ms.min() + SETTLE_SECONDS * 1000]


def latency_figures(bootstrap_servers: str, topics: Topics, rate: int, seconds: int) -> dict[str, float]:
    """How many latencies were measured, and their p50 and p99 in ms."""
    measured = latencies(bootstrap_servers, topics, rate, seconds)
    p50, p99 = np.percentile(measured, [50, 99]).round(1).tolist()
    return {"events": len(measured), "p50": p50, "p99": p99}


def in_a_process(function, *arguments):
    """The result of a function in a fresh process, so that nothing of this one's memory or threads is in its way."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def _send_steadily(bootstrap_servers: str, topic: str, rate: int, seconds: int) -> int:
    """Send clicks stamped with the time at which they are sent; returns how many."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, **FOR_LATENCY)
    clicks = list(islice(simulate(Simulation(USERS, HOURS)).clicks(), min(rate * seconds, MOST_CLICKS)))

    def stamped() -> Iterator[Record]:
        for click in at_rate(islice(cycle(clicks), rate * seconds), rate):
            click["event_time"] = time.time_ns() // 1_000_000
            yield click["user_id"].encode(), msgspec.json.encode(click), None

    sent = send(producer, topic, stamped())
    producer.close()
    return sent.delivered
