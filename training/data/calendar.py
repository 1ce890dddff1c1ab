"""Features of the calendar, for which a few days of data say little."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from udfs.features.columns import Column
from udfs.features.declaration import Feature

CALENDAR_COLUMNS = ("hour", "weekday")


def calendar_names(features: Iterable[Feature]) -> tuple[str, ...]:
    """The names of the features whose expression has the hour of the day or the day of the week."""
    return tuple(feature.name for feature in features if set(_columns(feature.value)) & set(CALENDAR_COLUMNS))


def _columns(value: Any) -> Iterator[str]:
    """The names of the columns in an expression."""
    if isinstance(value, Column):
        yield value.name
    elif is_dataclass(value):
        for field in fields(value):
            yield from _columns(getattr(value, field.name))
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from _columns(one)
