"""Columns that may fill the fields of a click, by their names and values, and the choice among them."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, NamedTuple

import msgspec

from training.data.event_names import probable_kind, words_of
from training.inspection.field_names import CODES, SYNONYMS, item_name_score, name_score
from training.inspection.value_formats import ENOUGH, Column, columns_of, number_format_of, reader_of, shown
from udfs.config.durations import now_ms
from udfs.contracts.clicks import Click
from udfs.contracts.identifiers import identifies
from udfs.mapping.definition import CLICK_FIELDS, ITEM_FIELDS, ITEMS, REQUIRED_FIELDS
from udfs.mapping.values import TimeReader, read_text

#: Share of the values that must be readable in a column whose name tells its field; below ENOUGH it is a doubt.
_SOME = 0.5
#: Scores of names from which a column is taken for an optional field, or fills the gaps of another one.
LIKELY, SURE = 0.5, 0.7
#: What the values add to the score of a name.
_VALUES_WEIGHT = 0.5
_DISTINCT = 0.9  # share of distinct values in a column with the ids of events
MANY_ROWS = 100  # from here on it tells whether a value is unique
_MAX_EVENT_NAMES = 500
_MAX_CODES = 50
_MAX_ENTRIES = 2_000
_OPTIONAL_IDS = ("event_id", "anonymous_id", "transaction_id")  # of which placeholders count as missing
NO_NAME = "its name is another one"
_MAX_NAME = 64  # characters that are compared with names of events

_RULES = {rule.name: rule.type for rule in msgspec.structs.fields(Click)}
#: Fields of a click that may be mapped, required ones first.
FIELDS = [
    *REQUIRED_FIELDS,
    *(name for name in SYNONYMS if name not in REQUIRED_FIELDS and (name in CLICK_FIELDS or name == ITEMS)),
]
#: Their order in a mapping.
ORDER = [name for name in SYNONYMS if name in FIELDS]


class Candidate(NamedTuple):
    """A column that may fill a field."""

    field: str
    column: Column
    name_score: float
    share: float  # of its values that can be read
    total: float
    problem: str | None  # why it does not fill the field nevertheless


def candidates_of(columns: Sequence[Column]) -> list[Candidate]:
    """Each column as a candidate for each field."""
    found = [_candidate(name, column) for name in FIELDS for column in columns]
    names = chosen_columns(found).get("event_name", ())
    events = first_values([one.column for one in names])
    return [
        one._replace(problem=_not_of_orders(one.column, events))
        if events and one.field == "transaction_id" and one.problem is None
        else one
        for one in found
    ]


def chosen_columns(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """The columns of each field, the first one with a value counts; fields that no column fills are left out."""
    chosen = _with_alternatives(_chosen(candidates), candidates)
    if "anonymous_id" in chosen and not _is_user_before_login(chosen):
        del chosen["anonymous_id"]
    return chosen


def _candidate(name: str, column: Column) -> Candidate:
    named = name_score(column.name, name)
    if not named and (name not in ("event_name", "event_time") or not column.given):
        return Candidate(name, column, 0.0, 0.0, 0.0, NO_NAME)
    if not column.given:  # the ids of users who log in may come later
        problem = None if name == "user_id" else "it is empty in these rows"
        return Candidate(name, column, named, 0.0, named + _VALUES_WEIGHT, problem)
    share, bonus = _fit(name, column)
    problem = _misfit(name, column) if share >= _SOME else _unreadable(name, column)
    if not named and not (share >= ENOUGH and bonus >= _SOME and (name != "event_time" or _is_past(column))):
        problem = NO_NAME
    total = named + _VALUES_WEIGHT * bonus
    if name not in REQUIRED_FIELDS:
        total += _VALUES_WEIGHT * len(column.given) / len(column.values)
        if named < LIKELY:
            problem = NO_NAME
    return Candidate(name, column, named, share, total, problem)


def _fit(name: str, column: Column) -> tuple[float, float]:
    """The share of the values that can be read, and how well they fit the field: 0 to 1."""
    if name == "event_time":
        share = column.time_format.share if column.time_format else 0.0
        return share, share
    if name == "event_name":
        names = column.texts if _are_few(column) else {}
        known = sum(count for text, count in names.items() if probable_kind(text[:_MAX_NAME]))
        return column.share(_reader(name)), (known / len(column.given) + known / len(column.values)) / 2
    if name == ITEMS:
        share = 1.0 if column.entries and item_columns(column) else 0.0
    elif CLICK_FIELDS[name] is str:
        share = column.share(_reader(name))
    else:
        share = number_format_of(column.samples, name)[1]
    return share, share


def _reader(name: str) -> Callable[[Any], Any]:
    rule = _RULES[name]

    def read(value: Any) -> str:
        text = read_text(value)
        msgspec.convert(text, rule)  # its ValidationError is a ValueError
        return text

    return read


def _unreadable(name: str, column: Column) -> str:
    kind = {"event_time": "times", ITEMS: "lists of objects with an id or a price"}.get(name)
    kind = kind or ("short texts" if CLICK_FIELDS[name] is str else "numbers")
    return f"its values, such as {shown(column.given[0])}, are no {kind}"


def _misfit(name: str, column: Column) -> str | None:
    """Why the values of a column are not those of the field, although they can be read."""
    distinct, count = len(column.texts), len(column.given)
    if name in _OPTIONAL_IDS:
        ids = {text: times for text, times in column.texts.items() if identifies(text)}
        distinct, count = len(ids), sum(ids.values())
        if not ids:
            return f"its values, such as {shown(column.given[0])}, are no ids"
    if name == "user_id" and distinct == count >= MANY_ROWS:
        return "each row has another value"
    if name == "event_name" and not _are_few(column):
        return f"{distinct:,} values are too many for names of events"
    if name == "event_id" and distinct < count * _DISTINCT:  # events that repeat an id are lost as duplicates
        return f"{count:,} rows have only {distinct:,} values"
    if name == "currency" and column.share(_currency) < ENOUGH:
        return f"its values, such as {shown(column.given[0])}, are no codes such as EUR"
    if name == "page_location" and column.share(_address) < ENOUGH:
        return f"its values, such as {shown(column.given[0])}, are no addresses"
    if name in CODES and distinct > _MAX_CODES:
        return f"{distinct:,} values are too many"
    if name == "quantity" and column.share(reader_of(number_format_of(column.samples)[0]).whole) < _SOME:
        return "most of its values are not whole numbers"
    return None


def _not_of_orders(column: Column, events: Sequence[Any]) -> str | None:
    """Why the values of a column are no ids of orders, given the names of the rows' events."""
    kinds = {name: probable_kind(str(name)[:_MAX_NAME]) for name in set(map(str, events))}
    others = Counter(
        str(value)
        for value, name in zip(column.values, events)
        if value is not None and kinds[str(name)] != "purchase" and identifies(str(value))
    )
    repeated = [text for text, count in others.items() if count > 1]
    if len(repeated) <= (1 - ENOUGH) * len(column.texts):
        return None
    return f"{shown(repeated[0])} is in several events that are not purchases"


