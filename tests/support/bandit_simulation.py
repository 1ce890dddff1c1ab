"""Users whose conversion rates are known, served by arms whose shares a rule sets anew each day."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from udfs.measurement.arm_effects import Rows, relative_effects
from udfs.measurement.thompson import posterior, probability_best, shares

FLOOR = 0.05
RATE = 0.05

#: The shares of the next day, float64[arms], by what was seen, the shares of today and the number of days.
Rule = Callable[[Rows, np.ndarray, int], np.ndarray]


class History(NamedTuple):
    """What happened on n days."""

    rows: Rows
    shares: np.ndarray  # float64[days, arms]
    rates: np.ndarray  # float64[days, arms], the truth

    def regret(self, users_a_day: int) -> float:
        """The expected number of conversions that were missed by not giving everybody the best arm."""
        return float((self.shares * (self.rates.max(1, keepdims=True) - self.rates)).sum() * users_a_day)


def simulate(
    rng: np.random.Generator,
    effects: Sequence[float],
    rule: Rule,
    users_a_day: int = 100_000,
    season: Sequence[float] = (1.0,) * 14,
    first: Sequence[float] | None = None,
    pool: int | None = None,
) -> History:
    """Serve users for as many days as the season has; `effects` are relative, the first arm's is 0.

    The season multiplies all rates of a day. Each user converts at most once a day. With a `pool`, the users of a day
    are drawn from it, and each one has a taste of their own; without one, all of them are new and alike.
    """
    arms = len(effects)
    today = np.full(arms, 1 / arms) if first is None else np.array(first, float)
    taste = None if pool is None else rng.gamma(2.0, 0.5, pool)
    days, given, rates = [], [], []
    for day, factor in enumerate(season):
        if taste is None:
            user = np.arange(day * users_a_day, (day + 1) * users_a_day)
        else:
            user = rng.choice(pool, users_a_day, replace=False)
        arm = np.minimum(np.searchsorted(np.cumsum(today), rng.random(users_a_day), side="right"), arms - 1)
        rate = RATE * factor * (1 + np.array(effects))
        chance = rate[arm] * (1.0 if taste is None else taste[user])
        converted = rng.random(users_a_day) < chance
        days.append((user, np.full(users_a_day, day), arm, converted.astype(float), np.ones(users_a_day)))
        given.append(today)
        rates.append(rate)
        if day + 1 < len(season):
            today = rule(Rows(*map(np.concatenate, zip(*days))), today, day + 1)
    return History(Rows(*map(np.concatenate, zip(*days))), np.array(given), np.array(rates))


def thompson(rows: Rows, today: np.ndarray, day: int) -> np.ndarray:
    """The rule of the bandit."""
    arms = len(today)
    return shares(probability_best(*posterior(relative_effects(rows, arms), arms - 1)), FLOOR)


def pooled(rows: Rows, today: np.ndarray, day: int) -> np.ndarray:
    """The same, but blind to when users were there."""
    return thompson(rows._replace(stretch=np.zeros_like(rows.stretch)), today, day)


def equal_split(rows: Rows, today: np.ndarray, day: int) -> np.ndarray:
    return np.full(len(today), 1 / len(today))


def ramp(rows: Rows, today: np.ndarray, day: int) -> np.ndarray:
    """Each challenger goes to 5 % and then to 25 %, a day each, whatever was seen."""
    step = (0.01, 0.05, 0.25)[min(day, 2)]
    return np.array([1 - step * (len(today) - 1), *[step] * (len(today) - 1)])
