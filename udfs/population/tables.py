"""Tables of what the population did, and the columns of events that they fill.

A table counts the events of all users before its boundary, by the value of a column of events, such as the category,
and by a fold of the users: a hash of the user's id. An event's own fold is left out of its counts. So no user's own
events are ever among them, whatever the table knows: the leave-one-fold-out rule of target encoding (Micci-Barreca
2001, SIGKDD Explorations 3(1), with the folds of its later practice).

Events are counted by the time of their arrival, Kafka's timestamp. A count decays by half in each half-life.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple
from zlib import crc32

import numpy as np

from udfs.contracts.event_layout import EventLayout, PopulationColumn, Publication
from udfs.contracts.packed_events import NO_ID
from udfs.features.columns import HOUR_MS, QUARTER_HOUR_MS

FOLDS = 16

#: The most that one user counts for a key between two tables: a bot does not outweigh all others, nor do repeats.
MOST_PER_USER = 50

#: The most keys that a table holds of a column; beyond them, the rarest are left out.
MOST_KEYS = 200_000

#: A rate is drawn towards that of all events as if by so many more events.
DRAWN_BY = 30

#: A decayed count below it is left out.
LEAST_COUNT = 0.01

#: The key of columns that count all events.
EVERYONE = np.uint32(1)

_DAY_MS = 24 * HOUR_MS
_KEY_BITS = np.int64(32)
_ANY_KEY = np.int64(2**32 - 1)


class Counted(NamedTuple):
    """What a table counts: the events of a kind by the value of a column; None: of any kind, all together."""

    by: str | None
    kind: str | None


class Counts(NamedTuple):
    """Counts of k keys by fold."""

    keys: np.ndarray  # uint32[k], ascending
    counts: np.ndarray  # float32[k, FOLDS]


NO_COUNTS = Counts(np.empty(0, np.uint32), np.empty((0, FOLDS), np.float32))


@dataclass(frozen=True)
class Table:
    """What had happened before a boundary."""

    boundary_ms: int
    publication: Publication
    counts: dict[Counted, Counts]

    @property
    def effective_ms(self) -> int:
        """From this time on, arriving events see the table."""
        return self.boundary_ms + self.publication.delay_ms


def counted_by(layout: EventLayout) -> list[Counted]:
    """What tables have to count for the columns of a layout."""
    return list(dict.fromkeys(what for column in layout.population_columns for what in needed_by(column)))


def needed_by(column: PopulationColumn) -> list[Counted]:
    """What tables have to count for a column."""
    events = Counted(column.by, column.kind)
    if not column.rate:
        return [events]
    return [events, Counted(column.by, None), Counted(None, column.kind), Counted(None, None)]


def fold_of(user_id: str) -> int:
    return crc32(user_id.encode()) % FOLDS


def folds_of(user_ids: Sequence[str]) -> np.ndarray:
    """The folds of n users, int64[n]."""
    return np.fromiter(map(fold_of, user_ids), np.int64, len(user_ids))


def boundary_before(times_ms: np.ndarray, publication: Publication) -> np.ndarray:
    """The boundary of the newest table that may be visible at n times of arrival int64[n]; int64[n]."""
    return (times_ms - publication.delay_ms) // publication.every_ms * publication.every_ms


def boundary_after(times_ms: np.ndarray, publication: Publication) -> np.ndarray:
    """The boundary of the first table that counts events that arrived at these times, int64[n]."""
    return (times_ms // publication.every_ms + 1) * publication.every_ms


def keys_of(records: np.ndarray, by: str | None) -> np.ndarray:
    """What n packed events are counted by, uint32[n]; NO_ID where an event has no such value."""
    if by is None:
        return np.full(len(records), EVERYONE)
    if by in ("hour", "weekday"):
        local_ms = records["time_ms"] + records["utc_offset_quarters"].astype(np.int64) * QUARTER_HOUR_MS
        value = local_ms // HOUR_MS % 24 if by == "hour" else (local_ms // _DAY_MS + 3) % 7
        return (value + 1).astype(np.uint32)
    stored = by if by in records.dtype.names else f"own_{by}"
    return records[stored].astype(np.uint32)


def count(records: np.ndarray, users: np.ndarray, counted: Counted, kinds: dict[str, int]) -> np.ndarray:
    """How often each user did it with each key, of events EVENT[n] of users int64[n] between two tables.

    Users are numbers below 2^31. Returns the distinct users and keys, and the events, at most MOST_PER_USER, of each:
    int64[m, 3].
    """
    keys = keys_of(records, counted.by)
    counts = keys != NO_ID
    if counted.kind is not None:
        counts &= records["kind"] == kinds[counted.kind]
    pairs, events = np.unique(users[counts] << _KEY_BITS | keys[counts].astype(np.int64), return_counts=True)
    return np.column_stack([pairs >> _KEY_BITS, pairs & _ANY_KEY, np.minimum(events, MOST_PER_USER)])


def counts_of(keys: np.ndarray, folds: np.ndarray, events: np.ndarray) -> Counts:
    """The counts of m entries: a key, a fold of users, and a number of events; int64[m] each."""
    distinct, place = np.unique(keys.astype(np.uint32), return_inverse=True)
    sums = np.bincount(place * FOLDS + folds, events, len(distinct) * FOLDS)
    return Counts(distinct, sums.reshape(-1, FOLDS).astype(np.float32))


def advanced(table: Table | None, boundary_ms: int, counts: dict[Counted, Counts], publication: Publication) -> Table:
    """The table of a later boundary: the one before, decayed, and what was counted since, by what is counted.

    It does not depend on whether a table was made in between while nothing happened, except for the last bits.
    Raises ValueError for a boundary that is not later.
    """
    if table is not None and table.boundary_ms >= boundary_ms:
        raise ValueError(f"the table of {table.boundary_ms} can't be advanced to {boundary_ms}")
    decay = 0.0 if table is None else 0.5 ** ((boundary_ms - table.boundary_ms) / publication.half_life_ms)
    before = {} if table is None else table.counts
    return Table(
        boundary_ms, publication,
        {what: _sum(before.get(what, NO_COUNTS), decay, counts.get(what, NO_COUNTS)) for what in {**before, **counts}},
    )  # fmt: skip


def fill(records: np.ndarray, folds: np.ndarray, layout: EventLayout, table: Table | None) -> None:
    """Fill the columns of the population in n writable events EVENT[n] of users' folds int64[n], from one table.

    A value is missing without a table, and where the event has no key. Of a key that the table does not know, there
    were no events.
    """
    columns = layout.population_columns
    for column, values in zip(columns, values_of(partial(keys_of, records), folds, columns, table)):
        records[column.stored_name] = values


def values_of(
    keys_by: Callable[[str | None], np.ndarray],
    folds: np.ndarray,
    columns: Sequence[PopulationColumn],
    table: Table | None,
) -> list[np.ndarray]:
    """What `fill` stores in columns of n events of users' folds int64[n]: float32[n] each.

    `keys_by` gives what the events are counted by, uint32[n].
    """
    others = cache(lambda what: _others(keys_by(what.by), folds, what, table))
    return [_value(column, others) for column in columns]


def _value(column: PopulationColumn, others: Callable[[Counted], np.ndarray]) -> np.ndarray:
    events, *rest = map(others, needed_by(column))
    if not column.rate:
        return events
    of_value, all_of_kind, all_events = rest
    with np.errstate(divide="ignore", invalid="ignore"):
        return (events + DRAWN_BY * (all_of_kind / all_events)) / (of_value + DRAWN_BY)


def _others(keys: np.ndarray, folds: np.ndarray, what: Counted, table: Table | None) -> np.ndarray:
    """What users of other folds did with the keys, float32[n]."""
    if table is None:
        return np.full(len(keys), np.nan, np.float32)
    found = table.counts.get(what, NO_COUNTS)
    values = np.zeros(len(keys), np.float32)
    if len(found.keys):
        place = np.minimum(np.searchsorted(found.keys, keys), len(found.keys) - 1)
        rows = np.flatnonzero(found.keys[place] == keys)
        counts = found.counts[place[rows]]
        counts[np.arange(len(rows)), folds[rows]] = 0
        values[rows] = counts.sum(1, dtype=np.float64)
    values[keys == NO_ID] = np.nan
    return values


def _sum(before: Counts, decay: float, since: Counts) -> Counts:
    keys = np.union1d(before.keys, since.keys)
    sums = np.zeros((len(keys), FOLDS))
    sums[np.searchsorted(keys, before.keys)] = before.counts.astype(np.float64) * decay
    sums[np.searchsorted(keys, since.keys)] += since.counts
    totals = sums.sum(1)
    kept = totals >= LEAST_COUNT
    if np.count_nonzero(kept) > MOST_KEYS:
        kept[np.argsort(-totals, kind="stable")[MOST_KEYS:]] = False
    return Counts(keys[kept], sums[kept].astype(np.float32))
