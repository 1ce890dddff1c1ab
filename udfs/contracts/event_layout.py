"""The layout of packed events: EVENT, a shop's own kinds of events, and its own columns behind the others.

A job keeps events in the layout that it is submitted with. Without own kinds and columns, that is EVENT itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from zlib import crc32

import numpy as np

from udfs.contracts.packed_events import EVENT, EVENT_KINDS, NO_ID

#: The most that the own columns of an event may take.
OWN_BYTES = 32

#: The most that tiles may take of a user's state.
TILE_BYTES = 2048

_SIGNED = {1: "b", 2: "h", 4: "i"}


@dataclass(frozen=True)
class OwnColumn:
    """A column of events that a shop declares, filled from a field of its clicks.

    A number is kept as the integer nearest to value x scale, in `bytes` bytes; one beyond the largest is cut to it. Of
    a category the number of its name is kept, from 1, and of an identifier the CRC-32.
    """

    name: str
    type: Literal["number", "category", "identifier"]
    field: str
    bytes: int
    scale: int = 1
    names: tuple[str, ...] = ()

    @property
    def stored_name(self) -> str:
        """What it is called in the packed record."""
        return f"own_{self.name}"

    @property
    def format(self) -> str:
        """Its `struct` format, which numpy knows as well."""
        return {"number": _SIGNED.get(self.bytes, ""), "category": "B", "identifier": "I"}[self.type]

    @property
    def missing(self) -> int:
        """What is kept where an event has no such value."""
        return -(2 ** (8 * self.bytes - 1)) if self.type == "number" else NO_ID

    def encoder(self) -> Callable[[Any], int]:
        """The function that makes what is kept of a field's value."""
        missing = self.missing
        if self.type == "identifier":
            return lambda value: crc32(str(value).encode()) if value not in (None, "") else missing
        if self.type == "category":
            codes = {name.lower(): code for code, name in enumerate(self.names, 1)}
            return lambda value: 0 if value is None else codes.get(str(value).lower(), 0)
        scale, largest = self.scale, -missing - 1

        def encode(value: float | None) -> int:
            return missing if value is None else round(max(-largest, min(largest, value * scale)))

        return encode


@dataclass(frozen=True)
class PopulationColumn:
    """A column of events that holds what other users did: how many events there were before, as a published table says.

    `by` is the column of events whose value they share with this event, such as category; None: all events. `kind` is
    the kind of the events that count; None: any. A `rate` is their share of the events with that value, drawn towards
    the share of all. udfs/population fills it; until then, it is missing (NaN).
    """

    name: str
    by: str | None = None
    kind: str | None = None
    rate: bool = False

    type = "population"
    format = "f"
    bytes = 4
    missing = float("nan")

    @property
    def stored_name(self) -> str:
        """What it is called in the packed record."""
        return f"own_{self.name}"


@dataclass(frozen=True)
class Publication:
    """When tables of what the population did are made, and how fast they forget."""

    every_ms: int = 3_600_000  # a table is made at each multiple of it
    delay_ms: int = 300_000  # so long after that, rows begin to see it
    half_life_ms: int = 30 * 86_400_000  # an event counts half after this time


@dataclass(frozen=True)
class Tiles:
    """Totals of a user's events by bucket of time, which reach further back than the history.

    `text` is what they total, as an expression: a count, or a sum of a column. Bucket k has the events from k x `by_ms`
    on, and the newest `count` buckets are kept.
    """

    text: str
    by_ms: int
    count: int

    @property
    def type(self) -> np.dtype:
        """Of a bucket. A count stops at its largest number."""
        return np.dtype("<f4" if self.text.startswith("sum(") else "<u2")


@dataclass(frozen=True)
class EventLayout:
    """What a job keeps of events: how clicks are packed, with own kinds and columns, and tiles; each in their order."""

    own_kinds: tuple[tuple[str, int], ...] = ()
    own_columns: tuple[OwnColumn | PopulationColumn, ...] = ()
    tiles: tuple[Tiles, ...] = ()
    publication: Publication = Publication()

    @cached_property
    def population_columns(self) -> tuple[PopulationColumn, ...]:
        return tuple(column for column in self.own_columns if isinstance(column, PopulationColumn))

    @cached_property
    def click_columns(self) -> tuple[OwnColumn, ...]:
        """The own columns that are filled from fields of clicks."""
        return tuple(column for column in self.own_columns if isinstance(column, OwnColumn))

    @cached_property
    def kinds(self) -> dict[str, int]:
        """The codes of all kinds of events."""
        return {name: code for code, name in enumerate(EVENT_KINDS)} | dict(self.own_kinds)

    @cached_property
    def dtype(self) -> np.dtype:
        """The packed record: EVENT, then the own columns, in whole times eight bytes."""
        if not self.own_columns:
            return EVENT
        fields = [(name, EVENT[name]) for name in EVENT.names]
        fields += [(column.stored_name, f"<{column.format}") for column in self.own_columns]
        return np.dtype([*fields, *((f"own_spare_{number}", "u1") for number in range(self.spare))])

    @cached_property
    def tiles_type(self) -> np.dtype:
        """A user's tiles: the newest bucket of each, and its buckets, k at position k modulo their number."""
        fields = [
            field
            for number, tiles in enumerate(self.tiles)
            for field in ((f"newest_{number}", "<i4"), (f"buckets_{number}", tiles.type, (tiles.count,)))
        ]
        return np.dtype(fields or [("none", "u1")])

    def find_tiles(self, text: str, by_ms: int) -> int:
        """The position of the tiles of an expression. Raises StopIteration if there are none."""
        return next(place for place, tiles in enumerate(self.tiles) if (tiles.text, tiles.by_ms) == (text, by_ms))

    @property
    def used_bytes(self) -> int:
        """The size of a packed record without what is spare at its end."""
        return EVENT.itemsize + sum(column.bytes for column in self.own_columns)

    @property
    def spare(self) -> int:
        return -self.used_bytes % 8

    @property
    def empty_record(self) -> bytes:
        """A packed record without any of the own columns; the others are 0."""
        record = np.zeros((), self.dtype)
        for column in self.own_columns:
            record[column.stored_name] = column.missing
        return record.tobytes()

    def without(self, other: "EventLayout") -> list[str]:
        """What another layout has and this one does not have alike, in words."""
        mine = dict(self.own_kinds)
        lacking = [
            f"the kind of event {name} with code {code}" for name, code in other.own_kinds if mine.get(name) != code
        ]
        lacking += [f"the column {column.name}" for column in other.own_columns if column not in self.own_columns]
        if other.population_columns and other.publication != self.publication:
            lacking.append("tables of the population made by the same schedule (key population)")
        kept = {(tiles.text, tiles.by_ms): tiles.count for tiles in self.tiles}
        lacking += [
            f"totals of {tiles.text} in {tiles.count} buckets of {tiles.by_ms / 3_600_000:g} h"
            for tiles in other.tiles
            if kept.get((tiles.text, tiles.by_ms), 0) < tiles.count
        ]
        return lacking


#: Events without anything of a shop's own.
STANDARD_LAYOUT = EventLayout()
