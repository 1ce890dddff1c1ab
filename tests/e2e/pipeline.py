"""A job and its topics, as an end-to-end test handles them."""

import json
import time
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from jobs import flink_client
from jobs.local_stack import LocalStack
from jobs.replay_send import FOR_THROUGHPUT, send
from jobs.replay_sources import Record
from jobs.settings import Settings

CONF = Path(__file__).parents[2] / "conf" / "local.yaml"
READ_SECONDS = 120


@dataclass
class Pipeline:
    """A job and its topics."""

    stack: LocalStack
    settings: Settings
    overrides: list[str]
    job: str | None = None

    def start(self, *overrides: str, savepoint: Path | None = None, wheel: Path | None = None) -> None:
        """Submit the job, and wait until it runs."""
        self.job = flink_client.submit(self.stack, CONF, [*self.overrides, *overrides], savepoint, wheel)
        flink_client.wait_until_running(self.stack, self.job)

    def stop(self) -> Path:
        """End the job with a savepoint."""
        savepoint = flink_client.stop_with_savepoint(self.stack, self.job)
        self.job = None
        return savepoint

    def send(self, role: str, records: Iterable[Record]) -> int:
        """Send (key, value, timestamp) records to the topic of a role; returns how many."""
        producer = KafkaProducer(
            bootstrap_servers=self.stack.bootstrap_servers, max_request_size=4_000_000, **FOR_THROUGHPUT
        )
        try:
            sent = send(producer, getattr(self.settings.topics, role), records)
        finally:
            producer.close()
        assert not sent.failures
        return sent.delivered

    def read(self, role: str, at_least: int = 0, committed: bool = True, seconds: float = READ_SECONDS) -> list[dict]:
        """All values of a topic, decoded; waits until there are `at_least` so many, then fails."""
        found = self._read(role, committed)
        deadline = time.monotonic() + seconds
        while len(found) < at_least:
            assert time.monotonic() < deadline, f"{role}: {len(found)} of {at_least} records after {seconds} s"
            time.sleep(0.5)
            found = self._read(role, committed)
        return [json.loads(record.value) for record in found]

    def read_records(self, role: str) -> list:
        """All records of a topic, in the order of their partitions and offsets."""
        return sorted(self._read(role, True), key=lambda record: (record.partition, record.offset))

    def wait_for_more_scores(self, count: int = 1_000) -> None:
        """Wait until there are so many more scores than now."""
        self.read("scores", at_least=len(self._read("scores", True)) + count)

    def wait_until_consumed(self, role: str) -> None:
        """Wait until a checkpoint says that the job has read all of a topic."""
        topic = getattr(self.settings.topics, role)
        with_group = KafkaConsumer(
            bootstrap_servers=self.stack.bootstrap_servers,
            group_id=self.settings.source.group_id,
            enable_auto_commit=False,
        )
        try:
            partitions = [TopicPartition(topic, number) for number in with_group.partitions_for_topic(topic)]
            ends = with_group.end_offsets(partitions)
            flink_client.wait_for(
                lambda: all((with_group.committed(partition) or 0) >= ends[partition] for partition in partitions),
                READ_SECONDS,
                f"topic {topic} to be consumed",
            )
        finally:
            with_group.close()

    def _read(self, role: str, committed: bool) -> list:
        consumer = KafkaConsumer(
            bootstrap_servers=self.stack.bootstrap_servers,
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_auto_commit=False,
            max_partition_fetch_bytes=8_000_000,
        )
        try:
            topic = getattr(self.settings.topics, role)
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            records, idle = [], 0
            while any(consumer.position(partition) < ends[partition] for partition in partitions) and idle < 5:
                polled = [record for batch in consumer.poll(timeout_ms=500).values() for record in batch]
                idle = 0 if polled else idle + 1  # an open transaction keeps read_committed from the end
                records += polled
            return records
        finally:
            consumer.close()


def original(dead_letter: dict) -> bytes | None:
    """The bytes that were rejected."""
    return None if dead_letter["original"] is None else b64decode(dead_letter["original"])


def positions(records: Sequence[dict]) -> list[tuple[int, int]]:
    """Source partition and offset of each score."""
    return [(record["source_partition"], record["source_offset"]) for record in records]
