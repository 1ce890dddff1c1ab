"""Files that declare features: YAML with a shop's kinds and columns of events, and features by their expressions.

`standard.yaml`, beside this module, declares the standard features, and `population.yaml` those and what other users
did; a file that extends one of them adds to its features. The same, as JSON and complete, is how a bundle holds the
declaration of its model.
"""

import json
import keyword
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from udfs.config.reading import NOT_JSON, key_and_rule, parse_yaml, read_yaml
from udfs.config.text import one_line
from udfs.contracts.clicks import Click
from udfs.contracts.event_layout import (
    OWN_BYTES,
    TILE_BYTES,
    EventLayout,
    OwnColumn,
    PopulationColumn,
    Publication,
    Tiles,
)
from udfs.contracts.lenient import fields_of
from udfs.contracts.packed_events import EVENT_KINDS, OWN_KIND_CODES
from udfs.features.columns import COLUMNS, UNKNOWN, can_be_shared, columns_of
from udfs.features.declaration import SESSION_GAP_MS, Declaration, Feature
from udfs.features.expressions import (
    ExpressionError,
    Function,
    Reader,
    aggregates,
    duration_of,
)
from udfs.features.own_functions import find_function

STANDARD_FILE, POPULATION_FILE = "standard.yaml", "population.yaml"  # beside this module, which may be in a wheel

WINDOW = "{window}"
KIND_PATTERN = r"^[A-Za-z][A-Za-z0-9_]{0,39}$"
#: A name is a column of models, of files and of rules.
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,63}$"
NAME_RULE = "expected a lower-case letter, then up to 63 lower-case letters, digits and underscores"
Length = Annotated[str, Meta(pattern=r"^[1-9]\d{0,8}(ms|s|m|min|h|d)$", title="duration")]
Code = Annotated[int, Meta(ge=OWN_KIND_CODES[0], le=OWN_KIND_CODES[-1])]


class DeclarationError(ValueError):
    """A declaration that can't be used; the message is one line that names file, key, rule and value."""


FunctionPath = Annotated[
    str, Meta(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$", description="path of a Python function, instead of `value`")
]


class FeatureEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature in a file."""

    unit: Annotated[str, Meta(min_length=1, max_length=32)]
    doc: Annotated[str, Meta(min_length=1, max_length=400)]
    value: Annotated[str, Meta(min_length=1, max_length=4000, description="the expression")] | None = None
    python: FunctionPath | None = None
    sha256: (
        Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="of the function's module, in bundles")] | None
    ) = None


class ColumnEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An own column of events in a file."""

    type: Literal["number", "category", "identifier", "population"]
    field: Annotated[str, Meta(min_length=1, max_length=64, description="of a click; by default the name")] | None = (
        None
    )
    bytes: Annotated[Literal[1, 2, 4], Meta(description="of a number, by default 4")] | None = None
    scale: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="a number is kept as the integer of value x scale")] | None
    ) = None
    names: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=255, description="of a category")
    ] = ()
    by: Annotated[str, Meta(description="of the population: the column whose value the events share")] | None = None
    kind: Annotated[str, Meta(description="of the population: the kind of the events that count")] | None = None
    rate: Annotated[bool, Meta(description="of the population: the share of that kind, instead of the number")] = False


class PopulationEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When tables of what the population did are made, in a file."""

    every: Annotated[Length, Meta(description="a table is made at each multiple of it")] = "1h"
    delay: Annotated[Length, Meta(description="so long after that, rows begin to see it")] = "5m"
    half_life: Annotated[Length, Meta(description="an event counts half after this time")] = "30d"


class FeatureFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file."""

    extends: Literal["standard", "population"] | None = None
    kinds: Annotated[dict[str, Code], Meta(description="own kinds of events, by their names, with codes")] = {}
    columns: Annotated[dict[str, ColumnEntry], Meta(description="own columns of events, by name")] = {}
    population: Annotated[PopulationEntry, Meta(description="when tables of the population are made")] | None = None
    session_gap: Annotated[Length, Meta(description="a longer pause ends a session")] | None = None
    windows: Annotated[tuple[Length, ...], Meta(description="what {window} in a name stands for")] = ()
    features: Annotated[dict[str, dict[str, FeatureEntry]], Meta(description="by group and name")] = {}


def load_declaration(path: Path, with_functions: bool = True) -> Declaration:
    """Read a declaration. Raises DeclarationError naming file, key, rule and value.

    Without functions, their modules are not imported: it can't be compiled, but says what a job keeps of events.
    """
    return read_declaration(read_yaml(path, DeclarationError), str(path), with_functions)


