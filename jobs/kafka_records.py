"""Committed records as operators' commands read them: by position and time, and without a consumer group."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from jobs.settings import ConfigError, Settings
from jobs.topics import TopicError
from training.kafka_source import client_options
from training.records import SourceError
from udfs.durations import Duration, duration_ms

POLL_MS = 500
SILENCE_MS = 30_000
MAX_RECORD_BYTES = 16 * 1024 * 1024


@contextmanager
def reading(settings: Settings, *topics: str) -> Iterator[tuple[KafkaConsumer, list[TopicPartition]]]:
    """A consumer that is assigned all partitions of the topics, at their beginnings. Raises TopicError."""
    servers = settings.kafka["bootstrap.servers"]
    try:
        consumer = KafkaConsumer(
            **client_options(settings.kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
            metrics_enabled=False,
        )
    except SourceError as error:
        raise TopicError(str(error)) from None
    except KafkaError as error:
        raise TopicError(f"kafka.bootstrap.servers: no broker answers at {servers}: {error}") from None
    try:
        partitions = [part for topic in topics for part in _partitions(consumer, topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        yield consumer, partitions
    except KafkaError as error:
        raise TopicError(f"{', '.join(topics)}: {error}") from None
    finally:
        consumer.close()


def seek_to_time(consumer: KafkaConsumer, partitions: Sequence[TopicPartition], since_ms: int) -> None:
    """Go to the first records that Kafka has stamped at a time or later."""
    ends = consumer.end_offsets(partitions)
    for partition, found in consumer.offsets_for_times(dict.fromkeys(partitions, since_ms)).items():
        consumer.seek(partition, ends[partition] if found is None else found.offset)


def records_until_now(consumer: KafkaConsumer, partitions: Sequence[TopicPartition]) -> Iterator[ConsumerRecord]:
    """The records from the consumer's positions to the present ends, where it is left.

    Raises TopicError when none comes for long.
    """
    ends = consumer.end_offsets(partitions)
    silent_ms = 0
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        batches = consumer.poll(timeout_ms=POLL_MS)
        silent_ms = 0 if batches else silent_ms + POLL_MS
        if silent_ms >= SILENCE_MS:
            topics = ", ".join(sorted({partition.topic for partition in partitions}))
            raise TopicError(f"{topics}: no record for {SILENCE_MS // 1000} s, and not at the end")
        for partition, records in batches.items():
            yield from (record for record in records if record.offset < ends[partition])
    for partition in partitions:
        if consumer.position(partition) > ends[partition]:
            consumer.seek(partition, ends[partition])


def time_ms(text: str, option: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a duration before now, or of an ISO 8601 time, which is UTC unless it says otherwise.

    >>> time_ms("10 min", "--since", 1_000_000)
    400000
    """
    try:
        return now_ms - duration_ms(msgspec.convert(text, Duration))
    except msgspec.ValidationError:
        pass  # no duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text}: want a duration such as 10 min, or a time such as 2026-11-24T12:00"
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise TopicError(
            f"topic {topic}: not there, or not to be seen by this user; python -m jobs.topics --conf FILE creates it"
        )
    return [TopicPartition(topic, number) for number in sorted(numbers)]
