"""Effects of several arms at once: against the effect of two arms, and against known truth."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bandit_simulation import RATE, History, equal_split, simulate
from udfs.measurement.arm_effects import Rows, relative_effects
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.effects import Ratio, measure_effect


def draw(seed: int, users: int = 400, stretches: int = 3, arms: int = 2) -> Rows:
    """Users with a few sessions in each stretch that they are there, in an arm drawn anew, and a taste of their own."""
    rng = np.random.default_rng(seed)
    there = rng.random((users, stretches)) < 0.6
    user, stretch = np.nonzero(there)
    sessions = 1.0 + rng.poisson(1, len(user))
    taste = rng.beta(2, 4, users)
    bought = rng.binomial(sessions.astype(int), taste[user]).astype(float)
    return Rows(user, stretch, rng.integers(arms, size=len(user)), bought, sessions)


def as_experiment(rows: Rows) -> CellSums:
    """The sums of arm 1, the treatment, and arm 0, the baseline."""
    columns = Columns(2)
    cells = {}
    for stretch in range(rows.stretch.max() + 1):
        for side, arm in enumerate((1, 0)):
            here = (rows.stretch == stretch) & (rows.arm == arm)
            table = np.zeros((rows.user.max() + 1, columns.width))
            table[rows.user[here], 0] = 1.0
            table[rows.user[here], columns.now(0)] = rows.numerator[here]
            table[rows.user[here], columns.now(1)] = rows.denominator[here]
            cells[2 * stretch + side] = table
    sums = CellSums(columns.width)
    for first, second in combinations_with_replacement(sorted(cells), 2):
        sums.add_users(first, second, cells[first], cells[second])
    return sums


@given(st.integers(0, 10_000))
def test_with_one_other_arm_the_effect_is_that_of_an_experiment(seed):
    rows = draw(seed)
    expected = measure_effect(as_experiment(rows), Columns(2), Ratio(0, 1))
    found = relative_effects(rows, 2)
    assert found.arms == (1,)
    assert found.relative[0] == pytest.approx(expected.difference / expected.baseline)
    # Fieller's interval is the relative effect by twice its standard error, where the baseline is far from 0.
    half = np.sqrt(found.covariance[0, 0])
    assert half == pytest.approx(
        np.sqrt(expected.variance) / expected.baseline * (1 + expected.difference / expected.baseline / 2), rel=0.25
    )


def errors(runs: list[History], effects: tuple[float, ...]) -> np.ndarray:
    """How far each estimate is from the truth, in units in which all errors are independent and of size 1."""
    found = [relative_effects(run.rows, len(effects)) for run in runs]
    return np.array(
        [np.linalg.solve(np.linalg.cholesky(one.covariance), one.relative - np.array(effects[1:])) for one in found]
    )


@pytest.mark.slow
def test_the_covariance_is_that_of_the_errors_also_of_arms_with_a_common_champion_and_of_users_who_return():
    effects = (0.0, -0.1, 0.0, 0.3)
    first = (0.1, 0.3, 0.3, 0.3)  # a small champion: its noise is in every effect

    def keep(rows: Rows, today: np.ndarray, day: int) -> np.ndarray:
        return today

    rng = np.random.default_rng(1)
    runs = [
        simulate(rng, effects, keep, users_a_day=6_000, season=(1.0, 2.0, 1.0), first=first, pool=8_000)
        for _ in range(300)
    ]
    scaled = errors(runs, effects)
    assert np.abs(scaled.mean(0)).max() < 0.2  # three standard errors; a ratio of few conversions is a bit askew
    assert np.cov(scaled.T) == pytest.approx(np.eye(3), abs=0.3)
    covariance = relative_effects(runs[0].rows, 4).covariance
    correlation = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert correlation[np.triu_indices(3, 1)].min() > 0.5  # which independent comparisons would take for 0


def test_an_arm_without_users_or_beside_an_uncertain_champion_has_no_data():
    rows = draw(1, arms=2)
    found = relative_effects(rows, 3)
    assert found.arms == (1,)
    assert found.no_data == {2: "it has no users yet beside the champion's"}
    rare = rows._replace(numerator=(np.arange(len(rows.user)) < 3).astype(float))
    assert "too uncertain" in relative_effects(rare, 2).no_data[1]
    nobody = Rows(*(part[:0] for part in rows))
    assert relative_effects(nobody, 3).no_data.keys() == {1, 2}


def test_an_arm_is_compared_only_while_it_ran_beside_the_baseline():
    rows = draw(2, users=3_000, arms=3)
    late = (rows.arm != 2) | (rows.stretch == 2)
    rows = Rows(*(part[late] for part in rows))
    sale = rows._replace(numerator=rows.numerator * np.where(rows.stretch < 2, 3.0, 1.0))
    for found in (relative_effects(rows, 3), relative_effects(sale, 3)):
        assert found.arms == (1, 2)
        assert abs(found.relative[1]) < 4 * np.sqrt(found.covariance[1, 1])
    assert relative_effects(sale, 3).relative[1] == pytest.approx(relative_effects(rows, 3).relative[1])


def test_users_without_a_conversion_do_not_show_that_nobody_converts():
    rng = np.random.default_rng(3)
    run = simulate(rng, (0.0, 0.0), equal_split, users_a_day=10_000, season=(1.0,))
    few = np.flatnonzero((run.rows.arm == 1) & (run.rows.numerator == 0))[:50]
    kept = np.concatenate([np.flatnonzero(run.rows.arm == 0), few])
    found = relative_effects(Rows(*(part[kept] for part in run.rows)), 2)
    assert found.relative[0] == pytest.approx(-1.0)
    expected = np.sqrt((1 - RATE) / RATE / 50)
    assert np.sqrt(found.covariance[0, 0]) == pytest.approx(expected, rel=0.15)
