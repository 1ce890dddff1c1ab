"""Compiled functions that generated code calls: see udfs/features/code_generation.py."""

import numpy as np
from numba import njit

from udfs.contracts.packed_events import EVENT_KINDS, NO_ID, PAGE_TYPES
from udfs.features.event_codes import FIELDS

NEVER = np.iinfo(np.int64).min
FOREVER = np.iinfo(np.int64).max
LARGEST = float(np.finfo(np.float32).max)
KINDS, PAGES, GAPS, AGES = len(EVENT_KINDS), len(PAGE_TYPES), FIELDS["gap"], FIELDS["age"]
VALUES = FIELDS["value"]
LARGEST_VALUE = 2.0**VALUES
ZERO = np.int64(0)  # a literal 0 is a type of its own to numba, which would then compile what it goes to twice

# IEEE semantics for a division by zero, and no branch that raises; a float sum is never reordered (no fastmath).
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@compiled
def known_code(code, count):
    """The code, or 0 (other, unknown) for one that a newer version wrote and this one does not know."""
    return np.int64(code) if code < count else np.int64(0)


@compiled
def order_by_time(records, start, end, order):
    """Store in `order` the positions of records[start:end] not later than the last one, oldest first; return how many.

    Stable: records of the same time keep their order of arrival, so the scored one is last.
    """
    now = records[end - 1].time_ms
    latest = NEVER
    size = 0
    for position in range(start, end):
        time = records[position].time_ms
        if time > now:
            continue
        slot = size
        if time < latest:
            while slot > 0 and records[order[slot - 1]].time_ms > time:
                order[slot] = order[slot - 1]
                slot -= 1
        else:
            latest = time
        order[slot] = position
        size += 1
    return size


@compiled
def count_if_new(table, generation, identifier):
    """1 when the identifier is not yet in this generation's set, which it then is; else, and for NO_ID, 0.

    The set is a hash table with linear probing. An entry is generation << 32 | identifier, so a new generation starts
    with an empty set for free.
    """
    if identifier == NO_ID:
        return 0
    entry = (np.uint64(generation) << np.uint64(32)) | np.uint64(identifier)
    last_slot = np.uint64(len(table) - 1)
    slot = ((np.uint64(identifier) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & last_slot  # Fibonacci hashing
    while table[slot] != entry:
        if table[slot] >> np.uint64(32) != np.uint64(generation):
            table[slot] = entry
            return 1
        slot = (slot + np.uint64(1)) & last_slot
    return 0


@compiled
def seconds_since(time, now):
    """NaN when it never happened."""
    return np.nan if time == NEVER else (now - time) / 1000.0


@compiled
def since_previous(records, order, size, now):
    """Seconds since the event before the scored one."""
    return (now - records[order[size - 2]].time_ms) / 1000.0 if size > 1 else np.nan


@compiled
def binary_digits(number, most):
    """How many binary digits a whole number has, 0 for 0 and below; at most `most`."""
    digits = ZERO
    while number > 0 and digits < most:
        number >>= 1
        digits += 1
    return digits


@compiled
def same_id(mine, scored):
    """0 where one of two identifiers is missing, 1 where they differ, 2 where they are equal."""
    return ZERO if mine == NO_ID or scored == NO_ID else ZERO + 2 if mine == scored else ZERO + 1


@compiled
def event_code(records, order, size, back):
    """The code (event_codes.py) of the event `back` events before the scored one; NaN where there is none."""
    place = size - 1 - back
    if place < 0:
        return np.nan
    event, scored = records[order[place]], records[order[size - 1]]
    gap = ZERO
    if place > 0:
        gap = 1 + binary_digits((event.time_ms - records[order[place - 1]].time_ms) // 1000, GAPS - 2)
    value = ZERO
    if not np.isnan(event.value):
        value = 1 + binary_digits(np.int64(min(max(event.value, 0.0), LARGEST_VALUE)), VALUES - 2)
    code = known_code(event.kind, KINDS) * PAGES + known_code(event.page_type, PAGES)
    code = code * GAPS + gap
    code = code * AGES + binary_digits((scored.time_ms - event.time_ms) // 1000, AGES - 1)
    code = (code * 3 + same_id(event.item, scored.item)) * 3 + same_id(event.category, scored.category)
    return float(code * VALUES + value)


@compiled
def advance_tiles(buckets, newest, number):
    """Make bucket `number` one of those that are kept; returns the newest one."""
    if number <= newest:
        return newest
    for passed in range(min(number - newest, np.int64(len(buckets)))):
        buckets[(number - passed) % len(buckets)] = 0
    return number


@compiled
def total_of_tiles(buckets, newest, first, last):
    """The sum of those of the buckets from first to last that are kept, the newest one first."""
    total = 0.0
    for number in range(last, first - 1, -1):
        if newest - len(buckets) < number <= newest:
            total += buckets[number % len(buckets)]
    return total


# Operators of expressions: of a missing number, NaN, the result is missing. Multiplying by np.nan would keep its sign.


@compiled
def divide(left, right):
    return np.nan if right == 0.0 or np.isnan(left) or np.isnan(right) else left / right


@compiled
def finite(value):
    """The value, at most what float32 holds: models refuse infinity."""
    return np.nan if np.isnan(value) else min(max(value, -LARGEST), LARGEST)


@compiled
def less(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else 1.0 if left < right else 0.0


@compiled
def less_equal(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else 1.0 if left <= right else 0.0


@compiled
def greater(left, right):
    return less(right, left)


@compiled
def greater_equal(left, right):
    return less_equal(right, left)


@compiled
def equal(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else 1.0 if left == right else 0.0


@compiled
def not_equal(left, right):
    return opposite(equal(left, right))


@compiled
def opposite(value):
    return np.nan if np.isnan(value) else 1.0 if value == 0.0 else 0.0


@compiled
def both(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else 1.0 if left != 0.0 and right != 0.0 else 0.0


@compiled
def either(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else 1.0 if left != 0.0 or right != 0.0 else 0.0


@compiled
def least(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else min(left, right)


@compiled
def greatest(left, right):
    return np.nan if np.isnan(left) or np.isnan(right) else max(left, right)
