"""Application of a mapping: rows in, click records out."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from udfs.contracts.clicks import LATEST_TIME_MS
from udfs.contracts.currencies import Currencies
from udfs.mapping.columns import ABSENT, Row, column_reader, structured
from udfs.mapping.definition import (
    CLICK_FIELDS,
    ITEM_FIELDS,
    ITEMS,
    REQUIRED_FIELDS,
    ClickMapping,
    in_order,
)
from udfs.mapping.values import AmountReader, NumberReader, TimeReader, is_missing, multiplied, read_kept, read_text

#: Fields whose numbers may have the sign or code of a currency around them.
AMOUNTS = ("price", "value")
#: The range of the contract's utc_offset_minutes; some offsets of the past lie outside.
LEAST_OFFSET, LARGEST_OFFSET = -720, 840


class RowError(ValueError):
    """A row that a mapping can't adapt; the message names the field, the column and the value."""


class ClickAdapter:
    """Makes click records of rows, as a mapping declares it.

    Times after `latest_ms` are refused. The contract's limits, such as prices of at least 0, are not checked here: the
    decoder checks them, of these records as of any others.
    """

    def __init__(self, mapping: ClickMapping, latest_ms: int = LATEST_TIME_MS):
        self._mapping = mapping
        self._time = TimeReader(mapping.time_format, ZoneInfo(mapping.time_zone), latest_ms)
        self._zone = ZoneInfo(mapping.time_zone)
        self._whole = self._number("event_time").whole
        self._added_ms = mapping.add_ms and column_reader(mapping.add_ms)
        self._user_zone = [self._column(name) for name in in_order(mapping.user_time_zone or ())]
        self._missing = frozenset(mapping.missing)
        self._ignored = {
            "user_id": frozenset(mapping.ignored_users), "event_name": frozenset(mapping.ignored_events),
        }  # fmt: skip
        self._fields = [
            (field, self._columns_of(field), mapping.values.get(field), self._reader(field))
            for field in mapping.columns
            if field != ITEMS
        ]
        self._items = self._columns_of(ITEMS)
        self._item_fields = [
            (field, [self._column(name) for name in in_order(columns)], self._scalar(field, ITEMS))
            for field, columns in (mapping.items or {name: name for name in ITEM_FIELDS}).items()
        ]
        self._kept = [(name, [self._column(column)]) for name, column in mapping.keep.items()]
        self._unseen = {name for columns in mapping.columns.values() for name in in_order(columns)}
        self._unseen.update(mapping.keep.values())
        #: Rows left out, by column and value: those of users and events that the mapping ignores.
        self.ignored: Counter[tuple[str, str]] = Counter()

    @property
    def named(self) -> list[str]:
        """The columns that the mapping names, those of a field as one."""
        return [" or ".join(in_order(columns)) for columns in self._mapping.columns.values()]

    @property
    def absent(self) -> list[str]:
        """Those of them of which no row so far has had any."""
        fields = [
            *map(in_order, self._mapping.columns.values()),
            *((column,) for column in self._mapping.keep.values()),
        ]
        return [" or ".join(names) for names in fields if self._unseen.issuperset(names)]

    def adapt(self, row: Row, number: int = 1) -> dict[str, Any] | None:
        """The click record of the row with this number, from 1; None if the mapping ignores it. Raises RowError."""
        mapping = self._mapping
        click = dict(mapping.constants)
        if self._is_ignored(row):
            return None
        for field, columns, meanings, read in self._fields:
            column, value = self._first(row, columns)
            if value is None:
                if field in mapping.defaults:
                    click[field] = mapping.defaults[field]
                elif field in REQUIRED_FIELDS:
                    raise RowError(f"{field} ({_in_words(columns)}) is missing")
                continue
            if meanings is not None:
                value = meanings.get(_text(value), value)
            try:
                click[field] = read(value)
            except (ValueError, OverflowError) as error:
                raise RowError(f"{field} (column {column}): {error}") from None
        if click.get("anonymous_id") in self._ignored["user_id"]:
            del click["anonymous_id"]
        self._read_time(click, row)
        if self._items:
            self._read_items(click, row)
        if mapping.currencies is not None and "currency" in click:
            _convert_amounts(click, mapping.currencies)
        if mapping.event_id_prefix is not None:
            click["event_id"] = f"{mapping.event_id_prefix}-{number:06d}"
        for name, columns in self._kept:
            column, value = self._first(row, columns)
            try:
                if value is not None:
                    click[name] = read_kept(value)
            except ValueError as error:
                raise RowError(f"{name} (column {column}): {error}") from None
        return click

    def _is_ignored(self, row: Row) -> bool:
        """Whether the mapping leaves this row out; counts it then."""
        for field, columns, _, _ in self._fields:
            texts = self._ignored.get(field)
            if texts:
                column, value = self._first(row, columns)
                text = "" if value is None else _text(value)
                if text in texts:
                    self.ignored[column, text] += 1
                    return True
        return False

    def _columns_of(self, field: str) -> list[tuple[str, Callable[[Row], Any]]]:
        columns = [self._column(name) for name in in_order(self._mapping.columns.get(field, ()))]
        if field != "event_time" or self._mapping.time_of_day is None:
            return columns
        return [(name, self._with_time_of_day(read, self._mapping.time_of_day)) for name, read in columns]

    def _with_time_of_day(self, read_date: Callable[[Row], Any], column: str) -> Callable[[Row], Any]:
        """The function that returns a row's date, with the text of the column with the time of day behind it."""
        read_time = column_reader(column)

        def read(row: Row) -> Any:
            date = read_date(row)
            if self._is_missing(date):
                return date
            time = read_time(row)
            if self._is_missing(time):
                raise RowError(f"event_time (column {column}) is missing")
            return f"{_text(date)} {_text(time)}"

        return read

    def _is_missing(self, value: Any) -> bool:
        return value is ABSENT or is_missing(value) or _text(value) in self._missing

    def _column(self, name: str) -> tuple[str, Callable[[Row], Any]]:
        return name, column_reader(name)

    def _first(self, row: Row, columns: list[tuple[str, Callable[[Row], Any]]]) -> tuple[str, Any]:
        """The first column with a value, and the value; the first column and None if there is none."""
        for name, read in columns:
            value = read(row)
            if value is ABSENT:
                continue
            self._unseen.discard(name)
            if not is_missing(value) and not (self._missing and _text(value) in self._missing):
                return name, value
        return columns[0][0] if columns else "", None

    def _reader(self, field: str) -> Callable[[Any], Any]:
        if field == "event_time":
            return self._time
        factor = self._mapping.multiply.get(field)
        if factor is None:
            return self._number(field).whole if field == "utc_offset_minutes" else self._scalar(field)
        product = multiplied(self._number(field), Fraction(str(factor)))
        return (lambda value: round(product(value))) if CLICK_FIELDS[field] is int else product

    def _scalar(self, field: str, written_as: str | None = None) -> Callable[[Any], Any]:
        """The reader of a field of a click or an item, whose numbers are written as those of another field."""
        number = self._number(field, written_as)
        return {str: read_text, int: number.floor, float: number}[CLICK_FIELDS[field]]

    def _number(self, field: str, written_as: str | None = None) -> NumberReader:
        marks = self._mapping.numbers.of(written_as or field)
        reader = AmountReader if field in AMOUNTS else NumberReader
        return reader(marks.decimal, marks.thousands)

    def _read_time(self, click: dict[str, Any], row: Row) -> None:
        """Make the time that was read an event_time and, if the mapping has local_time, an offset."""
        read = click["event_time"]
        time_ms, offset = read if isinstance(read, tuple) else (read, None)  # a constant or a default is plain
        if self._added_ms:
            column, value = self._mapping.add_ms, self._added_ms(row)
            try:
                time_ms += 0 if value is ABSENT or is_missing(value) else self._whole(value)
            except (ValueError, OverflowError) as error:
                raise RowError(f"event_time (column {column}): {error}") from None
        click["event_time"] = time_ms
        if self._mapping.local_time:
            offset = self._offset(self._zone, time_ms) if offset is None else offset
        else:
            _, name = self._first(row, self._user_zone)
            offset = None if name is None else self._offset(_zone(str(name)), time_ms)
        if offset is not None and LEAST_OFFSET <= offset <= LARGEST_OFFSET:
            click["utc_offset_minutes"] = offset

    @staticmethod
    def _offset(zone: ZoneInfo | None, time_ms: int) -> int | None:
        """The minutes of a zone's offset at a time; None for an unknown zone or a time that is none of a calendar."""
        if zone is None:
            return None
        try:
            return datetime.fromtimestamp(time_ms / 1000, zone).utcoffset() // timedelta(minutes=1)
        except (ValueError, OverflowError):  # the decoder refuses the time
            return None

    def _read_items(self, click: dict[str, Any], row: Row) -> None:
        column, value = self._first(row, self._items)
        entries = structured(value)
        if entries is None:
            return
        if isinstance(entries, dict):
            entries = [entries]
        if not isinstance(entries, list) or not all(isinstance(entry, dict | None) for entry in entries):
            raise RowError(f"items (column {column}): {str(value)[:60]!r} is not a list of objects")
        items = [self._item(entry, column, number == 0) for number, entry in enumerate(filter(None, entries))]
        if items:
            click[ITEMS] = items

    def _item(self, entry: dict, column: str, is_first: bool) -> dict[str, Any]:
        """The fields of an entry. Only the first one fills fields of the click: its values must be readable."""
        item: dict[str, Any] = {}
        unreadable: set[str] = set()
        for field, columns, read in self._item_fields:
            name, value = self._first(entry, columns)
            if value is None:
                continue
            try:
                item[field] = read(value)
            except (ValueError, OverflowError) as error:
                if is_first:
                    raise RowError(f"items[0].{field} (column {column}, {name}): {error}") from None
                unreadable.add(field)
        if unreadable & {"price", "quantity"}:  # as the decoder does: the entry then adds nothing to the value
            item.pop("price", None)
        return item


def _convert_amounts(click: dict[str, Any], currencies: Currencies) -> None:
    try:
        rate = currencies.rate(click["currency"])
    except ValueError as error:
        raise RowError(str(error)) from None
    click["currency"] = currencies.shop
    for record, field in ((click, "price"), (click, "value"), *((item, "price") for item in click.get(ITEMS, ()))):
        if field in record:
            record[field] *= rate


@lru_cache
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name.strip())
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None  # a helpful field, not a required one


def _text(value: Any) -> str:
    """A value as `values`, `missing`, `ignored_users` and `ignored_events` write it."""
    if isinstance(value, str):
        return value.strip()
    try:
        return str(value).lower() if isinstance(value, bool) else read_text(value)
    except ValueError:
        return str(value)


def _in_words(columns: list[tuple[str, Callable[[Row], Any]]]) -> str:
    names = [name for name, _ in columns]
    return f"column{'' if len(names) == 1 else 's'} {' or '.join(names)}"
