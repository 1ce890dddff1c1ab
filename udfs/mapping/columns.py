"""Columns of a row by name, or by a path into nested columns such as `items[0].item_id`."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

#: The value of a column that a row does not have.
ABSENT = object()
Row = Mapping[str, Any]

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_PATH = re.compile(r"[^.\[\]]+(\[\d+\])*(\.[^.\[\]]+(\[\d+\])*)*")
_NOT_JSON = (msgspec.DecodeError, UnicodeError, RecursionError)
_read_json = msgspec.json.Decoder().decode


def column_reader(column: str) -> Callable[[Row], Any]:
    """The function that returns a row's value of `column`: None where it is empty, ABSENT where there is none.

    A column of exactly this name comes first. Otherwise the name is a path: it leads through objects by key, through
    lists by [number], through GA4's lists of {"key": ..., "value": {"string_value": ...}} by key, through Snowplow's
    entities, {"schema": "iglu:.../NAME/jsonschema/1-0-0", "data": ...}, by that name, and through texts that hold JSON.
    """
    steps = column_steps(column)
    if len(steps) == 1:
        return lambda row: row.get(column, ABSENT)

    def read(row: Row) -> Any:
        if column in row:
            return row[column]
        value: Any = row
        for step in steps:
            value = _follow(value, step)
            if value is ABSENT or value is None:
                return value
        return value

    return read


def column_steps(column: str) -> list[str | int]:
    """The steps of a path; a single one, the name itself, where it is none.

    >>> column_steps("items[0].item_id")
    ['items', 0, 'item_id']
    """
    if not _PATH.fullmatch(column):
        return [column]
    return [name or int(number) for name, number in _STEP.findall(column)]


def structured(value: Any) -> Any:
    """The object or list that a text holds as JSON; any other value as it is."""
    if isinstance(value, str | bytes):
        try:
            return _read_json(value)
        except _NOT_JSON:
            return value
    return value


def _follow(value: Any, step: str | int) -> Any:
    value = structured(value)
    if isinstance(step, int):
        return value[step] if isinstance(value, list) and step < len(value) else ABSENT
    if isinstance(value, Mapping):
        return value["data"] if step not in value and _entity_name(value) == step else value.get(step, ABSENT)
    if isinstance(value, list):
        entities = [entry["data"] for entry in value if _entity_name(entry) == step]
        return entities or _of_key(value, step)
    return ABSENT


def _entity_name(value: Any) -> str | None:
    """The name in the schema of one of Snowplow's self-describing objects."""
    if not isinstance(value, Mapping) or "data" not in value or not isinstance(value.get("schema"), str):
        return None
    parts = value["schema"].split("/")
    return parts[1] if len(parts) == 4 else None


def _of_key(entries: list, key: str) -> Any:
    """The value of the entry with that key. Of typed values, such as GA4's, the one that is not null."""
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("key") == key:
            value = entry.get("value", ABSENT)
            if isinstance(value, Mapping) and value and all(name.endswith("_value") for name in value):
                return next((typed for typed in value.values() if typed is not None), None)
            return value
    return ABSENT