def _is_user_before_login(chosen: dict[str, list[Candidate]]) -> bool:
    """Whether the anonymous id is also that of the user in some row, as it is before a login."""
    users, ids = (first_values([one.column for one in chosen.get(name, ())]) for name in ("user_id", "anonymous_id"))
    return any(user is not None and str(user) == str(one) and identifies(str(one)) for user, one in zip(users, ids))


def _are_few(column: Column) -> bool:
    """Whether a column has as few values as there are names of events."""
    return len(column.texts) <= max(20, min(_MAX_EVENT_NAMES, len(column.given) / 4))


def _is_past(column: Column) -> bool:
    """Whether numbers that may be times, or else long ids, are none of the future."""
    return column.share(TimeReader(column.time_format.name, UTC, now_ms())) >= ENOUGH


def _currency(value: Any) -> None:
    if not re.fullmatch(r"[A-Za-z]{3}", str(value).strip()):
        raise ValueError


def _address(value: Any) -> None:
    if not re.search(r"[/.]", str(value)):
        raise ValueError


def _chosen(candidates: Sequence[Candidate]) -> dict[str, list[Candidate]]:
    """The best column of each field, best total first; a column is used once. Required fields come first."""
    chosen: dict[str, list[Candidate]] = {}
    used: set[str] = set()
    usable = [candidate for candidate in candidates if candidate.problem is None]
    for candidate in sorted(usable, key=lambda usable: (usable.field not in REQUIRED_FIELDS, -usable.total)):
        if candidate.field not in chosen and candidate.column.name not in used:
            chosen[candidate.field] = [candidate]
            used.add(candidate.column.name)
    return chosen


