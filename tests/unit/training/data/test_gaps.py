"""Stretches of time without data."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.unit.training.data.test_arrival_order import DAY, MINUTE, QUICK, START, VIEW, table, updates
from training.data.gaps import DAY_MS, HOUR_MS, Gap, add_hours, find_gaps, hours_of, reaches_into_gap
from training.data.preparation import build_bucket


def each_minutes(minutes: int, days: list[int], first: int = 0, last: int = DAY) -> np.ndarray:
    """Times of one event every so many minutes of these days, int64[n]."""
    return np.concatenate([START + (day * DAY + np.arange(first, last, minutes)) * MINUTE for day in days])


def test_a_day_without_events_is_a_gap_and_a_night_is_none():
    times = each_minutes(10, [0, 1, 3, 4], 8 * 60, 22 * 60)
    (gap,) = find_gaps(hours_of(times))
    assert gap == Gap(START + DAY_MS + (22 * 60 - 10) * MINUTE, START + 3 * DAY_MS + 8 * HOUR_MS)
    assert find_gaps(hours_of(each_minutes(10, [0, 1, 2, 3], 8 * 60, 22 * 60))) == []


def test_a_quiet_day_of_a_small_shop_is_no_gap():
    assert find_gaps(hours_of(each_minutes(120, [0, 1, 3, 4]))) == []


def test_a_shop_that_closes_each_weekend_has_no_gaps():
    days = [day for day in range(35) if day % 7 < 5]
    assert find_gaps(hours_of(each_minutes(10, days))) == []
    assert len(find_gaps(hours_of(each_minutes(10, [day for day in range(35) if day not in (9, 20)])))) == 2


def test_one_date_far_ahead_is_after_a_gap():
    times = np.append(each_minutes(10, [0, 1]), START + 40 * DAY_MS)
    assert [gap.first_ms for gap in find_gaps(hours_of(times))] == [START + 40 * DAY_MS]


def test_data_of_one_event_or_of_none_has_no_gap():
    assert find_gaps({}) == find_gaps(hours_of(np.array([START]))) == []


@examples(50)
@given(st.lists(st.lists(st.integers(0, 10 * HOUR_MS), max_size=8), max_size=5))
def test_hours_of_parts_add_up_to_those_of_the_whole(parts):
    hours = {}
    for part in parts:
        add_hours(hours, hours_of(np.array(part, np.int64)))
    assert hours == hours_of(np.array(sum(parts, []), np.int64))


def test_what_depends_on_a_gap_is_within_the_horizon_before_it():
    gap = Gap(1_000, 5_000)
    assert reaches_into_gap(np.array([0, 500, 900, 901, 1_000, 5_000]), 100, [gap]).tolist() == [
        False, False, False, True, True, False,
    ]  # fmt: skip


def test_an_event_shortly_before_a_gap_has_no_label_and_remains_history():
    events = [("a", minute, VIEW) for minute in (0, 50, 70, 3 * DAY)]
    gap = Gap(START + 70 * MINUTE, START + 3 * DAY * MINUTE)
    end = START + 4 * DAY * MINUTE
    examples, summary = build_bucket(table(events), updates(), QUICK, end, gaps=[gap])
    assert ((examples.time_ms - START) // MINUTE).tolist() == [0, 3 * DAY]
    assert summary.before_gaps == 2
    assert examples.features[:, examples.names.index("lifetime_events")].tolist() == [1, 4]
