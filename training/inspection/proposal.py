"""A mapping proposed for foreign rows, from the names and values of their columns."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.data.event_names import probable_kind, words_of
from training.inspection.field_candidates import (
    MANY_ROWS,
    NO_NAME,
    ORDER,
    SURE,
    Candidate,
    candidates_of,
    chosen_columns,
    first_values,
    item_columns,
    item_numbers,
    time_of_day_column,
)
from training.inspection.field_names import CODES, meaning_of, name_score
from training.inspection.value_formats import (
    ENOUGH,
    Column,
    columns_of,
    has_offset,
    has_other_offset,
    is_day,
    number_doubt,
    number_format_of,
    number_formats_of,
    plain,
    reader_of,
    shown,
)
from udfs.contracts.identifiers import identifies
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.mapping.adapter import AMOUNTS
from udfs.mapping.definition import CLICK_FIELDS, ITEMS, REQUIRED_FIELDS, FileLayout, NumberFormat
from udfs.mapping.values import EPOCH_UNITS, currency_and_number

_NEAREST = 3
_MAX_PREFIX = 100
_SNOWPLOW_COLUMNS = 131
_USUAL_LAYOUT, _USUAL_NUMBERS = FileLayout(), NumberFormat()


@dataclass
class Proposal:
    """A mapping for foreign rows, and what a person has to look at."""

    mapping: dict[str, Any]  # as in a mapping file, in the order of conf/mappings/example.yaml
    unused: dict[str, Any] = field(default_factory=dict)  # a value by column
    other_events: dict[str, int] = field(default_factory=dict)  # rows by event name that GA4 doesn't know
    not_found: dict[str, str] = field(default_factory=dict)  # required fields, and what may help
    doubts: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all required fields were found, so that the mapping can be used."""
        return not self.not_found


def propose(rows: Sequence[Mapping[str, Any]], stem: str, layout: FileLayout = _USUAL_LAYOUT) -> Proposal:
    """The mapping of rows of a file with that name, without its ending, and that layout."""
    columns = columns_of(rows)
    candidates = candidates_of(columns)
    return _Writer(columns, chosen_columns(candidates), candidates, stem, layout).proposal()


