"""Repeated cross-validation of the whole training: what it sees, and how wide its intervals are."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy import stats

from tests.conftest import QUICK
from training.data.examples import Examples
from training.data.split import split_by_time
from training.evaluation import repeated
from training.evaluation.repeated import INNER_FOLDS, repeated_cross_validation, resampled_estimate
from training.modeling.families import FAMILIES
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.measurement.labels import CONVERTED

NAMES = ("value", "session_duration_s", "cart_adds_30m", "checkouts_30m", "events_5m")


def some_features(examples: Examples) -> Examples:
    """The examples with fewer features, to take less time."""
    columns = [examples.names.index(name) for name in NAMES]
    return Examples(**{**vars(examples), "names": NAMES, "features": examples.features[:, columns]})


SETTINGS = replace(QUICK, features=NAMES, folds=3, repeats=2, rounds=5, compare=("logistic",))


@cache
def shop() -> Examples:
    return some_features(simulated_examples(simulate(Simulation(users=600, seed=4))))


def measured(settings=SETTINGS, examples=None, train=None, test=None, families=None):
    """The measurement, by default on all examples of the shop."""
    examples = shop() if examples is None else examples
    train, test = (np.arange(len(examples)) if rows is None else rows for rows in (train, test))
    return repeated_cross_validation(examples, train, test, settings, lambda line: None, families)


@pytest.mark.slow
def test_a_training_that_is_the_regression_differs_from_it_in_nothing():
    found = measured(families=[FAMILIES["logistic"]])
    for gain in found.differences["logistic"].values():
        assert (gain.low, gain.value, gain.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.metrics == found.compared["logistic"]
    assert 0.5 < found.metrics["roc_auc"].low < 0.75 < found.metrics["roc_auc"].high <= 1
    assert [(one.repeat, one.fold, one.family) for one in found.outer] == [
        (repeat, fold, "logistic") for repeat in (1, 2) for fold in (1, 2, 3)
    ]
    assert found.users == len(np.unique(shop().user))


@pytest.fixture(scope="module")
def watched():
    """The measurement, and the users that each choice was made on; those who judge it are asserted to be others."""
    seen = []
    select, fit = repeated.select, repeated.LabelledScores

    def selecting(rows, *arguments, **options):
        seen.append(set(rows.user.tolist()))
        return select(rows, *arguments, **options)

    def scoring(labels, scores, weight, user):
        assert not seen[-1] & set(user.tolist())
        return fit(labels, scores, weight, user)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeated, "select", selecting)
        patch.setattr(repeated, "LabelledScores", scoring)
        return measured(), seen


@pytest.mark.slow
def test_nothing_is_chosen_or_fitted_on_the_users_that_judge_it(watched):
    found, seen = watched
    assert len(seen) == len(found.outer) == 6
    assert seen[0] | seen[1] == set(shop().user.tolist())
    assert seen[0] != seen[3]  # another assignment


@pytest.mark.slow
def test_of_a_split_by_time_other_users_are_scored_after_it(monkeypatch):
    train, test = split_by_time(shop(), 0.3, CONVERTED.horizon_ms)
    tested = []
    scores = repeated.LabelledScores

    def scoring(labels, probability, weight, user):
        tested.append(len(labels))
        return scores(labels, probability, weight, user)

    monkeypatch.setattr(repeated, "LabelledScores", scoring)
    found = measured(replace(SETTINGS, repeats=1, compare=()), train=train, test=test)
    assert found.compared == found.differences == {}
    assert sum(tested) == len(test)


@pytest.mark.slow
def test_equal_settings_give_equal_figures_and_the_cost_is_counted(watched):
    first, _ = watched
    assert first == measured()
    # Trees and their teachers, cross-validated and fitted, and the regression to compare with.
    assert first.cost.models == 2 * 3 * (2 * (INNER_FOLDS + 1) + 1)


def test_too_few_users_are_no_data():
    few = np.flatnonzero(shop().user < 6)
    assert "too few" in measured(replace(SETTINGS, folds=5), train=few, test=few)
    none = shop().take(np.arange(len(shop())))
    none.labels[:] = False
    none.labels[:1] = True
    assert "both classes are needed" in measured(examples=none)


def test_the_interval_is_that_of_nadeau_and_bengio_where_it_is_the_wider_one():
    figures = np.array([0.01, 0.03, -0.02, 0.02, 0.00])
    found = resampled_estimate(figures, np.tile(figures, (200, 1)), 1 / 4)
    reach = stats.t.ppf(0.975, 4) * np.sqrt((1 / 5 + 1 / 4) * figures.var(ddof=1))
    assert (found.low, found.value, found.high) == pytest.approx(
        (figures.mean() - reach, figures.mean(), figures.mean() + reach)
    )


def test_the_interval_is_the_bootstraps_where_folds_agree_by_chance():
    draws = np.random.default_rng(1).normal(0.01, 0.02, (200, 1)) + np.zeros((1, 10))
    found = resampled_estimate(np.full(10, 0.01), draws, 1 / 4)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(draws[:, 0], (2.5, 97.5))))


@given(st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=1, max_size=12))
def test_an_interval_holds_its_figure_or_is_undefined(figures):
    figures = np.array(figures)
    found = resampled_estimate(figures, figures[None], 0.25)
    if (~np.isnan(figures)).sum() < 2:
        assert np.isnan(found.low)
    else:
        assert found.low <= found.value + 1e-9
        assert found.value <= found.high + 1e-9


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Of a procedure without any gain over another, at most about 5 % of the intervals leave out 0."""
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(300):
        training = rng.normal(0, 0.01, 10)  # what each training adds
        figures = training + rng.normal(0, 0.01, 10)
        draws = figures + rng.normal(0, 0.01, (100, 10))
        found = resampled_estimate(figures, draws, 1 / 4)
        missed += not found.low <= 0 <= found.high
    assert missed <= 0.06 * 300
