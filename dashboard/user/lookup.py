"""Look up one user's records, going back from the end of the partition that the user's key is in."""

import time
from dataclasses import dataclass

from kafka.consumer.fetcher import ConsumerRecord
from kafka.partitioner.default import murmur2

from dashboard.ingest.topic_reader import Offsets, TopicReader

FIRST_STEP = 20_000  # offsets; each further step back is twice as long
STRETCH_SECONDS = 5.0


@dataclass(frozen=True)
class UserRecords:
    """The records of a user in a partition, oldest first."""

    records: list[ConsumerRecord]
    partition: int
    read: int  # records searched
    back_to_ms: int | None  # Kafka's timestamp of the oldest of them
    is_whole: bool  # whether the partition was read from its very first record


NO_RECORDS = UserRecords([], -1, 0, None, True)


class Budget:
    """The number of records and the time that may still be spent on a lookup."""

    def __init__(self, records: int, seconds: float):
        self.records = records
        self._deadline = time.monotonic() + seconds

    @property
    def seconds(self) -> float:
        return self._deadline - time.monotonic()

    @property
    def is_available(self) -> bool:
        return self.records > 0 and self.seconds > 0


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner selects for a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def find_records(
    reader: TopicReader, topic: str, number: int, end: int, key: bytes, budget: Budget, limit: int | None = None
) -> UserRecords:
    """The records with a key in a partition, going back from an offset to the partition's start, until there are
    `limit`, or the budget ends."""
    first = reader.starts(topic, {number: end})[number]
    matches: list[ConsumerRecord] = []
    read, back_to_ms, step = 0, None, FIRST_STEP
    while end > first and budget.is_available and (limit is None or len(matches) < limit):
        start = max(first, end - min(step, max(1, budget.records)))
        records = _stretch(reader, topic, number, start, end, budget)
        if records is None:
            break  # a part of the stretch was not read
        read += len(records)
        if records:
            back_to_ms = records[0].timestamp
        matches = [record for record in records if record.key == key] + matches
        end, step = start, step * 2
    return UserRecords(matches, number, read, back_to_ms, end <= first == 0)


def _stretch(
    reader: TopicReader, topic: str, number: int, start: int, end: int, budget: Budget
) -> list[ConsumerRecord] | None:
    """All records of a stretch, or None when the budget ends before."""
    records: list[ConsumerRecord] = []
    after: Offsets = {number: start}
    while after[number] < end:
        if budget.seconds <= 0:
            return None
        seconds = min(STRETCH_SECONDS, budget.seconds)
        part, after = reader.read(topic, after, {number: end}, end - after[number], seconds)
        budget.records -= len(part)
        records += part
    return records
