"""The numba kernel of the features: one pass over a user's history for each scored event, newest record first.

Windows and the session all end at the scored event. So one set of running totals serves them all: whenever the pass
leaves a window, or the session, the totals so far are that window's features.

Importing this module compiles the kernel, which takes seconds, or finds it compiled: see udfs/features/kernel_cache.py.
"""

from enum import IntEnum

import numpy as np
from numba import from_dtype, njit, types

from udfs.contracts.packed_events import (
    DEDUP_BY_EVENT,
    DEDUP_BY_NOTHING,
    DEDUP_BY_ORDER,
    DEVICES,
    EVENT,
    EVENT_KINDS,
    NO_ID,
    PAGE_TYPES,
)
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, NO_DAY, PROFILE
from udfs.features import kernel_cache
from udfs.features.catalog import FEATURE_NAMES, SESSION_GAP_MS, WINDOWS_MS, Need
from udfs.features.user_slots import EVENT_ROW, LOGIN_ROW, PROFILE_ROW, REMEMBERED_ORDERS

#: Where a feature goes in the row of all features. A name that is not in the registry stops the compilation.
Column = IntEnum("Column", [(name, column) for column, name in enumerate(FEATURE_NAMES)])

FEATURE_COUNT = len(FEATURE_NAMES)
WINDOW_LENGTHS_MS = tuple(WINDOWS_MS.values())
WINDOW_COUNT = len(WINDOW_LENGTHS_MS)
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
QUARTER_HOUR_MS = 900_000
LARGEST_RATIO = 1e6  # over a tiny price it would be infinite as float32, and XGBoost refuses infinity
NEVER = np.iinfo(np.int64).min

LAST_TIMES = int(Need.LAST_TIMES)
VALUES = int(Need.VALUES)
DISTINCT_ITEMS = int(Need.DISTINCT_ITEMS)
DISTINCT_CATEGORIES = int(Need.DISTINCT_CATEGORIES)
DISTINCT_PAGES = int(Need.DISTINCT_PAGES)
ENGAGEMENT = int(Need.ENGAGEMENT)
REPEATS = int(Need.REPEATS)
VALUE_COMPARISON = int(Need.VALUE_COMPARISON)

EVENT_BYTES = np.int64(EVENT.itemsize)
KIND_COUNT = len(EVENT_KINDS)
PAGE_VIEW = EVENT_KINDS.index("page_view")
VIEW_ITEM = EVENT_KINDS.index("view_item")
VIEW_ITEM_LIST = EVENT_KINDS.index("view_item_list")
SELECT_ITEM = EVENT_KINDS.index("select_item")
SEARCH = EVENT_KINDS.index("search")
ADD_TO_CART = EVENT_KINDS.index("add_to_cart")
REMOVE_FROM_CART = EVENT_KINDS.index("remove_from_cart")
BEGIN_CHECKOUT = EVENT_KINDS.index("begin_checkout")
PURCHASE = EVENT_KINDS.index("purchase")
FORM_START = EVENT_KINDS.index("form_start")
FORM_SUBMIT = EVENT_KINDS.index("form_submit")
SELECT_PROMOTION = EVENT_KINDS.index("select_promotion")
ADD_TO_WISHLIST = EVENT_KINDS.index("add_to_wishlist")

_KIND_STEPS = {"view_item": 1, "add_to_cart": 2, "remove_from_cart": 2, "begin_checkout": 3, "purchase": 4}
_PAGE_STEPS = {"product": 1, "cart": 2, "checkout": 3, "confirmation": 4}
STEP_OF_KIND = np.array([_KIND_STEPS.get(kind, 0) for kind in EVENT_KINDS], np.int64)
STEP_OF_PAGE_TYPE = np.array([_PAGE_STEPS.get(page_type, 0) for page_type in PAGE_TYPES], np.int64)

# IEEE semantics for a division by zero, and no branch that raises; a float sum is never reordered (no fastmath).
_compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_compiled
def known_code(code, count):
    """The code, or 0 (other, unknown) for one that a newer version wrote and this one does not know."""
    return np.int64(code) if code < count else np.int64(0)


@_compiled
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


@_compiled
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


@_compiled
def seconds_since(time, now):
    """NaN when it never happened."""
    return np.nan if time == NEVER else (now - time) / 1000.0


