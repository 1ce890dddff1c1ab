"""Effects from the values of each user, one after the other, as the papers have them."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from udfs.measurement.effects import Effect, always_valid_p, boundary


@dataclass(frozen=True)
class UserSums:
    """Numerator and denominator of n users of an arm, float64[n] each, and the same before the experiment."""

    numerator: np.ndarray
    denominator: np.ndarray
    earlier_numerator: np.ndarray
    earlier_denominator: np.ndarray

    def __len__(self) -> int:
        return len(self.numerator)

    @property
    def ratio(self) -> float:
        return float(self.numerator.sum() / self.denominator.sum())


def expected_effect(treatment: UserSums, baseline: UserSums) -> Effect:
    arms = [_linearised(arm) for arm in (treatment, baseline)]
    arms, shift = _cuped(arms, [_earlier(arm, treatment, baseline) for arm in (treatment, baseline)])
    variance = sum(float(values.var(ddof=1)) / len(values) for values in arms)
    difference = treatment.ratio - baseline.ratio - shift
    users = len(treatment) + len(baseline)
    reach = sqrt(variance) * boundary(users)
    return Effect(
        treatment.ratio,
        baseline.ratio,
        difference,
        difference - reach,
        difference + reach,
        always_valid_p(difference, variance, users),
        variance,
        users,
    )


def _linearised(arm: UserSums) -> np.ndarray:
    return (arm.numerator - arm.ratio * arm.denominator) / arm.denominator.mean()


def _earlier(arm: UserSums, *arms: UserSums) -> np.ndarray:
    above = sum(one.earlier_numerator.sum() for one in arms)
    below = sum(one.earlier_denominator.sum() for one in arms)
    ratio = above / below if below else 0.0
    return arm.earlier_numerator - ratio * arm.earlier_denominator


def _cuped(values: list[np.ndarray], earlier: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    centred = [(value - value.mean(), before - before.mean()) for value, before in zip(values, earlier)]
    below = sum(float(before @ before) for _, before in centred)
    if below == 0:
        return values, 0.0
    slope = sum(float(value @ before) for value, before in centred) / below
    adjusted = [value - slope * before for value, before in zip(values, earlier)]
    return adjusted, slope * float(earlier[0].mean() - earlier[1].mean())
