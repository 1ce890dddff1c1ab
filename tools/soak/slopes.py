"""Whether a series is flat: the slope of its means over blocks of time, with a 95% interval.

Neighbouring samples are alike, so a regression over all of them would claim far too narrow an interval. Means over
blocks that are long beside this likeness are nearly independent (the method of batch means; Law, Simulation Modeling
and Analysis, chapter 9).
"""

from typing import Literal

import msgspec
import numpy as np
from scipy import stats

LEAST_BLOCKS = 5
LEVEL = 0.95
Verdict = Literal["flat", "grows", "falls", "no data"]


class Slope(msgspec.Struct, frozen=True):
    """The change of a series per hour, with its interval, and the mean of the series."""

    mean: float
    per_hour: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        if self.low > 0:
            return "grows"
        return "falls" if self.high < 0 else "flat"


def block_means(hours: np.ndarray, values: np.ndarray, block_hours: float) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the full blocks, in hours, and the means of the values in them; NaN is left out.

    `hours` is float64[n] from 0 on, increasing. A last block that is not over is left out.
    """
    block = np.floor(hours / block_hours).astype(np.int64)
    there = ~np.isnan(values) & (block < np.floor(hours[-1] / block_hours + 1e-9)) if len(hours) else []
    blocks = np.unique(block[there])
    return (blocks + 0.5) * block_hours, np.array([values[there & (block == number)].mean() for number in blocks])


def slope(hours: np.ndarray, values: np.ndarray) -> Slope | None:
    """The slope of block means; None for fewer than LEAST_BLOCKS of them."""
    if len(values) < LEAST_BLOCKS:
        return None
    if np.ptp(values) == 0:  # SciPy gives no error for a line through all points
        return Slope(float(values[0]), 0.0, 0.0, 0.0)
    fitted = stats.linregress(hours, values)
    margin = stats.t.ppf((1 + LEVEL) / 2, len(values) - 2) * fitted.stderr
    return Slope(float(values.mean()), float(fitted.slope), fitted.slope - margin, fitted.slope + margin)
