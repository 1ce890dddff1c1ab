"""What the population had done when each recorded event arrived, as the tables of the job would have said.

Tables count the events of all users, and a bucket has only some of them. So this takes three steps: each bucket is
counted, one sweep over time advances a table and looks up what each event sees, and the columns are filled where a
bucket is built. The tables are those of udfs/population, one at a time in memory, and none is written.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from training.data.arrival_order import read_twice
from training.data.partitioning import coded, gather, unpack
from training.data.summary import UNKNOWN_MS
from udfs.contracts.event_layout import EventLayout
from udfs.population.tables import (
    EVERYONE,
    Counted,
    Counts,
    Table,
    advanced,
    boundary_after,
    boundary_before,
    count,
    counted_by,
    counts_of,
    folds_of,
    keys_of,
    values_of,
)

#: What events add to the table of a boundary: of what is counted by its number, those of a fold of users with a key.
ADDED = np.dtype([("boundary_ms", "<i8"), ("key", "<u4"), ("events", "<u4"), ("counted", "u1"), ("fold", "u1")])


class Bucket(NamedTuple):
    """What some events add to tables, and what they see in them; by boundary. The arrays may be on disk."""

    added: np.ndarray  # ADDED[m]
    asked: np.ndarray  # asked_type(...)[n]


def asked_type(layout: EventLayout) -> np.dtype:
    """What an event wants to know: for each column of the population the key and, from the sweep on, the value."""
    columns = range(len(layout.population_columns))
    keys, values = (
        [(f"{name}_{number}", type_) for number in columns] for name, type_ in (("key", "<u4"), ("value", "<f4"))
    )
    return np.dtype([("boundary_ms", "<i8"), ("row", "<i8"), ("fold", "u1"), *keys, *values])


def count_events(
    records: np.ndarray, user: np.ndarray, folds: np.ndarray, arrival_ms: np.ndarray, layout: EventLayout
) -> np.ndarray:
    """What n events EVENT[n] of users int64[n], their folds and arrivals add to tables: ADDED[m] by boundary."""
    boundaries, boundary = np.unique(boundary_after(arrival_ms, layout.publication), return_inverse=True)
    users = user.max(initial=0) + 1
    pairs, pair = np.unique(boundary * users + user, return_inverse=True)
    fold_of_user = np.zeros(users, np.int64)
    fold_of_user[user] = folds
    added = []
    for number, what in enumerate(counted_by(layout)):
        of_pair, keys, events = count(records, pair, what, layout.kinds).T
        one = np.empty(len(keys), ADDED)
        one["boundary_ms"], one["fold"] = boundaries[pairs[of_pair] // users], fold_of_user[pairs[of_pair] % users]
        one["counted"], one["key"], one["events"] = number, keys, events
        added.append(one)
    return _by_boundary(np.concatenate(added))


def ask(records: np.ndarray, folds: np.ndarray, arrival_ms: np.ndarray, layout: EventLayout) -> np.ndarray:
    """What n events EVENT[n] with these folds and arrivals want to know: asked_type(...)[n] by boundary."""
    asked = np.zeros(len(records), asked_type(layout))
    asked["boundary_ms"], asked["row"] = boundary_before(arrival_ms, layout.publication), np.arange(len(records))
    asked["fold"] = folds
    for number, column in enumerate(layout.population_columns):
        asked[f"key_{number}"] = keys_of(records, column.by)
    return _by_boundary(asked)


def sweep(buckets: Sequence[Bucket], layout: EventLayout, until_ms: int | None = None) -> Iterator[Table]:
    """Advance a table over all boundaries up to a time, by default as far as events look, and store what they see.

    Yields each table, from the first one that counts an event on.
    """
    added_ms, asked_ms = (
        np.unique(np.concatenate([np.unique(rows["boundary_ms"]) for rows in arrays])) for arrays in zip(*buckets)
    )
    until_ms = asked_ms.max(initial=-1) if until_ms is None else until_ms
    first_ms = added_ms.min(initial=until_ms + 1)
    boundaries = np.union1d(added_ms, asked_ms)
    boundaries = boundaries[boundaries <= until_ms]
    added, asked = ([_of_boundaries(rows, boundaries) for rows in arrays] for arrays in zip(*buckets))
    table = None
    for place, boundary_ms in enumerate(boundaries.tolist()):
        if boundary_ms >= first_ms:
            rows = np.concatenate([rows_of(place) for rows_of in added])
            table = advanced(table, boundary_ms, _counts(rows, layout), layout.publication)
            yield table
        for rows_of in asked:
            _answer(rows_of(place), layout, table)


def fill_events(
    records: np.ndarray, user: np.ndarray, user_ids: Sequence[str], arrival_ms: np.ndarray, layout: EventLayout
) -> np.ndarray:
    """All recorded events EVENT[n], with the columns filled; of users int64[n] with these ids by code."""
    folds = folds_of(user_ids)[user]
    added = count_events(records, user, folds, arrival_ms, layout)
    asked = ask(records, folds, arrival_ms, layout)
    for _ in sweep([Bucket(added, asked)], layout):
        pass
    return _filled(records, asked, layout)


def _by_boundary(rows: np.ndarray) -> np.ndarray:
    return rows[np.argsort(rows["boundary_ms"], kind="stable")]


def _of_boundaries(rows: np.ndarray, boundaries: np.ndarray) -> Callable[[int], np.ndarray]:
    """The function that gives the rows of the k-th boundary, as a view."""
    starts, ends = (np.searchsorted(rows["boundary_ms"], boundaries, side) for side in ("left", "right"))
    return lambda place: rows[starts[place] : ends[place]]


def _counts(added: np.ndarray, layout: EventLayout) -> dict[Counted, Counts]:
    counts = {}
    for number, what in enumerate(counted_by(layout)):
        rows = added[added["counted"] == number]
        counts[what] = counts_of(rows["key"], rows["fold"].astype(np.int64), rows["events"])
    return counts


def _answer(asked: np.ndarray, layout: EventLayout, table: Table | None) -> None:
    """Store what events see in a table."""
    columns = layout.population_columns
    keys = {None: np.full(len(asked), EVERYONE)}
    keys |= {column.by: asked[f"key_{number}"] for number, column in enumerate(columns)}
    for number, values in enumerate(values_of(keys.__getitem__, asked["fold"], columns, table)):
        asked[f"value_{number}"] = values


def _filled(records: np.ndarray, asked: np.ndarray, layout: EventLayout) -> np.ndarray:
    filled = records.copy()
    for number, column in enumerate(layout.population_columns):
        filled[column.stored_name][asked["row"]] = asked[f"value_{number}"]
    return filled


# Of buckets on disk.


def count_bucket(spill: Path, kind: str, bucket: int, schema: pa.Schema, layout: EventLayout) -> None:
    """Write what the rows of a bucket add to tables, and what they want to know. Only rows of `events` add."""
    rows = gather(spill, kind, bucket, schema)
    user, user_ids = coded(rows.column("user_id"))
    records = unpack(rows.column("packed"), layout.dtype)
    folds, arrival_ms = folds_of(user_ids)[user], _arrivals(rows, records)
    counts = np.flatnonzero(_read_first(rows, user)) if kind == "events" else slice(0)
    added = count_events(records[counts], user[counts], folds[counts], arrival_ms[counts], layout)
    np.save(_file(spill, kind, bucket, "added"), added)
    np.save(_file(spill, kind, bucket, "asked"), ask(records, folds, arrival_ms, layout))


def counted_buckets(spill: Path, kinds: Sequence[str], buckets: int) -> list[Bucket]:
    """What `count_bucket` wrote, read and written on disk where it is used."""
    return [
        Bucket(*(np.load(_file(spill, kind, bucket, name), mmap_mode="r+") for name in Bucket._fields))
        for kind in kinds
        for bucket in range(buckets)
    ]


def gather_filled(spill: Path, kind: str, bucket: int, schema: pa.Schema, layout: EventLayout) -> pa.Table:
    """All rows of a bucket, as `gather` reads them, with the columns of the population if they were counted."""
    rows, file = gather(spill, kind, bucket, schema), _file(spill, kind, bucket, "asked")
    if not file.exists() or not rows.num_rows:
        return rows
    records = _filled(unpack(rows.column("packed"), layout.dtype), np.load(file, mmap_mode="r"), layout)
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(records.itemsize), len(records), [None, pa.py_buffer(records.tobytes())]
    )
    place = rows.schema.get_field_index("packed")
    return rows.set_column(place, schema.field(place), packed.cast(pa.binary()))


def _arrivals(rows: pa.Table, records: np.ndarray) -> np.ndarray:
    """Kafka's timestamps, as they are: the job has no others. Events of files arrived when they happened."""
    arrival_ms = rows.column("arrival_ms").to_numpy()
    return np.where(arrival_ms == UNKNOWN_MS, records["time_ms"], arrival_ms)


def _read_first(rows: pa.Table, user: np.ndarray) -> np.ndarray:
    """Which rows are the first ones of their record, bool[n]."""
    position = [user, *(rows.column(name).to_numpy() for name in ("partition", "offset"))]
    order = np.lexsort(position[::-1])
    is_first = np.empty(len(user), bool)
    is_first[order] = ~read_twice(*(column[order] for column in position))
    return is_first


def _file(spill: Path, kind: str, bucket: int, name: str) -> Path:
    return spill / f"population-{kind}-{bucket:06d}-{name}.npy"