@_compiled
def store_window(row, window, events, counts, values, items, categories):
    row[Column.events_1m + window] = events
    row[Column.product_views_1m + window] = counts[VIEW_ITEM]
    row[Column.list_views_1m + window] = counts[VIEW_ITEM_LIST] + counts[SELECT_ITEM]
    row[Column.searches_1m + window] = counts[SEARCH]
    row[Column.cart_adds_1m + window] = counts[ADD_TO_CART]
    row[Column.cart_removes_1m + window] = counts[REMOVE_FROM_CART]
    row[Column.checkouts_1m + window] = counts[BEGIN_CHECKOUT]
    row[Column.purchases_1m + window] = counts[PURCHASE]
    row[Column.wishlist_adds_1m + window] = counts[ADD_TO_WISHLIST]
    row[Column.distinct_items_1m + window] = items
    row[Column.distinct_categories_1m + window] = categories
    row[Column.value_viewed_1m + window] = values[VIEW_ITEM]
    row[Column.value_carted_1m + window] = values[ADD_TO_CART]
    row[Column.value_purchased_1m + window] = values[PURCHASE]


@_compiled
def store_session(row, started, now, first_seen_ms, events, counts, items, pages, engagement_ds, scroll, step):
    duration_s = (now - started) / 1000.0
    row[Column.session_duration_s] = duration_s
    row[Column.session_events] = events
    row[Column.session_page_views] = counts[PAGE_VIEW]
    row[Column.session_depth] = pages
    row[Column.session_product_views] = counts[VIEW_ITEM]
    row[Column.session_distinct_items] = items
    row[Column.session_engagement_s] = engagement_ds / 10.0
    row[Column.session_max_scroll] = scroll
    row[Column.session_cart_adds] = counts[ADD_TO_CART]
    row[Column.session_forms_started] = counts[FORM_START]
    row[Column.session_forms_submitted] = counts[FORM_SUBMIT]
    row[Column.session_searches] = counts[SEARCH]
    row[Column.session_funnel_step] = step
    row[Column.session_mean_gap_s] = duration_s / (events - 1) if events > 1 else np.nan
    row[Column.first_visit] = 1.0 if first_seen_ms >= started else 0.0


@_compiled
def store_recency(row, now, last_event, last_visit, last_times):
    row[Column.since_previous_event_s] = seconds_since(last_event, now)
    row[Column.since_last_visit_s] = seconds_since(last_visit, now)
    row[Column.since_product_view_s] = seconds_since(last_times[VIEW_ITEM], now)
    row[Column.since_cart_add_s] = seconds_since(last_times[ADD_TO_CART], now)
    row[Column.since_cart_remove_s] = seconds_since(last_times[REMOVE_FROM_CART], now)
    row[Column.since_checkout_s] = seconds_since(last_times[BEGIN_CHECKOUT], now)
    row[Column.since_purchase_s] = seconds_since(last_times[PURCHASE], now)
    row[Column.since_search_s] = seconds_since(last_times[SEARCH], now)
    row[Column.since_promotion_click_s] = seconds_since(last_times[SELECT_PROMOTION], now)


@_compiled
def store_repeats(row, scored, item_seen, item_views, item_carted, category_seen):
    has_item = scored.item != NO_ID
    row[Column.item_seen_before] = item_seen if has_item else np.nan
    row[Column.item_views_before] = item_views if has_item else np.nan
    row[Column.item_in_cart] = (1.0 if item_carted > 0 else 0.0) if has_item else np.nan
    row[Column.category_seen_before] = category_seen if scored.category != NO_ID else np.nan


@_compiled
def store_value_comparison(row, value, viewed, viewed_value, viewed_lower):
    comparable = viewed > 0 and not np.isnan(value)
    mean = viewed_value / viewed
    row[Column.value_to_viewed_mean] = min(value / mean, LARGEST_RATIO) if comparable and mean != 0 else np.nan
    row[Column.value_rank_in_viewed] = viewed_lower / viewed if comparable else np.nan


