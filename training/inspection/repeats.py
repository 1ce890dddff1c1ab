"""Events and orders with an id that an earlier one of the same user has, and which of them the job leaves out."""

from dataclasses import dataclass

import numpy as np

from training.data.dataset import repeated_events
from udfs.contracts.packed_events import DEDUP_BY_EVENT, DEDUP_BY_NOTHING, DEDUP_BY_ORDER, EVENT, NO_ID

#: As in the job's default settings: state.history_length and clicks.duplicates_within.
HISTORY_LENGTH, WITHIN_MS = 64, 3_600_000
#: The rows of an order, and the reports of a browser and a server about it, are no further apart.
ONE_ORDER_MS = 60_000
#: Share of events or purchases with an id of another one that they can't be a copy of: from here on, the id does not
#: identify them.
MANY_CLASHES = 0.05

_DEDUP_FIELDS = ("dedup_by", "dedup_key")
#: What is needed of an EVENT to tell whether it was sent before.
REPEAT_FIELDS = ("time_ms", "item", "value", *_DEDUP_FIELDS)


@dataclass(frozen=True)
class Repeats:
    """Counts of events with an event_id, and of purchases with a transaction_id, of an earlier one of the same user."""

    events: int = 0
    left_out_events: int = 0  # those that the job leaves out
    clashing_events: int = 0  # those with another name or item than the first one
    orders: int = 0
    clashing_orders: int = 0  # those that are another order, by their time and their value or item
    split_orders: int = 0  # those at the time of the first one, but with another value: probably rows of one order


def find_repeats(user: np.ndarray, records: np.ndarray) -> tuple[Repeats, np.ndarray]:
    """Count the repeats among n events, and tell which of them the job leaves out, bool[n].

    Events are given by the user's code int64[n] and records[n] with REPEAT_FIELDS, `arrival_ms`, and `name`, a hash.
    """
    first, again = _pairs(user, records)
    left_out = np.zeros(len(user), bool)
    if not len(again):
        return Repeats(), left_out
    _mark_left_out(user, records, user[again], left_out)
    earlier, later = records[first], records[again]
    is_order = later["dedup_by"] == DEDUP_BY_ORDER
    is_other_item = later["item"] != earlier["item"]
    is_other_event = is_other_item | (later["name"] != earlier["name"])
    # A report without the value or the items may still be of the same order.
    has_items = (later["item"] != NO_ID) & (earlier["item"] != NO_ID)
    has_values = ~np.isnan(later["value"]) & ~np.isnan(earlier["value"])
    is_other_value = has_values & (later["value"] != earlier["value"])
    is_near = np.abs(later["time_ms"] - earlier["time_ms"]) < ONE_ORDER_MS
    repeats = Repeats(
        events=_count(~is_order),
        left_out_events=_count(left_out & (records["dedup_by"] == DEDUP_BY_EVENT)),
        clashing_events=_count(~is_order & is_other_event),
        orders=_count(is_order),
        clashing_orders=_count(is_order & ~is_near & (is_other_value | has_items & is_other_item)),
        split_orders=_count(is_order & is_near & is_other_value),
    )
    return repeats, left_out


def _pairs(user: np.ndarray, records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the k events that repeat an id of their user, int64[k], after those of the first ones with it."""
    rows = np.flatnonzero(records["dedup_by"] != DEDUP_BY_NOTHING)
    by, key = (records[name][rows] for name in _DEDUP_FIELDS)
    order = np.lexsort((records["arrival_ms"][rows], key, by, user[rows]))
    rows, by, key = rows[order], by[order], key[order]
    repeats = np.zeros(len(rows), bool)
    repeats[1:] = (np.diff(user[rows]) == 0) & (by[1:] == by[:-1]) & (key[1:] == key[:-1])
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(rows))))
    return rows[first[repeats]], rows[repeats]


def _mark_left_out(user: np.ndarray, records: np.ndarray, users: np.ndarray, left_out: np.ndarray) -> None:
    """Mark in bool[n] which events of some users the job leaves out: of them alone, to copy as little as possible."""
    rows = np.flatnonzero(np.isin(user, users))
    rows = rows[np.lexsort((records["arrival_ms"][rows], user[rows]))]
    events = np.zeros(len(rows), EVENT)
    for name in ("time_ms", *_DEDUP_FIELDS):
        events[name] = records[name][rows]
    left_out[rows] = repeated_events(user[rows], events, HISTORY_LENGTH, WITHIN_MS)


def _count(chosen: np.ndarray) -> int:
    return int(np.count_nonzero(chosen))
