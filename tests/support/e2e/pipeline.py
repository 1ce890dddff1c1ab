"""A job and its topics, as an end-to-end test handles them."""

import json
import time
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

from kafka import KafkaProducer, TopicPartition

from jobs.common.settings import Settings
from jobs.ops.replay.producer import FOR_THROUGHPUT, send
from tests.support.contracts import WRITTEN, broken
from tests.support.e2e.submission import submit
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.trials.topics import committed_consumer, wait_until_consumed
from training.data.archive import find_parts, read_part
from training.data.sources import Record

CONF = Path(__file__).parents[3] / "conf" / "local.yaml"
READ_SECONDS = 120
CHECKED_RECORDS = 2_000  # of a topic, against its contract


@dataclass
class Pipeline:
    """A job and its topics."""

    stack: LocalStack
    settings: Settings
    overrides: list[str]
    job: str | None = None
    other_jobs: list[str] = field(default_factory=list)
    _readers: dict[str, "TopicReader"] = field(default_factory=dict)

    def start(self, *overrides: str, savepoint: Path | None = None) -> None:
        """Submit the job, and wait until it runs."""
        self.job = submit(self.stack, CONF, [*self.overrides, *overrides], savepoint)
        flink_client.wait_until_running(self.stack, self.job)

    def start_other(self, module: str) -> None:
        """Submit another job over this one's topics, and wait until it runs."""
        self.other_jobs.append(submit(self.stack, CONF, self.overrides, module=module))
        flink_client.wait_until_running(self.stack, self.other_jobs[-1])

    def archive_of(self, role: str) -> Path:
        """The directory in which the archive has a topic."""
        return Path(urlparse(self.settings.archive.dir).path) / f"topic={role}"

    def archived(self, role: str) -> list[tuple[int, int, bytes | None, int]]:
        """Partition, offset, value and timestamp of all records that the archive has of a topic."""
        batches = (batch for part in find_parts(self.archive_of(role)) for batch in read_part(part))
        return [
            record
            for batch in batches
            for record in zip(
                batch.partition.tolist(), batch.offset.tolist(), batch.payloads, batch.arrival_ms.tolist()
            )
        ]

    def stop(self) -> Path:
        """End the job with a savepoint."""
        savepoint = flink_client.stop_with_savepoint(self.stack, self.job)
        self.job = None
        return savepoint

    def send(self, role: str, records: Iterable[Record], linger_ms: int = FOR_THROUGHPUT["linger_ms"]) -> int:
        """Send (key, value, timestamp) records to the topic of a role; returns how many."""
        options = FOR_THROUGHPUT | {"linger_ms": linger_ms, "max_request_size": 4_000_000}
        producer = KafkaProducer(bootstrap_servers=self.stack.bootstrap_servers, **options)
        try:
            sent = send(producer, getattr(self.settings.topics, role), records)
        finally:
            producer.close()
        assert not sent.failures
        return sent.delivered

    def read(self, role: str, at_least: int = 0) -> list[dict]:
        """All committed values of a topic, decoded; waits until there are `at_least` so many, then fails."""
        return [json.loads(record.value) for record in self._read(role, at_least)]

    def read_records(self, role: str) -> list:
        """All records of a topic, in the order of their partitions and offsets."""
        return sorted(self._read(role), key=lambda record: (record.partition, record.offset))

    def wait_for_more_scores(self, count: int = 1_000) -> None:
        """Wait until there are so many more scores than now."""
        self._read("scores", len(self._read("scores")) + count)

    def wait_until_consumed(self, role: str) -> None:
        """Wait until a checkpoint says that the job has read all of a topic."""
        self._wait_until_consumed(role, self.settings.source.group_id)

    def wait_until_archived(self, role: str) -> None:
        """Wait until a checkpoint says that the archive holds all of a topic."""
        self._wait_until_consumed(role, self.settings.archive.name)

    def _wait_until_consumed(self, role: str, group_id: str) -> None:
        topic = getattr(self.settings.topics, role)
        wait_until_consumed(self.stack.bootstrap_servers, topic, group_id, READ_SECONDS)

    def close(self) -> None:
        """Cancel the jobs, and stop reading."""
        for reader in self._readers.values():
            reader.close()
        for job in filter(None, (self.job, *self.other_jobs)):
            flink_client.cancel(self.stack, job)

    def broken_contracts(self) -> list[str]:
        """What records that the test has read, the first of each topic, break of the published contracts."""
        return [
            line
            for role, reader in self._readers.items()
            if role in WRITTEN
            for line in broken(role, [record.value for record in reader.records[:CHECKED_RECORDS]])
        ]

    def _read(self, role: str, at_least: int = 0) -> list:
        if role not in self._readers:
            self._readers[role] = TopicReader(self.stack.bootstrap_servers, getattr(self.settings.topics, role))
        return self._readers[role].read(at_least)


class TopicReader:
    """All committed records of a topic so far; each is fetched once."""

    def __init__(self, bootstrap_servers: str, topic: str):
        self._topic = topic
        self._consumer = committed_consumer(bootstrap_servers, [topic])
        self._partitions = list(self._consumer.assignment())
        self.records = []

    def read(self, at_least: int) -> list:
        """What there is now; waits until there are `at_least` so many records."""
        ends = self._consumer.end_offsets(self._partitions)
        deadline = time.monotonic() + READ_SECONDS
        idle = 0
        while len(self.records) < at_least or (idle < 2 and self._is_behind(ends)):
            assert time.monotonic() < deadline, f"{self._topic}: {len(self.records)} of {at_least} records"
            polled = [record for batch in self._consumer.poll(timeout_ms=500).values() for record in batch]
            idle = 0 if polled else idle + 1  # an open transaction keeps read_committed from the end
            self.records += polled
        return list(self.records)

    def _is_behind(self, ends: dict[TopicPartition, int]) -> bool:
        return any(self._consumer.position(partition) < ends[partition] for partition in self._partitions)

    def close(self) -> None:
        self._consumer.close()


def original(dead_letter: dict) -> bytes | None:
    """The bytes that were rejected."""
    return None if dead_letter["original"] is None else b64decode(dead_letter["original"])


def positions(records: Sequence[dict]) -> list[tuple[int, int]]:
    """Source partition and offset of each score."""
    return [(record["source_partition"], record["source_offset"]) for record in records]
