"""Mapping of foreign rows to click records: the column of each field, and the format of its values."""

from collections.abc import Callable, Sequence
from collections.abc import Mapping as Row
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from udfs.config.text import one_line
from udfs.contracts.clicks import Click

Name = Annotated[str, Meta(min_length=1)]


class MappingError(ValueError):
    """A mapping that can't be used; the message is one line that names the file, the key and the rule."""


class RowError(ValueError):
    """A row that a mapping can't adapt; the message names the field, the column and the value."""


class ClickMapping(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the rows of a file become click records; conf/mappings/example.yaml describes each key."""

    columns: dict[Name, Name]
    values: dict[Name, dict[str, str]] = {}
    constants: dict[Name, Any] = {}
    defaults: dict[Name, Any] = {}
    time_format: str = "iso8601"
    event_id_prefix: Name | None = None


#: The click fields that one column can fill, with their types; `items` is a list, so no column can fill it.
FIELD_TYPES = {field.name: field.type for field in msgspec.structs.fields(Click) if field.name != "items"}
REQUIRED_FIELDS = tuple(field.name for field in msgspec.structs.fields(Click) if field.required)


def load_mapping(path: Path) -> ClickMapping:
    """Read and check a mapping file (YAML). Raises MappingError."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        mapping = msgspec.convert(content, ClickMapping)
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise MappingError(f"{path}: not YAML: {one_line(error)}") from None
    except msgspec.ValidationError as error:
        raise MappingError(f"{path}: {error}") from None
    _check_fields(mapping, path)
    _check_literals(mapping, path)
    _check_time_format(mapping, path)
    return mapping


def same_names(columns: Sequence[str], source: str) -> ClickMapping:
    """The mapping of a file whose columns are named like the click's fields, times in epoch milliseconds."""
    for field in REQUIRED_FIELDS:
        if field not in columns:
            raise MappingError(f"{source}: no column {field}, only {', '.join(columns)}; a --mapping says which it is")
    return ClickMapping(columns={name: name for name in columns if name in FIELD_TYPES}, time_format="epoch_ms")


def check_columns(mapping: ClickMapping, columns: Sequence[str], mapping_name: str, source: str) -> None:
    """Raise MappingError when the mapping names a column that `source` does not have."""
    for field, column in mapping.columns.items():
        if column not in columns:
            raise MappingError(
                f"{mapping_name}: key columns.{field}: no column {column} in {source}, only {', '.join(columns)}"
            )


def click_adapter(mapping: ClickMapping) -> Callable[[Row[str, Any], int], dict[str, Any]]:
    """Make the function (row by column name, row number) -> click record, which raises RowError.

    A value is missing when it is absent, None, empty or NaN; a missing one takes its default or is left out. The
    contract's limits, such as prices of at least 0, are not checked here: the job checks them and writes dead letters.
    """
    plan = [
        (field, column, mapping.values.get(field), _reader(field, mapping.time_format), mapping.defaults.get(field))
        for field, column in mapping.columns.items()
    ]
    constants, prefix = mapping.constants, mapping.event_id_prefix

    def adapt(row: Row[str, Any], number: int) -> dict[str, Any]:
        click = dict(constants)
        for field, column, meanings, read, default in plan:
            value = row.get(column)
            if value is None or value == "" or value != value:
                if default is not None:
                    click[field] = default
                elif field in REQUIRED_FIELDS:
                    raise RowError(f"{field} (column {column}) is missing")
                continue
            if meanings is not None:
                value = meanings.get(str(value), value)
            try:
                click[field] = read(value)
            except (ValueError, OverflowError) as error:
                raise RowError(f"{field} (column {column}): {error}") from None
        if prefix is not None:
            click["event_id"] = f"{prefix}-{number:06d}"
        return click

    return adapt


def _check_fields(mapping: ClickMapping, path: Path) -> None:
    for key in ("columns", "values", "constants", "defaults"):
        for field in getattr(mapping, key):
            if field not in FIELD_TYPES:
                raise MappingError(
                    f"{path}: key {key}.{field}: not a field of a click; expected one of {', '.join(FIELD_TYPES)}"
                )
            if key == "constants" and field in mapping.columns:
                raise MappingError(f"{path}: key constants.{field}: is also under columns; remove one of them")
            if key in ("values", "defaults") and field not in mapping.columns:
                raise MappingError(f"{path}: key {key}.{field}: has no column; add columns.{field}")
    if mapping.event_id_prefix is not None and "event_id" in mapping.columns.keys() | mapping.constants.keys():
        raise MappingError(f"{path}: key event_id_prefix: event_id is mapped as well; remove one of them")
    for field in REQUIRED_FIELDS:
        if field not in mapping.columns.keys() | mapping.constants.keys():
            raise MappingError(f"{path}: key columns.{field}: missing; every click has it")


def _check_literals(mapping: ClickMapping, path: Path) -> None:
    for key in ("constants", "defaults"):
        for field, value in getattr(mapping, key).items():
            try:
                msgspec.convert(value, FIELD_TYPES[field])
            except msgspec.ValidationError as error:
                raise MappingError(f"{path}: key {key}.{field}: {value!r}: {error}") from None


def _check_time_format(mapping: ClickMapping, path: Path) -> None:
    if mapping.time_format not in _TIME_READERS and "%" not in mapping.time_format:
        raise MappingError(
            f"{path}: key time_format: {mapping.time_format!r}: expected {', '.join(_TIME_READERS)} "
            "or a strptime pattern such as '%d.%m.%Y %H:%M:%S'"
        )


def _reader(field: str, time_format: str) -> Callable[[Any], Any]:
    if field == "event_time":
        return _TIME_READERS.get(time_format) or partial(_read_pattern_time, time_format)
    plain_type = get_type_hints(Click)[field]  # such as str, or str | None
    return _SCALAR_READERS[next(iter(get_args(plain_type)), plain_type)]


def _read_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Parquet keeps a column of integers with gaps as floats
    if isinstance(value, str | int | float | Decimal):
        return str(value)
    raise ValueError(f"a {type(value).__name__} is not a text")


def _read_number(value: Any) -> float:
    try:
        number = float(value)
    except (ValueError, TypeError):
        raise ValueError(f"{value!r} is not a number") from None
    if not isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _read_whole_number(value: Any) -> int:
    if isinstance(value, int) or isinstance(value, str) and value.isdecimal():
        return int(value)
    number = _read_number(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _read_iso_time(value: Any) -> int:
    if isinstance(value, datetime):
        return _epoch_ms(value)
    try:
        return _epoch_ms(datetime.fromisoformat(value.removesuffix(" UTC")))
    except (ValueError, AttributeError):
        raise ValueError(f"{value!r} is not a time in ISO 8601") from None


def _read_pattern_time(pattern: str, value: Any) -> int:
    if isinstance(value, datetime):
        return _epoch_ms(value)
    try:
        return _epoch_ms(datetime.strptime(value, pattern))
    except (ValueError, TypeError):
        raise ValueError(f"{value!r} is not a time like {pattern}") from None


def _read_epoch_seconds(value: Any) -> int:
    return _epoch_ms(value) if isinstance(value, datetime) else round(_read_number(value) * 1000)


def _read_epoch_milliseconds(value: Any) -> int:
    return _epoch_ms(value) if isinstance(value, datetime) else _read_whole_number(value)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _epoch_ms(time: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC; a time without an offset is UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


_TIME_READERS = {"iso8601": _read_iso_time, "epoch_s": _read_epoch_seconds, "epoch_ms": _read_epoch_milliseconds}
_SCALAR_READERS = {str: _read_text, int: _read_whole_number, float: _read_number}
