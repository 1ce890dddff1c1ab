"""The definition of a mapping: which columns fill which fields of a click, and how their values are written."""

from collections.abc import Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from udfs.config.reading import in_words, read_yaml
from udfs.contracts.clicks import Click, Item
from udfs.contracts.currencies import Currencies
from udfs.mapping.values import EPOCH_UNITS, TIME_FORMATS

Name = Annotated[str, Meta(min_length=1)]
Columns = Name | Annotated[tuple[Name, ...], Meta(min_length=1)]
Mark = Annotated[str, Meta(min_length=1, max_length=1)]

FILE_FORMATS = ("csv", "jsonl", "json", "parquet", "avro")


class MappingError(ValueError):
    """A mapping that can't be used; the message is one line that names the file, the key and the rule."""


class FileLayout(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How a file is written, where its name doesn't tell."""

    format: Literal[FILE_FORMATS] | None = None
    delimiter: Mark | None = None
    header: Annotated[tuple[Name, ...], Meta(min_length=1)] | None = None
    encoding: Name = "utf-8"
    explode: Name | None = None


class NumberFormat(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How numbers are written."""

    decimal: Mark = "."
    thousands: Mark | None = None


class Numbers(NumberFormat, frozen=True):
    """How numbers are written, and those of fields that are written otherwise."""

    fields: dict[Name, NumberFormat] = {}

    def of(self, field: str) -> NumberFormat:
        """The format of a field's numbers."""
        return self.fields.get(field, self)


class ClickMapping(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the rows of a file or a topic become click records; conf/mappings/example.yaml describes each key."""

    columns: dict[Name, Columns]
    keep: dict[Name, Name] = {}
    file: FileLayout = FileLayout()
    items: dict[Name, Columns] = {}
    values: dict[Name, dict[str, str]] = {}
    constants: dict[Name, Any] = {}
    defaults: dict[Name, Any] = {}
    missing: tuple[str, ...] = ()
    ignored_users: tuple[str, ...] = ()
    ignored_events: tuple[str, ...] = ()
    currencies: Currencies | None = None
    numbers: Numbers = Numbers()
    multiply: dict[Name, str | int | float] = {}
    time_format: str = "iso8601"
    time_of_day: Name | None = None
    add_ms: Name | None = None
    time_zone: str = "UTC"
    local_time: bool = False
    user_time_zone: Columns | None = None
    event_id_prefix: Name | None = None


class MappingFile(msgspec.Struct, frozen=True):
    """A mapping file: one mapping for all files, or one for each pattern of file names."""

    name: str
    by_pattern: tuple[tuple[str, ClickMapping], ...]

    def for_file(self, file_name: str) -> ClickMapping | None:
        """The mapping of the first pattern that the file's name, without its directory, matches."""
        return next((mapping for pattern, mapping in self.by_pattern if fnmatchcase(file_name, pattern)), None)

    def for_topic(self) -> ClickMapping:
        """The mapping of a topic's records. Raises MappingError for what only files have."""
        mapping = self.by_pattern[0][1]
        for key, given in (
            ("files", len(self.by_pattern) > 1),
            ("file.explode", mapping.file.explode),
            ("event_id_prefix", mapping.event_id_prefix),
        ):
            if given:
                raise MappingError(f"{self.name}: key {key}: is for files; a topic's records have none: remove it")
        return mapping


def in_order(columns: Columns) -> tuple[str, ...]:
    """One or more columns as a tuple."""
    return (columns,) if isinstance(columns, str) else columns


def _scalar_types(struct: type) -> dict[str, type]:
    """The type of each field that one value fills: str, int or float."""
    hints = {name: _plain_types(hint) for name, hint in get_type_hints(struct).items()}
    return {name: types[0] for name, types in hints.items() if types[0] in (str, int, float)}


def _plain_types(hint: Any) -> list[type]:
    return [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]


#: The fields of a click that a column can fill, with their types; a column of `items` is a list of ITEM_FIELDS.
CLICK_FIELDS = _scalar_types(Click)
ITEM_FIELDS = _scalar_types(Item)
REQUIRED_FIELDS = tuple(field.name for field in msgspec.structs.fields(Click) if field.required)
ITEMS = "items"
_FIELD_RULES = {field.name: field.type for field in msgspec.structs.fields(Click)}


def load_mapping(path: Path) -> MappingFile:
    """Read and check a mapping file (YAML). Raises MappingError."""
    content = read_yaml(path, MappingError)
    if not isinstance(content, dict):
        raise MappingError(f"{path}: expected keys such as columns, got {type(content).__name__}")
    files = content.pop("files", None)
    if files is None:
        return MappingFile(str(path), (("*", _checked(content, str(path))),))
    if not isinstance(files, dict) or not files or not all(isinstance(part, dict) for part in files.values()):
        raise MappingError(f"{path}: key files: expected file names with what differs for them")
    merged = [
        (str(pattern), _checked(_laid_over(content, part), f"{path}: key files.{pattern}"))
        for pattern, part in files.items()
    ]
    return MappingFile(str(path), tuple(merged))


def mapping_of(content: Mapping[str, Any], origin: str) -> ClickMapping:
    """A checked mapping of YAML's or a program's content. Raises MappingError with `origin`."""
    return _checked(dict(content), origin)


def same_names(columns: Mapping[str, Any] | list[str], source: str) -> MappingFile:
    """The mapping of a file whose columns are named like the click's fields, times in epoch milliseconds."""
    for field in REQUIRED_FIELDS:
        if field not in columns:
            raise MappingError(
                f"{source}: no column {field}, only {', '.join(columns)}: pass --mapping; `intent map` proposes one"
            )
    fields = {name: name for name in columns if name in CLICK_FIELDS or name == ITEMS}
    return MappingFile(source, (("*", ClickMapping(columns=fields, time_format="epoch_ms")),))


def _laid_over(below: dict, above: dict) -> dict:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = {**below[key], **value} if both else value
    return {key: value for key, value in merged.items() if value is not None}


def _checked(content: dict, origin: str) -> ClickMapping:
    if isinstance(content.get("columns"), dict):  # null takes a column back that `files` shares
        content = content | {"columns": {key: value for key, value in content["columns"].items() if value is not None}}
    try:
        mapping = msgspec.convert(content, ClickMapping)
    except msgspec.ValidationError as error:
        raise MappingError(f"{origin}: {in_words(error)}") from None
    for key, problem in _problems(mapping):
        raise MappingError(f"{origin}: key {key}: {problem}")
    return mapping


def _problems(mapping: ClickMapping):
    """The broken rules of a mapping: key and rule."""
    yield from _wrong_fields(mapping)
    for name in mapping.keep:
        if name in _FIELD_RULES:
            yield f"keep.{name}", "is a field of a click: write it under columns"
    yield from _wrong_literals(mapping)
    if mapping.time_format not in TIME_FORMATS and "%" not in mapping.time_format:
        yield (
            "time_format",
            f"{mapping.time_format!r}: expected {', '.join(TIME_FORMATS)} or a strptime pattern such as "
            "'%d.%m.%Y %H:%M:%S'",
        )
    elif problem := _wrong_directive(mapping.time_format):
        yield "time_format", problem
    try:
        ZoneInfo(mapping.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield "time_zone", f"{mapping.time_zone!r}: expected a name such as Europe/Berlin"
    try:
        "".encode(mapping.file.encoding)
    except LookupError:
        yield "file.encoding", f"{mapping.file.encoding!r}: expected a name such as latin-1"
    for key, numbers in (
        ("numbers", mapping.numbers),
        *((f"numbers.fields.{field}", numbers) for field, numbers in mapping.numbers.fields.items()),
    ):
        if numbers.decimal == numbers.thousands:
            yield key, f"{numbers.decimal!r} is both decimal and thousands"
    for field, factor in mapping.multiply.items():
        try:
            Fraction(str(factor))
        except (ValueError, ZeroDivisionError):
            yield f"multiply.{field}", f"{factor!r}: expected a number or a fraction such as 1/100"


def _wrong_directive(pattern: str) -> str | None:
    try:
        datetime.strptime("", pattern)
    except ValueError as error:
        return str(error) if "directive" in str(error) else None
    return None


def _wrong_fields(mapping: ClickMapping):
    fillable = (*CLICK_FIELDS, ITEMS)
    for key in ("columns", "values", "constants", "defaults", "multiply"):
        for field in getattr(mapping, key):
            if field not in fillable:
                yield f"{key}.{field}", f"not a field of a click; expected one of {', '.join(fillable)}"
            if key == "constants" and field in mapping.columns:
                yield f"constants.{field}", "is also under columns; remove one of them"
            if key in ("values", "defaults", "multiply") and field not in mapping.columns:
                yield f"{key}.{field}", f"has no column; add columns.{field}"
            if key == "multiply" and CLICK_FIELDS.get(field) is str:
                yield f"multiply.{field}", "is a text; only numbers can be multiplied"
            if field == ITEMS and key in ("values", "defaults", "multiply"):
                yield f"{key}.{ITEMS}", "is a list; map its entries under items"
            if key == "multiply" and field == "event_time":
                yield f"multiply.{field}", "is a time; set time_format to its unit"
    for field in mapping.numbers.fields:
        if field not in mapping.columns:
            yield f"numbers.fields.{field}", f"has no column; add columns.{field}"
        if field == "event_time" or CLICK_FIELDS.get(field) is str:
            yield f"numbers.fields.{field}", "is not a number"
    if mapping.time_of_day is not None and "event_time" not in mapping.columns:
        yield "time_of_day", "follows a date; add columns.event_time"
    if mapping.time_of_day is not None and mapping.time_format in EPOCH_UNITS:
        yield "time_of_day", f"follows a date, but {mapping.time_format} is a number; set time_format to a pattern"
    for field in mapping.items:
        if field not in ITEM_FIELDS:
            yield f"items.{field}", f"not a field of an item; expected one of {', '.join(ITEM_FIELDS)}"
    if mapping.items and ITEMS not in mapping.columns:
        yield "items", "has no column; add columns.items"
    given = mapping.columns.keys() | mapping.constants.keys()
    if mapping.event_id_prefix is not None and "event_id" in given:
        yield "event_id_prefix", "event_id is mapped as well; remove one of them"
    for key, is_set in (("local_time", mapping.local_time), ("user_time_zone", mapping.user_time_zone is not None)):
        if is_set and ("utc_offset_minutes" in given or key == "user_time_zone" and mapping.local_time):
            yield key, "the user's offset is mapped otherwise as well; keep one of them"
    for field in REQUIRED_FIELDS:
        if field not in given:
            yield f"columns.{field}", "missing; every click has it"


def _wrong_literals(mapping: ClickMapping):
    for key in ("constants", "defaults"):
        for field, value in getattr(mapping, key).items():
            try:
                msgspec.convert(value, _FIELD_RULES[field])
            except msgspec.ValidationError as error:
                yield f"{key}.{field}", f"{value!r}: {error}"