@_compiled
def store_event(row, scored):
    row[Column.event_kind] = known_code(scored.kind, KIND_COUNT)
    row[Column.page_type] = known_code(scored.page_type, len(PAGE_TYPES))
    row[Column.device] = known_code(scored.device, len(DEVICES))
    row[Column.scroll] = scored.scroll
    row[Column.value] = scored.value
    local_ms = scored.time_ms + scored.utc_offset_quarters * QUARTER_HOUR_MS
    row[Column.local_hour] = local_ms // HOUR_MS % 24
    row[Column.local_weekday] = (local_ms // DAY_MS + 3) % 7  # 1970-01-01 was a Thursday


@_compiled
def store_lifetime(row, now, lifetime_events, first_seen_ms, kept, first_kept_ms):
    row[Column.lifetime_events] = lifetime_events
    row[Column.since_first_seen_s] = max(now - first_seen_ms, 0) / 1000.0
    row[Column.history_events] = kept
    row[Column.saturated] = 1.0 if lifetime_events > kept and now - first_kept_ms < DAY_MS else 0.0


@_compiled
def store_profile(row, now, profile):
    row[Column.profile_known] = profile.known
    row[Column.country] = profile.country
    row[Column.age_band] = known_code(profile.age_band, len(AGE_BANDS))
    row[Column.membership_tier] = known_code(profile.membership_tier, len(MEMBERSHIP_TIERS))
    row[Column.marketing_consent] = profile.marketing_consent if profile.marketing_consent >= 0 else np.nan
    row[Column.since_signup_days] = now // DAY_MS - profile.signup_day if profile.signup_day != NO_DAY else np.nan


@_compiled
def store_history(row, records, order, size, first_seen_ms, needs, generation, sets, counts, values, last_times):
    """Store the features that look back. `order` has the `size` positions of the events seen, the scored one last."""
    scored = records[order[size - 1]]
    now = scored.time_ms
    counts[:] = 0
    values[:] = 0.0
    last_times[:] = NEVER
    zero = np.int64(0)  # a literal 0 is a type of its own to numba, which would then compile what it goes to twice
    items = categories = pages = zero
    engagement_ds = scroll = step = zero
    item_seen = item_views = item_carted = category_seen = zero
    viewed = viewed_lower = zero
    viewed_value = 0.0
    window = zero
    in_session = True
    last_visit = np.int64(NEVER)
    newer_time = now

    for index in range(size - 1, -1, -1):
        event = records[order[index]]
        time = event.time_ms
        kind = known_code(event.kind, KIND_COUNT)
        newer_events = size - 1 - index

        while window < WINDOW_COUNT and now - time >= WINDOW_LENGTHS_MS[window]:
            store_window(row, window, newer_events, counts, values, items, categories)
            window += 1
        if in_session and newer_time - time > SESSION_GAP_MS:
            store_session(
                row, newer_time, now, first_seen_ms, newer_events, counts, items, pages, engagement_ds, scroll, step
            )
            in_session = False
            last_visit = time
        newer_time = time

        if in_session or window < WINDOW_COUNT:
            counts[kind] += 1
            if needs & VALUES:
                values[kind] += 0.0 if np.isnan(event.value) else event.value
            if needs & DISTINCT_ITEMS:
                items += count_if_new(sets[0], generation, event.item)
            if needs & DISTINCT_CATEGORIES:
                categories += count_if_new(sets[1], generation, event.category)
        if in_session:
            if needs & DISTINCT_PAGES:
                pages += count_if_new(sets[2], generation, event.page)
            if needs & ENGAGEMENT:
                page_type = known_code(event.page_type, len(PAGE_TYPES))
                engagement_ds += event.engagement_ds
                scroll = max(scroll, np.int64(event.scroll))
                step = max(step, STEP_OF_KIND[kind], STEP_OF_PAGE_TYPE[page_type])

        if newer_events == 0:
            continue  # what follows looks at the events before the scored one
        if needs & LAST_TIMES:
            last_times[kind] = max(last_times[kind], time)
        if needs & REPEATS:
            if event.item == scored.item:
                item_seen += 1
                item_views += kind == VIEW_ITEM
                item_carted += (kind == ADD_TO_CART) - (kind == REMOVE_FROM_CART)
            category_seen += event.category == scored.category
        if needs & VALUE_COMPARISON and kind == VIEW_ITEM and not np.isnan(event.value):
            viewed += 1
            viewed_value += event.value
            viewed_lower += event.value < scored.value

    while window < WINDOW_COUNT:
        store_window(row, window, size, counts, values, items, categories)
        window += 1
    if in_session:
        store_session(row, newer_time, now, first_seen_ms, size, counts, items, pages, engagement_ds, scroll, step)
    last_event = records[order[size - 2]].time_ms if size > 1 else NEVER
    store_recency(row, now, last_event, last_visit, last_times)
    store_repeats(row, scored, item_seen, item_views, item_carted, category_seen)
    store_value_comparison(row, scored.value, viewed, viewed_value, viewed_lower)


@_compiled
def longest_slice(starts, ends, record_count):
    """The longest of the slices, or -1 - r when row r's is empty or not inside the records."""
    longest = 0
    for r in range(len(starts)):
        if starts[r] < 0 or ends[r] <= starts[r] or ends[r] > record_count:
            return -1 - r
        longest = max(longest, ends[r] - starts[r])
    return longest


@_compiled
def scratch(longest):
    """Working memory for histories of at most so many records: order, sets, counts, values, last_times, row."""
    capacity = 2
    while capacity < 2 * longest:
        capacity *= 2
    return (
        np.empty(longest, np.int64),
        np.zeros((3, capacity), np.uint64),
        np.empty(KIND_COUNT, np.int64),
        np.empty(KIND_COUNT, np.float64),
        np.empty(KIND_COUNT, np.int64),
        np.full(FEATURE_COUNT, np.inf, np.float32),  # infinite: a column that nobody stores fails the tests
    )


@_compiled
def compute_row(
    row, records, start, end, lifetime_events, first_seen_ms, profile, needs, generation, order, sets, counts, values,
    last_times,
):  # fmt: skip
    """Store all features of the last of records[start:end] that are needed."""
    scored = records[end - 1]
    now = scored.time_ms
    store_event(row, scored)
    store_lifetime(row, now, lifetime_events, first_seen_ms, end - start, records[start].time_ms)
    store_profile(row, now, profile)
    if needs != 0:
        size = order_by_time(records, start, end, order)
        store_history(row, records, order, size, first_seen_ms, needs, generation, sets, counts, values, last_times)


EVENT_TYPE = from_dtype(EVENT)
_per_row = types.Array(types.int64, 1, "A", readonly=True)


@njit(
    types.int64(
        types.Array(from_dtype(EVENT), 1, "C", readonly=True),
        _per_row,
        _per_row,
        _per_row,
        _per_row,
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

    `needs` is a combination of Need. Returns -1, or the first row whose slice is empty or not inside the records.
    """
    longest = longest_slice(starts, ends, len(records))
    if longest < 0:
        return -1 - longest
    order, sets, counts, values, last_times, row = scratch(min(longest, history_length))
    for r in range(len(starts)):
        end = ends[r]
        start = max(starts[r], end - history_length)
        compute_row(
            row, records, start, end, lifetime_events[r], first_seen_ms[r], profiles[r], needs, r + 1,
            order, sets, counts, values, last_times,
        )  # fmt: skip
        for column in range(len(columns)):
            matrix[r, column] = row[columns[column]]
    return -1


@_compiled
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


@_compiled
def remember_order(event, orders):
    """Make the order of an event the newest one that is remembered."""
    if event.dedup_by == DEDUP_BY_ORDER:
        for place in range(len(orders) - 1, 0, -1):
            orders[place] = orders[place - 1]
        orders[0] = event.dedup_key


@_compiled
def kept_range(slot, begins, ends, ring_length, history_length):
    """Where in `records` the kept events of a slot start and end."""
    ring, end = np.int64(slot) * ring_length, np.int64(ends[slot]) // EVENT_BYTES
    # After a restart with a shorter history, a slot may still hold more.
    return ring + max(np.int64(begins[slot]) // EVENT_BYTES, end - history_length), ring + end


@_compiled
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


_strided = {of: types.Array(of, 1, "A") for of in (types.uint8, types.int32, types.uint32, types.uint64, types.int64)}
_slot_fields = (  # begins, ends, events_seen, first_seen_ms, orders; of the rings: records and their length
    _strided[types.int32],
    _strided[types.int32],
    _strided[types.uint32],
    _strided[types.int64],
    types.Array(types.uint64, 2, "A"),
    types.Array(from_dtype(EVENT), 1, "C"),
    types.int64,
)
_events = types.Array(from_dtype(EVENT), 1, "A")


@njit(
    types.void(
        _strided[types.uint8],
        _events,
        types.Array(from_dtype(PROFILE), 1, "A"),
        _strided[types.uint64],
        _strided[types.int64],
        _strided[types.int64],
        _strided[types.int32],
        *_slot_fields,
        types.Array(from_dtype(PROFILE), 1, "A"),
        _strided[types.uint64],
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
    first_seen_ms, orders, records, ring_length, profiles, assigned_by, history_length, within_ms, needs, columns,
    matrix, scored,
):  # fmt: skip
    """Take in n rows in their order, each into the slot of its user; store the features of the events to score.

    kinds, events, new_profiles, and of logins new_assigned_by, more_events and seen_first_ms are of the rows; begins to
    orders, profiles and assigned_by of the slots' heads (begins and ends in bytes), records EVENT[c * ring_length]
    their rings. Row r of matrix float32[m, k] is of the r-th row where scored bool[n] becomes true: an event that has
    not been sent before, as far as the slot remembers (`is_repeated`).
    """
    order, sets, counts, values, last_times, row = scratch(history_length)
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
        if kinds[r] != EVENT_ROW:
            continue
        start, end = kept_range(slot, begins, ends, ring_length, history_length)
        compute_row(
            row, records, start, end, np.int64(events_seen[slot]), first_seen_ms[slot], profiles[slot], needs, r + 1,
            order, sets, counts, values, last_times,
        )  # fmt: skip
        for column in range(len(columns)):
            matrix[stored, column] = row[columns[column]]
        scored[r] = True
        stored += 1


@njit(
    types.void(
        types.Array(types.boolean, 1, "C"),
        _events,
        _strided[types.int32],
        *_slot_fields,
        types.int64,
        types.int64,
        types.Array(types.boolean, 1, "C"),
        types.Array(from_dtype(EVENT), 1, "C"),
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
        _per_row,
        types.Array(from_dtype(EVENT), 1, "C", readonly=True),
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
