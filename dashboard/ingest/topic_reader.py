"""Read topics for the dashboard without disturbing other clients: end offsets, newest records, single stretches.

Everything is bounded: the size of a fetch, the time to wait for it, the number of records.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import LeaderNotAvailableError

from udfs.kafka.connection import open_consumer

CONNECT_MS = 5_000
ANSWER_MS = 4_000
FETCH_BYTES = 256 * 1024  # of a partition at once; a larger record is still fetched
POLL_MS = 100
OPTIONS = {
    "bootstrap_timeout_ms": CONNECT_MS,
    "request_timeout_ms": ANSWER_MS,
    "reconnect_backoff_max_ms": 1_000,
    "max_partition_fetch_bytes": FETCH_BYTES,
    "fetch_max_wait_ms": POLL_MS,
}

Offsets = dict[int, int]  # by partition


class Stretch(NamedTuple):
    """Records that were read, and the offsets after them."""

    records: list[ConsumerRecord]
    after: Offsets


@contextmanager
def open_reader(properties: Mapping[str, object]) -> Iterator["TopicReader"]:
    """A reader of the topics of a Kafka that has these client properties.

    Raises KafkaClientError for properties that Python can't use, and when the brokers don't answer, now or later.
    """
    # A consumer that is assigned partitions forgets the topics of the others, and can't be asked for their offsets.
    with (
        open_consumer(properties, "topics", **OPTIONS) as asking,
        open_consumer(properties, "topics", **OPTIONS) as reading,
    ):
        yield TopicReader(asking, reading)


class TopicReader:
    """Looks topics up with a consumer that is assigned nothing, and reads them with another one."""

    def __init__(self, asking: KafkaConsumer, reading: KafkaConsumer):
        self._asking = asking
        self._consumer = reading

    def partitions(self, topics: Iterable[str]) -> dict[str, list[int]]:
        """The partitions of the topics that exist."""
        known = self._asking.topics()
        return {topic: sorted(self._asking.partitions_for_topic(topic) or ()) for topic in topics if topic in known}

    def ends(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, Offsets]:
        """The end offsets of topics."""
        requested = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
        ends: dict[str, Offsets] = {topic: {} for topic in partitions}
        for partition, offset in self._ask(self._asking.end_offsets, requested).items():
            ends[partition.topic][partition.partition] = offset
        return ends

    def offsets_since(self, topic: str, ends: Offsets, time_ms: int) -> Offsets:
        """The first offsets with a Kafka timestamp since a time; the ends where there are none."""
        requested = {TopicPartition(topic, number): time_ms for number in ends}
        first_offsets = self._asking.offsets_for_times(requested, timeout_ms=ANSWER_MS)
        return {
            partition.partition: ends[partition.partition] if first is None else first.offset
            for partition, first in first_offsets.items()
        }

    def starts(self, topic: str, ends: Offsets) -> Offsets:
        """The first offsets that a topic still has."""
        requested = [TopicPartition(topic, number) for number in ends]
        starts = self._ask(self._asking.beginning_offsets, requested)
        return {partition.partition: offset for partition, offset in starts.items()}

    def _ask(self, question: Callable, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        try:
            return question(partitions, timeout_ms=ANSWER_MS) if partitions else {}
        except KeyError as error:  # kafka-python 3.0 trips over a partition that has no leader just now
            raise LeaderNotAvailableError(f"no answer for {error}") from None

    def read(self, topic: str, starts: Offsets, ends: Offsets, limit: int, seconds: float) -> Stretch:
        """Read records from `starts` to before `ends`: at most `limit`, for at most `seconds`."""
        requested = [TopicPartition(topic, number) for number in starts if starts[number] < ends[number]]
        self._consumer.assign([])  # nothing of an earlier stretch is to go on
        self._consumer.assign(requested)
        for partition in requested:
            self._consumer.seek(partition, starts[partition.partition])
        records: list[ConsumerRecord] = []
        after = dict(starts)
        deadline = time.monotonic() + seconds
        unread = set(requested)
        while unread and len(records) < limit and time.monotonic() < deadline:
            for partition, batch in self._consumer.poll(timeout_ms=POLL_MS, max_records=limit - len(records)).items():
                records += [record for record in batch if record.offset < ends[partition.partition]]
            for partition in list(unread):
                # Never beyond the end, where records came meanwhile that were left out above.
                position = self._consumer.position(partition, timeout_ms=ANSWER_MS)
                after[partition.partition] = min(position, ends[partition.partition])
                if position >= ends[partition.partition]:
                    unread.discard(partition)
                    self._consumer.assign(list(unread))  # or it would be fetched further
        return Stretch(records, after)