def read_declaration(content: Any, origin: str, with_functions: bool = True) -> Declaration:
    """`load_declaration` for the content of a file, which messages call `origin`."""
    return _checked(content, origin, with_functions)[1]


def read_file(path: Path) -> FeatureFile:
    """The content of a file, which makes a declaration. Raises DeclarationError as `load_declaration` does."""
    return _checked(read_yaml(path, DeclarationError), str(path))[0]


def to_json(declaration: Declaration) -> bytes:
    """A declaration as a file that `from_json` reads; it extends nothing, and windows are written out."""
    groups: dict[str, dict[str, dict[str, str]]] = {}
    for feature in declaration.features:
        entry = {"value": feature.text}
        if isinstance(feature.value, Function):
            entry = {"python": feature.value.path, "sha256": feature.value.sha256}
        groups.setdefault(feature.group, {})[feature.name] = entry | {
            "unit": feature.unit, "doc": feature.description,
        }  # fmt: skip
    content = {
        "kinds": dict(declaration.layout.own_kinds),
        "columns": {column.name: _entry(column) for column in declaration.layout.own_columns},
        "session_gap": _written(declaration.session_gap_ms),
        "features": groups,
    }
    if declaration.layout.population_columns:
        publication = declaration.layout.publication
        content["population"] = {
            "every": _written(publication.every_ms),
            "delay": _written(publication.delay_ms),
            "half_life": _written(publication.half_life_ms),
        }
    return json.dumps(content, indent=1).encode()


def from_json(content: bytes, origin: str) -> Declaration:
    """The declaration that `to_json` wrote. Raises DeclarationError."""
    try:
        parsed = msgspec.json.decode(content)  # json.loads takes half a surrogate pair, which no message can show
    except NOT_JSON as error:
        raise DeclarationError(f"{origin}: not JSON: {one_line(error)}") from None
    file, declaration = _checked(parsed, origin, with_functions=False)
    for group, entries in file.features.items():
        for name, entry in entries.items():
            if entry.python is not None and entry.sha256 is None:
                raise DeclarationError(one_line(f"{origin}: key features.{group}.{name}.sha256: missing"))
    return declaration


def declaration_of(file: FeatureFile, with_functions: bool = True) -> Declaration:
    """The declaration of a file's content; `with_functions` as in `load_declaration`. Raises DeclarationError."""
    base = None if file.extends is None else population() if file.extends == "population" else STANDARD
    if base is not None and file.session_gap is not None:
        raise DeclarationError("key session_gap: the standard features have one: leave it out, or leave out extends")
    gap_ms = duration_of(file.session_gap) if file.session_gap else SESSION_GAP_MS
    kinds = _own_kinds(file.kinds)
    columns = (*(base.layout.own_columns if base else ()), *_own_columns(file.columns))
    layout = EventLayout(kinds, columns, publication=_publication(file.population, base))
    _check_columns(layout)
    reader = Reader(layout.kinds, columns_of(layout), gap_ms)
    # The standard ones are read again: own kinds change what `other` means.
    features = [replace(feature, value=reader.read(feature.text)) for feature in (base.features if base else ())]
    for group, entries in file.features.items():
        for name, entry in entries.items():
            try:
                features += _expanded(reader, group, name, entry, file.windows, with_functions)
            except ExpressionError as error:
                key = "value" if entry.python is None else "python"
                raise DeclarationError(f"key features.{group}.{name}.{key}: {error}") from None
    features = _by_group(features)
    repeated = [name for name, times in Counter(feature.name for feature in features).items() if times > 1]
    if repeated:
        raise DeclarationError(f"key features: {repeated[0]} is declared twice: rename one")
    return Declaration(tuple(features), replace(layout, tiles=_tiles(features)), gap_ms)


def _checked(content: Any, origin: str, with_functions: bool = True) -> tuple[FeatureFile, Declaration]:
    """The content of a file, checked as a whole, and its declaration; `with_functions` as in `load_declaration`."""
    try:
        file = msgspec.convert(content, FeatureFile)
    except msgspec.ValidationError as error:
        key, rule = _entry_error(content) or key_and_rule(error)
        raise DeclarationError(one_line(f"{origin}: key {key}: {rule}" if key else f"{origin}: {rule}")) from None
    try:
        return file, declaration_of(file, with_functions)
    except DeclarationError as error:
        raise DeclarationError(one_line(f"{origin}: {error}")) from None


