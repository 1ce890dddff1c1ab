"""Histories of made-up events, to measure the cost of features on."""

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.packed_events import DEVICES, PAGE_TYPES
from udfs.contracts.profiles import NO_PROFILE, PROFILE

#: Pauses between a user's events: mostly within a session, some between sessions and days.
_PAUSES_MS = (2_000, 15_000, 60_000, 3_600_000, 40_000_000)
_PAUSE_SHARES = (0.3, 0.5, 0.15, 0.04, 0.01)
#: Every second event is of the first of these kinds, as in a shop; the others are of any kind.
_FREQUENT = ("page_view", "view_item")
_IDENTIFIERS = 40
_START_MS = 1_700_000_000_000
#: Events of a user that are scored, one after the other: so tiles grow by one event at a time, as in the job.
_SCORED = 16


def generated_histories(layout: EventLayout, events: int, length: int, seed: int = 1) -> dict[str, np.ndarray]:
    """The arguments of `FeatureComputer.compute` for at least so many events, each of which ends `length` events."""
    random = np.random.default_rng(seed)
    users, each = -(-events // _SCORED), length + _SCORED - 1
    count = users * each
    records = np.zeros(count, layout.dtype)
    pauses = random.choice(_PAUSES_MS, (users, each), p=_PAUSE_SHARES)
    records["time_ms"] = (_START_MS + pauses.cumsum(axis=1)).ravel()
    for name in ("item", "category", "page"):
        records[name] = random.integers(1, _IDENTIFIERS, count)
    records["value"] = np.where(random.random(count) < 0.4, np.nan, random.lognormal(3, 1, count))
    records["engagement_ds"] = random.integers(0, 600, count)
    frequent = random.choice([layout.kinds[name] for name in _FREQUENT], count)
    records["kind"] = np.where(random.random(count) < 0.5, frequent, random.choice([*layout.kinds.values()], count))
    records["page_type"] = random.integers(0, len(PAGE_TYPES), count)
    records["scroll"] = random.integers(0, 101, count)
    records["device"] = random.integers(1, len(DEVICES), count)
    for column in layout.own_columns:
        last = len(column.names) + 1 if column.type == "category" else _IDENTIFIERS
        records[column.stored_name] = random.integers(0, last, count)
    starts = np.repeat(np.arange(users) * each, _SCORED)
    ends = starts + np.tile(np.arange(length, length + _SCORED), users)
    return {
        "records": records,
        "starts": starts,
        "ends": ends,
        "lifetime_events": ends - starts,
        "first_seen_ms": records["time_ms"][starts],
        "profiles": np.frombuffer(NO_PROFILE * len(starts), PROFILE),
    }
