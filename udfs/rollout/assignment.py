"""User assignment: the arm of each user, and a fixed sample of the users.

A user's place in [0, 1) is a hash of salt and user id; the arm in whose filled region it lies is the user's, and the
champion has the rest. So users stay in an arm whose share grows, and no arm's users depend on another arm.

Each challenger that starts alone has a salt of its own, by which all users outside control's region get new places. So
its users are a fresh random sample, and what an earlier challenger did to its users is spread evenly over the arms.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple
from zlib import crc32

import numpy as np

from udfs.features.declaration import Declaration
from udfs.rollout.plan import Rollout
from udfs.rollout.rules import matches


class Arm(NamedTuple):
    """An arm that users are assigned to, and the model whose score decides there; in control the rule decides."""

    name: str
    version: str
    start: float  # of the filled part of its region in [0, 1)
    end: float


CHAMPION, NOT_ELIGIBLE, CONTROL = range(3)  # positions in `arms`; challengers follow


def arms(rollout: Rollout) -> tuple[Arm, ...]:
    """Champion, users who are not eligible (the champion's model acts), control, and each challenger."""
    fixed = (
        Arm("champion", rollout.champion, 0.0, 1.0),
        Arm("not_eligible", rollout.champion, 0.0, 1.0),
        Arm("control", rollout.champion, 0.0, rollout.control.share),
    )
    return fixed + tuple(
        Arm("challenger", challenger.version, challenger.start, challenger.start + challenger.share)
        for challenger in rollout.challengers
    )


def propensities(rollout: Rollout) -> tuple[float, ...]:
    """The probability with which an eligible user is put into each of `arms(rollout)`; 1 for those not eligible."""
    return (
        rollout.champion_share,
        1.0,
        rollout.control.share,
        *(challenger.share for challenger in rollout.challengers),
    )


def assign(rollout: Rollout, user_ids: Sequence[str], eligible: np.ndarray) -> np.ndarray:
    """The arm of each of n users, as position in `arms(rollout)`, int64[n], given their eligibility, bool[n]."""
    place = positions(rollout.salt, user_ids)
    if rollout.challengers and rollout.challenger_salt is not None:
        place = redraw(place, rollout.control.at_most, rollout.challenger_salt, user_ids)
    arm = np.full(len(place), CHAMPION)
    for number, (_, _, start, end) in enumerate(arms(rollout)[CONTROL:], CONTROL):
        arm[(start <= place) & (place < end)] = number
    return np.where(eligible, arm, NOT_ELIGIBLE)


def positions(salt: str, user_ids: Sequence[str]) -> np.ndarray:
    """The place in [0, 1) of each of n users, float64[n]: uniform, and independent between salts.

    The first 53 of 64 bits of BLAKE2b; a salt can't hold the byte that parts it from the user.
    """
    salted = blake2b(salt.encode() + b"\0", digest_size=8)
    digests = []
    for user_id in user_ids:
        digest = salted.copy()
        digest.update(user_id.encode())
        digests.append(digest.digest())
    return (np.frombuffer(b"".join(digests), "<u8") >> np.uint64(11)) * 2.0**-53


def redraw(place: np.ndarray, above: float, salt: str, user_ids: Sequence[str]) -> np.ndarray:
    """The places of n users, float64[n], after those at `above` or later are spread over [above, 1) by another salt.

    >>> redraw(np.array([0.1, 0.9]), 0.5, "another", ["ada", "bob"])
    array([0.1       , 0.71817418])
    """
    # Salts of rollouts have no slash: so this one is another, even where both salts of a rollout are the same.
    drawn = positions(f"challengers/{salt}", user_ids)
    return np.where(place < above, place, above + (1 - above) * drawn)


def visitor_id(hash_: int) -> str:
    """The id by which a user is assigned who was a visitor before a login, given the hash of the anonymous id.

    >>> visitor_id(255)
    '00000000000000ff'
    """
    return f"{hash_:016x}"


def eligible_rows(rollout: Rollout, names: Sequence[str], features: np.ndarray, declaration: Declaration) -> np.ndarray:
    """Whether the user of each row is eligible, bool[n], given features float32[n, k] of the declaration, and their k
    names."""
    if rollout.eligible is None:
        return np.ones(len(features), bool)
    return matches(rollout.eligible, names, features, declaration)


def in_sample(user_id: str, share: float) -> bool:
    """Whether a user belongs to a share (0 to 1) of all users: always the same ones, and a larger share keeps them.

    >>> in_sample("anyone", 0.0), in_sample("anyone", 1.0)
    (False, True)
    """
    return crc32(user_id.encode()) < share * 2**32
