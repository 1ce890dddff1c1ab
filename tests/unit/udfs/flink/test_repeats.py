"""Keys are equal for one event that is sent again, and for no others."""

from itertools import product

import numpy as np
import pytest

from udfs.contracts.identifiers import hash_id
from udfs.contracts.packed_events import DEDUP_BY_EVENT, DEDUP_BY_NOTHING, DEDUP_BY_ORDER, EVENT
from udfs.flink.repeats import repeat_keys

NOW = 1_800_000_000_000
HOUR_MS = 3_600_000


def key_of(user: str, identifier: str | None, by: int = DEDUP_BY_EVENT, time_ms: int = NOW) -> int | None:
    event = np.zeros(1, EVENT)
    event["time_ms"], event["dedup_by"], event["dedup_key"] = time_ms, by, hash_id(identifier) if identifier else 0
    return repeat_keys([user], event, HOUR_MS).tolist()[0]


def test_a_key_is_of_one_user_and_one_id():
    users, ids = [f"u{number}" for number in range(200)], [f"e{number}" for number in range(200)]
    pairs = list(product(users, ids))
    events = np.zeros(len(pairs), EVENT)
    events["time_ms"], events["dedup_by"] = NOW, DEDUP_BY_EVENT
    events["dedup_key"] = [hash_id(identifier) for _, identifier in pairs]
    keys = repeat_keys([user for user, _ in pairs], events, HOUR_MS)
    assert len(np.unique(keys)) == len(pairs)


@pytest.mark.parametrize(("later_ms", "same"), [(0, True), (HOUR_MS - 1, True), (HOUR_MS, False), (-1, False)])
def test_an_event_id_is_that_of_another_event_in_another_period(later_ms, same):
    assert (key_of("ada", "e1", time_ms=NOW + later_ms) == key_of("ada", "e1")) == same


def test_an_order_is_one_at_any_time_and_no_event():
    order = key_of("ada", "1", DEDUP_BY_ORDER)
    assert order == key_of("ada", "1", DEDUP_BY_ORDER, NOW + 90 * 24 * HOUR_MS)
    assert order != key_of("ada", "1", DEDUP_BY_EVENT)


def test_an_event_without_an_id_has_no_key():
    assert key_of("ada", None, DEDUP_BY_NOTHING) is None
