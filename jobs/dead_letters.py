"""Dead letters, as commands read them."""

from datetime import datetime

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from jobs.topics import TopicError

#: Where a rejected record is: topic, partition, offset.
Position = tuple[str, int, int]


class DeadLetter(msgspec.Struct, frozen=True):
    """A record of the dead-letter topic (docs/topics.md)."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    reason: str
    message: str
    original: bytes | None

    @property
    def position(self) -> Position:
        return self.topic, self.partition, self.offset

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp of the rejected record, in milliseconds."""
        return round(self.timestamp.timestamp() * 1000)


_parse = msgspec.json.Decoder(DeadLetter).decode


def read_letter(record: ConsumerRecord) -> DeadLetter:
    """The dead letter that a record of the topic holds. Raises TopicError when it is none."""
    try:
        return _parse(record.value)
    except (msgspec.DecodeError, TypeError) as error:
        place = f"topic {record.topic}, partition {record.partition}, offset {record.offset}"
        raise TopicError(f"{place}: not a dead letter: {error}") from None
