"""Read JSON records that a strict decoder refuses: those whose meaning is certain, and why the others are refused.

A struct declares its fields once, limits included, as msgspec types. What a field takes beyond its type is its Leeway.
Numbers may always be given as texts. The JSON Schema of a struct says the same.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from math import floor, inf, isfinite
from typing import Any

import msgspec
from msgspec import inspect

from udfs.contracts.rejects import Reason, Reject

EARLIEST_TIME_MS = 946_684_800_000  # 2000-01-01 UTC: an earlier time is in the wrong unit
LATEST_TIME_MS = 4_102_444_800_000  # 2100-01-01 UTC: a later time too

_DIGITS = "-?(0|[1-9][0-9]*)"
NUMBER = rf"{_DIGITS}(\.[0-9]+)?([eE][+-]?[0-9]+)?"
WHOLE_NUMBER = rf"{_DIGITS}(\.0+)?"
ISO_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?(Z|[+-][0-9]{2}:?[0-9]{2})"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_MS = 31_556_952_000
_UNITS = (("seconds", 1_000), ("microseconds", 1e-3), ("nanoseconds", 1e-6))  # and milliseconds in one of each
_FAR = 10**20  # from here on a time fits no unit
_LARGEST = sys.float_info.max
_MAX_DIGITS = 4_300  # of an integer that Python reads
_SHOWN = 60  # characters of a value in a message


class Leeway(StrEnum):
    """What a field takes beside the values of its type."""

    INTEGER = "integer"  # of a text: an integer, so 42 is "42"
    TIME = "time"  # of a time in ms
    WHOLE = "whole"  # of an integer: a fraction is refused, while others drop it
    ANYTHING = "anything"  # a value that can't be read counts as missing

    @property
    def meta(self) -> dict[str, "Leeway"]:
        """The `extra` of a field's Meta."""
        return {"leeway": self}


class Codes(dict[str | None, int]):
    """The code of each of some names, in any case; a name that is not listed has code 0, and so has None."""

    def __init__(self, names: Sequence[str]):
        super().__init__((name, code) for code, name in enumerate(names))
        self[None] = 0

    def __missing__(self, name: str) -> int:
        return self.get(name.lower(), 0)


