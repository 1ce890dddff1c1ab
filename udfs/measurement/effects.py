"""The effect of one arm against another: ratio metrics by user, stratified by time, valid at every look.

The unit is the user: a KPI of an arm is the sum of its numerator over the arm's users by that of its denominator, and
its variance follows from the users' linearised values by the delta method (Deng, Knoblich and Lu, Applying the Delta
Method in Metric Analytics, KDD 2018). The differences of the stretches of an experiment are averaged with the weights
of Cochran, Mantel and Haenszel (Mantel and Haenszel, Statistical Aspects of the Analysis of Data from Retrospective
Studies of Disease, JNCI 1959), by the denominators. A user of several stretches is one unit.

CUPED removes differences from before the experiment (Deng, Xu, Kohavi and Walker, Improving the Sensitivity of Online
Controlled Experiments by Utilizing Pre-Experiment Data, WSDM 2013). With enough users, the covariates are all terms
from before it, the model's scores among them, as in CUPAC (Tang, Huang, Kastelman and Bauman, Control Using Predictions
as Covariates in Switchback Experiments, 2020), here with a linear prediction.

An arm's users vary at least as much as those of both arms together, as in a score test.

Intervals are asymptotic confidence sequences of a normal mixture (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
Time-uniform Central Limit Theory and Asymptotic Confidence Sequences, Annals of Statistics 2024, theorem 2.2): the
true effect is in all of them at once with the promised probability. The interval of the relative effect is Fieller's
(Some Problems in Interval Estimation, JRSS B 1954): it also accounts for the chance in the baseline's value.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np

from udfs.measurement.cell_sums import USER, CellSums, Columns, unit

ALPHA = 0.05
#: The number of users at which intervals are narrowest; they hold at any.
TUNED_FOR_USERS = 10_000
#: With fewer `effective_users`, the normal approximation does not hold, and no effect is reported.
LEAST_USERS = 30
#: With fewer users per covariate, fitting the coefficients would make the variance look too small, by more than 1%.
USERS_PER_COVARIATE = 100
ARMS = ("treatment", "baseline")
#: A difference below this share of the baseline is a rounding error of sums, and none.
SMALLEST_RELATIVE = 1e-9
#: If history leaves less than this share of the variance, what is left are rounding errors, and no measure of chance.
LEAST_LEFT = 1e-9
#: Covariates are taken as one below this eigenvalue of their correlations, in shares of the largest.
_COLLINEAR = 1e-9


class NoEffectError(ValueError):
    """Data that say nothing of a KPI; the message is the reason, in a few words."""


class Ratio(NamedTuple):
    """A KPI as the numbers of two terms of an experiment's columns."""

    numerator: int
    denominator: int


class Interval(NamedTuple):
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """A KPI's difference, treatment minus baseline, with intervals that hold at every look at once."""

    treatment: float  # the baseline's value and the difference of the arms
    baseline: float
    difference: float  # after CUPED, where there is history
    low: float
    high: float
    #: As a share of the baseline; None while the baseline's own interval holds 0.
    relative: Interval | None
    p_value: float  # valid at every look
    variance: float
    users: int  # of both arms; who was there in two stretches counts twice
    #: The share of the variance that history removed.
    variance_removed: float


def measure_effect(
    sums: CellSums, columns: Columns, ratio: Ratio, alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS
) -> Effect:
    """The effect of the treatment on a KPI. Raises NoEffectError."""
    compared = _compared_stretches(sums, columns, ratio)
    _check_users(sums, columns, ratio, compared)
    if not any(_total(sums, columns.now(ratio.numerator), cells) for cells in compared):
        raise NoEffectError("the numerator is 0 in every session")
    linear = _linearised(sums, columns, ratio, compared)
    slopes = _slopes(sums, linear, compared)
    adjusted = {cell: weights - slopes @ linear.history[cell] for cell, weights in linear.difference.items()}
    own, left = (float(sums.covariance(weights, weights)) for weights in (linear.difference, adjusted))
    if left <= LEAST_LEFT * own:
        slopes, adjusted, left = np.zeros_like(slopes), linear.difference, own
    hidden, hidden_of_baseline = _hidden_variances(sums, adjusted, compared)
    variance = left + hidden + hidden_of_baseline
    if variance <= 0:
        raise NoEffectError("all users have the same value")
    difference = float(linear.treatment - linear.baseline - slopes @ linear.shift)
    if abs(difference) <= SMALLEST_RELATIVE * abs(linear.baseline):
        difference = 0.0
    users = round(sum(sums.sums(cell)[USER] for cells in compared for cell in cells))
    critical = boundary(users, alpha, tuned_for)
    unadjusted = own + sum(_hidden_variances(sums, linear.difference, compared))
    return Effect(
        treatment=linear.treatment,
        baseline=linear.baseline,
        difference=difference,
        low=difference - critical * sqrt(variance),
        high=difference + critical * sqrt(variance),
        relative=fieller(
            difference,
            linear.baseline,
            variance,
            float(sums.covariance(adjusted, linear.of_baseline)) - hidden_of_baseline,
            float(sums.covariance(linear.of_baseline, linear.of_baseline)) + hidden_of_baseline,
            critical,
        ),
        p_value=always_valid_p(difference, variance, users, tuned_for),
        variance=variance,
        users=users,
        variance_removed=max(0.0, 1 - variance / unadjusted) if unadjusted else 0.0,
    )


