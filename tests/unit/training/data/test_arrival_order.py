"""No event, and no profile, is known before its time, in whichever order clicks were recorded."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from training.data.arrival_order import arrivals
from training.data.examples import Examples
from training.data.preparation import EVENT_ROWS, UPDATE_ROWS, Preparation, build_bucket
from training.data.summary import UNKNOWN_MS
from udfs.contracts.packed_events import EVENT, EVENT_KINDS
from udfs.contracts.profiles import PROFILE
from udfs.features.declaration_file import STANDARD
from udfs.measurement.labels import CONVERTED

MINUTE = 60_000
START = 1_767_225_600_000
DAY = 1_440  # minutes
VIEW, CART, SCROLL, PURCHASE = map(EVENT_KINDS.index, ("view_item", "add_to_cart", "scroll", "purchase"))
QUICK = Preparation(CONVERTED)
NAMES = STANDARD.names

Event = tuple[str, int, int]  # user, minute, kind


def records_of(events: list[Event]) -> np.ndarray:
    records = np.zeros(len(events), EVENT)
    records["time_ms"] = [START + minute * MINUTE for _, minute, _ in events]
    records["kind"] = [kind for *_, kind in events]
    return records


def table(events: list[Event], arrival_ms: list[int] | None = None) -> pa.Table:
    """A bucket of events in this order of rows, of a file or, with times of arrival, of an archive."""
    records = records_of(events)
    arrival = [UNKNOWN_MS] * len(events) if arrival_ms is None else arrival_ms
    users = [user for user, *_ in events]
    columns = [users, [record.tobytes() for record in records], arrival, [0] * len(events), list(range(len(events)))]
    return pa.Table.from_arrays([pa.array(one, kind.type) for one, kind in zip(columns, EVENT_ROWS)], schema=EVENT_ROWS)


def updates(*given: tuple[str, int]) -> pa.Table:
    """Profiles of users that are known from a minute on."""
    profiles = np.zeros(len(given), PROFILE)
    profiles["known"] = 1
    profiles["signup_day"] = 20_000
    columns = [
        [user for user, _ in given],
        [profile.tobytes() for profile in profiles],
        [START + minute * MINUTE for _, minute in given],
    ]
    return pa.Table.from_arrays(
        [pa.array(one, kind.type) for one, kind in zip(columns, UPDATE_ROWS)], schema=UPDATE_ROWS
    )


def rows_of(examples: Examples) -> list[tuple]:
    """The examples as values that do not depend on their order."""
    users = examples.user_ids[examples.user].tolist()
    features = [row.tobytes() for row in examples.features]
    return sorted(zip(users, examples.time_ms.tolist(), features, examples.labels.tolist()))


def examples_of(events: pa.Table, profiles: pa.Table, **changes) -> list[tuple]:
    return rows_of(build_bucket(events, profiles, QUICK, START + 100 * DAY * MINUTE)[0])


PROFILES = updates(("a", 15), ("b", 3), ("a", 40))
event_lists = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.sampled_from([VIEW, CART, PURCHASE])),
    min_size=1,
    max_size=15,
)


@examples(40)
@given(event_lists, st.randoms(use_true_random=False))
def test_the_rows_of_a_file_in_any_order_give_the_same_examples(events, random):
    events = list({event[:2]: event for event in events}.values())  # events of one time are below
    ordered = sorted(events, key=lambda event: event[1])
    random.shuffle(events)
    assert examples_of(table(events), PROFILES) == examples_of(table(ordered), PROFILES)


@examples(40)
@given(event_lists)
def test_newest_first_trains_as_ordered_does_though_times_are_equal(events):
    ordered = sorted(events, key=lambda event: event[1])
    assert examples_of(table(ordered[::-1]), PROFILES) == examples_of(table(ordered), PROFILES)


def test_of_events_of_one_time_in_rows_without_an_order_none_sees_a_purchase():
    events = [("a", minute // 4, kind) for minute, kind in enumerate([PURCHASE, VIEW, CART, SCROLL] * 20)]
    for seed in range(3):
        shuffled = [events[row] for row in np.random.default_rng(seed).permutation(len(events))]
        user, unknown = np.zeros(len(events), np.int64), np.full(len(events), UNKNOWN_MS)
        records, offset = records_of(shuffled), np.arange(len(events))
        found = arrivals(user, unknown, user, offset, records["time_ms"], records=records)
        assert records["kind"][found.order].tolist() == [VIEW, CART, SCROLL, PURCHASE] * 20


def test_an_archive_sent_newest_first_with_the_times_of_its_events_trains_as_ordered_does():
    events = sorted((user, minute, VIEW) for user in "ab" for minute in range(0, 300, 20))
    newest_first = sorted(events, key=lambda event: -event[1])
    times = records_of(newest_first)["time_ms"].tolist()
    examples, summary = build_bucket(table(newest_first, times), PROFILES, QUICK, START + DAY * MINUTE)
    assert rows_of(examples) == rows_of(build_bucket(table(events), PROFILES, QUICK, START + DAY * MINUTE)[0])
    assert summary.contradicted == len(events)


def test_an_archive_that_arrived_in_order_is_taken_in_order_of_arrival_though_some_events_were_late():
    minutes = [0, 1, 2, 50, 3, 51, 52, 53, 54, 55]
    user, offset = np.zeros(10, np.int64), np.arange(10)
    arrival, times = START + offset * MINUTE, START + np.array(minutes) * MINUTE
    found = arrivals(user, arrival, user, offset, times)
    assert (found.order.tolist(), found.arrival_ms.tolist(), found.is_known) == (
        list(range(10)),
        arrival.tolist(),
        True,
    )


@pytest.mark.parametrize(("wrong", "minute", "corrected"), [(3, 9_000, 4), (6, -500, 5)])
def test_one_wrong_clock_moves_the_arrival_of_no_other_event(wrong, minute, corrected):
    minutes = np.arange(12)
    minutes[wrong] = minute
    user, offset = np.zeros(12, np.int64), np.arange(12)
    found = arrivals(user, START + minutes * MINUTE, user, offset, START + minutes * MINUTE)
    expected = np.arange(12)
    expected[wrong] = corrected
    assert found.is_known
    assert found.order.tolist() == list(range(12))
    assert ((found.arrival_ms - START) // MINUTE).tolist() == expected.tolist()


@pytest.mark.parametrize("is_archive", [False, True])
@pytest.mark.parametrize("ahead", [0, 4, 11])
def test_an_event_whose_clock_is_ahead_is_known_to_no_event_dated_before_it(is_archive, ahead):
    right = [("a", minute, VIEW) for minute in range(0, 120, 10)]
    wrong = [*right]
    wrong[ahead] = ("a", 5 * DAY, VIEW)
    times = records_of(wrong)["time_ms"].tolist() if is_archive else None
    profiles = updates(("a", 3 * DAY))  # which nobody knows yet
    found = {row[1]: row[2] for row in examples_of(table(wrong, times), profiles)}
    without = {row[1]: row[2] for row in examples_of(table([*right[:ahead], *right[ahead + 1 :]]), profiles)}
    profile_column = NAMES.index("since_signup_days")
    for time_ms, features in without.items():
        one, other = (np.frombuffer(row, np.float32) for row in (found[time_ms], features))
        assert np.array_equal(one[profile_column], other[profile_column], equal_nan=True)
        if not is_archive:  # the job counts what has arrived, whenever it is dated
            assert one.tobytes() == other.tobytes()
