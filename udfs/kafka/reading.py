"""Read committed records by position or time, without a consumer group."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from udfs.kafka.connection import open_consumer
from udfs.kafka.errors import KafkaClientError

POLL_MS = 500
SILENCE_MS = 30_000
MAX_RECORD_BYTES = 16 * 1024 * 1024

#: A function like `read_topic`: client properties, topic and start time to record values.
ReadTopic = Callable[[Mapping[str, object], str, int | None], Iterator[bytes]]


def read_topic(properties: Mapping[str, object], topic: str, since_ms: int | None = None) -> Iterator[bytes]:
    """The values of all committed records that a topic has now, or of those with a Kafka timestamp since a time.

    Records after the beginning of an open transaction are not committed yet; tombstones are left out.
    `properties` are Kafka client properties. Raises KafkaClientError when the topic does not exist or can't be read.
    """
    with open_topics(properties, topic) as (consumer, partitions):
        if since_ms is not None:
            seek_to_time(consumer, partitions, since_ms)
        for record in records_until_now(consumer, partitions):
            if record.value is not None:
                yield record.value


@contextmanager
def open_topics(properties: Mapping[str, object], *topics: str) -> Iterator[tuple[KafkaConsumer, list[TopicPartition]]]:
    """A consumer that is assigned all partitions of the topics, at their beginnings. Raises KafkaClientError."""
    with open_consumer(properties, _named(topics), max_partition_fetch_bytes=MAX_RECORD_BYTES) as consumer:
        partitions = [part for topic in topics for part in partitions_of(consumer, topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        yield consumer, partitions


def partitions_of(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of a topic in their order. Raises KafkaClientError when Kafka shows none."""
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise KafkaClientError(
            f"topic {topic} does not exist, or this user may not see it",
            "check the name and the user's rights; intent topics --conf FILE creates a job's topics",
        )
    return [TopicPartition(topic, number) for number in sorted(numbers)]


def seek_to_time(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], since_ms: int) -> None:
    """Go to the first records with a Kafka timestamp at or after a time."""
    ends = consumer.end_offsets(partitions)
    for partition, first in consumer.offsets_for_times(dict.fromkeys(partitions, since_ms)).items():
        consumer.seek(partition, ends[partition] if first is None else first.offset)


def records_until_now(consumer: KafkaConsumer, partitions: Sequence[TopicPartition]) -> Iterator[ConsumerRecord]:
    """The records from the consumer's positions to the current ends, where it stays.

    Raises KafkaClientError if no record arrives for SILENCE_MS.
    """
    ends = consumer.end_offsets(partitions)
    silent_ms = 0
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        batches = consumer.poll(timeout_ms=POLL_MS)
        silent_ms = 0 if batches else silent_ms + POLL_MS
        if silent_ms >= SILENCE_MS:
            topics = sorted({partition.topic for partition in partitions})
            raise KafkaClientError(
                f"{_named(topics)}: no record arrived for {SILENCE_MS // 1000} s before the end was reached",
                "check that the brokers of all partitions are up, and try again",
            )
        for partition, records in batches.items():
            yield from (record for record in records if record.offset < ends[partition])
    for partition in partitions:
        if consumer.position(partition) > ends[partition]:
            consumer.seek(partition, ends[partition])


def _named(topics: Sequence[str]) -> str:
    return f"topic{'s'[: len(topics) != 1]} {', '.join(topics)}"