class _Writer:
    """Writes the mapping of chosen columns, with the doubts about it."""

    def __init__(
        self,
        columns: Sequence[Column],
        chosen: Mapping[str, Sequence[Candidate]],
        candidates: Sequence[Candidate],
        stem: str,
        layout: FileLayout,
    ):
        self._columns, self._chosen, self._candidates = columns, chosen, candidates
        self._stem, self._layout = stem, layout
        self._doubts: list[str] = []
        self._other_events: dict[str, int] = {}
        self._times, self._time_of_day = self._find_times()

    def proposal(self) -> Proposal:
        """The proposal; doubts come in the order of the mapping."""
        mapping = {
            "file": self._file(),
            "columns": self._fields(),
            "items": self._items(),
            "values": self._values(),
            "multiply": self._multiply(),
            "missing": self._missing(),
            "ignored_users": self._ignored_users(),
            "numbers": self._numbers(),
            "time_format": self._time_format(),
            "time_of_day": self._time_of_day and self._time_of_day.name,
            "event_id_prefix": None if "event_id" in self._chosen else _prefix(self._stem),
        }
        self._doubts += self._rejected()
        return Proposal(
            {key: value for key, value in mapping.items() if value or key == "columns"},
            self._unused(),
            self._other_events,
            {name: self._advice(name) for name in REQUIRED_FIELDS if name not in self._chosen},
            self._doubts,
        )

    def _find_times(self) -> tuple[Column | None, Column | None]:
        """The times of the events, and the column that has their times of day where another one has the dates."""
        dates = next(iter(self._mapped("event_time")), None)
        if dates is None or not all(map(is_day, dates.samples)):
            return dates, None
        used = self._used()
        time_of_day = time_of_day_column(dates, [column for column in self._columns if column not in used])
        if time_of_day is None:
            return dates, None
        pairs = zip(dates.values, time_of_day.values)
        times = Column(dates.name, [None if None in pair else "{} {}".format(*pair) for pair in pairs])
        if times.time_format is None or times.time_format.share < ENOUGH:
            return dates, None
        return times, time_of_day

    def _used(self) -> list[Column]:
        return [column for name in self._chosen for column in self._mapped(name)]

    def _file(self) -> dict[str, Any]:
        layout = self._layout
        if layout.encoding in ("latin-1", "cp1252"):
            self._doubts.append(f"file.encoding: the file is not UTF-8; {layout.encoding} is a guess")
        if layout.header:
            self._doubts.append("file.header: the first line has no names of columns; write what each column is")
            if len(layout.header) == _SNOWPLOW_COLUMNS:
                self._doubts.append("the file has as many columns as Snowplow's: try conf/mappings/snowplow.yaml")
        given = {name: getattr(layout, name) for name in ("format", "delimiter", "header", "encoding", "explode")}
        return {
            name: list(value) if name == "header" else value
            for name, value in given.items()
            if value != getattr(_USUAL_LAYOUT, name)
        }

    def _fields(self) -> dict[str, str | list[str]]:
        fields = {}
        for name in [name for name in ORDER if name in self._chosen]:
            found = self._chosen[name]
            names = [one.column.name for one in found]
            fields[name] = names[0] if len(names) == 1 else names
            self._doubts += self._doubts_about(name, found)
        return fields

    def _doubts_about(self, name: str, found: Sequence[Candidate]) -> Iterator[str]:
        first = found[0]
        place = f"columns.{name}: {plain(first.column.name)}"
        if not first.column.given:
            yield f"{place}: it is empty in these rows; remove it if it always is"
        if not first.name_score:
            yield f"{place}: only its values look like it, not its name"
        sessions = [plain(one.column.name) for one in found if "session" in words_of(one.column.name)]
        if name == "user_id" and sessions:
            yield f"columns.{name}: {sessions[0]}: a session stands for a user, so the history of a user ends with it"
        if name == "user_id" and len(first.column.texts) == 1 and len(first.column.given) >= MANY_ROWS:
            yield f"{place}: all rows have the value {shown(first.column.given[0])}"
        if name in AMOUNTS:
            texts = (value.strip() for value in first.column.samples if isinstance(value, str))
            currencies = list(dict.fromkeys(filter(None, (currency_and_number(text)[0] for text in texts))))
            if len(currencies) > 1:
                yield (
                    f"{place}: its amounts are in several currencies ({', '.join(currencies)}), and only their numbers "
                    "are read; map the column of the currency, and set currencies"
                )
        if first.column.given and first.share < ENOUGH:
            yield f"{place}: only {first.share:.0%} of its values can be read; the other rows do not fit"

    def _items(self) -> dict[str, str]:
        if ITEMS not in self._chosen:
            return {}
        names = item_columns(self._chosen[ITEMS][0].column)
        return {} if all(name == column for name, column in names.items()) else names

    def _values(self) -> dict[str, dict[str, str]]:
        values = {"event_name": self._event_names()}
        for name, codes in CODES.items():
            meanings = {text: meaning_of(text, name) for text in self._texts(name)}
            values[name] = {text: code for text, code in meanings.items() if code and text.lower() != code}
            unknown = [text for text, meaning in meanings.items() if meaning is None]
            if unknown:
                self._doubts.append(
                    f"values.{name}: {_listed(unknown)} {'counts' if len(unknown) == 1 else 'count'} as unknown; "
                    f"expected one of {', '.join(codes[1:])}"
                )
        return {name: meanings for name, meanings in values.items() if meanings}

    def _event_names(self) -> dict[str, str]:
        """The meaning of the names that are not GA4's."""
        names = self._texts("event_name")
        kinds = {name: probable_kind(name) for name in names}
        self._other_events = {name: count for name, count in names.items() if kinds[name] in (None, EVENT_KINDS[0])}
        if names and "purchase" not in kinds.values():
            self._doubts.append("values.event_name: no event in these rows is a purchase")
        return {name: kind for name, kind in kinds.items() if kind and name not in EVENT_KINDS}

    def _texts(self, name: str) -> Counter[str]:
        """The values of a field as texts, the most frequent first."""
        if name not in self._chosen:
            return Counter()
        texts = Counter(str(value) for value in first_values(self._mapped(name)) if value is not None)
        return Counter(dict(texts.most_common()))

    def _mapped(self, name: str) -> list[Column]:
        return [one.column for one in self._chosen.get(name, ())]

    def _multiply(self) -> dict[str, str | int]:
        factors: dict[str, str | int] = {}
        for name in ("percent_scrolled", "engagement_time_msec", "utc_offset_minutes"):
            for column in self._mapped(name)[:1]:
                factor = self._factor(name, column)
                if factor is not None:
                    factors[name] = factor
        return factors

    def _factor(self, name: str, column: Column) -> str | int | None:
        words = words_of(column.name).split()
        read = reader_of(number_format_of(column.samples)[0])
        largest = max((abs(read(value)) for value in column.samples if _can(read, value)), default=0)
        if name == "percent_scrolled":
            return 100 if 0 < largest <= 1 and column.share(read.whole) < 1 else None
        if name == "engagement_time_msec":
            return 1_000 if {"seconds", "sec", "secs", "s"} & set(words) else None
        if "seconds" in words:
            return "1/60"
        self._doubts.append(
            f"columns.{name}: {plain(column.name)}: expected the user's local time minus UTC; JavaScript's "
            f"getTimezoneOffset has the other sign, which multiply.{name}: -1 turns"
        )
        if largest > 840:
            return "1/60"
        return 60 if "hours" in words or 0 < largest <= 14 else None

    def _missing(self) -> list[str]:
        """The texts without a value in mapped columns; those of user ids only if another column can follow."""
        texts: dict[str, None] = {}
        for name in self._chosen:
            columns = self._mapped(name)
            if name != "user_id" or len(columns) > 1:
                texts.update(dict.fromkeys(text for column in columns for text in column.missing))
        return list(texts)

    def _ignored_users(self) -> list[str]:
        columns = self._mapped("user_id")
        texts: dict[str, None] = {}
        if len(columns) == 1:
            texts.update(dict.fromkeys(columns[0].missing))
        for column in columns:
            texts.update((text.strip(), None) for text in column.texts)
        ignored = [text for text in texts if not identifies(text)]
        if ignored:
            self._doubts.append(f"ignored_users: rows of {_listed(ignored)} are left out, because these are not users")
        return ignored

    def _numbers(self) -> dict[str, Any]:
        texts = self._texts_of_numbers()
        common, others = number_formats_of(texts)
        for name, values in texts.items():
            chosen = others.get(name, common)
            doubt = number_doubt(values, chosen)
            if doubt is not None:
                read = reader_of(chosen, name)(doubt)
                self._doubts.append(f"numbers: {name}: {shown(doubt)} is read as {read:g}; check the marks")
        fields = {name: {"decimal": other.decimal} | _marks_of(other) for name, other in others.items()}
        return _marks_of(common) | ({"fields": fields} if fields else {})

    def _texts_of_numbers(self) -> dict[str, list[str]]:
        """The numbers that are texts, of each field that has any; items stands for the numbers of all entries."""
        values = {
            name: [value for column in self._mapped(name) for value in column.samples]
            for name in self._chosen
            if name != ITEMS and CLICK_FIELDS[name] is not str and name != "event_time"
        }
        if ITEMS in self._chosen:
            values[ITEMS] = item_numbers(self._chosen[ITEMS][0].column)
        texts = {name: [value for value in found if isinstance(value, str)] for name, found in values.items()}
        return {name: found for name, found in texts.items() if found}

    def _time_format(self) -> str | None:
        if self._times is None or self._times.time_format is None:
            return None
        name, _, swapped = self._times.time_format
        samples = self._times.samples
        if swapped is not None:
            self._doubts.append(
                f"time_format: {shown(samples[0])} is read as {name!r}; if day and month are the other way round, "
                f"write {swapped!r}"
            )
        if name not in EPOCH_UNITS:
            self._doubts += _doubts_about_times(samples)
        return None if name == "iso8601" else name

    def _rejected(self) -> list[str]:
        """Columns that are called like a field that has none, and why they don't fill it."""
        used = self._used()
        return [
            f"columns.{one.field}: {plain(one.column.name)} is named like this field, but {one.problem}"
            for one in self._candidates
            if one.field not in self._chosen and one.column not in used
            if one.problem not in (None, NO_NAME) and name_score(one.column.name, one.field) >= SURE
        ]

    def _unused(self) -> dict[str, Any]:
        used = [*self._used(), self._time_of_day]
        return {
            column.name: column.given[0] if column.given else None for column in self._columns if column not in used
        }

    def _advice(self, name: str) -> str:
        """What may help to find the column of a required field: the nearest ones, with a value."""
        nearest = self._nearest(name)
        advice = [f"nearest: {', '.join(nearest)}"] if nearest else []
        if name == "event_name":
            kind = next(filter(None, map(probable_kind, words_of(self._stem).split())), None)
            such = f", such as {kind}" if kind and kind != EVENT_KINDS[0] else ""
            advice.append(f"if all rows are the same event, set constants.event_name{such}")
        return "; ".join(advice) or "no column is like it"

    def _nearest(self, name: str) -> list[str]:
        """Columns that may fill a required field, with a value, best first."""
        used = self._used()
        ranked = [
            (_nearness(name, one), one.column)
            for one in self._candidates
            if one.field == name and one.column.given and one.column not in used
        ]
        best = sorted((pair for pair in ranked if pair[0] > 0), key=lambda pair: -pair[0])
        return [f"{plain(column.name)} ({shown(column.given[0])})" for _, column in best[:_NEAREST]]


