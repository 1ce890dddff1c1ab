"""What policies earned by a ledger, per day and in total, with intervals from resampling users.

Intervals are those of `training.modeling.metrics`: percentiles of a Poisson bootstrap by user. Here each user has a row
of sums per policy and day, so that a replicate costs one product with a sparse matrix, however many events there were.
All policies see the same replicates, so differences are paired.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import coo_array

from training.backtesting.ledger import ActionLedger
from training.data.intake import counted
from training.modeling.metrics import REPLICATES, Estimate, with_intervals
from udfs.measurement.effects import LEAST_USERS

EarningsVerdict = Literal["earns more", "earns less", "no clear difference", "no data"]


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


def earnings(ledger: ActionLedger, policies: int, days: np.ndarray, benefit: float, cost: float) -> list[Earnings]:
    """The earnings of each policy, with a `DayEarnings` for each of the days since 1970, int64[d] without gaps."""
    shape = (policies, len(days))
    counts = [_sums(ledger, values, days[0], shape).astype(np.int64) for values in (ledger.actions, ledger.conversions)]
    per_user = _per_user(ledger, days[0], shape, benefit, cost)

    def measured(weight: np.ndarray) -> list[float]:
        daily = (per_user @ weight).reshape(shape)
        return [*daily.sum(axis=1), *daily.ravel(), *daily.cumsum(axis=1).ravel()]

    estimates = with_intervals(measured, np.ones(per_user.shape[1]), _redrawn(per_user.shape[1]))
    totals, cells = estimates[:policies], policies * len(days)
    daily, cumulated = estimates[policies : policies + cells], estimates[policies + cells :]
    dates = np.datetime_as_string(days.astype("datetime64[D]")).tolist()
    return [
        Earnings(
            actions=int(counts[0][policy].sum()),
            conversions=int(counts[1][policy].sum()),
            users=len(np.unique(ledger.user[ledger.policy == policy])),
            earned=totals[policy],
            days=tuple(
                DayEarnings(
                    date,
                    int(counts[0][policy, day]),
                    int(counts[1][policy, day]),
                    daily[policy * len(days) + day],
                    cumulated[policy * len(days) + day],
                )
                for day, date in enumerate(dates)
            ),
        )
        for policy in range(policies)
    ]


def compare(
    ledger: ActionLedger,
    names: list[str],
    pair: tuple[str, str],
    benefit: float,
    cost: float,
    why: str = "",
) -> EarningsComparison:
    """Compare a policy with a baseline, given the names of all policies. `why` is a reason for "no data"."""
    policy, baseline = (names.index(name) for name in pair)
    sign = (ledger.policy == policy) * 1.0 - (ledger.policy == baseline) * 1.0
    involved = sign != 0
    users, user = np.unique(ledger.user[involved], return_inverse=True)
    # Counts, whose differences cancel exactly: money would leave a rounding error, with a sign that looks clear.
    actions, conversions = (
        np.bincount(user, (sign * counts)[involved], len(users)) for counts in (ledger.actions, ledger.conversions)
    )
    [difference] = with_intervals(
        lambda weight: [benefit * float(conversions @ weight) - cost * float(actions @ weight)],
        np.ones(len(users)),
        _redrawn(len(users)),
    )
    if not why and len(users) < LEAST_USERS:
        why = f"the two acted on {len(users)} users, and an interval needs {LEAST_USERS}"
    if why:
        return EarningsComparison(*pair, difference, len(users), "no data", why)
    differing = int(np.count_nonzero((actions != 0) | (conversions != 0)))
    if differing < LEAST_USERS:  # the interval of so few is too narrow
        why = f"the two differ on {counted(differing, 'user')} of {len(users):,}"
        return EarningsComparison(*pair, difference, len(users), "no clear difference", why)
    return EarningsComparison(*pair, difference, len(users), _verdict(difference))


def _verdict(difference: Estimate) -> EarningsVerdict:
    if difference.low > 0:
        return "earns more"
    return "earns less" if difference.high < 0 else "no clear difference"


def _sums(ledger: ActionLedger, values: np.ndarray, first_day: int, shape: tuple[int, int]) -> np.ndarray:
    """The sums of an entry's values by policy and day, float64[policies, days]."""
    cell = ledger.policy * shape[1] + ledger.day - first_day
    return np.bincount(cell, values, shape[0] * shape[1]).reshape(shape)


def _per_user(ledger: ActionLedger, first_day: int, shape: tuple[int, int], benefit: float, cost: float) -> coo_array:
    """What each user brought, sparse float64[policies x days, users]; only of users who were acted on."""
    users, user = np.unique(ledger.user, return_inverse=True)
    cell = ledger.policy * shape[1] + ledger.day - first_day
    worth = benefit * ledger.conversions - cost * ledger.actions
    return coo_array((worth, (cell, user)), (shape[0] * shape[1], len(users))).tocsr()


def _redrawn(users: int, seed: int = 1):
    """The weights of the users in each replicate, float64[users]."""
    rng = np.random.default_rng(seed)
    for _ in range(REPLICATES):
        yield rng.poisson(1.0, users).astype(np.float64)
