"""Rates from a growing count, and the memory of processes: shared by several parts of the benchmark."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psutil
from kafka import KafkaConsumer, TopicPartition

POLL_SECONDS = 2.0  # serving metrics costs the TaskManager work that the job then lacks
REPORT_SECONDS = 15.0
SAMPLE_SECONDS = 5.0
MIB = 1 << 20

Item = TypeVar("Item")


class BenchError(RuntimeError):
    """A part of the benchmark that can't be measured; the message says why."""


def rate_between(
    count: Callable[[], int],
    first: int,
    last: int,
    log: Callable[[str], None] = print,
    *,
    wait_seconds: float = 600.0,
    max_seconds: float = 600.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """The growth of a count per second between two marks, measured at the times when it was seen to pass them.

    If it has not passed the last mark `max_seconds` after the first, it is measured up to then. Raises BenchError if it
    has not passed the first mark after `wait_seconds`, or stops growing after it.
    """
    began = reported = clock()
    marks: list[tuple[float, int]] = []
    while True:
        now, counted = clock(), count()
        if counted >= first and (not marks or counted > marks[-1][1]):
            marks.append((now, counted))
        if counted >= last or (marks and now - marks[0][0] >= max_seconds):
            break
        if not marks and now - began >= wait_seconds:
            raise BenchError(f"{counted:,} of {first:,} after {wait_seconds:.0f} s: too slow to measure")
        if now - reported >= REPORT_SECONDS:
            reported = now
            log(f"{counted:,} of {last:,}")
        sleep(POLL_SECONDS)
    if len(marks) < 2:
        raise BenchError(f"cannot compute a rate: the count stayed at {marks[0][1]:,} (marks {first:,} and {last:,})")
    (started, at_first), (ended, at_last) = marks[0], marks[-1]
    return (at_last - at_first) / (ended - started)


@contextmanager
def records_in(bootstrap_servers: str, topic: str) -> Iterator[Callable[[], int]]:
    """A function that counts all records ever written to a topic."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False, metrics_enabled=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        yield lambda: sum(consumer.end_offsets(partitions).values())
    finally:
        consumer.close()


def report_every(items: Iterable[Item], interval: int, report: Callable[[int], None]) -> Iterator[Item]:
    """The items; after every `interval` of them, call `report` with the count so far."""
    for number, item in enumerate(items, 1):
        yield item
        if number % interval == 0:
            report(number)


def tree_pss(root: psutil.Process) -> dict[str, int]:
    """Memory in bytes of a process and its descendants, by the name of their program; shared memory counts once.

    Raises psutil.NoSuchProcess if one ends meanwhile.
    """
    sizes: dict[str, int] = {}
    for process in [root, *root.children(recursive=True)]:
        name = process.name()
        sizes[name] = sizes.get(name, 0) + process.memory_full_info().pss
    return sizes


class PeakMemory(threading.Thread):
    """Samples the memory of a process and its descendants, until `stop`."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._stopping = threading.Event()
        self._peak: dict[str, int] = {}

    def run(self) -> None:
        while True:
            with suppress(psutil.NoSuchProcess):  # a process ended during the sample
                self._peak = max(self._peak, tree_pss(self._root), key=lambda held: sum(held.values()))
            if self._stopping.wait(SAMPLE_SECONDS):
                return

    def stop(self) -> dict[str, int]:
        """End the thread; returns the peak memory in MiB: in all, and by the name of the program."""
        self._stopping.set()
        self.join()
        by_name = {name: round(held / MIB) for name, held in self._peak.items()}
        return {"all": sum(by_name.values())} | by_name
