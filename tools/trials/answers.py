"""The job's answers as a consumer with read_committed sees them: the scores and dead letters of clicks so far."""

import threading

import msgspec
import numpy as np

from tools.trials.topics import committed_consumer

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


def score_in(record: bytes) -> tuple[Position, float]:
    """The click that a record of scores is of, and its score as the model gives it."""
    score = _decode_score(record)
    return (score.source_partition, score.source_offset), float(np.float32(score.score))


def rejection_in(record: bytes) -> tuple[Position, str]:
    """The click that a dead letter is of, and the reason."""
    letter = _decode_letter(record)
    return (letter.partition, letter.offset), letter.reason


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
                    is_score = partition.topic == self._scores
                    answer = score_in(record.value) if is_score else rejection_in(record.value)
                    (self.scores if is_score else self.dead_letters).append(answer)
                    position = answer[0]
                    self.newest[position[0]] = max(self.newest.get(position[0], -1), position[1])

    def stop(self) -> None:
        self._enough.set()
        self.join()
        self._consumer.close()
