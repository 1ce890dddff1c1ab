"""Logistic regression as a file of a bundle: read, checked and scored with NumPy alone.

A feature x counts in signed log scale, s = sign(x) log(1 + |x|), standardised by the mean and the standard deviation of
the training rows. A missing value is replaced by the median of s, and marked by an indicator if training saw one:

    logit = intercept + sum of coefficient (s - mean) / scale + indicator's coefficient (is missing - mean) / scale
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from scipy.special import expit

from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line

Scale = Annotated[float, Meta(gt=0)]
LARGEST_LOG = float(np.log1p(np.float64(np.finfo(np.float32).max)))  # of a feature
BLOCK_ROWS = 128  # the float64 temporaries of a block fit into a processor's cache: larger ones take twice as long


class Indicator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The indicator of a missing value: 1 or 0."""

    mean: float  # the share of the training rows that lacked the value
    scale: Scale
    coefficient: float


class Term(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A feature of a regression. All but the coefficient describe the training rows, in signed log scale."""

    name: str
    median: float
    mean: float
    scale: Scale
    coefficient: float
    missing: Indicator | None  # None if no training row lacked the value


class RegressionFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a regression's file, as JSON."""

    format: Literal[1]
    transform: Literal["signed_log"]
    intercept: float  # the logit of a row whose features are all at their mean
    features: Annotated[tuple[Term, ...], Meta(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(term.name for term in self.features)


class Regression:
    """A regression that scores rows. What depends on the file alone is computed once.

    A feature adds slope * s + present, or `missing` when it has no value: float64[k] each.
    """

    def __init__(self, file: RegressionFile):
        """Raises ValueError, one line, if weights are so large that a row's logit may not be finite."""
        terms = file.features
        median, mean, scale, coefficient = np.array([[t.median, t.mean, t.scale, t.coefficient] for t in terms]).T
        marks = [term.missing or Indicator(0.0, 1.0, 0.0) for term in terms]
        mark_mean, mark_scale, mark_coefficient = np.array([[m.mean, m.scale, m.coefficient] for m in marks]).T
        self.base = file.intercept
        with np.errstate(over="ignore", invalid="ignore"):
            self.slope = coefficient / scale
            self.present = -self.slope * mean - mark_coefficient / mark_scale * mark_mean
            self.missing = self.slope * (median - mean) + mark_coefficient / mark_scale * (1 - mark_mean)
            of_value = LARGEST_LOG * np.abs(self.slope) + np.abs(self.present)
            largest = np.maximum(of_value, np.abs(self.missing))  # that a feature adds, by magnitude
            is_finite = np.isfinite(largest.sum() + abs(self.base))
        if not is_finite:
            name = terms[int(largest.argmax())].name
            raise ValueError(f"the weights of feature {name} are too large: a logit would not be finite")

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities float64[n] of rows float32[n, k], NaN for missing."""
        return expit(self.logit(features))

    def logit(self, features: np.ndarray) -> np.ndarray:
        """The logits float64[n]. That of a row does not depend on the other rows, to the last bit."""
        starts = range(0, len(features), BLOCK_ROWS)
        sums = [self._added(features[start : start + BLOCK_ROWS]).sum(axis=1) for start in starts]
        return np.concatenate([np.empty(0), *sums]) + self.base

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """What each feature adds to the logit, float64[n, k + 1], the base last.

        They are the Shapley values of a linear model whose features are independent (Lundberg and Lee, A unified
        approach to interpreting model predictions, 2017, corollary 1): 0 on average over the training rows. The
        indicator of a missing value counts with its feature.
        """
        return np.column_stack([self._added(features), np.full(len(features), self.base)])

    def _added(self, features: np.ndarray) -> np.ndarray:
        values = np.array(features, np.float64, order="C")  # in another order, sums would be rounded differently
        added = np.log1p(np.abs(values))
        np.copysign(added, values, out=added)
        added *= self.slope
        added += self.present
        return np.where(np.isnan(values), self.missing, added)


def decode_regression(content: bytes) -> RegressionFile:
    """The regression of a file. Raises ValueError, one line with key and rule."""
    try:
        return checked(msgspec.json.decode(content, type=RegressionFile))
    except NOT_JSON as error:
        raise ValueError(one_line(error)) from None


def checked(file: RegressionFile) -> RegressionFile:
    """Raises ValueError, one line, if a regression can't score."""
    Regression(file)
    return file


def calibrated(file: RegressionFile, slope: float, shift: float) -> RegressionFile:
    """The regression whose logit is `slope` times that of this one, plus `shift`."""

    def scaled(term: Term | Indicator) -> Term | Indicator:
        return msgspec.structs.replace(term, coefficient=slope * term.coefficient)

    terms = [
        msgspec.structs.replace(scaled(term), missing=None if term.missing is None else scaled(term.missing))
        for term in file.features
    ]
    return msgspec.structs.replace(file, intercept=slope * file.intercept + shift, features=tuple(terms))


def coefficient_shares(file: RegressionFile) -> list[float]:
    """The share of each feature in the sum of the absolute coefficients, its indicator's included."""
    sizes = [abs(term.coefficient) + (abs(term.missing.coefficient) if term.missing else 0) for term in file.features]
    return shares_of(sizes)


def shares_of(sizes: Sequence[float]) -> list[float]:
    """Each size as a share of their sum; zeros where all are 0."""
    total = sum(sizes)
    return [size / total if total else 0.0 for size in sizes]
