"""Formatting of records: columns for people, JSON for programs."""

import binascii
import json
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from kafka.consumer.fetcher import ConsumerRecord

#: Topics whose records are a user's, in the order in which they come about.
USER_ROLES = ("profiles", "clicks", "scores", "shadow_scores", "dead_letters", "outcomes", "sessions")

#: The fields that are shown of a record, and how wide; others follow as name=value where the last one is "...".
COLUMNS = {
    "clicks": (("user_id", 20), ("event_name", 18), ("...", 0)),
    "profiles": (("user_id", 20), ("...", 0)),
    "scores": (
        *(("user_id", 20), ("event_name", 18), ("score", 7), ("decision", 5), ("arm", 12), ("model_version", 0)),
    ),
    "outcomes": (
        *(("user_id", 20), ("event_name", 18), ("score", 7), ("label", 5), ("arm", 12), ("model_version", 0)),
    ),
    "dead_letters": (("reason", 16), ("place", 20), ("message", 60), ("decoded_original", 0)),
}
REST = (("...", 0),)


@dataclass(frozen=True)
class Seen:
    """A record: `value` is what its JSON holds, or its text where it is none, or None where it has no bytes."""

    role: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: str | None
    value: Any

    @property
    def order(self) -> tuple:
        """Sorts by time, and at the same time by what comes of what."""
        place = USER_ROLES.index(self.role) if self.role in USER_ROLES else len(USER_ROLES)
        return self.timestamp_ms, place, self.partition, self.offset

    @property
    def original(self) -> Any:
        """Of a dead letter what was rejected, decoded like a value; else None."""
        encoded = self.value.get("original") if self.role == "dead_letters" and isinstance(self.value, dict) else None
        try:
            return _decoded(b64decode(encoded)) if isinstance(encoded, str) else None
        except binascii.Error:  # another program wrote it
            return encoded

    @property
    def user_id(self) -> str | None:
        """Whose record it is: of a dead letter as far as what was rejected says so."""
        holder = self.original if self.role == "dead_letters" else self.value
        named = holder.get("user_id") if isinstance(holder, dict) else None
        return named if isinstance(named, str) else self.key


def see(role: str, record: ConsumerRecord) -> Seen:
    key = None if record.key is None else record.key.decode(errors="backslashreplace")
    place = (record.topic, record.partition, record.offset, record.timestamp)
    return Seen(role, *place, key, None if record.value is None else _decoded(record.value))


def as_json(seen: Seen) -> str:
    """One line, in ASCII: whatever the record holds, the line is nothing but text."""
    fields = {name: getattr(seen, name) for name in ("topic", "partition", "offset", "key", "value")}
    fields["timestamp"] = _moment(seen.timestamp_ms)
    if seen.role == "dead_letters":
        fields["decoded_original"] = seen.original
    return json.dumps(fields)


def as_line(seen: Seen) -> str:
    """Time, topic and columns, with nothing in it that a terminal would take for a command."""
    fields = dict(seen.value) if isinstance(seen.value, dict) else {"value": seen.value}
    if seen.role == "dead_letters":
        fields["place"] = f"{fields.get('topic')}/{fields.get('partition')}/{fields.get('offset')}"
        fields["decoded_original"] = seen.original
    columns = COLUMNS.get(seen.role, REST)
    others = {name: value for name, value in fields.items() if name not in dict(columns) and value is not None}
    cells = [
        _named(others.items()) if name == "..." else visible(_text(fields.get(name))).ljust(width)
        for name, width in columns
    ]
    return "  ".join([_moment(seen.timestamp_ms), seen.role.ljust(13), *cells]).rstrip()


def visible(text: str) -> str:
    """The text with every character escaped that is not printed as itself: control, format, surrogate.

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


def _moment(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
