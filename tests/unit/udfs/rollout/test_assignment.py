"""Users of challengers that are drawn by a salt of their own."""

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binomtest, chi2_contingency, chisquare

from udfs.models.bundle import VERSION_PATTERN
from udfs.rollout.assignment import CHAMPION, CONTROL, arms, assign, positions, redraw
from udfs.rollout.plan import Challenger, Control, Rollout, add_challenger, check_rollout
from udfs.rollout.rules import Rule

USERS = [f"user-{number}" for number in range(20_000)]
SOME = USERS[:500]
P_VALUE = 1e-4  # the users are fixed: a test fails always or never
FIRST = CONTROL + 1  # the arm of the first challenger

salts = st.from_regex(VERSION_PATTERN, fullmatch=True)
shares = st.floats(0, 1)


@st.composite
def rollouts(draw) -> Rollout:
    """Control and one to three challengers, each at a part of its at_most, under a salt of their own."""
    at_most = draw(st.floats(0, 0.3))
    found = Rollout(
        salt=draw(salts),
        champion="champion",
        challenger_salt=draw(salts),
        control=Control(share=at_most * draw(shares), at_most=at_most),
        rule=Rule(any=("cart_adds_30m >= 1",)),
    )
    for version in "abc"[: draw(st.integers(1, 3))]:
        width = draw(st.floats(0.001, 0.23))
        found = add_challenger(found, Challenger(version=version, share=width * draw(shares), at_most=width))
    check_rollout(found)
    return found


def assigned(rollout: Rollout, users: list[str] = SOME) -> np.ndarray:
    return assign(rollout, users, np.ones(len(users), bool))


def by_salt_alone(rollout: Rollout, users: list[str] = SOME) -> np.ndarray:
    """The arm of each user as it was before challengers could have a salt of their own."""
    found = []
    for user in users:
        digest = blake2b(f"{rollout.salt}\0{user}".encode(), digest_size=8).digest()
        place = (int.from_bytes(digest, "little") >> 11) / 2**53
        filled = enumerate(arms(rollout)[CONTROL:], CONTROL)
        found.append(next((number for number, arm in filled if arm.start <= place < arm.end), CHAMPION))
    return np.array(found)


@given(rollouts())
def test_without_a_salt_of_their_own_challengers_keep_the_users_that_they_had(rollout):
    rollout = replace(rollout, challenger_salt=None)
    assert np.array_equal(assigned(rollout), by_salt_alone(rollout))


@given(rollouts(), st.none() | salts)
def test_control_has_the_same_users_under_any_salt_of_challengers(rollout, other):
    control = assigned(rollout) == CONTROL
    assert np.array_equal(control, by_salt_alone(rollout) == CONTROL)
    assert np.array_equal(control, assigned(replace(rollout, challenger_salt=other)) == CONTROL)


@given(rollouts())
def test_users_reserved_for_control_never_get_a_challenger(rollout):
    reserved = positions(rollout.salt, SOME) < rollout.control.at_most
    assert set(assigned(rollout)[reserved]) <= {CHAMPION, CONTROL}


@given(rollouts(), st.data())
def test_users_stay_with_a_challenger_that_grows(rollout, data):
    grown = [replace(part, share=part.at_most * data.draw(shares)) for part in rollout.challengers]
    larger = [max(old, new, key=lambda part: part.share) for old, new in zip(rollout.challengers, grown)]
    old, new = assigned(rollout), assigned(replace(rollout, challengers=tuple(larger)))
    assert (new[old != CHAMPION] == old[old != CHAMPION]).all()


@given(rollouts())
def test_no_user_belongs_to_two_arms(rollout):
    together = assigned(rollout)
    for number, part in enumerate(rollout.challengers, FIRST):
        alone = assigned(replace(rollout, challengers=(part,)))
        assert np.array_equal(together == number, alone == FIRST)


@pytest.mark.parametrize("at_most", [0.0, 0.05, 0.4])
def test_arms_get_their_shares(at_most):
    parts = (
        Challenger(version="a", share=0.01, at_most=0.2, start=at_most),
        Challenger(version="b", share=0.3, at_most=0.3, start=at_most + 0.2),
    )
    control = Control(share=at_most / 2, at_most=at_most)
    arm = assigned(
        Rollout(salt="s", champion="champion", challenger_salt="a", control=control, challengers=parts), USERS
    )
    for number, share in ((CONTROL, control.share), (FIRST, 0.01), (FIRST + 1, 0.3), (CHAMPION, 0.69 - at_most / 2)):
        assert binomtest(int((arm == number).sum()), len(USERS), share).pvalue > P_VALUE


def test_a_challenger_of_everything_that_control_leaves_gets_all_others():
    part = Challenger(version="a", share=0.95, at_most=0.95, start=0.05)
    rollout = Rollout(
        salt="s", champion="v", challenger_salt="a", control=Control(share=0.05, at_most=0.05), challengers=(part,)
    )
    assert set(assigned(rollout, USERS)) == {CONTROL, FIRST}


def tenths(place: np.ndarray) -> np.ndarray:
    """The tenth of [0.2, 1) of each place."""
    return np.floor((place - 0.2) / 0.08).astype(int)


@pytest.mark.parametrize(
    ("salt", "other"), [(None, "v2"), (None, "s"), ("v2", "v3"), ("20260101T000000Z-a", "20260102T000000Z-a")]
)
def test_users_drawn_again_fall_evenly_and_anywhere(salt, other):
    """Also in comparison with the places that they had by the rollout's own salt, s, which is None here."""
    place = positions("s", USERS)
    drawn = place >= 0.2
    old, new = (
        tenths(place if salt is None else redraw(place, 0.2, salt, USERS))[drawn],
        tenths(redraw(place, 0.2, other, USERS))[drawn],
    )
    assert chisquare(np.bincount(new, minlength=10)).pvalue > P_VALUE
    assert chi2_contingency(np.bincount(old * 10 + new, minlength=100).reshape(10, 10)).pvalue > P_VALUE
