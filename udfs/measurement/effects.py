"""The effect of one arm against another: ratio metrics by user, valid at every look.

The unit is the user: a KPI of an arm is the sum of its numerator over the arm's users by that of its denominator, and
its variance follows from the users' linearised values by the delta method (Deng, Knoblich and Lu, Applying the Delta
Method in Metric Analytics, KDD 2018). These are linear in the values of a user, so sums and sums of products over
users are enough. CUPED removes differences from before the experiment (Deng, Xu, Kohavi and Walker, Improving the
Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data, WSDM 2013).
Intervals are asymptotic confidence sequences of a normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
Time-uniform Central Limit Theory and Asymptotic Confidence Sequences, Annals of Statistics 2024, theorem 2.2): the
true effect is in all of them at once with the promised probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chisquare, norm

ALPHA = 0.05
#: The number of users at which intervals are narrowest; they hold at any.
TUNED_FOR_USERS = 10_000
#: With fewer `effective_users`, the normal approximation does not hold, and no effect is reported.
LEAST_USERS = 30
SRM_ALPHA = 0.001
#: A difference of products below this share of the sum of their absolute values is a rounding error.
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Moments:
    """The sums of a KPI over n users of an arm: all that effects are computed from.

    A user has four values: numerator and denominator, and both from before the experiment, 0 without history. `sums`
    are float64[4], `products` the summed products of each two values, float64[4, 4].
    """

    users: int
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def of_users(cls, *values: np.ndarray) -> "Moments":
        """Sum the first two or all four values of n users, float64[n] each."""
        columns = np.zeros((4, len(values[0])))
        columns[: len(values)] = values
        return cls(columns.shape[1], columns.sum(axis=1), columns @ columns.T)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.users + other.users, self.sums + other.sums, self.products + other.products)

    @property
    def ratio(self) -> float:
        """The KPI of the arm."""
        return float(self.sums[0] / self.sums[1])

    @property
    def effective_users(self) -> float:
        """Kish's effective sample size (Survey Sampling, 1965): the number of users with equal denominators that would
        be as informative. If few users have a denominator, it is about their number."""
        return float(self.sums[1] ** 2 / self.products[1, 1]) if self.products[1, 1] else 0.0

    def mean(self, weights: np.ndarray) -> float:
        """The mean of a linear combination of the users' values, weights float64[4]."""
        return float(weights @ self.sums) / self.users

    def comoment(self, first: np.ndarray, second: np.ndarray) -> float:
        """The summed products of two linear combinations about their means; 0 if it is only a rounding error."""
        terms = np.outer(first, second) * self.products
        comoment = float(terms.sum()) - self.users * self.mean(first) * self.mean(second)
        return comoment if abs(comoment) > ROUNDING * float(np.abs(terms).sum()) else 0.0


@dataclass(frozen=True)
class Effect:
    """A KPI's difference, treatment minus baseline, with an interval that holds at every look at once."""

    treatment: float
    baseline: float
    difference: float  # after CUPED, where there is history
    low: float
    high: float
    p_value: float  # valid at every look
    variance: float
    users: int

    @property
    def relative(self) -> tuple[float, float, float]:
        """Difference, low and high as shares of the baseline; NaN where that is 0."""
        scale = abs(self.baseline) or float("nan")
        return self.difference / scale, self.low / scale, self.high / scale


def measure_effect(
    treatment: Moments, baseline: Moments, alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS
) -> Effect:
    """The Effect of a treatment. Raises ValueError when an arm has fewer than two users or an empty denominator."""
    arms = treatment, baseline
    for name, arm in zip(("treatment", "baseline"), arms):
        if arm.users < 2:
            raise ValueError(f"{name} has {arm.users} users (at least 2 required)")
        if not arm.sums[1] > 0:
            raise ValueError(f"{name}: the denominator is 0 for all {arm.users} users")
    linearised = [np.array([1, -arm.ratio, 0, 0]) * arm.users / arm.sums[1] for arm in arms]
    earlier = _earlier(treatment + baseline)
    slope = _slope(arms, linearised, earlier)
    adjusted = [weights - slope * earlier for weights in linearised]
    variance = sum(arm.comoment(weights, weights) / (arm.users - 1) / arm.users for arm, weights in zip(arms, adjusted))
    difference = treatment.ratio - baseline.ratio - slope * (treatment.mean(earlier) - baseline.mean(earlier))
    users = treatment.users + baseline.users
    reach = sqrt(variance) * boundary(users, alpha, tuned_for)
    return Effect(
        treatment.ratio,
        baseline.ratio,
        difference,
        difference - reach,
        difference + reach,
        always_valid_p(difference, variance, users, tuned_for),
        variance,
        users,
    )


