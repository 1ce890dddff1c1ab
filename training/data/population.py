"""What the population had done when each recorded event arrived, as the tables of the job would have said.

Tables count the events of all users, and a bucket has only some of them. So this takes three steps: each bucket is
counted, one sweep over time advances a table and looks up what each event sees, and the columns are filled where a
bucket is built. The tables are those of udfs/population, one at a time in memory, and none is written.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from training.data.arrival_order import read_twice
from training.data.partitioning import coded, gather, unpack
from training.data.summary import UNKNOWN_MS
from udfs.contracts.event_layout import EventLayout
from udfs.population.tables import (
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

#: What a bucket adds to the table of a boundary: the events of a fold of its users with a key.
ADDED = np.dtype([("boundary_ms", "<i8"), ("key", "<u4"), ("fold", "u1"), ("events", "<u4")])


@dataclass(frozen=True)
class Counted:
    """What is needed of some events: what they add to tables, and what they see in them; each by boundary."""

    added: Sequence[np.ndarray]  # ADDED[...] for each of `counted_by`
    asked: np.ndarray  # of each event: boundary_ms, row, fold, and a key for each column of the population
    values: np.ndarray  # float32[n, columns of the population], by row: where the sweep stores what they see


def count_events(
    records: np.ndarray, user: np.ndarray, folds: np.ndarray, arrival_ms: np.ndarray, layout: EventLayout
) -> list[np.ndarray]:
    """What n events EVENT[n] of users int64[n], their folds and arrivals add to tables: see `Counted.added`."""
    boundaries, boundary = np.unique(boundary_after(arrival_ms, layout.publication), return_inverse=True)
    users = user.max(initial=0) + 1
    pairs, pair = np.unique(boundary * users + user, return_inverse=True)
    fold_of_user = np.zeros(users, np.int64)
    fold_of_user[user] = folds
    added = []
    for what in counted_by(layout):
        of_pair, keys, events = count(records, pair, what, layout.kinds).T  # in order of boundary
        one = np.empty(len(keys), ADDED)
        one["boundary_ms"], one["key"], one["events"] = boundaries[pairs[of_pair] // users], keys, events
        one["fold"] = fold_of_user[pairs[of_pair] % users]
        added.append(one)
    return added


def ask(records: np.ndarray, folds: np.ndarray, arrival_ms: np.ndarray, layout: EventLayout) -> np.ndarray:
    """What n events EVENT[n] with these folds and arrivals want of tables: see `Counted.asked`."""
    keys = [(f"key_{number}", "<u4") for number in range(len(layout.population_columns))]
    asked = np.empty(len(records), [("boundary_ms", "<i8"), ("row", "<i8"), ("fold", "u1"), *keys])
    asked["boundary_ms"], asked["row"] = boundary_before(arrival_ms, layout.publication), np.arange(len(records))
    asked["fold"] = folds
    for column, (name, _) in zip(layout.population_columns, keys):
        asked[name] = keys_of(records, column.by)
    return asked[np.argsort(asked["boundary_ms"], kind="stable")]


def sweep(parts: Sequence[Counted], layout: EventLayout, until_ms: int | None = None) -> Iterator[Table]:
    """Advance a table over all boundaries up to a time, by default as far as events look, and store what they see.

    Yields each table, from the first event on.
    """
    asked_ms, added_ms = (
        np.unique(np.concatenate([np.unique(one["boundary_ms"]) for one in arrays]))
        for arrays in ([part.asked for part in parts], [one for part in parts for one in part.added])
    )
    until_ms = asked_ms.max(initial=-1) if until_ms is None else until_ms
    boundaries = np.union1d(asked_ms, added_ms)
    boundaries = boundaries[boundaries <= until_ms]
    added = [[_slices(part.added[number], boundaries) for part in parts] for number in range(len(parts[0].added))]
    asked = [_slices(part.asked, boundaries) for part in parts]
    table = None
    for place, boundary_ms in enumerate(boundaries.tolist()):
        if table is not None or boundary_ms in added_ms[:1]:
            since = {}
            for what, slices in zip(counted_by(layout), added):
                rows = np.concatenate([slice_of(place) for slice_of in slices])
                since[what] = counts_of(rows["key"].astype(np.int64), rows["fold"], rows["events"])
            table = advanced(table, boundary_ms, since, layout.publication)
            yield table
        _store(parts, [slice_of(place) for slice_of in asked], layout, table)


def _slices(rows: np.ndarray, boundaries: np.ndarray) -> Callable[[int], np.ndarray]:
    """The function that gives the rows of the k-th boundary; rows are in order of theirs."""
    starts, ends = (np.searchsorted(rows["boundary_ms"], boundaries, side) for side in ("left", "right"))
    return lambda place: rows[starts[place] : ends[place]]


def _store(parts: Sequence[Counted], slices: Sequence[np.ndarray], layout: EventLayout, table: Table | None) -> None:
    asked = np.concatenate(slices)
    if not len(asked):
        return
    found = np.stack(
        [
            values_of(asked[f"key_{number}"], asked["fold"], column, table)
            for number, column in enumerate(layout.population_columns)
        ],
        axis=1,
    )
    ends = np.cumsum([len(rows) for rows in slices])
    for part, rows, values in zip(parts, slices, np.split(found, ends[:-1])):
        part.values[rows["row"]] = values


def fill_events(
    records: np.ndarray, user: np.ndarray, user_ids: Sequence[str], arrival_ms: np.ndarray, layout: EventLayout
) -> np.ndarray:
    """All recorded events EVENT[n], with the columns filled; of users int64[n] with these ids by code."""
    folds = folds_of(user_ids)[user]
    values = np.empty((len(records), len(layout.population_columns)), np.float32)
    part = Counted(
        count_events(records, user, folds, arrival_ms, layout), ask(records, folds, arrival_ms, layout), values
    )
    for _ in sweep([part], layout):
        pass
    return _filled(records, values, layout)


def _filled(records: np.ndarray, values: np.ndarray, layout: EventLayout) -> np.ndarray:
    filled = records.copy()
    for number, column in enumerate(layout.population_columns):
        filled[column.stored_name] = values[:, number]
    return filled


# Of buckets on disk.


def count_bucket(spill: Path, kind: str, bucket: int, schema: pa.Schema, layout: EventLayout) -> None:
    """Write what the rows of a bucket add to tables, and what they want of them. Only rows of `events` add."""
    rows = gather(spill, kind, bucket, schema)
    user, user_ids = coded(rows.column("user_id"))
    records = unpack(rows.column("packed"), layout.dtype)
    folds, arrival_ms = folds_of(user_ids)[user], _arrivals(rows, records)
    counts = np.flatnonzero(_read_first(rows, user)) if kind == "events" else slice(0)
    added = count_events(records[counts], user[counts], folds[counts], arrival_ms[counts], layout)
    for number, one in enumerate(added):
        np.save(_file(spill, kind, bucket, f"added-{number}"), one)
    np.save(_file(spill, kind, bucket, "asked"), ask(records, folds, arrival_ms, layout))
    np.save(_file(spill, kind, bucket, "values"), np.empty((len(records), len(layout.population_columns)), np.float32))


def counted_buckets(spill: Path, kinds: Sequence[str], buckets: int, layout: EventLayout) -> list[Counted]:
    """What `count_bucket` wrote, read from disk where it is used."""
    return [
        Counted(
            [
                np.load(_file(spill, kind, bucket, f"added-{number}"), mmap_mode="r")
                for number in range(len(counted_by(layout)))
            ],
            np.load(_file(spill, kind, bucket, "asked"), mmap_mode="r"),
            np.load(_file(spill, kind, bucket, "values"), mmap_mode="r+"),
        )
        for kind in kinds
        for bucket in range(buckets)
    ]


def gather_filled(spill: Path, kind: str, bucket: int, schema: pa.Schema, layout: EventLayout) -> pa.Table:
    """All rows of a bucket, as `gather` reads them, with the columns of the population if they were counted."""
    rows, file = gather(spill, kind, bucket, schema), _file(spill, kind, bucket, "values")
    if not file.exists() or not rows.num_rows:
        return rows
    records = _filled(unpack(rows.column("packed"), layout.dtype), np.load(file), layout)
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