def _entry_error(content: Any) -> tuple[str, str] | None:
    """The key of the first entry that is invalid, which msgspec does not name, and the rule; None if all are valid."""
    if not isinstance(content, dict):
        return None
    entries = [(f"kinds.{name}", entry, Code) for name, entry in _items(content.get("kinds"))]
    entries += [(f"columns.{name}", entry, ColumnEntry) for name, entry in _items(content.get("columns"))]
    for group, features in _items(content.get("features")):
        entries += [(f"features.{group}.{name}", entry, FeatureEntry) for name, entry in _items(features)]
    for key, entry, kind in entries:
        try:
            msgspec.convert(entry, kind)
        except msgspec.ValidationError as error:
            inner, rule = key_and_rule(error)
            return ".".join(filter(None, (key, inner))), rule
    return None


def _items(content: Any) -> list[tuple[Any, Any]]:
    return list(content.items()) if isinstance(content, dict) else []


def _tiles(features: Sequence[Feature]) -> tuple[Tiles, ...]:
    """The tiles that features need, in the order in which they first appear."""
    counts: dict[tuple[str, int], int] = {}
    for feature in features:
        for part in aggregates(feature.value):
            if part.over.name == "tiles":
                key = part.text, part.over.by_ms
                counts[key] = max(counts.get(key, 0), part.over.buckets)
    layout = EventLayout(tiles=tuple(Tiles(*key, count) for key, count in counts.items()))
    if layout.tiles_type.itemsize > TILE_BYTES:
        raise DeclarationError(
            f"key features: totals with by= take {layout.tiles_type.itemsize} bytes of each user's state, at most "
            f"{TILE_BYTES}: use fewer, or longer ones in by="
        )
    return layout.tiles


def _by_group(features: Sequence[Feature]) -> list[Feature]:
    """The features, those of a group together, as files have them."""
    order = {group: place for place, group in enumerate(dict.fromkeys(feature.group for feature in features))}
    return sorted(features, key=lambda feature: order[feature.group])


def _written(duration_ms: int) -> str:
    """A duration as a file has it."""
    units = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
    return next(f"{duration_ms // length}{unit}" for unit, length in units.items() if duration_ms % length == 0)


