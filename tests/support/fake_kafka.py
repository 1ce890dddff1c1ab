"""A TopicReader over topics that a test has made up."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dashboard.ingest.topic_reader import Offsets, Stretch


@dataclass(frozen=True)
class Record:
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes


class KeptTopics:
    """Topics by name, with their records by partition."""

    def __init__(self, **topics: dict[int, list[Record]]):
        self.topics = topics
        self.read_records = 0

    def partitions(self, topics: Iterable[str]) -> dict[str, list[int]]:
        return {topic: list(self.topics[topic]) for topic in topics if topic in self.topics}

    def ends(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, Offsets]:
        return {
            topic: {number: len(self.topics[topic][number]) for number in numbers}
            for topic, numbers in partitions.items()
        }

    def starts(self, topic: str, ends: Offsets) -> Offsets:
        return dict.fromkeys(ends, 0)

    def offsets_since(self, topic: str, ends: Offsets, time_ms: int) -> Offsets:
        kept = self.topics[topic]
        return {
            number: next((record.offset for record in kept[number] if record.timestamp >= time_ms), end)
            for number, end in ends.items()
        }

    def read(self, topic: str, starts: Offsets, ends: Offsets, limit: int, seconds: float) -> Stretch:
        found: list[Record] = []
        after = dict(starts)
        for number, start in starts.items():
            part = self.topics[topic][number][start : ends[number]][: limit - len(found)]
            found += part
            after[number] = start + len(part)
        self.read_records += len(found)
        return Stretch(found, after)