def effective_users(sums: CellSums, column: int, cells: Collection[int]) -> float:
    """Kish's effective sample size (Survey Sampling, 1965) of cells: the number of users with equal values in a column
    that would be as informative.

    If few users have a value there, it is about their number; if one has most of the sum, it is about 1.
    """
    squares = sums.summed_squares(cells, column)
    return float(_total(sums, column, cells) ** 2 / squares) if squares else 0.0


def fieller(
    difference: float, baseline: float, variance: float, covariance: float, of_baseline: float, critical: float
) -> Interval | None:
    """The relative difference and its interval: the ratios that the data do not contradict; None if they are unbounded.

    `variance`, `covariance` and `of_baseline` are those of the two estimates, `critical` the number of standard errors.
    """
    a = baseline**2 - critical**2 * of_baseline
    if a <= 0:
        return None
    b = difference * baseline - critical**2 * covariance
    c = difference**2 - critical**2 * variance
    reach = sqrt(max(0.0, b**2 - a * c))
    sign = 1 if baseline > 0 else -1
    low, high = sorted(sign * end / a for end in (b - reach, b + reach))
    return Interval(difference / abs(baseline), low, high)


def boundary(users: float, alpha: float = ALPHA, tuned_for: int = TUNED_FOR_USERS) -> float:
    """Half the width of the interval in standard errors, where a fixed look would have 1.96.

    The mixture is tuned for ALPHA at any `alpha`, as in `always_valid_p`: p <= alpha where the interval leaves out 0.
    """
    spread = users * _mixing(tuned_for)
    return sqrt(2 * (spread + 1) / spread * log(sqrt(spread + 1) / alpha))


def always_valid_p(difference: float, variance: float, users: float, tuned_for: int = TUNED_FOR_USERS) -> float:
    """The smallest alpha whose interval leaves out 0."""
    spread = users * _mixing(tuned_for)
    return min(1.0, sqrt(spread + 1) * exp(-(difference**2) / variance / 2 * spread / (spread + 1)))


def holm(p_values: Mapping[str, float], alpha: float = ALPHA) -> set[str]:
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


def _mixing(tuned_for: int) -> float:
    """The mixture's variance that makes the boundary narrowest at `tuned_for` users (equation 24 of Waudby-Smith)."""
    return (-2 * log(ALPHA) + log(-2 * log(ALPHA) + 1)) / tuned_for


def _total(sums: CellSums, column: int, cells) -> float:
    return float(sum(sums.sums(cell)[column] for cell in cells))


