"""Who gets a challenger, from one rollout to the next."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binomtest

from training.rollout.transitions import ChangeError, check_sticky, first, start, stop, to_champion
from udfs.rollout.assignment import CONTROL, assign
from udfs.rollout.plan import Control, Rollout
from udfs.rollout.rules import Rule

USERS = [f"user-{number}" for number in range(2_000)]
P_VALUE = 1e-4  # the users are fixed: a test fails always or never
BEGUN = replace(first("v1"), control=Control(share=0.05, at_most=0.05), rule=Rule(any=("cart_adds_30m >= 1",)))


def users_of(rollout: Rollout, version: str, users: Sequence[str] = USERS) -> np.ndarray:
    """Whether each user has a challenger, bool[users]."""
    number = [part.version for part in rollout.challengers].index(version)
    return assign(rollout, users, np.ones(len(users), bool)) == CONTROL + 1 + number


@pytest.mark.parametrize("leave", [stop, to_champion])
@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_users_of_one_challenger_say_nothing_of_those_of_the_next(share, leave):
    one = start(BEGUN, "v2", share, share)
    next_one = start(leave(one, "v2"), "v3", share, share)
    many = [f"user-{number}" for number in range(100_000)]
    had, get = users_of(one, "v2", many), users_of(next_one, "v3", many)
    others = 1 - BEGUN.control.at_most
    assert binomtest(int((had & get).sum()), int(had.sum()), share / others).pvalue > P_VALUE
    assert 0 < (had & get).sum() < 1.5 * share / others * had.sum()


def test_the_same_challenger_gets_its_users_back():
    one = start(BEGUN, "v2", 0.1, 0.5)
    assert start(stop(one, "v2"), "v2", 0.1, 0.5) == one


def test_a_challenger_beside_another_one_takes_no_user_of_it():
    one = start(BEGUN, "v2", 0.1, 0.4)
    both = start(one, "v3", 0.1, 0.4)
    assert both.challenger_salt == one.challenger_salt == "v2"
    assert np.array_equal(users_of(both, "v2"), users_of(one, "v2"))
    assert not (users_of(both, "v2") & users_of(both, "v3")).any()


def test_a_challenger_that_leaves_leaves_the_users_of_another_one_alone():
    both = start(start(BEGUN, "v2", 0.1, 0.4), "v3", 0.1, 0.4)
    rest = stop(both, "v2")
    assert np.array_equal(users_of(rest, "v3"), users_of(both, "v3"))


def test_a_challenger_beside_one_of_an_earlier_release_leaves_its_users_alone():
    earlier = replace(start(BEGUN, "v2", 0.1, 0.4), challenger_salt=None)
    both = start(earlier, "v3", 0.1, 0.4)
    assert both.challenger_salt is None
    assert np.array_equal(users_of(both, "v2"), users_of(earlier, "v2"))


RUNNING = start(BEGUN, "v2", 0.1, 0.4)


@pytest.mark.parametrize(
    ("old", "change", "message"),
    [
        (RUNNING, {"salt": "other"}, "salt other would reassign the users of v2: stop the challengers first"),
        (
            RUNNING,
            {"challenger_salt": "v3"},
            "challenger_salt v3 would reassign the users of v2: leave challenger_salt out, or stop the challengers "
            "first",
        ),
        (
            RUNNING,
            {"challenger_salt": None},
            "challenger_salt null would reassign the users of v2: leave challenger_salt out, or stop the challengers "
            "first",
        ),
        (
            replace(RUNNING, challenger_salt=None),
            {"challenger_salt": "v2"},
            "challenger_salt v2 would reassign the users of v2: leave challenger_salt out, or stop the challengers "
            "first",
        ),
        (
            RUNNING,
            {"control": Control(share=0.02, at_most=0.02)},
            "control.at_most 0.02 would reassign the users of v2: keep 0.05, or stop the challengers first",
        ),
    ],
)
def test_users_of_a_challenger_that_goes_on_are_not_drawn_again(old, change, message):
    new = replace(old, **change)
    assert not np.array_equal(users_of(old, "v2"), users_of(new, "v2"))
    with pytest.raises(ChangeError) as error:
        check_sticky(old, new)
    assert str(error.value) == message
    check_sticky(old, stop(new, "v2"))


@given(
    st.sampled_from([RUNNING, replace(RUNNING, challenger_salt=None)]),
    st.sampled_from(["rollout", "other"]),
    st.sampled_from([None, "v2", "v3"]),
    st.sampled_from([0.0, 0.02, 0.05]),
)
def test_what_is_allowed_leaves_the_users_where_they_are(old, salt, challenger_salt, at_most):
    control = Control(share=0, at_most=at_most)
    new = replace(old, salt=salt, challenger_salt=challenger_salt, control=control)
    try:
        check_sticky(old, new)
    except ChangeError:
        return
    assert np.array_equal(users_of(old, "v2"), users_of(new, "v2"))