@dataclass(frozen=True)
class Field:
    """A field of a struct: a text or a number."""

    name: str
    type: type  # str, int or float
    leeway: Leeway | None
    low: float = -inf
    high: float = inf  # of a text with leeway for anything: its length

    def read(self, value: Any, path: str = "$") -> str | float | None:
        """A value given for the field. Raises Reject, naming the value, unless its meaning is certain."""
        if self._is_exact(value):
            return floor(value) if self.type is int else value
        if value is None:
            return None
        place = f" - at `{path}.{self.name}`"
        read = self._text if self.type is str else self._number
        if self.leeway is not Leeway.ANYTHING:
            return read(value, place)
        try:
            return read(value, place)
        except Reject:
            return None

    def _is_exact(self, value: Any) -> bool:
        """Whether a value needs no more than its fraction dropped: a short cut for most of them."""
        kind = type(value)
        if self.type is str:
            return kind is str and value.isascii() and len(value) <= self.high
        most = inf if kind is self.type is int else _LARGEST
        is_number = (kind is int or kind is float) and self.low <= value <= self.high and abs(value) <= most
        return is_number and (self.leeway is not Leeway.WHOLE or not value % 1)

    def widen(self, schema: dict[str, Any]) -> None:
        """Extend a JSON Schema of the field's type by what else `read` takes."""
        if self.type is str:
            if self.leeway is Leeway.INTEGER:
                schema["type"] = ["string", "integer"]
        elif self.leeway is Leeway.TIME:
            schema |= {"type": ["number", "string"], "pattern": f"^{NUMBER}$"}
        elif self.leeway is Leeway.WHOLE:
            schema |= {"type": ["integer", "string"], "pattern": f"^{WHOLE_NUMBER}$"}
        else:
            schema |= {"type": ["number", "string"], "pattern": f"^{NUMBER}$"}

    def _text(self, value: Any, place: str) -> str:
        takes_integers = self.leeway in (Leeway.INTEGER, Leeway.ANYTHING)
        if takes_integers and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise Reject(Reason.WRONG_TYPE, f"expected a text, got {shown(value)}{place}")
        if len(value) > self.high:
            raise Reject(Reason.OUT_OF_RANGE, f"expected at most {self.high} characters, got {len(value)}{place}")
        if not value.isascii():
            _check_characters(value, place)
        return value

    def _number(self, value: Any, place: str) -> float:
        if self.leeway is Leeway.TIME:
            return read_time(self.name, value)
        whole = self.leeway is Leeway.WHOLE
        number = _plain_number(value, WHOLE_NUMBER if whole else NUMBER)
        if number is None:
            raise Reject(Reason.WRONG_TYPE, f"expected a number, got {shown(value)}{place}")
        if self.type is float and abs(number) > _LARGEST:  # an integer that no float holds
            number = inf
        _check_finite(number, value, place)
        if whole and number % 1:
            raise Reject(Reason.WRONG_TYPE, f"expected a whole number, got {shown(value)}{place}")
        if not self.low <= number <= self.high:
            bounds = f"at least {self.low:,.15g}" + ("" if self.high == inf else f" and at most {self.high:,.15g}")
            raise Reject(Reason.OUT_OF_RANGE, f"expected {bounds}, got {shown(value)}{place}")
        return floor(number) if self.type is int else number


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of a struct that are texts or numbers."""
    return tuple(_fields(struct))


def _fields(struct: type[msgspec.Struct]) -> Iterator[Field]:
    for field in inspect.type_info(struct).fields:
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        kind = next(kind for kind in kinds if not isinstance(kind, inspect.NoneType))
        extra = {}
        if isinstance(kind, inspect.Metadata):
            extra, kind = kind.extra or {}, kind.type
        leeway = extra.get("leeway")
        if isinstance(kind, inspect.StrType):
            longest = kind.max_length if leeway is Leeway.ANYTHING else None
            yield Field(field.encode_name, str, leeway, high=inf if longest is None else longest)
        elif isinstance(kind, inspect.IntType | inspect.FloatType):
            number = int if isinstance(kind, inspect.IntType) else float
            low, high = -inf if kind.ge is None else kind.ge, inf if kind.le is None else kind.le
            yield Field(field.encode_name, number, leeway, low, high)


def lenient_schema(*structs: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of the first struct, with the leeway of the fields of all structs; they are among its parts."""
    schema = msgspec.json.schema(structs[0])
    for struct in structs:
        properties = schema["$defs"][struct.__name__]["properties"]
        for field in fields_of(struct):
            published = properties[field.name]
            value = published["anyOf"][0] if "anyOf" in published else published
            if field.leeway is Leeway.ANYTHING:
                properties[field.name] = {"description": value["description"], "default": None}
            else:
                field.widen(value)
    return schema


def read_fields(record: dict[str, Any], fields: Sequence[Field]) -> dict[str, Any]:
    """The given fields of a record, as their struct takes them. Raises Reject."""
    return {field.name: field.read(record[field.name]) for field in fields if field.name in record}


def read_items(value: Any, fields: Sequence[Field]) -> list[dict[str, Any]]:
    """The entries of `items`, given as an array, as one entry, or as JSON of these in a text. Raises Reject.

    Of entries after the first only numbers are read. A quantity that can't be read takes the price with it: the amount
    is unknown.
    """
    entries = value
    if isinstance(value, str):
        try:
            entries = _parse(value)
        except ValueError:
            entries = None
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list):
        raise Reject(Reason.WRONG_TYPE, f"expected an array of objects, got {shown(value)} - at `$.items`")
    if entries and not isinstance(entries[0], dict | None):
        raise Reject(Reason.WRONG_TYPE, f"expected an object, got {shown(entries[0])} - at `$.items[0]`")
    return [_read_entry(entry, fields, number) for number, entry in enumerate(entries)]


