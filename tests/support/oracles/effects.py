"""Effects from the values of each user, one after the other, as the papers have them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.effects import LEAST_LEFT, Ratio

COLUMNS, RATIO = Columns(2), Ratio(numerator=0, denominator=1)


class Values(NamedTuple):
    """A user's numerator and denominator in a cell, and both from before the experiment."""

    numerator: float
    denominator: float
    earlier_numerator: float = 0.0
    earlier_denominator: float = 0.0


#: A user's values by cell.
User = dict[int, Values]


@dataclass(frozen=True)
class Expected:
    """The fields of an `Effect` that follow from the users' values."""

    treatment: float
    baseline: float
    difference: float
    low: float
    high: float
    relative: tuple[float, float, float] | None
    variance: float
    users: int
    variance_removed: float


def sums_of(users: Sequence[User]) -> CellSums:
    """The sums of users, added one after the other."""
    sums = CellSums(COLUMNS.width)
    for user in users:
        sums.add({cell: row_of(values) for cell, values in user.items()})
    return sums


def row_of(values: Values) -> np.ndarray:
    now, before = np.array(values[:2]), np.array(values[2:])
    return COLUMNS.row(sessions=1, dropped=0, now=now, before=before)


def expected_effect(users: Sequence[User], critical: Callable[[int], float]) -> Expected | None:
    """The effect, its interval as wide as `critical` says for a number of users; None if no stretch compares arms."""
    stretches = [number for number in range(4) if all(_compares(users, 2 * number + side) for side in (0, 1))]
    if not stretches:
        return None
    cells = [(2 * number, 2 * number + 1) for number in stretches]
    shares = np.array([1 / (1 / _total(users, one, 1) + 1 / _total(users, other, 1)) for one, other in cells])
    share_of = {cell: share for pair, share in zip(cells, shares / shares.sum()) for cell in pair}
    ratio = {cell: _total(users, cell, 0) / _total(users, cell, 1) for cell in share_of}
    taste = _tastes(users, share_of)
    mean_taste = {cell: float(np.mean([taste[user] for user in _members(users, cell)])) for cell in share_of}
    sign = {cell: 1 if cell % 2 == 0 else -1 for cell in share_of}

    values, history, of_baseline = (np.zeros(len(users)) for _ in range(3))
    parts: dict[int, np.ndarray] = {}  # the influence of each user of a cell, before and after CUPED
    for cell, share in share_of.items():
        members = _members(users, cell)
        unbiased = share * sqrt(len(members) / (len(members) - 1))
        amounts = [users[user][cell] for user in members]
        influence = [unbiased * (one.numerator - ratio[cell] * one.denominator) for one in amounts]
        influence = np.array(influence) / _total(users, cell, 1)
        before = np.array([unbiased * (taste[user] - mean_taste[cell]) / len(members) for user in members])
        values[members] += sign[cell] * influence
        history[members] += sign[cell] * before
        of_baseline[members] += influence * (cell % 2)
        parts[cell] = np.array([influence, before])
    slope = _slope(users, parts, _scale(users, share_of))
    shift = sum(sign[cell] * share * mean_taste[cell] for cell, share in share_of.items())
    adjusted = values - slope * history
    if float(adjusted @ adjusted) <= LEAST_LEFT * float(values @ values):  # explained without a remainder
        slope, adjusted = 0.0, values

    lacks = [
        _lacking(cells, side, {cell: one - slope * other for cell, (one, other) in parts.items()}) for side in (0, 1)
    ]
    variance = float(adjusted @ adjusted) + sum(lacks)
    unadjusted = float(values @ values) + sum(
        _lacking(cells, side, {cell: one for cell, (one, _) in parts.items()}) for side in (0, 1)
    )
    treatment, baseline = (sum(share_of[pair[side]] * ratio[pair[side]] for pair in cells) for side in (0, 1))
    difference = treatment - baseline - slope * shift
    count = sum(len(_members(users, cell)) for cell in share_of)
    reach = critical(count) * sqrt(variance)
    return Expected(
        treatment,
        baseline,
        difference,
        difference - reach,
        difference + reach,
        searched_relative(
            difference,
            baseline,
            variance,
            float(adjusted @ of_baseline) - lacks[1],
            float(of_baseline @ of_baseline) + lacks[1],
            critical(count),
        ),
        variance,
        count,
        max(0.0, 1 - variance / unadjusted) if unadjusted else 0.0,
    )


