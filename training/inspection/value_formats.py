"""Columns of sampled rows, and the formats of times and numbers that their values have."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, NamedTuple

from udfs.contracts.clicks import LATEST_TIME_MS
from udfs.mapping.adapter import AMOUNTS
from udfs.mapping.columns import ABSENT, column_reader, column_steps, structured
from udfs.mapping.definition import ITEMS, NumberFormat
from udfs.mapping.values import EPOCH_UNITS, AmountReader, NumberReader, TimeReader, currency_and_number, is_missing
from udfs.mapping.values import shown as shortened

#: Texts that mean that there is no value.
MISSING_TEXTS = frozenset(("NULL", "null", "\\N", "NaN", "nan", "None", "(not set)", "N/A", "NA"))
#: Share of the values that a format has to read.
ENOUGH = 0.95
SAMPLES = 1_000  # values of a column that are tried
_FIRST_SAMPLES = 10  # a format that reads none of these is not tried further
_MAX_COLUMNS = 1_000  # of objects whose keys are data there is no end
_MAX_DEPTH = 6

_ISO_DATE = "%Y-%m-%d"
_DATES = (  # where both read all values, the day comes first
    _ISO_DATE, "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%y",
    "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y", "%a, %d %b %Y",
)  # fmt: skip
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M:%S", "T%H:%M:%S")
_ZONES = ("", " %z", " %Z")
_PACKED = "%Y%m%d%H%M%S"
_LONGEST_TIME = 40
_PATTERNS = (
    *(f"{day}{clock}{zone}" for day in _DATES for clock in _CLOCKS for zone in (_ZONES if clock else ("",))),
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %Z %Y",
    "%a %b %d %H:%M:%S %z %Y",
    "%d/%b/%Y:%H:%M:%S %z",
)
#: Only what reads more values than those before it is taken.
_NUMBER_FORMATS = (
    NumberFormat(),
    NumberFormat(thousands=","),
    NumberFormat(decimal=","),
    NumberFormat(decimal=",", thousands="."),
    NumberFormat(decimal=",", thousands=" "),
    NumberFormat(decimal=",", thousands="\u00a0"),
    NumberFormat(decimal=",", thousands="\u202f"),
    NumberFormat(thousands=" "),
    NumberFormat(thousands="'"),
)


@dataclass(frozen=True, eq=False)
class Column:
    """A column of sampled rows, or a path into nested columns."""

    name: str
    values: list[Any]  # of each row; None where it has none
    missing: list[str] = field(default_factory=list)  # MISSING_TEXTS that occur

    @cached_property
    def given(self) -> list[Any]:
        """The values of the rows that have one."""
        return [value for value in self.values if value is not None]

    @cached_property
    def samples(self) -> list[Any]:
        """At most SAMPLES of the values, from all over the rows."""
        return self.given[:: -(-len(self.given) // SAMPLES) or 1]

    @cached_property
    def texts(self) -> Counter[str]:
        """The distinct values as texts, and how often they occur."""
        return Counter(map(str, self.given))

    @cached_property
    def time_format(self) -> "TimeFormat | None":
        """The format of its times."""
        return time_format_of(self.samples)

    @cached_property
    def entries(self) -> list[Mapping[str, Any]] | None:
        """The objects of all its lists; None unless it has lists of objects."""
        lists = [structured(value) for value in self.given]
        if not all(isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value) for value in lists):
            return None
        return [entry for value in lists for entry in value] or None

    def share(self, reads: Callable[[Any], Any]) -> float:
        """The share of the samples that a function reads; those that it can't raise ValueError."""
        return _reads(self.samples, reads) / len(self.samples) if self.samples else 0.0


class TimeFormat(NamedTuple):
    """How times are written, as in a mapping's time_format, and the share of values that it reads."""

    name: str
    share: float
    swapped: str | None = None  # the pattern with day and month exchanged, which reads as many