def _read_entry(entry: Any, fields: Sequence[Field], number: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        return {}
    read = {
        field.name: field.read(entry.get(field.name), f"$.items[{number}]")
        for field in fields
        if number == 0 or field.leeway is Leeway.ANYTHING
    }
    if read["quantity"] is None and entry.get("quantity") is not None:
        read["price"] = None
    return read


def read_time(name: str, value: Any, may_be_iso: bool = False) -> int:
    """A time in ms since 1970, given as a number or, where it may be, in ISO 8601; the fraction of a ms is dropped.

    Raises Reject, with the unit that fits, for a time that is not from 2000 to 2100.
    """
    number = _plain_number(value, NUMBER)
    if number is None and may_be_iso and isinstance(value, str) and re.fullmatch(ISO_TIME, value):
        try:
            number = (datetime.fromisoformat(value) - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):  # such as a 30th of February
            number = None
    if number is None:
        expected = "milliseconds since 1970"
        if may_be_iso:
            expected += " or ISO 8601 with an offset such as 2026-03-01T10:00:00Z"
        raise Reject(Reason.WRONG_TYPE, f"expected {expected}, got {shown(value)} - at `$.{name}`")
    _check_finite(number, value, f" - at `$.{name}`")
    if not EARLIEST_TIME_MS <= number <= LATEST_TIME_MS:
        raise Reject(Reason.OUT_OF_RANGE, _out_of_range(name, shown(value), number))
    return floor(number)


def _check_finite(number: float, value: Any, place: str) -> None:
    if isinstance(number, float) and not isfinite(number):
        raise Reject(Reason.NOT_FINITE, f"{shown(value)} is not a finite number{place}")


def _out_of_range(name: str, value: str, number: float) -> str:
    number = max(-_FAR, min(number, _FAR))
    for unit, milliseconds in _UNITS:
        if EARLIEST_TIME_MS <= number * milliseconds <= LATEST_TIME_MS:
            day = _day(number * milliseconds)
            return f"{name} {value} is {_moment(number)}; it looks like {unit} ({day}): send milliseconds"
    return f"{name} {value}: expected a time from {_day(EARLIEST_TIME_MS)} to {_day(LATEST_TIME_MS)}"


def _moment(time_ms: float) -> str:
    year = 1970 + int(time_ms / _YEAR_MS)
    return f"in the year {year}" if year > 9_000 else f"{_day(time_ms)} in ms"


def _day(time_ms: float) -> str:
    return (_EPOCH + timedelta(milliseconds=time_ms)).date().isoformat()


def _plain_number(value: Any, pattern: str) -> float | None:
    """A number, or the one that a text holds; None for anything else."""
    if isinstance(value, str) and re.fullmatch(pattern, value):
        return _read_integer(value) if re.fullmatch(_DIGITS, value) else float(value)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def shown(value: Any) -> str:
    """A value as JSON writes it, shortened for a message."""
    text = json.dumps(value, ensure_ascii=False, default=str).encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def read_object(payload: bytes) -> dict[str, Any]:
    """The object that a record holds.

    Raises Reject, with what the record is instead and the remedy, or an error that `explain` explains.
    Lone surrogates, bytes that are not UTF-8 and NaN stay in its values: only those that are read have to be right.
    """
    if not payload:
        raise Reject(Reason.EMPTY_RECORD, "the record has no bytes")
    if payload[:2] in (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{"):
        raise Reject(Reason.INVALID_UTF8, "not UTF-8 but UTF-16: set the producer's encoding to UTF-8")
    if payload[0] == 0 and len(payload) >= 5:
        schema_id = int.from_bytes(payload[1:5], "big")
        framing = f"Confluent framing (magic byte 0, schema id {schema_id}): set decode.format"
        raise Reject(Reason.INVALID_JSON, framing)
    payload = payload.removeprefix(b"\xef\xbb\xbf")
    try:
        record = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        record = _parse_again(payload, error)
    if not isinstance(record, dict):
        raise Reject(Reason.NOT_AN_OBJECT, _not_an_object(record))
    if record.keys() == {"schema", "payload"}:
        envelope = "a Kafka Connect envelope (schema, payload): set value.converter.schemas.enable=false"
        raise Reject(Reason.MISSING_FIELD, envelope)
    return record


def _parse_again(payload: bytes, error: Exception) -> Any:
    """Parse what msgspec refuses although other JSON parsers don't. Raises `error` for what they refuse too."""
    try:
        return _parse(payload.decode(errors="surrogateescape"))
    except ValueError:
        raise error from None


def _parse(text: str) -> Any:
    return json.loads(text, parse_int=_read_integer)


def _read_integer(digits: str) -> float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _not_an_object(record: Any) -> str:
    if isinstance(record, list):
        return f"expected one object per record, got an array of {len(record)}: send each as a record of its own"
    if isinstance(record, str) and record.lstrip().startswith("{"):
        return "expected an object, got JSON in a JSON text, encoded twice: send the object itself"
    return f"expected an object, got {shown(record)}"


def _check_characters(text: str, place: str) -> None:
    """Raises Reject for halves of surrogate pairs, among them those that stand for bytes that are not UTF-8."""
    for character in text:
        if "\ud800" <= character <= "\udfff":
            half = f"\\u{ord(character):04x} is half of a surrogate pair"
            if "\udc80" <= character <= "\udcff":  # what Python decodes such a byte to
                half = f"not UTF-8: byte 0x{ord(character) & 0xFF:02x}, or {half}"
            raise Reject(Reason.INVALID_UTF8, half + place)
