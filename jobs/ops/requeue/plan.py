"""The plan of a requeue: which dead letters go back, and the notes that keep one from being sent twice."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from jobs.common.settings import Settings, click_topic
from udfs.contracts.outputs import DeadLetter, Position, RequeuedLetter, to_json
from udfs.contracts.profiles import ProfileDecoder
from udfs.kafka.errors import KafkaClientError

_decode = msgspec.json.Decoder(DeadLetter).decode


def read_letter(record: ConsumerRecord) -> DeadLetter:
    """Decode a dead letter. Raises KafkaClientError, naming the record, if it is none."""
    try:
        letter = _decode(record.value)
        datetime.fromisoformat(letter.timestamp)  # the contract's pattern also allows a 30th of February
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        place = f"topic {record.topic}, partition {record.partition}, offset {record.offset}"
        raise KafkaClientError(f"{place}: not a dead letter: {error}") from None
    return letter


class Fate(StrEnum):
    """The outcome for a letter in a requeue."""

    SENT = "sent"
    SENT_BEFORE = "sent before"
    REJECTED_AGAIN = "rejected again"  # would be, so it stays
    ANOTHER_TOPIC = "of another topic"
    OVER_LIMIT = "over the limit"


@dataclass
class Plan:
    """The letters to send, each with its user's id, and the numbers of letters by reason and fate."""

    letters: list[tuple[DeadLetter, str]] = field(default_factory=list)
    counts: Counter[tuple[str, Fate]] = field(default_factory=Counter)


class Judge:
    """Decides the fate of letters, given the positions of those that have been sent before."""

    def __init__(self, settings: Settings, sent: Iterable[Position]):
        clicks, profiles = click_topic(settings).decoder(), ProfileDecoder(settings.decode.max_record_bytes)
        self._decoders = {
            settings.topics.clicks: lambda letter: clicks.decode([letter.original], [letter.timestamp_ms]),
            settings.topics.profiles: lambda letter: profiles.decode([None], [letter.original]),
        }
        self._sent = set(sent)

    def plan(self, letters: Iterable[DeadLetter], limit: int) -> Plan:
        """Plan at most `limit` letters, in the order of their records. A letter that occurs twice is sent once."""
        plan = Plan()
        for letter in letters:
            fate, user_id = self._judge(letter)
            if fate is Fate.SENT and len(plan.letters) == limit:
                fate = Fate.OVER_LIMIT
            if fate is Fate.SENT:
                self._sent.add(letter.position)
                plan.letters.append((letter, user_id))
            plan.counts[letter.reason, fate] += 1
        plan.letters.sort(key=lambda entry: entry[0].position)
        return plan

    def _judge(self, letter: DeadLetter) -> tuple[Fate, str | None]:
        if letter.topic not in self._decoders:
            return Fate.ANOTHER_TOPIC, None
        if letter.position in self._sent:
            return Fate.SENT_BEFORE, None
        (user_id,) = self._decoders[letter.topic](letter).user_ids
        return (Fate.REJECTED_AGAIN if user_id is None else Fate.SENT), user_id


def note_key(position: Position) -> bytes:
    """The key of a note in the topic `requeued`.

    >>> note_key(("clicks", 3, 17))
    b'clicks/3/17'
    """
    return "/".join(map(str, position)).encode()


def noted_position(key: bytes) -> Position:
    """Parse the position from a key of `note_key`."""
    topic, partition, offset = key.decode().split("/")
    return topic, int(partition), int(offset)


def note(letter: DeadLetter, now_ms: int) -> bytes:
    """The value of a note in the topic `requeued`."""
    return to_json(RequeuedLetter(*letter.position, letter.reason, now_ms))
