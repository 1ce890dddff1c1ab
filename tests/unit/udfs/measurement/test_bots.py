"""Who is a bot, by users' events and by sessions: both follow from the same limits, and no person reaches them."""

import sqlite3

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udfs.measurement.bots import HOUR_MS, Bots, sql_is_bot, users_by_limit

SMALL = Bots(events_per_hour=12, paced_events=5, min_gap="1 s")
HOURLY, PACED = Bots(events_per_hour=12, min_gap=None), Bots(events_per_hour=None, paced_events=5, min_gap="1 s")
#: Gaps around the limits of SMALL, in ms.
gaps = st.one_of(st.integers(0, 2_000), st.integers(200_000, 400_000))
times = st.lists(gaps, max_size=40).map(lambda steps: np.cumsum([0, *steps]))


def flagged(bots: Bots, user, time_ms) -> set[int]:
    found = users_by_limit(bots, np.asarray(user, np.int64), np.asarray(time_ms, np.int64))
    return {int(code) for users in found.values() for code in users}


def is_bot(bots: Bots, time_ms) -> bool:
    return bool(flagged(bots, [7] * len(time_ms), time_ms))


def slowly(bots: Bots, time_ms: list[int]) -> bool:
    """Whether the user is a bot, with each group of consecutive events looked at by itself."""
    ordered = sorted(time_ms)
    runs = {limit: [ordered[at : at + limit.events] for at in range(len(ordered))] for limit in bots.limits}
    return any(
        len(run) == limit.events and run[-1] - run[0] < limit.within_ms for limit, some in runs.items() for run in some
    )


def session_is_bot(bots: Bots, events: int, started_at: int, ended_at: int) -> bool:
    with sqlite3.connect(":memory:") as database:
        given = "SELECT ? AS events, ? AS started_at, ? AS ended_at"
        row = database.execute(f"SELECT {sql_is_bot(bots)} FROM ({given})", (events, started_at, ended_at)).fetchone()
    return bool(row[0])


@given(st.lists(st.tuples(st.integers(0, 3), times), max_size=4), st.randoms(use_true_random=False))
def test_users_are_flagged_as_if_each_was_looked_at_alone_whatever_the_order(parts, random):
    events = [(user, int(time_ms)) for user, some in parts for time_ms in some]
    alone = {user for user, _ in events if slowly(SMALL, [time_ms for one, time_ms in events if one == user])}
    random.shuffle(events)
    assert flagged(SMALL, [user for user, _ in events], [time_ms for _, time_ms in events]) == alone


@given(times, times)
def test_more_events_never_make_a_person_of_a_bot(some, more):
    assert is_bot(SMALL, np.concatenate([some, more])) >= is_bot(SMALL, some)


@given(st.lists(st.integers(2_000, 3_600_000), min_size=100, max_size=400))
def test_a_person_who_pauses_two_seconds_is_never_flagged(pauses):
    assert not is_bot(Bots(), np.cumsum(pauses))


@pytest.mark.parametrize(
    ("events", "gap_ms", "flags"),
    [
        (100, 199, True),
        (99, 0, False),
        (100, 200, False),
        (2_000, 1_800, True),
        (1_999, 1_801, False),
        (5_000, 1_801, False),  # 1,999 events in each hour
    ],
)
def test_the_shipped_limits_are_reached_exactly_where_they_say(events, gap_ms, flags):
    assert is_bot(Bots(), np.arange(events) * gap_ms) == flags
    assert session_is_bot(Bots(), events, 0, (events - 1) * gap_ms) == flags


@given(times)
@example(np.array([0, 400, 1_600, 2_800, 4_000, 4_400]))  # on average 880 ms apart, each 5 of them 4 s or more
def test_a_session_is_a_bots_only_if_its_events_are(time_ms):
    for bots in (HOURLY, PACED, SMALL):
        told = session_is_bot(bots, len(time_ms), int(time_ms[0]), int(time_ms[-1]))
        assert told <= is_bot(bots, time_ms)


@given(times.filter(lambda time_ms: time_ms[-1] < HOUR_MS))
def test_a_session_of_less_than_an_hour_is_a_bots_by_its_number_of_events_just_as_its_user_is(time_ms):
    assert session_is_bot(HOURLY, len(time_ms), int(time_ms[0]), int(time_ms[-1])) == is_bot(HOURLY, time_ms)


@given(st.lists(st.integers(0, 2_000), min_size=4, max_size=4).map(np.cumsum))
def test_a_session_of_the_least_number_of_events_is_a_bots_by_its_pace_just_as_its_user_is(steps):
    time_ms = np.concatenate([[0], steps])
    assert session_is_bot(PACED, 5, 0, int(time_ms[-1])) == is_bot(PACED, time_ms)


def test_each_limit_is_named_with_its_users():
    fast, busy = np.arange(5) * 10, np.arange(12) * 60_000
    user = np.repeat([3, 8], [len(fast), len(busy)])
    found = users_by_limit(SMALL, user, np.concatenate([fast, busy]))
    assert {words: users.tolist() for words, users in found.items()} == {
        "12 events in an hour": [8],
        "5 events less than 1 s apart on average": [3],
    }


def test_without_limits_nobody_is_a_bot():
    none = Bots(events_per_hour=None, min_gap=None)
    assert not is_bot(none, np.zeros(10_000, np.int64))
    assert not session_is_bot(none, 10_000, 0, 0)
    assert users_by_limit(Bots(), np.empty(0, np.int64), np.empty(0, np.int64)).keys()