def boundary(users: int, alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS) -> float:
    """Half the width of the interval in standard errors, where a fixed look would have 1.96."""
    spread = users * _mixing(alpha, tuned_for)
    return sqrt(2 * (spread + 1) / spread * log(sqrt(spread + 1) / alpha))


def always_valid_p(difference: float, variance: float, users: int, tuned_for: int = TUNED_FOR_USERS) -> float:
    """The smallest alpha whose interval leaves out 0, for the mixture that is tuned at ALPHA."""
    if variance == 0:
        return 0.0 if difference else 1.0
    spread = users * _mixing(ALPHA, tuned_for)
    return min(1.0, sqrt(spread + 1) * exp(-(difference**2) / variance / 2 * spread / (spread + 1)))


def holm(p_values: dict[str, float], alpha: float = ALPHA) -> set[str]:
    """The hypotheses to reject so that the probability of any false rejection is at most alpha.

    Holm, A simple sequentially rejective multiple test procedure, 1979: it needs no independence, which KPIs of the
    same users don't have.
    """
    rejected = set()
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p_value > alpha / (len(p_values) - rank):
            break
        rejected.add(name)
    return rejected


def sample_ratio_p(users: dict[str, int], shares: dict[str, float]) -> float:
    """The p-value of the arms' user counts, given the shares that they should have.

    Below SRM_ALPHA it is a sample ratio mismatch: something loses users (Fabijan et al., Diagnosing Sample Ratio
    Mismatch in Online Controlled Experiments, KDD 2019). Raises ValueError when an arm has no share.
    """
    for arm in users:
        if not shares.get(arm, 0) > 0:
            raise ValueError(f"the share of arm {arm} must be above 0 (got {shares.get(arm)})")
    total_share = sum(shares[arm] for arm in users)
    total = sum(users.values())
    expected = [total * shares[arm] / total_share for arm in users]
    return float(chisquare(list(users.values()), expected).pvalue)


def users_needed(
    effect: float,
    variance: float,
    share: float = 0.5,
    power: float = 0.8,
    alpha: float = ALPHA,
    sequential: bool = True,
) -> int:
    """The number of users of both arms that shows a true effect with this power.

    `variance` is that of one user's linearised value, `share` that of the treatment among them. For a look at a fixed
    time it is (z_{1-alpha/2} + z_power)^2 variance (1/share + 1/(1-share)) / effect^2 (Kohavi, Tang and Xu, Trustworthy
    Online Controlled Experiments, 2020, chapter 17); looking always takes more. Raises ValueError.
    """
    if not effect or not variance > 0:
        raise ValueError(f"effect must not be 0 and variance must be above 0 (got {effect} and {variance})")
    if not 0 < share < 1 or not 0 < power < 1:
        raise ValueError(f"share and power must be between 0 and 1 (got {share} and {power})")
    spread = variance * (1 / share + 1 / (1 - share))
    power_z = norm.ppf(power)

    def missing(users: float) -> float:
        critical = boundary(users, alpha, round(users)) if sequential else norm.ppf(1 - alpha / 2)
        return (critical + power_z) * sqrt(spread / users) - abs(effect)

    high = 4.0
    while missing(high) > 0:
        high *= 2
        if high == inf:
            raise ValueError(f"effect {effect} is too small to detect")
    return int(np.ceil(brentq(missing, 2.0, high))) if missing(2.0) > 0 else 2


def _mixing(alpha: float, tuned_for: int) -> float:
    """The mixture's variance that makes the boundary narrowest at `tuned_for` users (equation 24 of Waudby-Smith)."""
    return (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / tuned_for


def _earlier(combined: Moments) -> np.ndarray:
    """Weights float64[4] of a user's earlier values, linearised by the ratio of all users: one scale for both arms."""
    above, below = combined.sums[2:]
    return np.array([0, 0, 1, -above / below if below else 0.0])


def _slope(arms: Sequence[Moments], linearised: Sequence[np.ndarray], earlier: np.ndarray) -> float:
    """CUPED's coefficient: the slope of a user's value on the earlier value, within arms; 0 without history."""
    below = sum(arm.comoment(earlier, earlier) for arm in arms)
    above = sum(arm.comoment(weights, earlier) for arm, weights in zip(arms, linearised))
    return above / below if below else 0.0