def _marks_of(numbers: NumberFormat) -> dict[str, str]:
    """The marks of numbers that a mapping has to name."""
    marks = {"decimal": numbers.decimal, "thousands": numbers.thousands}
    return {name: mark for name, mark in marks.items() if mark != getattr(_USUAL_NUMBERS, name)}


def _nearness(name: str, candidate: Candidate) -> float:
    """How near a column is to a field that no column fills."""
    column = candidate.column
    if candidate.name_score:
        return 1 + candidate.name_score
    if name == "event_time":
        return column.time_format.share if column.time_format else 0.0
    if column.entries or (column.time_format and column.time_format.share >= ENOUGH):
        return 0.0
    distinct = len(column.texts) / len(column.given)
    if name == "event_name":
        return 1 - distinct if number_format_of(column.samples)[1] < ENOUGH else 0.0
    return distinct if distinct < 1 else 0.01  # a user has more than one row


def _doubts_about_times(samples: Sequence[Any]) -> Iterator[str]:
    if all(map(is_day, samples)):
        yield (
            f"time_format: {shown(samples[0])} is a day without a time of day; if another column has it, in "
            "milliseconds, name it in add_ms"
        )
    elif not all(map(has_offset, samples)):
        naive = next(value for value in samples if not has_offset(value))
        yield f"time_zone: {shown(naive)} has no offset and is read as UTC; if it is local, set time_zone"
    elif any(map(has_other_offset, samples)):
        yield "local_time: times have an offset; set local_time: true if it is that of the user's clock"


def _can(read: Callable[[Any], Any], value: Any) -> bool:
    try:
        read(value)
    except (ValueError, OverflowError):
        return False
    return True


def _prefix(stem: str) -> str:
    """The prefix of event ids: lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:_MAX_PREFIX].rstrip("-") or "row"


def _listed(texts: Sequence[str]) -> str:
    names = ", ".join(map(shown, texts[:5]))
    return names if len(texts) <= 5 else f"{names} and {len(texts) - 5:,} more"
