"""The effect of one arm against another: ratio metrics by user, valid however often one looks.

The unit is the user: a KPI of an arm is the sum of its numerator over the arm's users by that of its denominator, and
its variance follows from the users' linearised values by the delta method (Deng, Knoblich and Lu, Applying the Delta
Method in Metric Analytics, KDD 2018). CUPED takes out what was there before the experiment (Deng, Xu, Kohavi and
Walker, Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data, WSDM 2013).
Intervals are asymptotic confidence sequences of a normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
Time-uniform Central Limit Theory and Asymptotic Confidence Sequences, Annals of Statistics 2024, theorem 2.2): the
true effect is in all of them at once with the promised probability.
"""

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chisquare, norm

ALPHA = 0.05
#: The number of users at which intervals are narrowest; they hold at any.
TUNED_FOR_USERS = 10_000
SRM_ALPHA = 0.001


@dataclass(frozen=True)
class UserSums:
    """Numerator and denominator of n users of an arm, float64[n] each, and the same before the experiment if known."""

    numerator: np.ndarray
    denominator: np.ndarray
    earlier_numerator: np.ndarray | None = None
    earlier_denominator: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.numerator)

    @property
    def ratio(self) -> float:
        """The KPI of the arm."""
        return float(self.numerator.sum() / self.denominator.sum())

    @property
    def has_history(self) -> bool:
        return self.earlier_numerator is not None and self.earlier_denominator is not None


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


def measure_effect(treatment: UserSums, baseline: UserSums, alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS):
    """The Effect of a treatment. Raises ValueError when an arm has fewer than two users or an empty denominator."""
    for name, arm in (("treatment", treatment), ("baseline", baseline)):
        if len(arm) < 2:
            raise ValueError(f"{name} has {len(arm)} users: want at least 2")
        if not arm.denominator.sum() > 0:
            raise ValueError(f"{name}: the denominator is 0 for all {len(arm)} users")
    arms = [_linearised(arm) for arm in (treatment, baseline)]
    shift = 0.0
    if treatment.has_history and baseline.has_history:
        arms, shift = _cuped(arms, [_earlier(arm, treatment, baseline) for arm in (treatment, baseline)])
    variance = sum(float(values.var(ddof=1)) / len(values) for values in arms)
    difference = treatment.ratio - baseline.ratio - shift
    users = len(treatment) + len(baseline)
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
    """Which hypotheses fall, so that the chance of even one false among them is at most alpha.

    Holm, A simple sequentially rejective multiple test procedure, 1979: it needs no independence, which KPIs of the
    same users don't have.
    """
    fallen = set()
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if p_value > alpha / (len(p_values) - rank):
            break
        fallen.add(name)
    return fallen


def sample_ratio_p(users: dict[str, int], shares: dict[str, float]) -> float:
    """The p-value of so many users in each arm under the shares that they should have; below SRM_ALPHA something loses
    users (Fabijan et al., Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD 2019)."""
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
    """How many users of both arms show a true effect with this power.

    `variance` is that of one user's linearised value, `share` that of the treatment among them. For a look at a fixed
    time it is (z_{1-alpha/2} + z_power)^2 variance (1/share + 1/(1-share)) / effect^2 (Kohavi, Tang and Xu, Trustworthy
    Online Controlled Experiments, 2020, chapter 17); looking always takes more. Raises ValueError.
    """
    if not effect or not variance > 0:
        raise ValueError(f"effect is {effect}, variance {variance}: want an effect other than 0, a variance above 0")
    if not 0 < share < 1 or not 0 < power < 1:
        raise ValueError(f"share is {share}, power {power}: want both between 0 and 1")
    spread = variance * (1 / share + 1 / (1 - share))
    power_z = norm.ppf(power)

    def missing(users: float) -> float:
        critical = boundary(users, alpha, round(users)) if sequential else norm.ppf(1 - alpha / 2)
        return (critical + power_z) * sqrt(spread / users) - abs(effect)

    high = 4.0
    while missing(high) > 0:
        high *= 2
        if high == inf:
            raise ValueError(f"effect {effect} is too small to be shown")
    return int(np.ceil(brentq(missing, 2.0, high))) if missing(2.0) > 0 else 2


def _mixing(alpha: float, tuned_for: int) -> float:
    """The mixture's variance that makes the boundary narrowest at so many users (their equation 24)."""
    return (-2 * log(alpha) + log(-2 * log(alpha) + 1)) / tuned_for


def _linearised(arm: UserSums) -> np.ndarray:
    return (arm.numerator - arm.ratio * arm.denominator) / arm.denominator.mean()


def _earlier(arm: UserSums, *arms: UserSums) -> np.ndarray:
    """What a user's time before says, linearised by the ratio of all: one scale for both arms."""
    above = sum(one.earlier_numerator.sum() for one in arms)
    below = sum(one.earlier_denominator.sum() for one in arms)
    ratio = above / below if below else 0.0
    return arm.earlier_numerator - ratio * arm.earlier_denominator


def _cuped(values: list[np.ndarray], earlier: list[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """The values without what the time before explains, and by how much that changes the difference."""
    centred = [(value - value.mean(), before - before.mean()) for value, before in zip(values, earlier)]
    below = sum(float(before @ before) for _, before in centred)
    if below == 0:
        return values, 0.0
    slope = sum(float(value @ before) for value, before in centred) / below
    adjusted = [value - slope * before for value, before in zip(values, earlier)]
    return adjusted, slope * float(earlier[0].mean() - earlier[1].mean())