def columns_of(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The columns of rows, in the order of their first occurrence, with paths into objects and lists of keys."""
    names: dict[str, None] = {}
    for row in rows:
        for key, value in row.items():
            if len(names) < _MAX_COLUMNS:
                names.update(dict.fromkeys(_paths(value, key, [key], _MAX_DEPTH)))
    return [_column(name, rows) for name in names if name]


def time_format_of(values: Sequence[Any]) -> TimeFormat | None:
    """The first of the formats that read most of the values; None if none reads any."""
    first = values[:: -(-len(values) // _FIRST_SAMPLES) or 1]
    formats = [name for name in _time_formats(first) if _reads(first, _time_reader(name))]
    if not formats:
        return None
    counts = {name: _reads(values, _time_reader(name)) for name in formats}
    best = max(counts, key=counts.__getitem__)
    swapped = _with_month_first(best)
    if swapped is None or counts.get(swapped) != counts[best]:
        return TimeFormat(best, counts[best] / len(values))
    # Days of one month that are read as months spread over a year.
    if _span_ms(values, swapped) < _span_ms(values, best):
        best, swapped = swapped, best
    return TimeFormat(best, counts[best] / len(values), swapped)


def _span_ms(values: Sequence[Any], time_format: str) -> int:
    """From the first to the last of the times that a format reads."""
    read, times = _time_reader(time_format), []
    for value in values:
        with suppress(ValueError):
            times.append(read(value)[0])
    return max(times) - min(times)


def number_format_of(values: Sequence[Any], field: str | None = None) -> tuple[NumberFormat, float]:
    """The format of numbers that reads most of the values of a field, and their share."""
    counts = _counts(values, field)
    most = max(counts)
    return _NUMBER_FORMATS[counts.index(most)], most / len(values) if values else 0.0


def number_formats_of(columns: Mapping[str, Sequence[Any]]) -> tuple[NumberFormat, dict[str, NumberFormat]]:
    """The format that suits the values of most fields best, and those of the fields that another one suits better."""
    counts = {field: _counts(values, field) for field, values in columns.items()}
    suited = [sum(one[number] == max(one) for one in counts.values()) for number in range(len(_NUMBER_FORMATS))]
    common = suited.index(max(suited))
    others = {field: one.index(max(one)) for field, one in counts.items() if one[common] < max(one)}
    return _NUMBER_FORMATS[common], {field: _NUMBER_FORMATS[number] for field, number in others.items()}


def _counts(values: Sequence[Any], field: str | None) -> list[int]:
    """How many of the values each of the formats reads."""
    return [_reads(values, reader_of(number_format, field)) for number_format in _NUMBER_FORMATS]


def reader_of(number_format: NumberFormat, field: str | None = None) -> NumberReader:
    """The reader of a field's numbers in a format."""
    reader = AmountReader if field in (*AMOUNTS, ITEMS) else NumberReader
    return reader(number_format.decimal, number_format.thousands)


def number_doubt(values: Sequence[Any], number_format: NumberFormat) -> str | None:
    """A number whose only mark may be one of decimals or of thousands, if all numbers are like that."""
    marks = re.compile(r"[+-]?\d{1,3}([.,])\d{3}")
    texts = [currency_and_number(value.strip())[1] for value in values if isinstance(value, str)]
    marked = [text for text in texts if "," in text or "." in text]
    if not marked or not all(match and match[1] == marked[0][-4] for match in map(marks.fullmatch, marked)):
        return None
    return marked[0] if number_format.decimal == marked[0][-4] or number_format.thousands == marked[0][-4] else None


def has_offset(value: Any) -> bool:
    """Whether a time says its offset from UTC."""
    if isinstance(value, datetime):
        return value.tzinfo is not None
    return isinstance(value, str) and re.search(r"(Z|UTC|GMT|[+-]\d\d(:?\d\d)?)$", value.strip()[10:]) is not None


def has_other_offset(value: Any) -> bool:
    """Whether a time has an offset from UTC that is not 0."""
    if isinstance(value, datetime):
        return bool(value.utcoffset())
    offset = re.search(r"[+-](\d\d):?(\d\d)?$", value.strip()[10:]) if isinstance(value, str) else None
    return offset is not None and any(int(part) for part in offset.groups() if part)


def is_day(value: Any) -> bool:
    """Whether a time is a day without a time of day."""
    if isinstance(value, str):
        return ":" not in value and not re.search(r"\d{9}|\dT\d", value)
    return isinstance(value, date) and not isinstance(value, datetime)


def is_number_or_time(text: str) -> bool:
    """Whether a text is a number or a time, and hardly the name of a column."""
    return bool(text.strip()) and (number_format_of([text], AMOUNTS[0])[1] == 1 or time_format_of([text]) is not None)


def shown(value: Any) -> str:
    """A value in one short line, without what YAML has no place for in a comment."""
    return plain(shortened(value))


def plain(name: str) -> str:
    """The name of a column as it is, or escaped where it can't be printed."""
    return name if name.isprintable() else repr(name)


def _paths(value: Any, path: str, steps: list[str], depth: int) -> Iterator[str]:
    inner = structured(value) if isinstance(value, str) and value.lstrip()[:1] in ("{", "[") else value
    if isinstance(inner, Mapping | list) and not inner:
        return  # what it may hold shows elsewhere
    if isinstance(inner, Mapping) and depth:
        keys = {key: inner[key] for key in inner if isinstance(key, str)}
    elif isinstance(inner, list) and depth and all(map(_is_key_value, inner)):
        keys = {entry["key"]: None for entry in inner}
    else:
        yield path
        return
    for key, below in keys.items():
        name, way = f"{path}.{key}", [*steps, key]
        if column_steps(name) == way:  # otherwise no path leads there
            yield from _paths(below, name, way, depth - 1)


def _is_key_value(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("key"), str) and "value" in entry


def _column(name: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    read, values = column_reader(name), []
    missing: dict[str, None] = {}
    for row in rows:
        value = read(row)
        if isinstance(value, str) and value.strip() in MISSING_TEXTS:
            missing[value.strip()] = None
            value = None
        values.append(None if value is ABSENT or is_missing(value) else value)
    return Column(name, values, list(missing))


def _time_formats(values: Sequence[Any]) -> Iterator[str]:
    """The formats that may read one of the values."""
    yield from ("iso8601", *EPOCH_UNITS)
    texts = [value.strip() for value in values if isinstance(value, str)]
    marks = {_marks(text) for text in texts if len(text) <= _LONGEST_TIME and re.search(r"\d", text)} - {""}
    yield from (pattern for pattern in _PATTERNS if _MARKS[pattern] in marks)
    if any(len(text) == len("20260301100000") and text.isdigit() for text in texts):
        yield _PACKED


def _marks(text: str) -> str:
    """The blanks and punctuation between the digits and words of a time, without those of its offset."""
    return re.sub(r"\s+", " ", re.sub(r"[^\W_]+", "", re.sub(r"\s[+-]\d\d:?\d\d", " ", text)))


#: Trying a pattern takes a fraction of a millisecond, so only those with the marks of a value are tried.
_MARKS = {pattern: _marks(pattern.replace("%", "")) for pattern in _PATTERNS}


def _time_reader(name: str) -> TimeReader:
    return TimeReader(name, UTC, LATEST_TIME_MS)


def _reads(values: Sequence[Any], reads: Callable[[Any], Any]) -> int:
    """The number of the values that a function reads."""
    count = 0
    for value in values:
        try:
            reads(value)
        except (ValueError, OverflowError):
            continue
        count += 1
    return count


def _with_month_first(pattern: str) -> str | None:
    """The pattern with month and day exchanged, if the day comes first and the month is a number."""
    exchanged = re.sub(r"^%d([./-])%m", r"%m\1%d", pattern)
    return exchanged if exchanged != pattern and exchanged in _PATTERNS else None
