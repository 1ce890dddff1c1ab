"""The relative effects of several arms against one, with all that they have in common.

Effects are as in `udfs.measurement.effects`: differences of ratio metrics by user, within stretches of constant traffic
shares, averaged over the stretches with the weights of Cochran, Mantel and Haenszel. So neither the season nor shares
that follow the results look like an effect. All arms are compared with the same users of the baseline, and a user who
is there in several stretches is one unit: both are in the covariances, by the delta method on the sum over a user's
rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: The baseline is at least so many standard errors from 0, or a ratio to it is not nearly normal.
LEAST_ERRORS = 4


class Rows(NamedTuple):
    """What users did, a row for each user and stretch: n rows."""

    user: np.ndarray  # int64[n], from 0
    stretch: np.ndarray  # int64[n], from 0
    arm: np.ndarray  # int64[n]: 0 for the baseline, then the other arms
    numerator: np.ndarray  # float64[n]
    denominator: np.ndarray  # float64[n]


@dataclass(frozen=True)
class ArmEffects:
    """The relative effects of m arms that have data, and the reason for each of the others."""

    arms: tuple[int, ...]
    relative: np.ndarray  # float64[m]
    covariance: np.ndarray  # float64[m, m]
    no_data: dict[int, str]


class _Cells(NamedTuple):
    """The totals of each arm, in columns, in each stretch: float64[stretches, arms]."""

    users: np.ndarray
    denominator: np.ndarray
    value: np.ndarray  # NaN without a denominator
    spread: np.ndarray  # variance of the value, by the users of the cell


class _Compared(NamedTuple):
    """An arm compared with the baseline."""

    relative: float
    #: By how much the effect grows with the value of each cell, float64[stretches, arms].
    factors: np.ndarray


def relative_effects(rows: Rows, arms: int) -> ArmEffects:
    """The effects of arms 1 to `arms` - 1 against arm 0, as shares of its value in the stretches compared.

    The variance of an arm is at least what it would be if its users differed as much as those of the baseline: ten
    users without a purchase do not show that nobody buys.
    """
    cell, cells, residual = _cells(rows, arms)
    found, no_data = {}, {}
    for arm in range(1, arms):
        compared = _compared(cells, arm)
        if isinstance(compared, str):
            no_data[arm] = compared
        else:
            found[arm] = compared
    by_user = np.zeros((len(found), int(rows.user.max(initial=-1)) + 1))
    for number, compared in enumerate(found.values()):
        factor = compared.factors.ravel()[cell]
        used = factor != 0
        by_user[number] = np.bincount(rows.user[used], factor[used] * residual[used], minlength=by_user.shape[1])
    missing = [_missing_variance(cells, arm, compared.factors[:, arm]) for arm, compared in found.items()]
    relative = np.array([compared.relative for compared in found.values()])
    return ArmEffects(tuple(found), relative, by_user @ by_user.T + np.diag(missing), no_data)


def _cells(rows: Rows, arms: int) -> tuple[np.ndarray, _Cells, np.ndarray]:
    """The cell of each row, int64[n], all cells, and what each row adds to its cell's value, float64[n]."""
    shape = int(rows.stretch.max(initial=-1)) + 1, arms
    count = shape[0] * arms
    cell = rows.stretch * arms + rows.arm
    users = np.bincount(cell, minlength=count).astype(float)
    denominator = np.bincount(cell, rows.denominator, minlength=count)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.bincount(cell, rows.numerator, minlength=count) / denominator
        unbiased = np.sqrt(users / (users - 1)) / denominator
        residual = (rows.numerator - value[cell] * rows.denominator) * unbiased[cell]
    spread = np.bincount(cell, residual**2, minlength=count)
    return cell, _Cells(*(part.reshape(shape) for part in (users, denominator, value, spread))), residual


def _compared(cells: _Cells, arm: int) -> _Compared | str:
    """An arm compared with the baseline in the stretches that have both; or the reason why there are no data."""
    denominators = cells.denominator[:, [0, arm]]
    usable = (cells.users[:, [0, arm]] >= 2).all(1) & (denominators > 0).all(1)
    if not usable.any():
        return "it has no users yet beside the champion's"
    weights = denominators[usable].prod(1) / denominators[usable].sum(1)
    weights /= weights.sum()
    baseline = float(weights @ cells.value[usable, 0])
    if not baseline > LEAST_ERRORS * np.sqrt(weights**2 @ cells.spread[usable, 0]):
        return "the champion's own value is too uncertain yet to express an effect in percent"
    ratio = float(weights @ cells.value[usable, arm]) / baseline
    factors = np.zeros(cells.users.shape)
    factors[usable, arm] = weights / baseline
    factors[usable, 0] = -weights * ratio / baseline
    return _Compared(ratio - 1, factors)


def _missing_variance(cells: _Cells, arm: int, factors: np.ndarray) -> float:
    """What the variance of an arm lacks to that of as many users who differ as those of the baseline do."""
    used = factors != 0
    as_baseline = cells.spread[used, 0] * cells.denominator[used, 0] / cells.denominator[used, arm]
    return float(factors[used] ** 2 @ np.maximum(0.0, as_baseline - cells.spread[used, arm]))
