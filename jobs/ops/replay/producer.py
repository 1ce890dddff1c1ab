"""Send records to Kafka at a pace, and count deliveries and failures."""

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2
from kafka.producer.future import FutureRecordMetadata

from training.data.sources import Record
from udfs.kafka.connection import open_producer

#: The interval at which a paced replay checks the clock: steady for a consumer, and few calls of sleep.
STEP_SECONDS = 0.002
#: Due records are released at once, up to this much of the schedule; the rest after a delay follows at twice the rate.
BURST_SECONDS = 0.008
CATCH_UP = 2
#: Records that may await their delivery report; kafka-python itself sets no bound on what it buffers.
MAX_PENDING = 10_000
KEYS_REMEMBERED = 1 << 17
#: A replay at recorded speed looks so many records ahead before a pause that is longer.
LOOK_AHEAD, SHORT_PAUSE_SECONDS = 100, 1.0

#: KafkaProducer options for the highest throughput, and for the lowest latency.
FOR_THROUGHPUT = {"batch_size": 1 << 19, "linger_ms": 20, "metrics_enabled": False}
FOR_LATENCY = {"batch_size": 1 << 17, "linger_ms": 1, "metrics_enabled": False}


@dataclass
class Sent:
    """The result of sending: the numbers of delivered records and of failed ones by reason."""

    delivered: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> int:
        return self.failures.total()

    @property
    def rate(self) -> float:
        """Delivered records per second."""
        return self.delivered / self.seconds if self.seconds else 0.0


def send_at_once(bootstrap_servers: str, topic: str, records: Iterable[Record]) -> Sent:
    """Send records as fast as the broker takes them, over a producer of its own. Raises KafkaClientError."""
    properties = {"bootstrap.servers": bootstrap_servers}
    with open_producer(properties, f"topic {topic}", **FOR_THROUGHPUT) as producer:
        return send(producer, topic, records)


def send(producer: KafkaProducer, topic: str, records: Iterable[Record], record_timestamps: bool = True) -> Sent:
    """Send records as they come, wait until all are delivered or given up, and count.

    A record's time becomes its Kafka timestamp; without one, or with `record_timestamps` false, that is the time of
    sending. An interrupt (Ctrl-C) ends the sending, not the waiting, and is noted in the result.
    Raises KafkaError when the topic can't be reached at all.
    """
    sent, pending = Sent(), deque()
    partition_of = _partitioner(sorted(producer.partitions_for(topic)))
    started = time.monotonic()
    try:
        for key, value, time_ms in records:
            try:
                pending.append(
                    producer.send(
                        topic,
                        value,
                        key,
                        partition=partition_of(key),
                        timestamp_ms=time_ms if record_timestamps else None,
                    )
                )
            except KafkaError as error:  # this record's own fault, such as its size
                sent.failures[str(error)] += 1
            if len(pending) > MAX_PENDING:
                _settle(pending.popleft(), sent)
    except KeyboardInterrupt:
        sent.interrupted = True
    producer.flush()
    for future in pending:
        _settle(future, sent)
    sent.seconds = time.monotonic() - started
    return sent


def at_rate(
    records: Iterable[Record],
    rate: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Yield `rate` records per second, evenly: at most BURST_SECONDS worth of them, or one, at a time."""
    burst = max(1, int(rate * BURST_SECONDS))
    soonest = started = clock()
    released = 0
    for number, record in enumerate(records):
        if number == released:
            _wait_until(max(started + number / rate, soonest), clock, sleep)
            now = clock()
            due = int((now - started) * rate) + 1 - number
            batch = min(max(due, 1), burst)
            released += batch
            soonest = now + max(STEP_SECONDS, batch / rate / CATCH_UP)
        yield record


def at_recorded_speed(
    records: Iterable[Record],
    factor: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Yield records as far apart as their event times are, divided by `factor`; one without a time follows at once.

    So does one that is dated far ahead of the records behind it: a wrong clock must not make these wait.
    """
    started, first_ms = clock(), None
    for record, ahead in _with_records_ahead(records):
        time_ms = record[2]
        if first_ms is None and time_ms is not None and not _is_outlier(time_ms, ahead, False):
            first_ms = time_ms
        if first_ms is not None and time_ms is not None:
            due = started + (time_ms - first_ms) / 1000 / factor
            pause, elapsed = due - clock(), clock() - started
            if pause <= SHORT_PAUSE_SECONDS or not _is_outlier(time_ms, ahead, pause > elapsed):
                _wait_until(due, clock, sleep)
        yield record


def _is_outlier(time_ms: int, ahead: Iterable[Record], is_long: bool) -> bool:
    """Whether most records ahead are earlier; the last record is judged by the length of its pause."""
    earlier = [record[2] < time_ms for record in ahead if record[2] is not None]
    return 2 * sum(earlier) > len(earlier) if earlier else is_long


def _with_records_ahead(records: Iterable[Record]) -> Iterator[tuple[Record, Iterable[Record]]]:
    """Each record with up to LOOK_AHEAD records behind it."""
    waiting: deque[Record] = deque()
    for record in records:
        waiting.append(record)
        if len(waiting) > LOOK_AHEAD:
            yield waiting.popleft(), waiting
    while waiting:
        yield waiting.popleft(), waiting


def in_time_order(streams: list[Iterator[Record]]) -> Iterator[Record]:
    """Merge streams by event time, each of which is in order; a record without a time follows the one before it."""
    if len(streams) == 1:
        return streams[0]
    return (record for _, record in heapq.merge(*map(_timed, streams), key=lambda timed: timed[0]))


def _timed(records: Iterable[Record]) -> Iterator[tuple[int, Record]]:
    latest_ms = 0
    for record in records:
        latest_ms = record[2] or latest_ms
        yield latest_ms, record


def _wait_until(due: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    pause = due - clock()
    if pause > 0:
        sleep(pause)


def _partitioner(partitions: list[int]) -> Callable[[bytes | None], int | None]:
    """Kafka's own choice of a partition by key, remembered: kafka-python works it out in Python for each record."""

    @lru_cache(KEYS_REMEMBERED)
    def partition_of(key: bytes | None) -> int | None:
        return None if key is None else partitions[(murmur2(key) & 0x7FFF_FFFF) % len(partitions)]

    return partition_of


def _settle(future: FutureRecordMetadata, sent: Sent) -> None:
    """Wait for one delivery report and count it; KafkaProducer gives up on a record after delivery_timeout_ms."""
    try:
        future.get()
    except KafkaError as error:
        sent.failures[str(error)] += 1
    else:
        sent.delivered += 1
