"""Reading topics for a page that must not get in the way: their ends, their newest records, single stretches.

Everything is bounded: what is fetched at once, how long it is waited for, how many records come back.
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
FETCH_BYTES = 256 * 1024  # of a partition at once; a larger record comes all the same
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
    """Records that were read, and where the next ones would be."""

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
        """The partitions of those topics that exist."""
        known = self._asking.topics()
        return {topic: sorted(self._asking.partitions_for_topic(topic) or ()) for topic in topics if topic in known}

    def ends(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, Offsets]:
        """The end offsets of topics."""
        wanted = [TopicPartition(topic, number) for topic, numbers in partitions.items() for number in numbers]
        found: dict[str, Offsets] = {topic: {} for topic in partitions}
        for partition, offset in self._ask(self._asking.end_offsets, wanted).items():
            found[partition.topic][partition.partition] = offset
        return found

    def offsets_since(self, topic: str, ends: Offsets, time_ms: int) -> Offsets:
        """Where the records that Kafka has stamped since a time begin."""
        asked = {TopicPartition(topic, number): time_ms for number in ends}
        found = self._asking.offsets_for_times(asked, timeout_ms=ANSWER_MS)
        return {
            partition.partition: ends[partition.partition] if there is None else there.offset
            for partition, there in found.items()
        }

    def starts(self, topic: str, ends: Offsets) -> Offsets:
        """The first offsets that a topic still has."""
        asked = [TopicPartition(topic, number) for number in ends]
        found = self._ask(self._asking.beginning_offsets, asked)
        return {partition.partition: offset for partition, offset in found.items()}

    def _ask(self, question: Callable, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        try:
            return question(partitions, timeout_ms=ANSWER_MS) if partitions else {}
        except KeyError as error:  # kafka-python 3.0 trips over a partition that has no leader just now
            raise LeaderNotAvailableError(f"no answer for {error}") from None

    def read(self, topic: str, starts: Offsets, ends: Offsets, most: int, seconds: float) -> Stretch:
        """Records from `starts` on and before `ends`, at most so many, for at most so long."""
        wanted = [TopicPartition(topic, number) for number in starts if starts[number] < ends[number]]
        self._consumer.assign([])  # nothing of an earlier stretch is to go on
        self._consumer.assign(wanted)
        for partition in wanted:
            self._consumer.seek(partition, starts[partition.partition])
        records: list[ConsumerRecord] = []
        after = dict(starts)
        deadline = time.monotonic() + seconds
        unread = set(wanted)
        while unread and len(records) < most and time.monotonic() < deadline:
            for partition, batch in self._consumer.poll(timeout_ms=POLL_MS, max_records=most - len(records)).items():
                records += [record for record in batch if record.offset < ends[partition.partition]]
            for partition in list(unread):
                # Never beyond the end, where records came meanwhile that were left out above.
                position = self._consumer.position(partition, timeout_ms=ANSWER_MS)
                after[partition.partition] = min(position, ends[partition.partition])
                if position >= ends[partition.partition]:
                    unread.discard(partition)
                    self._consumer.assign(list(unread))  # or it would be fetched further
        return Stretch(records, after)
