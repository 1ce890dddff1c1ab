"""Sums and summed products of users' values, by cell of an experiment: all that a verdict is computed from.

A cell is an arm in a stretch. Effects are linear in the values of a user, so that the sums of the products of each two
values over the users are enough for their variances; a user who is in several cells adds to the products of each two
of them, so that what the user's stretches have in common counts.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

#: A sum of products below this share of the sum of their absolute values is a rounding error.
ROUNDING = 1e-12

#: What a user's row has before the terms: 1 for the user, whether sessions were dropped, and the numbers of sessions.
USER, MOVED, SESSIONS, DROPPED = range(4)
_FIXED = 4


@dataclass(frozen=True)
class Columns:
    """The columns of a user's row: the fixed ones, `terms` sums of the experiment, and as many from before it."""

    terms: int

    @property
    def width(self) -> int:
        return _FIXED + 2 * self.terms

    def now(self, term: int) -> int:
        """The column of a term's sum in the experiment."""
        return _FIXED + term

    def before(self, term: int) -> int:
        """The column of a term's sum from before the experiment; 0 without history."""
        return _FIXED + self.terms + term

    def row(self, sessions: int, dropped: int, now: np.ndarray, before: np.ndarray) -> np.ndarray:
        """A user's row float64[width], from the sums of the terms, float64[terms] each."""
        return np.concatenate([[1.0, float(dropped > 0), sessions, dropped], now, before])


class CellSums:
    """The summed products of users' rows, by pair of cells."""

    def __init__(self, width: int):
        self.width = width
        self.products: dict[tuple[int, int], np.ndarray] = {}

    def add(self, cells: Mapping[int, np.ndarray], sign: int = 1) -> None:
        """Add a user's rows by cell, float64[width] each; with the sign -1, take them away."""
        for first, row in cells.items():
            for second, other in cells.items():
                if first <= second:
                    self._add((first, second), sign * np.outer(row, other))

    def add_users(self, first: int, second: int, rows: np.ndarray, others: np.ndarray) -> None:
        """Add n users who are in two cells, first <= second, or in one: their rows in each, float64[n, width]."""
        self._add((first, second), rows.T @ others)

    def _add(self, pair: tuple[int, int], products: np.ndarray) -> None:
        known = self.products.get(pair)
        self.products[pair] = products if known is None else known + products

    def sums(self, cell: int) -> np.ndarray:
        """The summed rows of a cell's users, float64[width]."""
        products = self.products.get((cell, cell))
        return np.zeros(self.width) if products is None else products[USER]

    def summed_squares(self, cells: Iterable[int], column: int) -> float:
        """The sum over users of the square of a column's sum over these cells."""
        weights = {cell: unit(self.width, column) for cell in cells}
        return float(self.covariance(weights, weights))

    def covariance(self, first: Mapping[int, np.ndarray], second: Mapping[int, np.ndarray]) -> np.ndarray:
        """The sum over users of the products of linear combinations of their rows; 0 where it is a rounding error.

        `first` and `second` are weights by cell: float64[width] each, or float64[a, width] and float64[b, width] for a
        and b combinations. Returns float64[a, b], without the axis of what is a single combination.
        """
        total = scale = np.zeros(())
        for one, weights, other, others, products in self._pairs(first, second):
            products = products if one <= other else products.T
            total = total + weights @ products @ others.T
            scale = scale + np.abs(weights) @ np.abs(products) @ np.abs(others).T
        return np.where(np.abs(total) > ROUNDING * scale, total, 0.0)

    def _pairs(self, first: Mapping, second: Mapping) -> Iterator[tuple]:
        for one, weights in first.items():
            for other, others in second.items():
                products = self.products.get((min(one, other), max(one, other)))
                if products is not None:
                    yield one, weights, other, others, products


def unit(width: int, column: int) -> np.ndarray:
    """Weights that pick one column, float64[width]."""
    weights = np.zeros(width)
    weights[column] = 1.0
    return weights
