"""What a KPI would have been had other versions decided, or with other shares: off-policy estimates from the log.

Each session's arm was drawn at random, with a probability that its record has (the propensity). A session of a version
counts by the share that the policy gives the version, divided by the propensity: so the sessions weigh as they would
had the policy drawn the arms (Bottou et al., Counterfactual Reasoning and Learning Systems, JMLR 2013). The sum is
divided by that of the weighted denominators, not by the one expected (Swaminathan and Joachims, The Self-Normalized
Estimator for Counterfactual Learning, NeurIPS 2015). The variance is by user, by the delta method; the interval is the
confidence sequence of `udfs.measurement.effects`, as the shares of a bandit depend on what was seen before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np

from udfs.measurement.effects import ALPHA, LEAST_USERS, TUNED_FOR_USERS, NoEffectError, boundary

#: If more of a version's sessions have no propensity, those that have one may not stand for all.
MOST_WITHOUT = 0.01
#: With a smaller propensity, a session would weigh as much as hundreds of others: the approximation breaks down.
LEAST_PROPENSITY = 0.005


class Logged(NamedTuple):
    """n sessions in which a version of the policy decided."""

    user: np.ndarray  # int64[n], from 0
    version: np.ndarray  # int64[n], position in the policy
    propensity: np.ndarray  # float64[n], NaN where the record has none
    numerator: np.ndarray  # float64[n]
    denominator: np.ndarray  # float64[n]


@dataclass(frozen=True)
class PolicyValue:
    """A KPI under a policy, with an interval that holds at every look."""

    value: float
    low: float
    high: float
    variance: float
    users: int  # whose sessions count
    #: The number of users of equal weight that would be as informative.
    effective_users: float


def policy_value(
    logged: Logged, policy: Mapping[str, float], alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS
) -> PolicyValue:
    """A KPI under a policy, shares above 0 by version. Raises NoEffectError, naming the version.

    The sessions are of a time in which every version of the policy acted.
    """
    _check(logged, policy)
    logged = Logged(*(part[~np.isnan(logged.propensity)] for part in logged))
    weights = np.array(list(policy.values()))[logged.version] / sum(policy.values()) / logged.propensity
    below = float(weights @ logged.denominator)
    if below == 0:
        raise NoEffectError("the denominator is 0 in every session")
    value = float(weights @ logged.numerator) / below
    of_user = np.bincount(logged.user, weights * logged.denominator)
    effective = float(below**2 / (of_user**2).sum())
    if effective < LEAST_USERS:
        raise NoEffectError(
            f"too few users: the sessions are worth {effective:.0f} equal users, at least {LEAST_USERS} needed"
        )
    influence = np.bincount(logged.user, weights * (logged.numerator - value * logged.denominator)) / below
    users = len(np.unique(logged.user))
    variance = float((influence**2).sum()) * users / (users - 1)
    if variance == 0:
        raise NoEffectError("all users have the same value")
    reach = boundary(users, alpha, tuned_for) * sqrt(variance)
    return PolicyValue(value, value - reach, value + reach, variance, users, effective)


def _check(logged: Logged, policy: Mapping[str, float]) -> None:
    for number, version in enumerate(policy):
        propensity = logged.propensity[logged.version == number]
        if not len(propensity):
            raise NoEffectError(f"{version} never acted in these sessions")
        missing = int(np.isnan(propensity).sum())
        if missing > MOST_WITHOUT * len(propensity):
            raise NoEffectError(f"{missing} of {len(propensity)} sessions of {version} have no propensity")
        if (least := np.nanmin(propensity)) < LEAST_PROPENSITY:
            raise NoEffectError(f"{version} had a propensity of {least:g}, at least {LEAST_PROPENSITY:g} needed")
