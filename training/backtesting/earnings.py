"""What policies earned by a ledger, per day and in total, with intervals from resampling users.

Intervals are those of `training.modeling.metrics`: percentiles of a Poisson bootstrap by user. Here each user has sums
per policy and day, so that a replicate costs a product with a sparse matrix, however many events there were. All
policies see the same replicates, so differences are paired.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array, csr_array

from training.backtesting.ledger import ActionLedger
from training.data.intake import counted
from training.modeling.metrics import REPLICATES, Estimate, with_intervals
from udfs.measurement.effects import LEAST_USERS

EarningsVerdict = Literal["earns more", "earns less", "no clear difference", "no data", "not comparable"]


@dataclass(frozen=True)
class DayEarnings:
    """A day of one policy."""

    date: str  # in UTC
    actions: int
    conversions: int
    earned: Estimate
    cumulated: Estimate  # since the first day


@dataclass(frozen=True)
class Earnings:
    """What a policy earned: benefit per conversion minus cost per action."""

    actions: int
    conversions: int
    users: int  # acted on
    earned: Estimate
    days: tuple[DayEarnings, ...]


@dataclass(frozen=True)
class EarningsComparison:
    """What one policy earned more than another one; `users` are those that one of the two acted on."""

    policy: str
    baseline: str
    difference: Estimate
    users: int
    verdict: EarningsVerdict
    why: str = ""  # there is no clear verdict


@dataclass(frozen=True)
class Prices:
    """What counts, in one currency."""

    benefit: float  # of a conversion
    cost: float  # of an action

    def money(self, actions: np.ndarray, conversions: np.ndarray) -> np.ndarray:
        """What actions and conversions earn, float64 of their shape."""
        return self.benefit * conversions - self.cost * actions


@dataclass(frozen=True)
class Difference:
    """What one policy earned more than another one."""

    earned: Estimate
    users: int  # that one of the two acted on
    differing: int  # users for whom the two have other numbers of actions or conversions


def evaluate(
    ledger: ActionLedger, policies: int, pairs: Sequence[tuple[int, int]], days: np.ndarray, prices: Prices
) -> tuple[list[Earnings], list[Difference]]:
    """The earnings of each policy, and how much more the first of each pair of policies earned than the second.

    The days, int64[d] since 1970 without gaps, are those of the ledger and may be more.
    """
    shape = (policies, len(days))
    users, user = np.unique(ledger.user, return_inverse=True)
    actions = _by_user(ledger, ledger.actions, user, len(users), days[0], shape)
    conversions = _by_user(ledger, ledger.conversions, user, len(users), days[0], shape)
    first, second = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))

    def measured(weight: np.ndarray) -> np.ndarray:
        acted, converted = ((counts @ weight).reshape(shape) for counts in (actions, conversions))
        daily = prices.money(acted, converted)
        # Differences of counts, which cancel exactly: money would leave a rounding error, with a sign that looks clear.
        acted, converted = acted.sum(axis=1), converted.sum(axis=1)
        ahead = prices.money(acted[first] - acted[second], converted[first] - converted[second])
        return np.concatenate([prices.money(acted, converted), daily.ravel(), daily.cumsum(axis=1).ravel(), ahead])

    own = np.ones(len(users))
    estimates = iter(with_intervals(measured, own, _redrawn(len(users))))
    totals = [next(estimates) for _ in range(policies)]
    daily, cumulated = ([[next(estimates) for _ in days] for _ in range(policies)] for _ in range(2))
    counts = [(counts @ own).reshape(shape).astype(np.int64).tolist() for counts in (actions, conversions)]
    dates = np.datetime_as_string(days.astype("datetime64[D]")).tolist()
    earned = [
        Earnings(
            actions=sum(acted),
            conversions=sum(converted),
            users=len(np.unique(user[ledger.policy == policy])),
            earned=totals[policy],
            days=tuple(map(DayEarnings, dates, acted, converted, daily[policy], cumulated[policy])),
        )
        for policy, (acted, converted) in enumerate(zip(*counts))
    ]
    return earned, [Difference(next(estimates), *_involved(ledger, user, len(users), pair)) for pair in pairs]


def compare(pair: tuple[str, str], difference: Difference, no_data: str = "", unfair: str = "") -> EarningsComparison:
    """Judge the difference of a pair of policies, given their names.

    `no_data` and `unfair` are reasons to give no verdict: the data is too poor, or the policies did not know the same.
    """
    if not no_data and difference.users < LEAST_USERS:
        no_data = f"the two acted on {counted(difference.users, 'user')}, and an interval needs {LEAST_USERS}"
    verdict, why = _verdict(difference.earned), ""
    if unfair:
        verdict, why = "not comparable", unfair
    elif no_data:
        verdict, why = "no data", no_data
    elif difference.differing < LEAST_USERS:  # the interval of so few is too narrow
        why = f"the two differ on {counted(difference.differing, 'user')} of {difference.users:,}"
        verdict = "no clear difference"
    return EarningsComparison(*pair, difference.earned, difference.users, verdict, why)


def _verdict(difference: Estimate) -> EarningsVerdict:
    if difference.low > 0:
        return "earns more"
    return "earns less" if difference.high < 0 else "no clear difference"


def _by_user(
    ledger: ActionLedger, values: np.ndarray, user: np.ndarray, users: int, first_day: int, shape: tuple[int, int]
) -> csr_array:
    """The values of k entries by policy and day, and by user: sparse float64[policies x days, users]."""
    cell = ledger.policy * shape[1] + ledger.day - first_day
    return coo_array((values.astype(np.float64), (cell, user)), (shape[0] * shape[1], users)).tocsr()


def _involved(ledger: ActionLedger, user: np.ndarray, users: int, pair: tuple[int, int]) -> tuple[int, int]:
    """The number of users that one of a pair of policies acted on, and of those for whom the two have other counts."""
    sign = (ledger.policy == pair[0]) * 1.0 - (ledger.policy == pair[1]) * 1.0
    acted_on = np.bincount(user, sign != 0, users) > 0
    differ = [np.bincount(user, sign * counts, users) != 0 for counts in (ledger.actions, ledger.conversions)]
    return int(acted_on.sum()), int((differ[0] | differ[1]).sum())


def _redrawn(users: int, seed: int = 1) -> Iterator[np.ndarray]:
    """The weights of the users in each replicate, float64[users]."""
    rng = np.random.default_rng(seed)
    for _ in range(REPLICATES):
        yield rng.poisson(1.0, users).astype(np.float64)
