"""Tables of the population, against counting event by event."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.population_events import LAYOUT, MINUTE, PUBLICATION, Did, arrivals_of, events, expected, records_of
from udfs.contracts.event_layout import EventLayout, OwnColumn, PopulationColumn
from udfs.contracts.packed_events import DEVICES, EVENT, PAGE_TYPES
from udfs.population import tables
from udfs.population.tables import (
    LEAST_COUNT,
    MOST_PER_USER,
    Counted,
    Table,
    advanced,
    boundary_after,
    boundary_before,
    count,
    counted_by,
    counts_of,
    fill,
    folds_of,
    keys_of,
)

EVERY = PUBLICATION.every_ms
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def counted(done: list[Did]) -> dict:
    """What events between two boundaries add to a table."""
    users, user = np.unique([one.user for one in done], return_inverse=True)
    added = {}
    for what in counted_by(LAYOUT):
        code, keys, times = count(records_of(done), user.astype(np.int64), what, LAYOUT.kinds).T
        added[what] = counts_of(keys, folds_of(users)[code], times)
    return added


def step(table: Table | None, boundary_ms: int, done: list[Did]) -> Table:
    """The next table, as a job makes it."""
    after = boundary_after(arrivals_of(done), PUBLICATION)
    since = [one for one, at in zip(done, after) if at <= boundary_ms and (table is None or at > table.boundary_ms)]
    return advanced(table, boundary_ms, counted(since), PUBLICATION)


def filled(done: list[Did], table: Table | None) -> np.ndarray:
    records = records_of(done)
    fill(records, folds_of([one.user for one in done]), LAYOUT, table)
    return np.stack([records[column.stored_name] for column in LAYOUT.population_columns], 1)


@examples(25)
@given(events)
@example([Did("ada", 1, 1, "view_item")] * (MOST_PER_USER + 3) + [Did("bob", 50, 1, "scroll")])
@example(
    [Did("bob", 9, 1, "scroll"), Did("ada", 10, 1, "scroll"), Did("ada", 12, 1, "scroll"), Did("cleo", 11, 1, "scroll")]
)
def test_events_see_what_others_did_before_the_newest_table(done):
    first = boundary_after(arrivals_of(done), PUBLICATION).min()
    sees = boundary_before(arrivals_of(done), PUBLICATION)
    table, values = None, expected(done)
    for boundary_ms in range(0, 140 * MINUTE, EVERY):
        if boundary_ms >= first:
            table = step(table, boundary_ms, done)
        rows = np.flatnonzero(sees == boundary_ms)
        np.testing.assert_allclose(filled(done, table)[rows], values[rows], **CLOSE)


@examples(25)
@given(events, st.sets(st.integers(1, 13)))
def test_a_table_is_the_same_in_one_step_or_in_many(done, stops):
    steps, last = None, 14 * EVERY
    added = [one for one in done if one.minute * MINUTE < EVERY]
    whole = step(step(None, EVERY, added), last, added)
    for boundary_ms in (EVERY, *(stop * EVERY for stop in sorted(stops) if stop > 1), last):
        steps = step(steps, boundary_ms, added)
    np.testing.assert_allclose(filled(done, steps), filled(done, whole), **CLOSE)


@examples(25)
@given(events, st.sampled_from(["ada", "bob"]), st.integers(0, 5))
def test_what_a_user_does_changes_no_value_of_the_user(done, user, more):
    others = [one for one in done if one.user != user]
    own = [one for one in done if one.user == user]
    asked = [Did(user, 200, category, "scroll") for category in (0, 1, 2)]
    without, with_own = (filled(asked, step(None, 20 * EVERY, each)) for each in (others, others + own * more))
    np.testing.assert_array_equal(without, with_own)


def test_without_a_table_values_are_missing_and_of_an_unknown_key_nothing_is_known_to_have_happened():
    done = [Did("ada", 1, 1, "view_item")]
    asked = [Did("bob", 30, category, "scroll") for category in (1, 2, 0)]
    assert np.isnan(filled(asked, None)).all()
    np.testing.assert_array_equal(
        filled(asked, step(None, EVERY, done)), [[1, 1, 1, 0, 1], [0, 0, 1, 0, 1], [np.nan, np.nan, 1, 0, np.nan]]
    )


def test_a_rate_is_drawn_towards_that_of_all_events():
    """Of 30 views among 60 events, all 30 of one category are views: (30 + 30 * 0.5) / (30 + 30)."""
    done = [Did("ada", 1, 1, "view_item")] * 30 + [Did("cleo", 1, 2, "scroll")] * 30
    asked = [Did("bob", 30, category, "scroll") for category in (1, 2, 3)]
    assert filled(asked, step(None, EVERY, done))[:, -1].tolist() == [0.75, 0.25, 0.5]
    assert np.isnan(filled(asked, step(None, EVERY, [Did("bob", 1, 1, "scroll")]))[:, -1]).all()  # of nobody else


def test_boundaries_include_their_ends():
    times = np.array([0, EVERY - 1, EVERY])
    assert boundary_after(times, PUBLICATION).tolist() == [EVERY, EVERY, 2 * EVERY]
    delayed = times + PUBLICATION.delay_ms
    assert boundary_before(delayed, PUBLICATION).tolist() == [0, 0, EVERY]
    table = Table(EVERY, PUBLICATION, {})
    assert table.effective_ms == delayed[2]


def test_a_table_does_not_go_back():
    table = step(None, EVERY, [])
    with pytest.raises(ValueError, match=r"the table of 600000 can't be advanced to 600000"):
        step(table, EVERY, [])


def test_what_nobody_did_for_long_is_forgotten_and_of_many_keys_the_rarest_are():
    done = [Did("ada", 1, 1, "scroll"), *[Did("bob", 1, 2, "scroll")] * 3]
    table = step(None, EVERY, done)
    late = EVERY + round(np.log2(1 / LEAST_COUNT) + 1) * PUBLICATION.half_life_ms
    late -= late % EVERY
    assert step(table, late, []).counts[Counted("category", None)].keys.tolist() == [2]
    with patch.object(tables, "MOST_KEYS", 1):
        assert step(None, EVERY, done).counts[Counted("category", None)].keys.tolist() == [2]


OWN = EventLayout(
    own_columns=(
        OwnColumn("plan", "category", "plan", 1, names=("free", "pro")),
        OwnColumn("coupon", "identifier", "coupon", 4),
        PopulationColumn("by_plan", "plan"),
    )
)


@pytest.mark.parametrize(
    ("fields", "by", "key"),
    [
        ({}, None, 1),
        ({"item": 7}, "item", 7),
        ({"category": 2**32 - 1}, "category", 2**32 - 1),
        ({"page": 0}, "page", 0),
        ({"page_type": PAGE_TYPES.index("cart")}, "page_type", PAGE_TYPES.index("cart")),
        ({"device": DEVICES.index("tablet")}, "device", DEVICES.index("tablet")),
        ({"time_ms": 0}, "hour", 1),
        ({"time_ms": 23 * 3_600_000 + 1, "utc_offset_quarters": 8}, "hour", 2),
        ({"time_ms": 0}, "weekday", 4),  # a Thursday
        ({"time_ms": 0, "utc_offset_quarters": -1}, "weekday", 3),
        ({"time_ms": 4 * 86_400_000}, "weekday", 1),
        ({"own_plan": 2}, "plan", 2),
        ({"own_coupon": 9}, "coupon", 9),
    ],
)
def test_events_are_counted_by_any_value_that_they_share(fields, by, key):
    record = np.zeros(1, OWN.dtype)
    for name, value in fields.items():
        record[name] = value
    assert keys_of(record, by).tolist() == [key]
    assert keys_of(record, by).dtype == np.uint32


def test_a_user_with_the_largest_number_and_a_key_with_all_bits_are_kept_apart():
    records = np.zeros(3, EVENT)
    records["category"] = [2**32 - 1, 1, 2**32 - 1]
    users = np.array([2**31 - 1, 2**31 - 1, 0])
    found = count(records, users, Counted("category", None), {})
    assert found.tolist() == [[0, 2**32 - 1, 1], [2**31 - 1, 1, 1], [2**31 - 1, 2**32 - 1, 1]]
    assert count(records[:0], users[:0], Counted("category", None), {}).shape == (0, 3)
