"""Topics as a consumer with read_committed sees them."""

import time
from collections.abc import Callable, Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from tools.stack import flink_client

QUIET_POLLS = 4


def committed_consumer(bootstrap_servers: str, topics: Sequence[str]) -> KafkaConsumer:
    """A consumer of all of these topics, from their beginning, which survives a broker that is away."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8_000_000,
        reconnect_backoff_max_ms=1_000,  # it grows while a broker is away, to 30 s by default
        metrics_enabled=False,
    )
    partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


def read_all(
    bootstrap_servers: str, topic: str, seconds: float, is_enough: Callable[[int], bool] = lambda count: True
) -> list[ConsumerRecord]:
    """All committed records of a topic by partition and offset, once there are enough and no more have come a while.

    After `seconds`, those that there are.
    """
    consumer = committed_consumer(bootstrap_servers, [topic])
    records, quiet, deadline = [], 0, time.monotonic() + seconds
    try:
        while (quiet < QUIET_POLLS or not is_enough(len(records))) and time.monotonic() < deadline:
            polled = [record for some in consumer.poll(timeout_ms=500).values() for record in some]
            quiet = 0 if polled else quiet + 1
            records += polled
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))


def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The offset of the next record of each partition, also of records that are not committed yet."""
    consumer = committed_consumer(bootstrap_servers, [topic])
    try:
        return {partition.partition: end for partition, end in consumer.end_offsets(consumer.assignment()).items()}
    finally:
        consumer.close()


def wait_until_consumed(bootstrap_servers: str, topic: str, group_id: str, seconds: float) -> None:
    """Wait until a checkpoint says that the job of a consumer group has read all that a topic has now.

    Raises flink_client.JobError when the time is up.
    """
    with_group = KafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=group_id, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in with_group.partitions_for_topic(topic)]
        ends = with_group.end_offsets(partitions)
        flink_client.wait_for(
            lambda: all((with_group.committed(partition) or 0) >= ends[partition] for partition in partitions),
            seconds,
            f"topic {topic} to be consumed",
        )
    finally:
        with_group.close()