def _with_alternatives(
    chosen: dict[str, list[Candidate]], candidates: Sequence[Candidate]
) -> dict[str, list[Candidate]]:
    """The chosen columns with those after them that fill their gaps; fields without a value are left out."""
    used = {found[0].column.name for name, found in chosen.items() if name != "anonymous_id"}
    for name, found in chosen.items():
        others = [other for other in candidates if other.field == name and other.problem is None]
        for other in sorted(others, key=lambda other: -other.total):
            if other.column.name not in used and other.name_score and _fills_gaps(found, other):
                found.append(other)
                if name != "user_id":
                    used.add(other.column.name)
    return {name: found for name, found in chosen.items() if any(one.column.given for one in found)}


def _fills_gaps(found: Sequence[Candidate], other: Candidate) -> bool:
    """Whether a column has values where those before it have none, and doesn't contradict them elsewhere."""
    before = first_values([one.column for one in found])
    gaps = both = same = 0
    for value, more in zip(before, other.column.values):
        if more is not None:
            gaps += value is None
            both += value is not None
            same += value is not None and str(value) == str(more)
    if not gaps:
        return False
    if other.field == "event_time":
        return other.column.time_format.name == found[0].column.time_format.name and other.share >= ENOUGH
    return other.field in REQUIRED_FIELDS or (other.name_score >= SURE and same >= both * ENOUGH)


def first_values(columns: Sequence[Column]) -> list[Any]:
    """The first value of each row."""
    return [
        next((value for value in values if value is not None), None) for values in zip(*(c.values for c in columns))
    ]


def time_of_day_column(dates: Column, columns: Sequence[Column]) -> Column | None:
    """The column with the times of day that belong to a column of dates, by its name and values."""
    paired = re.sub(r"\b(date|day)\b", "time", words_of(dates.name))
    scores = {
        column: 1.0 if words_of(column.name) == paired else name_score(column.name, "event_time")
        for column in columns
        if len(column.given) >= ENOUGH * len(dates.given) and column.share(_clock) >= ENOUGH
    }
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best is not None and scores[best] >= LIKELY else None


def _clock(value: Any) -> None:
    if not re.fullmatch(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?", str(value).strip()):
        raise ValueError


def item_columns(column: Column) -> dict[str, str]:
    """The column of each field of an item in a list's entries; none without an id or a price."""
    found: dict[str, tuple[float, str]] = {}
    for inner in columns_of((column.entries or ())[:_MAX_ENTRIES]):
        for name, kind in ITEM_FIELDS.items():
            score = item_name_score(inner.name, name)
            share = inner.share(read_text) if kind is str else number_format_of(inner.samples, name)[1]
            if score >= LIKELY and share >= ENOUGH:
                found[name] = max(found.get(name, (0.0, "")), (score, inner.name), key=lambda pair: pair[0])
    names = {name: found[name][1] for name in ITEM_FIELDS if name in found}
    return names if "item_id" in names or "price" in names else {}


def item_numbers(column: Column) -> list[Any]:
    """The numbers in the entries of a list."""
    names = [name for field, name in item_columns(column).items() if ITEM_FIELDS[field] is not str]
    inner = columns_of((column.entries or ())[:_MAX_ENTRIES])
    return [value for one in inner if one.name in names for value in one.samples]
