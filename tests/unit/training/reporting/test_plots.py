"""The report's curves: what they show, and that poor data leads to a sentence instead of a picture or an error."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from training.modeling.metrics import LabelledScores, calibration_table, gain_table, threshold_table
from training.reporting import curves, plots
from training.reporting.curves import NoData

RNG = np.random.default_rng(3)
N = 400
PROBABILITY = RNG.random(N) ** 2
LABELS = RNG.random(N) < PROBABILITY
USER = RNG.integers(0, 60, N)
WEIGHT = RNG.integers(1, 4, N).astype(float)
SCORED = LabelledScores(LABELS, PROBABILITY, WEIGHT, USER)


def scores(labels, probability) -> LabelledScores:
    """Rows of three users."""
    labels = np.array(labels)
    return LabelledScores(labels, np.array(probability, float), np.ones(len(labels)), np.arange(len(labels)) % 3)


POOR = {
    "no positive": scores([False] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "only positives": scores([True] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "one row": scores([True], [0.5]),
}
CURVES = (curves.roc, curves.precision_recall, curves.score_histogram, curves.explored_thresholds)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rows", POOR.values(), ids=POOR)
def test_without_both_classes_there_is_no_curve_but_the_reason(curve, rows):
    found = curve(rows)
    assert isinstance(found, NoData)
    assert found.why.endswith("and both classes are needed")
    page = plots.plot("A <curve>", found, draw=None)
    assert page.startswith('<p class="no-data"><strong>A &lt;curve&gt;.</strong> No data: ')


def test_equal_scores_have_a_diagonal_one_threshold_and_no_histogram():
    rows = scores([True, False, False], [0.123456] * 3)
    assert curves.roc(rows).value == pytest.approx(curves.roc(rows).x)
    assert curves.explored_thresholds(rows) == [[0.12346, 1000.0, 333.33]]
    assert curves.score_histogram(rows) == NoData("all 3 scores are equal")
    assert [row["threshold"] for row in threshold_table(rows, 1, 0.1)] == [0.1, 0.123]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.integers(1, 3)), min_size=1, max_size=40))
@examples(30)
def test_whatever_the_rows_every_threshold_acts_on_some_and_every_plot_is_drawn_or_explained(rows):
    labels, probability, weight = (np.array(column) for column in zip(*rows))
    found = LabelledScores(labels, probability, weight.astype(float), np.arange(len(rows)))
    table = threshold_table(found, benefit=1, cost=0.1)
    assert table
    assert all(row["acted_on"] > 0 and 0 <= row["precision"].value <= 1 for row in table)
    explored = curves.explored_thresholds(found)
    if not isinstance(explored, NoData):
        assert explored[-1][1:] == [1000, pytest.approx(1000 * found.rate(found.weight), rel=1e-4)]
        assert [row[0] for row in explored] == sorted((row[0] for row in explored), reverse=True)


def test_the_area_under_the_roc_curve_is_the_auc_within_its_interval():
    found = curves.roc(SCORED)
    assert np.trapezoid(found.value, found.x) == pytest.approx(SCORED.roc_auc_of_all(), abs=0.01)
    assert (found.low <= found.value + 1e-9).all()
    assert (found.value <= found.high + 1e-9).all()


def test_precision_falls_towards_the_rate_of_positives():
    found = curves.precision_recall(SCORED)
    assert found.x[-1] == 1
    assert found.value[0] > found.value[-1] >= found.chance == SCORED.rate(SCORED.weight)


def test_the_explorer_counts_what_acting_on_a_threshold_counts():
    threshold, contacts, hits = curves.explored_thresholds(SCORED)[80]
    (row,) = threshold_table(SCORED, 1, 0, [threshold * (1 - 1e-4)])
    assert contacts == pytest.approx(1000 * row["acted_on"], rel=0.01)
    assert hits / contacts == pytest.approx(row["precision"].value, rel=0.01)
    assert len(curves.explored_thresholds(SCORED)) <= len(curves.EXPLORED_SHARES)


def test_a_histogram_has_all_of_each_class():
    found = curves.score_histogram(SCORED)
    assert found.positives.sum() == pytest.approx(1)
    assert found.negatives.sum() == pytest.approx(1)


def test_points_are_sampled_and_features_ordered_by_what_they_add():
    rows = curves.SAMPLE + 500
    values = RNG.random((rows, 3))
    values[::2, 1] = np.nan
    added = values * np.array([0.1, 0.0, 2.0])
    added[:, 1] = 0.5
    found = curves.strongest_features(("a", "b", "c"), values, added, np.ones(rows), count=2)
    assert found.names == ("c", "b")
    assert found.values.shape == found.added.shape == (curves.SAMPLE, 2)
    assert np.isnan(found.values[:, 1]).any()
    nothing = curves.strongest_features(("a",), values[:, :1], np.zeros((rows, 1)), np.ones(rows), count=2)
    assert nothing == NoData("no feature changes the score")


@pytest.mark.parametrize("values", [[np.nan] * 4, [1.0] * 4, [0.0, 5.0, np.nan, 1e6], [-1e9, 2.0, 2.0, 3.0]])
def test_missing_constant_and_extreme_values_are_drawn(values):
    values, added = np.array(values), np.array([0.1, 0.1, -0.2, 0.3])
    page = plots.plot("value", ("value", values, added), plots.draw_dependence)
    assert ("missing (" in page) == np.isnan(values).any()
    found = curves.Attributions(("value",), np.array([0.2]), values[:, None], added[:, None])
    assert 'aria-label="swarm"' in plots.plot("swarm", found, plots.draw_beeswarm)


def test_a_figure_is_the_same_each_time_and_fits_light_and_dark():
    first, second = (plots.plot("Gain", gain_table(SCORED), plots.draw_gain, "A note") for _ in range(2))
    assert first == second
    assert first.startswith("<figure><figcaption><strong>Gain.</strong> A note</figcaption><svg role=")
    assert "currentColor" in first
    assert "#010203" not in first
    assert "<metadata" not in first
    assert not re.search(r'<g id="', first)
    table = calibration_table(scores([True, False], [0.5, 0.5]))
    assert "<svg" in plots.plot("Calibration", table, plots.draw_calibration)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60))
@examples(30)
def test_points_of_a_swarm_stay_in_their_row_and_no_two_of_a_bin_hide_each_other(values):
    heights = plots.spread(np.array(values))
    assert np.abs(heights).max() <= 0.41
    equal = plots.spread(np.full(len(values), values[0]))
    assert len(np.unique(equal)) == len(values)


def test_ranks_of_values_leave_out_those_that_are_missing():
    assert plots.value_ranks(np.array([5.0, np.nan, 1.0])) == pytest.approx([0.75, np.nan, 0.25], nan_ok=True)
