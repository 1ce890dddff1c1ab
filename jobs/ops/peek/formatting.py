"""Formatting of records: columns for people, JSON for programs."""

import binascii
import json
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

from udfs.contracts.outputs import iso_time

#: Topics whose records belong to a user, in the order of processing.
USER_ROLES = ("profiles", "clicks", "scores", "shadow_scores", "dead_letters", "outcomes", "sessions")

#: The fields shown of a record, with their widths; "..." stands for all other fields as name=value.
COLUMNS = {
    "clicks": (("user_id", 20), ("event_name", 18), ("...", 0)),
    "profiles": (("user_id", 20), ("...", 0)),
    "scores": (
        *(("user_id", 20), ("event_name", 18), ("score", 7), ("decision", 5), ("arm", 12), ("model_version", 0)),
    ),
    "outcomes": (
        *(("user_id", 20), ("event_name", 18), ("score", 7), ("label", 5), ("arm", 12), ("model_version", 0)),
    ),
    "sessions": (("user_id", 20), ("arm", 12), ("is_bot", 6), ("...", 0)),
    "dead_letters": (("reason", 16), ("place", 20), ("message", 60), ("decoded_original", 0)),
}
REST = (("...", 0),)


@dataclass(frozen=True)
class TopicRecord:
    """A record of a topic: `value` is its decoded JSON, its text if it is not JSON, or None if it has no bytes."""

    role: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: Any

    @property
    def order(self) -> tuple:
        """The sort key: the time, and for equal times the order of processing."""
        place = USER_ROLES.index(self.role) if self.role in USER_ROLES else len(USER_ROLES)
        return self.timestamp_ms, place, self.partition, self.offset

    @property
    def original(self) -> Any:
        """The rejected record of a dead letter, decoded like a value; None for other records."""
        encoded = self.value.get("original") if self.role == "dead_letters" and isinstance(self.value, dict) else None
        try:
            return _decoded(b64decode(encoded)) if isinstance(encoded, str) else None
        except binascii.Error:  # another program wrote it
            return encoded

    @property
    def user_id(self) -> str | None:
        """The user of the record; for a dead letter that of the rejected record, if it names one."""
        holder = self.original if self.role == "dead_letters" else self.value
        named = holder.get("user_id") if isinstance(holder, dict) else None
        return named if isinstance(named, str) else self.key


def read_record(role: str, record: ConsumerRecord) -> TopicRecord:
    key = None if record.key is None else record.key.decode(errors="backslashreplace")
    place = (record.topic, record.partition, record.offset, record.timestamp)
    return TopicRecord(role, *place, key, None if record.value is None else _decoded(record.value))


def as_json(record: TopicRecord) -> str:
    """The record as one line of JSON in ASCII, so that its content can't control a terminal."""
    fields = {name: getattr(record, name) for name in ("topic", "partition", "offset", "key", "value")}
    fields["timestamp"] = iso_time(record.timestamp_ms)
    if record.role == "dead_letters":
        fields["decoded_original"] = record.original
    return json.dumps(fields)


def as_line(record: TopicRecord) -> str:
    """The record as one line of time, topic and columns, with terminal control characters escaped."""
    fields = dict(record.value) if isinstance(record.value, dict) else {"value": record.value}
    if record.role == "dead_letters":
        fields["place"] = f"{fields.get('topic')}/{fields.get('partition')}/{fields.get('offset')}"
        fields["decoded_original"] = record.original
    if record.value is None and record.role in USER_ROLES:  # a deletion
        fields["user_id"] = record.key
    columns = COLUMNS.get(record.role, REST)
    others = {name: value for name, value in fields.items() if name not in dict(columns) and value is not None}
    cells = [
        _named(others.items()) if name == "..." else visible(_text(fields.get(name))).ljust(width)
        for name, width in columns
    ]
    return "  ".join([iso_time(record.timestamp_ms), record.role.ljust(13), *cells]).rstrip()


def visible(text: str) -> str:
    """Escape every character that is not printable: control, format, surrogate.

    >>> visible("a" + chr(27) + "[2J")
    'a\\\\x1b[2J'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _named(fields: Iterable[tuple[str, Any]]) -> str:
    return " ".join(f"{visible(name)}={visible(_text(value))}" for name, value in fields)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _decoded(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # shown as it is
        return payload.decode(errors="backslashreplace")