def _compared_stretches(sums: CellSums, columns: Columns, ratio: Ratio) -> list[tuple[int, int]]:
    """The cells, treatment and baseline, of the stretches in which both arms have users and a denominator."""
    denominator = columns.now(ratio.denominator)
    stretches = sorted({cell // 2 for cell, _ in sums.products})
    return [
        cells
        for cells in ((2 * number, 2 * number + 1) for number in stretches)
        if all(sums.sums(cell)[USER] >= 2 and sums.sums(cell)[denominator] > 0 for cell in cells)
    ]


def _check_users(sums: CellSums, columns: Columns, ratio: Ratio, compared: list[tuple[int, int]]) -> None:
    for side, arm in enumerate(ARMS):
        if not any(cell % 2 == side for cell, _ in sums.products):
            raise NoEffectError(f"the {arm} has no sessions")
    if not compared:
        raise NoEffectError("the denominator is 0 in every session, of one arm or both")
    for side, arm in enumerate(ARMS):
        effective = effective_users(sums, columns.now(ratio.denominator), [cells[side] for cells in compared])
        if effective < LEAST_USERS:
            have = sum(sums.sums(cells[side])[USER] for cells in compared)
            few = "too few users" if have < LEAST_USERS else "few users have most of the denominator"
            raise NoEffectError(f"{few}: the {arm} is worth {effective:.0f} equal users, at least {LEAST_USERS} needed")


class _Linear(NamedTuple):
    """Values, and weights by cell of the users' rows whose sums over users vary as they do, for k covariates."""

    treatment: float
    baseline: float
    shift: np.ndarray  # float64[k], the differences between the arms from before the experiment
    difference: dict[int, np.ndarray]
    of_baseline: dict[int, np.ndarray]
    history: dict[int, np.ndarray]


def _linearised(sums: CellSums, columns: Columns, ratio: Ratio, compared: list[tuple[int, int]]) -> _Linear:
    above, below = (unit(columns.width, columns.now(term)) for term in ratio)
    before = _covariates(sums, columns, ratio, compared)
    shares = np.array([_harmonic(*(below @ sums.sums(cell) for cell in cells)) for cells in compared])
    shares /= shares.sum()
    values, shift = np.zeros(2), np.zeros(len(before))
    difference, of_baseline, history = {}, {}, {}
    for share, cells in zip(shares, compared):
        for side, cell in enumerate(cells):
            sign = 1 - 2 * side
            totals = sums.sums(cell)
            users, denominator = totals[USER], below @ totals
            value = (above @ totals) / denominator
            means = (before @ totals) / users
            unbiased = sqrt(users / (users - 1))
            weights = share * unbiased / denominator * (above - value * below)
            difference[cell] = sign * weights
            centred = before - np.outer(means, unit(columns.width, USER))
            history[cell] = sign * share * unbiased / users * centred
            values[side] += share * value
            shift += sign * share * means
            if side:
                of_baseline[cell] = weights
    return _Linear(*values.tolist(), shift, difference, of_baseline, history)


def _covariates(sums: CellSums, columns: Columns, ratio: Ratio, compared: list[tuple[int, int]]) -> np.ndarray:
    """Weights float64[k, width] of what is known of a user from before the experiment.

    With few users, this is the KPI's own history, linearised by the ratio of all users: one scale for both arms.
    """
    # The users of several stretches are no more users.
    users = max(sum(sums.sums(cell)[USER] for cell in cells) for cells in compared)
    if users >= USERS_PER_COVARIATE * columns.terms:
        return np.stack([unit(columns.width, columns.before(term)) for term in range(columns.terms)])
    totals = sum(sums.sums(cell) for cells in compared for cell in cells)
    above, below = (unit(columns.width, columns.before(term)) for term in ratio)
    denominator = below @ totals
    own = above - (above @ totals) / denominator * below if denominator > 0 else np.zeros(columns.width)
    return own[np.newaxis]


def _harmonic(first: float, second: float) -> float:
    return first * second / (first + second)


def _slopes(sums: CellSums, linear: _Linear, compared: list[tuple[int, int]]) -> np.ndarray:
    """CUPED's coefficients, float64[k], which make the variance of the difference smallest; 0 without history.

    The users of both arms count alike here: the few of a small arm are not enough to fit coefficients.
    """
    difference, history = {}, {}
    for cells in compared:
        users = [sums.sums(cell)[USER] for cell in cells]
        for cell, own, other in zip(cells, users, reversed(users)):
            difference[cell] = sqrt(own / other) * linear.difference[cell]
            history[cell] = sqrt(own / other) * linear.history[cell]
    within = sums.covariance(history, history)
    spread = np.sqrt(np.maximum(0.0, np.diag(within)))
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    correlations = within * np.outer(scale, scale)
    with_difference = sums.covariance(history, difference) * scale
    return np.linalg.lstsq(correlations, with_difference, rcond=_COLLINEAR)[0] * scale


def _hidden_variances(
    sums: CellSums, weights: Mapping[int, np.ndarray], compared: list[tuple[int, int]]
) -> tuple[float, float]:
    """What the variances of the treatment and of the baseline lack, if the users of both arms vary alike.

    Of a small arm, chance often leaves out the rare users, such as those who buy: what it tells of its variance is too
    little then, and as much too little as its value is low.
    """
    hidden = np.zeros(2)
    for cells in compared:
        users = np.array([sums.sums(cell)[USER] for cell in cells])
        own = np.array([sums.covariance({cell: weights[cell]}, {cell: weights[cell]}) for cell in cells])
        pooled = own @ users**2 / users.sum() / users
        hidden += np.maximum(0.0, pooled - own)
    return float(hidden[0]), float(hidden[1])
