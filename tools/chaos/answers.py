"""The job's answers as a consumer with read_committed sees them: the scores and dead letters of clicks so far."""

import threading
from collections.abc import Sequence

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition

#: Partition and offset of a click.
Position = tuple[int, int]


class _Score(msgspec.Struct):
    source_partition: int
    source_offset: int
    score: float


class _DeadLetter(msgspec.Struct):
    partition: int
    offset: int
    reason: str


_decode_score, _decode_letter = msgspec.json.Decoder(_Score).decode, msgspec.json.Decoder(_DeadLetter).decode


def committed_consumer(bootstrap_servers: str, topics: Sequence[str]) -> KafkaConsumer:
    """A consumer of all of these topics, from their beginning, which survives a broker that is away."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=8_000_000,
        reconnect_backoff_max_ms=1_000,
        metrics_enabled=False,
    )
    partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


class Answers(threading.Thread):
    """Reads scores and dead letters until `stop`."""

    def __init__(self, bootstrap_servers: str, scores: str, dead_letters: str):
        super().__init__(name="answers", daemon=True)
        self._consumer = committed_consumer(bootstrap_servers, [scores, dead_letters])
        self._scores = scores
        self._enough = threading.Event()
        self.scores: list[tuple[Position, float]] = []
        self.dead_letters: list[tuple[Position, str]] = []
        self.newest: dict[int, int] = {}  # offset of the newest answered click, by partition

    def run(self) -> None:
        while not self._enough.is_set():
            for partition, records in self._consumer.poll(timeout_ms=200).items():
                for record in records:
                    if partition.topic == self._scores:
                        score = _decode_score(record.value)
                        position = score.source_partition, score.source_offset
                        self.scores.append((position, float(np.float32(score.score))))
                    else:
                        letter = _decode_letter(record.value)
                        position = letter.partition, letter.offset
                        self.dead_letters.append((position, letter.reason))
                    self.newest[position[0]] = max(self.newest.get(position[0], -1), position[1])

    def stop(self) -> None:
        self._enough.set()
        self.join()
        self._consumer.close()