def searched_relative(
    difference: float, baseline: float, variance: float, covariance: float, of_baseline: float, critical: float
) -> tuple[float, float, float] | None:
    """The relative effects that a test does not reject: those next to the estimate, and where rejection begins."""

    def rejects(effect: float) -> float:
        spread = variance - 2 * effect * covariance + effect**2 * of_baseline
        return abs(difference - effect * baseline) - critical * sqrt(max(0.0, spread))

    if abs(baseline) <= critical * sqrt(of_baseline):
        return None
    estimate = difference / baseline
    if rejects(estimate) >= 0:  # without any variance
        return estimate, estimate, estimate
    ends = []
    for direction in (-1, 1):
        step = 1e-6 * (abs(estimate) + sqrt(variance) / abs(baseline))
        while rejects(estimate + direction * step) <= 0:
            step *= 1.5
        ends.append(brentq(rejects, estimate, estimate + direction * step, xtol=1e-300, rtol=1e-14))
    low, high = sorted(end * np.sign(baseline) for end in ends)
    return float(estimate * np.sign(baseline)), float(low), float(high)


def _slope(users: Sequence[User], parts: dict[int, np.ndarray], scale: float) -> float:
    """The coefficient of history, as if both arms of a stretch had as many users."""
    values, history = np.zeros((2, len(users)))
    for cell, (influence, before) in parts.items():
        members, others = _members(users, cell), _members(users, cell ^ 1)
        factor = (1 if cell % 2 == 0 else -1) * sqrt(len(members) / len(others))
        values[members] += factor * influence
        history[members] += factor * before
    below = float(history @ history)
    return float(values @ history) / below if below > 1e-12 * scale else 0.0


def _members(users: Sequence[User], cell: int) -> list[int]:
    return [number for number, user in enumerate(users) if cell in user]


def _total(users: Sequence[User], cell: int, which: int) -> float:
    return sum(user[cell][which] for user in users if cell in user)


def _compares(users: Sequence[User], cell: int) -> bool:
    return len(_members(users, cell)) >= 2 and _total(users, cell, 1) > 0


def _tastes(users: Sequence[User], cells: dict) -> list[float]:
    """What each user's history is above or below that of all, each user taken once for each cell."""
    earlier = [values[2:] for user in users for cell, values in user.items() if cell in cells]
    above, below = np.sum(earlier, axis=0)
    ratio = above / below if below else 0.0
    known = [next(iter(user.values())) for user in users]
    return [one.earlier_numerator - ratio * one.earlier_denominator if below else 0.0 for one in known]


def _scale(users: Sequence[User], cells: dict) -> float:
    """How large the squares of history are that cancel out if all have the same."""
    squares = [values.earlier_numerator**2 for user in users for cell, values in user.items() if cell in cells]
    return float(np.sum(squares)) / max(1, len(squares)) ** 2


def _lacking(cells: Sequence[tuple[int, int]], side: int, influences: dict[int, np.ndarray]) -> float:
    """What an arm's variance lacks of the pooled one of its stretches: as if there was one arm."""
    lacking = 0.0
    for pair in cells:
        pooled = np.mean(np.concatenate([len(influences[cell]) * influences[cell] for cell in pair]) ** 2)
        own = influences[pair[side]]
        lacking += max(0.0, float(pooled) / len(own) - float(own @ own))
    return lacking
