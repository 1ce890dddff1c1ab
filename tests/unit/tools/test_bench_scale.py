"""The clicks of a population: always equally many users are busy, and being busy moves on until all have been."""

from functools import cache
from itertools import islice

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tools.bench.scale import CLICK_GAP_MS, FIRST_CLICKS, SESSION_CLICKS, SESSION_GAP_MS, busy_clicks, session_templates
from training.data.dataset import ANY_TIME
from training.data.sources import click_records
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import Click, ClickDecoder


@cache
def shop_records() -> list:
    return list(islice(click_records(simulate(Simulation(40, 24)).clicks()), 3_000))


@cache
def sessions() -> list:
    return session_templates(shop_records())


def spans(users: list[bytes]) -> dict[bytes, tuple[int, int]]:
    """Of each user, the numbers of the first and the last click."""
    first, last = {}, {}
    for number, user in enumerate(users):
        first.setdefault(user, number)
        last[user] = number
    return {user: (first[user], last[user]) for user in first}


def busy_at(users: list[bytes]) -> np.ndarray:
    """How many users are between their first and their last click, both included, at each click."""
    change = np.zeros(len(users) + 1, int)
    for begin, end in spans(users).values():
        change[begin] += 1
        change[end + 1] -= 1
    return change.cumsum()[:-1]


@examples(30)
@given(st.integers(2, 30), st.integers(0, 100))
def test_a_tenth_of_the_users_is_busy_at_a_time(busy, seed):
    users = 10 * busy
    first_sweep = FIRST_CLICKS * (users - busy)  # nobody is busy for the second time before all have been once
    keys = [key for key, _, _ in busy_clicks(sessions(), users, busy, first_sweep, seed)]
    assert max(busy_at(keys)) <= busy


def test_about_a_tenth_of_the_users_has_clicks_in_any_stretch():
    users, busy = 5_000, 500
    clicks = busy_clicks(sessions(), users, busy, 30_000)
    keys = [key for key, _, _ in clicks][15_000:]  # of whole sessions
    for start in range(0, len(keys) - 2 * busy, busy):
        assert 0.8 * busy < len({*keys[start : start + 2 * busy]}) < 1.6 * busy


def test_being_busy_moves_through_the_whole_population_and_begins_again():
    users, busy = 1_000, 100
    keys = [key for key, _, _ in busy_clicks(sessions(), users, busy, 8_000)]
    assert len({*keys[: 3 * users]}) == users, "all were seen before the rate is taken"
    assert len({*keys[4 * users :]}) > 2 * busy
    begun = [*dict.fromkeys(keys)]
    assert begun[0] != begun[-1]
    assert {*keys} == {b"u%d" % number for number in range(users)}


def test_clicks_are_simulated_ones_of_another_user_at_another_time():
    records = list(busy_clicks(sessions(), 100, 10, 2_000))
    decoded = ClickDecoder(ANY_TIME).decode([value for _, value, _ in records], [time for _, _, time in records])
    assert decoded.reasons == [None] * len(records)
    assert decoded.user_ids == [key.decode() for key, _, _ in records]
    assert decoded.event_times_ms == [time for _, _, time in records] == sorted(decoded.event_times_ms)
    assert (records[-1][2] - records[0][2]) / len(records) == pytest.approx(CLICK_GAP_MS / 10, rel=0.01)
    assert len(set(decoded.event_ids)) == len(records)
    known = {_anonymous(value) for _, value, _ in shop_records()}
    assert {_anonymous(value) for _, value, _ in records} <= known


def test_a_session_is_of_one_user_and_not_too_long():
    assert sum(map(len, sessions())) == len(shop_records())
    assert max(map(len, sessions())) == SESSION_CLICKS
    pauses = 0
    before = {}
    for key, _, time_ms in shop_records():
        pauses += time_ms - before.get(key, -SESSION_GAP_MS) >= SESSION_GAP_MS
        before[key] = time_ms
    assert len(sessions()) >= pauses


def _anonymous(value: bytes) -> bytes:
    click = msgspec.json.decode(value, type=Click)
    return msgspec.json.encode(msgspec.structs.replace(click, user_id="anyone", event_id=None, event_time=0))
