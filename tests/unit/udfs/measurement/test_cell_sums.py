"""Summed products are those of the users' rows, however users are added."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.measurement.cell_sums import DROPPED, MOVED, SESSIONS, USER, CellSums, Columns, unit

COLUMNS = Columns(2)
CELLS = 4


@st.composite
def users(draw_from) -> list[dict[int, np.ndarray]]:
    """The rows of users by cell; each is in some cells."""
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    present = rng.random((draw_from(st.integers(0, 12)), CELLS)) < draw_from(st.sampled_from([0.2, 0.7]))
    return [
        {int(cell): rng.integers(-9, 9, COLUMNS.width).astype(float) for cell in np.flatnonzero(row)} for row in present
    ]


def summed(users: list[dict[int, np.ndarray]]) -> CellSums:
    sums = CellSums(COLUMNS.width)
    for cells in users:
        sums.add(cells)
    return sums


def assert_same(found: CellSums, wanted: CellSums) -> None:
    for first in range(CELLS):
        for second in range(first, CELLS):
            zero = np.zeros((COLUMNS.width, COLUMNS.width))
            np.testing.assert_allclose(
                found.products.get((first, second), zero), wanted.products.get((first, second), zero), atol=1e-9
            )


@given(users(), st.integers(0, 2**32))
def test_a_covariance_is_the_sum_over_users_of_the_product_of_their_combinations(users, seed):
    rng = np.random.default_rng(seed)
    first, second = (
        {int(cell): rng.normal(size=COLUMNS.width) for cell in rng.permutation(CELLS)[: rng.integers(CELLS + 1)]}
        for _ in range(2)
    )
    wanted = sum(
        sum(weights @ cells[cell] for cell, weights in first.items() if cell in cells)
        * sum(weights @ cells[cell] for cell, weights in second.items() if cell in cells)
        for cells in users
    )
    assert summed(users).covariance(first, second) == pytest.approx(wanted, abs=1e-8)


@given(users(), st.integers(0, COLUMNS.width - 1))
def test_sums_and_summed_squares_are_those_of_the_rows(users, column):
    users = [{cell: np.append(1.0, row[1:]) for cell, row in cells.items()} for cells in users]
    sums = summed(users)
    for cell in range(CELLS):
        wanted = np.sum([cells[cell] for cells in users if cell in cells], axis=0)
        np.testing.assert_allclose(sums.sums(cell), wanted + np.zeros(COLUMNS.width))
    some = [0, 2, 3]
    squares = [sum(cells[cell][column] for cell in some if cell in cells) ** 2 for cells in users]
    assert sums.summed_squares(some, column) == pytest.approx(sum(squares))


@given(users(), users())
def test_users_who_are_taken_away_again_leave_nothing(users, others):
    sums = summed([*users, *others])
    for cells in others:
        sums.add(cells, sign=-1)
    assert_same(sums, summed(users))


@given(users())
def test_many_users_at_once_are_those_one_by_one(users):
    sums = CellSums(COLUMNS.width)
    for first in range(CELLS):
        for second in range(first, CELLS):
            both = [cells for cells in users if first in cells and second in cells]
            if both:
                rows, others = (np.array([cells[cell] for cells in both]) for cell in (first, second))
                sums.add_users(first, second, rows, others)
    assert_same(sums, summed(users))


def test_what_rounding_leaves_is_0():
    sums = CellSums(COLUMNS.width)
    row = COLUMNS.row(sessions=1, dropped=0, now=np.array([0.1 + 0.2, 3.0]), before=np.zeros(2))
    for _ in range(1_000):
        sums.add({0: row})
    weights = {0: unit(COLUMNS.width, COLUMNS.now(0)) - 0.1 * unit(COLUMNS.width, COLUMNS.now(1))}
    assert sums.covariance(weights, weights) == 0
    weights[0][COLUMNS.now(1)] -= 1e-4
    assert sums.covariance(weights, weights) == pytest.approx(1_000 * 9e-8)


def test_a_row_says_whether_sessions_were_dropped():
    row = COLUMNS.row(sessions=5, dropped=3, now=np.array([1.0, 2.0]), before=np.array([7.0, 8.0]))
    assert row[[USER, MOVED, SESSIONS, DROPPED]].tolist() == [1, 1, 5, 3]
    assert row[[COLUMNS.now(0), COLUMNS.now(1), COLUMNS.before(0), COLUMNS.before(1)]].tolist() == [1, 2, 7, 8]
    assert COLUMNS.row(5, 0, np.zeros(2), np.zeros(2))[MOVED] == 0
