"""How many users an experiment needs: planning by the rules that `judge` decides by.

Users are those of both arms. The relative variance is that of one user: the variance of a KPI's value for n users,
times n, divided by the square of the value.
"""

from bisect import bisect_left
from collections.abc import Callable
from math import ceil, sqrt
from statistics import NormalDist
from typing import Literal

from udfs.measurement.effects import ALPHA, LEAST_USERS, boundary

_MOST_USERS = 10**15


def users_needed(effect: float, relative_variance: float, share: float, power: float, kpis: int) -> int:
    """The number of users after which a relative effect is significant with the probability `power`.

    Significant is what the report calls so: at any look, and among as many KPIs at Holm's first step. `share` is the
    treatment's share of the users. The variance of the treatment grows with its value, as that of rare events does.
    """
    variance = relative_variance * (max(1.0, 1 + effect) / share + 1 / (1 - share))
    return _users(lambda users: boundary(users, ALPHA / kpis), abs(effect), variance, share, power)


def users_for_guardrail(
    margin: float, relative_variance: float, share: float, power: float, direction: Literal["up", "down"] = "up"
) -> int:
    """The number of users after which the guardrail of a harmless treatment holds with the probability `power`.

    The guardrail holds if Fieller's interval leaves out -margin, or +margin for a KPI that is to go down: if the
    treatment's value minus 1 -/+ margin times the baseline's is above or below 0 by more than chance. The interval
    must also be bounded, for which the baseline alone must be above 0 by more than chance.
    """
    tolerated = 1 - margin if direction == "up" else 1 + margin
    variance = relative_variance * max(1 / share + tolerated**2 / (1 - share), margin**2 / (1 - share))
    return _users(boundary, margin, variance, share, power)


def _users(critical: Callable[[int], float], distance: float, variance: float, share: float, power: float) -> int:
    """The least number of users whose estimate is so far from what is to be excluded, with the probability `power`.

    `variance` is that of the estimate for n users, times n.
    """
    reserve = NormalDist().inv_cdf(power)

    def is_enough(users: int) -> bool:
        return distance * sqrt(users / variance) >= critical(users) + reserve

    users = range(ceil(LEAST_USERS / min(share, 1 - share)), _MOST_USERS)
    return users.start + bisect_left(users, True, key=is_enough)
