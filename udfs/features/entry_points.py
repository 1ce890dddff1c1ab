"""The functions of a kernel that Python calls, around the `compute_row` of its features.

Not imported but run for each set of features, by udfs/features/kernel.py, which adds the names below that are only
imported for type checkers.
"""

from typing import TYPE_CHECKING

import numpy as np
from numba import from_dtype, njit, types

from udfs.contracts.profiles import PROFILE
from udfs.features import kernel_cache
from udfs.features.row_functions import compiled
from udfs.features.user_slots import EVENT_ROW, LOGIN_ROW, PROFILE_ROW

if TYPE_CHECKING:
    from udfs.features.row_functions import add_to_tiles, compute_row
    from udfs.features.slot_functions import (
        EVENT_TYPE,
        EVENTS,
        PER_ROW,
        SLOT_FIELDS,
        STRIDED,
        is_repeated,
        keep,
        kept_range,
    )

    COLUMNS = COUNT_TABLES = SUM_TABLES = TIME_TABLES = SETS = TABLE_LENGTH = 1
    TILES = np.dtype([("none", "u1")])

TILES_TYPE = from_dtype(TILES)
HAS_TILES = TILES.names != ("none",)


@compiled
def longest_slice(starts, ends, record_count):
    """The longest of the slices, or -1 - r when row r's is empty or not inside the records."""
    longest = 0
    for r in range(len(starts)):
        if starts[r] < 0 or ends[r] <= starts[r] or ends[r] > record_count:
            return -1 - r
        longest = max(longest, ends[r] - starts[r])
    return longest


@compiled
def scratch(longest):
    """Working memory for histories of at most so many records: row, and what `compute_row` takes last."""
    capacity = 2
    while capacity < 2 * longest:
        capacity *= 2
    return (
        np.full(COLUMNS, np.inf, np.float32),  # infinite: a column that nobody stores fails the tests
        np.empty(longest, np.int64),
        np.zeros((SETS, capacity), np.uint64),
        np.empty((COUNT_TABLES, TABLE_LENGTH), np.int64),
        np.empty((SUM_TABLES, TABLE_LENGTH), np.float64),
        np.empty((TIME_TABLES, TABLE_LENGTH), np.int64),
    )


@njit(
    types.int64(
        types.Array(EVENT_TYPE, 1, "C", readonly=True),
        PER_ROW,
        PER_ROW,
        PER_ROW,
        PER_ROW,
        types.Array(from_dtype(PROFILE), 1, "C", readonly=True),
        types.int64,
        types.int64,
        types.Array(types.int64, 1, "C"),
        types.Array(types.float32, 2, "C"),
    ),
    **kernel_cache.entry_options(),
)
def compute_rows(
    records, starts, ends, lifetime_events, first_seen_ms, profiles, history_length, needs, columns, matrix
):
    """Fill matrix float32[n, k] with the features `columns` int64[k]; arguments as in FeatureComputer.compute.

    `needs` has the bits of the totals that the columns need. Returns -1, or the first row whose slice is
    empty or not inside the records.
    """
    longest = longest_slice(starts, ends, len(records))
    if longest < 0:
        return -1 - longest
    row, order, sets, counts, sums, times = scratch(min(longest, history_length))
    tiles = np.zeros(1, TILES_TYPE)
    first, added = np.int64(-1), np.int64(0)  # the records in the tiles: those of a user, up to the row before
    for r in range(len(starts)):
        end = ends[r]
        if HAS_TILES:
            if starts[r] != first or end < added:
                tiles = np.zeros(1, TILES_TYPE)
                first = added = starts[r]
            for position in range(added, end):
                add_to_tiles(tiles, 0, records[position])
            added = end
        start = max(starts[r], end - history_length)
        compute_row(
            row, records, start, end, lifetime_events[r], first_seen_ms[r], profiles[r], tiles, 0, needs, r + 1,
            order, sets, counts, sums, times,
        )  # fmt: skip
        for column in range(len(columns)):
            matrix[r, column] = row[columns[column]]
    return -1


@njit(
    types.void(
        STRIDED[types.uint8],
        EVENTS,
        types.Array(from_dtype(PROFILE), 1, "A"),
        STRIDED[types.uint64],
        STRIDED[types.int64],
        STRIDED[types.int64],
        STRIDED[types.int32],
        *SLOT_FIELDS,
        types.Array(from_dtype(PROFILE), 1, "A"),
        STRIDED[types.uint64],
        types.Array(TILES_TYPE, 1, "A"),
        types.int64,
        types.int64,
        types.int64,
        types.Array(types.int64, 1, "C"),
        types.Array(types.float32, 2, "C"),
        types.Array(types.boolean, 1, "C"),
    ),
    **kernel_cache.entry_options(),
)
def append_rows(
    kinds, events, new_profiles, new_assigned_by, more_events, seen_first_ms, slots, begins, ends, events_seen,
    first_seen_ms, orders, records, ring_length, profiles, assigned_by, tiles, history_length, within_ms, needs,
    columns, matrix, scored,
):  # fmt: skip
    """Take in n rows in their order, each into the slot of its user; store the features of the events to score.

    kinds, events, new_profiles, and of logins new_assigned_by, more_events and seen_first_ms are of the rows; begins to
    orders, profiles, assigned_by and tiles of the slots' heads (begins and ends in bytes), records
    EVENT[c * ring_length] their rings. Row r of matrix float32[m, k] is of the r-th row where scored bool[n] becomes
    true: an event that has not been sent before, as far as the slot remembers (`is_repeated`).
    """
    row, order, sets, counts, sums, times = scratch(history_length)
    stored = 0
    for r in range(len(slots)):
        slot = slots[r]
        scored[r] = False
        if kinds[r] == PROFILE_ROW:
            profiles[slot] = new_profiles[r]
            continue
        if kinds[r] == LOGIN_ROW:
            if events_seen[slot] == 0:
                assigned_by[slot] = new_assigned_by[r]
            if more_events[r] > 0:
                if events_seen[slot] == 0 or seen_first_ms[r] < first_seen_ms[slot]:
                    first_seen_ms[slot] = seen_first_ms[r]
                events_seen[slot] += more_events[r]
            continue
        start, end = kept_range(slot, begins, ends, ring_length, history_length)
        if is_repeated(events[r], records, start, end, orders[slot], within_ms):
            continue
        keep(events[r], slot, begins, ends, events_seen, first_seen_ms, orders, records, ring_length, history_length)
        if HAS_TILES:
            add_to_tiles(tiles, slot, events[r])
        if kinds[r] != EVENT_ROW:
            continue
        start, end = kept_range(slot, begins, ends, ring_length, history_length)
        compute_row(
            row, records, start, end, np.int64(events_seen[slot]), first_seen_ms[slot], profiles[slot], tiles, slot,
            needs, r + 1, order, sets, counts, sums, times,
        )  # fmt: skip
        for column in range(len(columns)):
            matrix[stored, column] = row[columns[column]]
        scored[r] = True
        stored += 1