def _own_kinds(kinds: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    for name in kinds:
        if not re.fullmatch(KIND_PATTERN, name):
            raise DeclarationError(
                f"key kinds: {name!r}: expected 1 to 40 letters, digits and underscores (GA4's rule)"
            )
        if name in EVENT_KINDS:
            raise DeclarationError(f"key kinds: {name} is a standard kind; leave it out")
    repeated = [code for code, times in Counter(kinds.values()).items() if times > 1]
    if repeated:
        raise DeclarationError(f"key kinds: code {repeated[0]} is given to several kinds; give each its own")
    return tuple(sorted(kinds.items(), key=lambda kind: kind[1]))


def _publication(entry: PopulationEntry | None, base: Declaration | None) -> Publication:
    if entry is None:
        return base.layout.publication if base else Publication()
    publication = Publication(*(duration_of(length) for length in (entry.every, entry.delay, entry.half_life)))
    if publication.half_life_ms < publication.every_ms:
        raise DeclarationError(
            f"key population.half_life: {entry.half_life} is shorter than every, {entry.every}: each table would have "
            "forgotten the one before: choose a longer one"
        )
    return publication


def _own_columns(entries: Mapping[str, ColumnEntry]) -> tuple[OwnColumn | PopulationColumn, ...]:
    columns = []
    for name, entry in entries.items():
        if not re.fullmatch(NAME_PATTERN, name) or keyword.iskeyword(name):
            raise DeclarationError(f"key columns: {name!r}: {NAME_RULE}")
        if name in COLUMNS:
            raise DeclarationError(f"key columns: {name} is a standard column; choose another name")
        is_category, is_number = entry.type == "category", entry.type == "number"
        is_population = entry.type == "population"
        for key in ("field",) if is_population else ("by", "kind", "rate"):
            if getattr(entry, key) not in (None, False):
                raise DeclarationError(f"key columns.{name}.{key}: {entry.type} takes no {key}; leave it out")
        if is_category != bool(entry.names):
            needs = (
                "a category needs names, such as names: [free, pro]" if is_category else f"{entry.type} takes no names"
            )
            raise DeclarationError(f"key columns.{name}.names: {needs}")
        for each in entry.names:
            if each != " ".join(each.split()):
                raise DeclarationError(
                    f"key columns.{name}.names: {each!r}: leave out blanks at its ends and double ones"
                )
        if len({each.lower() for each in entry.names} | {UNKNOWN}) != len(entry.names) + 1:
            raise DeclarationError(f"key columns.{name}.names: each must differ from the others and from {UNKNOWN}")
        for key in ("bytes", "scale"):
            if not is_number and getattr(entry, key) is not None:
                raise DeclarationError(f"key columns.{name}.{key}: only a number has it; leave it out")
        if is_population:
            if entry.rate and None in (entry.by, entry.kind):
                raise DeclarationError(f"key columns.{name}.rate: a rate needs by and kind: give both, or leave it out")
            columns.append(PopulationColumn(name, entry.by, entry.kind, entry.rate))
            continue
        size = (entry.bytes or 4) if is_number else 1 if is_category else 4
        columns.append(OwnColumn(name, entry.type, entry.field or name, size, entry.scale or 1, entry.names))
    return tuple(columns)


def _check_columns(layout: EventLayout) -> None:
    """Check the own columns of a layout together. Raises DeclarationError."""
    repeated = [name for name, times in Counter(column.name for column in layout.own_columns).items() if times > 1]
    if repeated:
        raise DeclarationError(f"key columns: {repeated[0]} is declared twice: rename one")
    taken = sum(column.bytes for column in layout.own_columns)
    if taken > OWN_BYTES:
        raise DeclarationError(
            f"key columns: they take {taken} bytes of each event, at most {OWN_BYTES}: leave one out, or give a number "
            "fewer bytes"
        )
    is_number = dict.fromkeys(Click.__struct_fields__) | {
        field.name: field.type is not str for field in fields_of(Click)
    }
    for column in layout.click_columns:
        found = is_number.setdefault(column.field, column.type == "number")
        if found != (column.type == "number"):
            kind = {True: "a number", False: "a text", None: "neither a number nor a text"}[found]
            raise DeclarationError(
                f"key columns.{column.name}.type: {column.type}: the field {column.field} of a click is {kind}"
            )
    shared = [name for name, column in columns_of(layout).items() if can_be_shared(column)]
    for column in layout.population_columns:
        if column.by is not None and column.by not in shared:
            raise DeclarationError(f"key columns.{column.name}.by: {column.by!r}: expected one of {', '.join(shared)}")
        if column.kind is not None and column.kind not in layout.kinds:
            raise DeclarationError(
                f"key columns.{column.name}.kind: {column.kind!r}: expected one of {', '.join(layout.kinds)}"
            )


def _entry(column: OwnColumn | PopulationColumn) -> dict[str, Any]:
    """A column as `ColumnEntry` reads it."""
    if isinstance(column, PopulationColumn):
        entry = {"type": "population", "by": column.by, "kind": column.kind}
        return entry | ({"rate": True} if column.rate else {})
    entry = {"type": column.type, "field": column.field, "names": column.names}
    return entry | ({"bytes": column.bytes, "scale": column.scale} if column.type == "number" else {})


def _expanded(
    reader: Reader, group: str, name: str, entry: FeatureEntry, windows: Sequence[str], with_functions: bool
) -> Iterator[Feature]:
    """A feature of a file; for a name with {window}, one for each window."""
    if (entry.value is None) == (entry.python is None):
        given = "neither" if entry.value is None else "both"
        raise DeclarationError(f"key features.{group}.{name}: expected one of value and python, got {given}")
    if WINDOW not in name and WINDOW in (entry.value or ""):
        raise DeclarationError(
            f"key features.{group}.{name}: its value has {WINDOW}, so the name must have it too, as in {name}_{WINDOW}"
        )
    if WINDOW in name and not windows:
        raise DeclarationError(f"key features.{group}.{name}: {WINDOW} needs windows, such as windows: [30m, 24h]")
    for window in windows if WINDOW in name else ("",):
        written = name.replace(WINDOW, window)
        if not re.fullmatch(NAME_PATTERN, written):
            raise DeclarationError(f"key features.{group}.{name}: {written!r}: {NAME_RULE}")
        if entry.python is not None:
            text = entry.python
            is_found = entry.sha256 is None and with_functions
            value = find_function(text) if is_found else Function(text, entry.sha256 or "")
        else:
            text = " ".join(entry.value.replace(WINDOW, window).split())
            value = reader.read(text)
        yield Feature(written, group, entry.unit, entry.doc.replace(WINDOW, window), text, value)


def _shipped(name: str) -> Declaration:
    return read_declaration(parse_yaml(files(__package__).joinpath(name).read_text()), name)


#: The standard features.
STANDARD = _shipped(STANDARD_FILE)


@cache
def population() -> Declaration:
    """The standard features, and those of what other users did."""
    return _shipped(POPULATION_FILE)
