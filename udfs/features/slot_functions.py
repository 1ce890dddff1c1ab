"""Compiled functions that keep histories in slots, whatever the features are: see udfs/features/user_slots.py.

Not imported but run for each type of packed events, by udfs/features/kernel.py, which adds EVENT, the type.
"""

from typing import TYPE_CHECKING

import numpy as np
from numba import from_dtype, njit, types

from udfs.contracts.packed_events import DEDUP_BY_EVENT, DEDUP_BY_NOTHING, DEDUP_BY_ORDER
from udfs.features import kernel_cache
from udfs.features.row_functions import compiled
from udfs.features.user_slots import REMEMBERED_ORDERS

if TYPE_CHECKING:
    from udfs.contracts.packed_events import EVENT

EVENT_BYTES = np.int64(EVENT.itemsize)
EVENT_TYPE = from_dtype(EVENT)


@compiled
def is_repeated(event, records, start, end, orders, within_ms):
    """Whether an event is one of the kept records[start:end] or of the remembered orders, sent once more."""
    if event.dedup_by == DEDUP_BY_NOTHING or within_ms <= 0:
        return False
    if event.dedup_by == DEDUP_BY_ORDER:
        found = False
        for place in range(len(orders)):
            found |= orders[place] == event.dedup_key
        return found
    for position in range(end - 1, start - 1, -1):
        earlier = records[position]
        if (
            earlier.dedup_key == event.dedup_key
            and earlier.dedup_by == DEDUP_BY_EVENT
            and abs(event.time_ms - earlier.time_ms) < within_ms
        ):
            return True
    return False


@compiled
def remember_order(event, orders):
    """Make the order of an event the newest one that is remembered."""
    if event.dedup_by == DEDUP_BY_ORDER:
        for place in range(len(orders) - 1, 0, -1):
            orders[place] = orders[place - 1]
        orders[0] = event.dedup_key


@compiled
def kept_range(slot, begins, ends, ring_length, history_length):
    """Where in `records` the kept events of a slot start and end."""
    ring, end = np.int64(slot) * ring_length, np.int64(ends[slot]) // EVENT_BYTES
    # After a restart with a shorter history, a slot may still hold more.
    return ring + max(np.int64(begins[slot]) // EVENT_BYTES, end - history_length), ring + end


@compiled
def keep(event, slot, begins, ends, events_seen, first_seen_ms, orders, records, ring_length, history_length):
    """Add an event to a slot."""
    ring = np.int64(slot) * ring_length
    end = np.int64(ends[slot]) // EVENT_BYTES
    if end == ring_length:
        kept = history_length - 1
        for position in range(kept):
            records[ring + position] = records[ring + end - kept + position]
        end = kept
    records[ring + end] = event
    end += 1
    begins[slot] = max(end - history_length, 0) * EVENT_BYTES
    ends[slot] = end * EVENT_BYTES
    if events_seen[slot] == 0 or event.time_ms < first_seen_ms[slot]:
        first_seen_ms[slot] = event.time_ms
    events_seen[slot] += 1
    remember_order(event, orders[slot])


PER_ROW = types.Array(types.int64, 1, "A", readonly=True)
STRIDED = {of: types.Array(of, 1, "A") for of in (types.uint8, types.int32, types.uint32, types.uint64, types.int64)}
SLOT_FIELDS = (  # begins, ends, events_seen, first_seen_ms, orders; of the rings: records and their length
    STRIDED[types.int32],
    STRIDED[types.int32],
    STRIDED[types.uint32],
    STRIDED[types.int64],
    types.Array(types.uint64, 2, "A"),
    types.Array(EVENT_TYPE, 1, "C"),
    types.int64,
)
EVENTS = types.Array(EVENT_TYPE, 1, "A")


@njit(
    types.void(
        types.Array(types.boolean, 1, "C"),
        EVENTS,
        STRIDED[types.int32],
        *SLOT_FIELDS,
        types.int64,
        types.int64,
        types.Array(types.boolean, 1, "C"),
        types.Array(EVENT_TYPE, 1, "C"),
        types.Array(types.int64, 1, "C"),
        types.Array(types.int64, 2, "C"),
    ),
    **kernel_cache.entry_options(),
)
def move_histories(
    is_login, events, slots, begins, ends, events_seen, first_seen_ms, orders, records, ring_length, history_length,
    within_ms, is_first, moved, moved_ends, older,
):  # fmt: skip
    """Keep the events of anonymous users in their slots, and empty the slot of each that logs in.

    is_login bool[n], events and slots are of the rows, the rest is as in `append_rows`. is_first bool[n] becomes true
    for the first event in a slot. What the slot of a login in row r held goes to moved[moved_ends[r - 1]:moved_ends[r]]
    with moved_ends int64[n]; older int64[n, 2] gets the number of events that were there before these, and the time of
    the first event of all.
    """
    used = 0
    for r in range(len(slots)):
        slot = slots[r]
        start, end = kept_range(slot, begins, ends, ring_length, history_length)
        is_first[r] = not is_login[r] and events_seen[slot] == 0
        if not is_login[r]:
            if not is_repeated(events[r], records, start, end, orders[slot], within_ms):
                keep(
                    events[r], slot, begins, ends, events_seen, first_seen_ms, orders, records, ring_length,
                    history_length,
                )  # fmt: skip
        else:
            for position in range(start, end):
                moved[used] = records[position]
                used += 1
            older[r, 0] = np.int64(events_seen[slot]) - (end - start)
            older[r, 1] = first_seen_ms[slot]
            begins[slot] = ends[slot] = 0
            events_seen[slot] = 0
            orders[slot, :] = 0
        moved_ends[r] = used


@njit(
    types.void(
        PER_ROW,
        types.Array(EVENT_TYPE, 1, "C", readonly=True),
        types.int64,
        types.int64,
        types.Array(types.boolean, 1, "C"),
    ),
    **kernel_cache.entry_options(),
)
def mark_repeated(users, records, history_length, within_ms, repeated):
    """Store which of n records, of users int64[n] and each user's in order of arrival, `append_rows` would not score.

    Users must be in order.
    """
    kept = np.empty(len(records), EVENT_TYPE)
    orders = np.zeros(REMEMBERED_ORDERS, np.uint64)
    first = size = np.int64(0)
    for r in range(len(records)):
        if r > 0 and users[r] != users[r - 1]:
            first = size
            orders[:] = 0
        repeated[r] = is_repeated(records[r], kept, max(first, size - history_length), size, orders, within_ms)
        if not repeated[r]:
            kept[size] = records[r]
            size += 1
            remember_order(records[r], orders)
