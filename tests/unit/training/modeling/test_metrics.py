import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from training.modeling.metrics import (
    SHARES_ACTED_ON,
    LabelledScores,
    calibration_table,
    difference,
    estimate,
    gain_table,
    threshold_table,
)

RNG = np.random.default_rng(1)
N = 2_000
USER = RNG.integers(0, 100, N)
PROBABILITY = RNG.random(N) ** 3
LABELS = RNG.random(N) < PROBABILITY
WEIGHT = RNG.integers(1, 4, N).astype(float)
SCORED = LabelledScores(LABELS, PROBABILITY, WEIGHT, USER)

row = st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(1, 3))


@pytest.mark.slow
@given(st.lists(row, min_size=2, max_size=30).filter(lambda rows: len({label for label, _, _ in rows}) == 2))
def test_figures_equal_those_of_scikit_learn_with_ties_and_weights(rows):
    labels, probability, weight = (np.array(column) for column in zip(*rows))
    found = LabelledScores(labels, probability, weight, np.arange(len(rows)))
    for mine, theirs in (
        (found.roc_auc, roc_auc_score),
        (found.average_precision, average_precision_score),
        (found.brier, brier_score_loss),
        (found.log_loss, log_loss),
    ):
        assert mine(found.weight) == pytest.approx(theirs(labels, probability, sample_weight=weight), abs=1e-9)


def test_an_interval_holds_its_figure_and_widens_when_a_user_has_many_rows():
    alone = estimate(LabelledScores(LABELS, PROBABILITY, WEIGHT, np.arange(N)))["roc_auc"]
    together = estimate(
        LabelledScores(np.repeat(LABELS, 5), np.repeat(PROBABILITY, 5), np.ones(5 * N), np.repeat(np.arange(N), 5))
    )
    assert alone.low < alone.value < alone.high
    as_if_independent = estimate(
        LabelledScores(np.repeat(LABELS, 5), np.repeat(PROBABILITY, 5), np.ones(5 * N), np.arange(5 * N))
    )
    width = {name: found["roc_auc"].high - found["roc_auc"].low for name, found in
             (("together", together), ("independent", as_if_independent))}  # fmt: skip
    assert width["together"] > 1.5 * width["independent"]


def test_a_class_that_is_missing_leaves_a_figure_undefined():
    found = estimate(LabelledScores(np.zeros(5, bool), np.arange(5) / 5, np.ones(5), np.arange(5)))
    assert np.isnan(found["roc_auc"].value)


def test_a_better_score_is_better_by_an_interval_above_zero():
    noisy = np.random.default_rng(2).random(N)
    assert difference(SCORED, LabelledScores(LABELS, noisy, WEIGHT, USER))["roc_auc"].low > 0
    same = difference(SCORED, SCORED)["roc_auc"]
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_the_gain_ends_with_all_positives_and_the_lift_with_one():
    table = gain_table(SCORED)
    assert table[-1]["gain"].value == table[-1]["lift"].value == pytest.approx(1)
    assert table[0]["lift"].value > 1.5


def test_probabilities_that_are_true_lie_within_most_intervals_of_what_was_seen():
    table = calibration_table(SCORED)
    within = [row["seen"].low <= row["predicted"] <= row["seen"].high for row in table]
    assert sum(within) >= 7
    assert [row["predicted"] for row in table] == sorted(row["predicted"] for row in table)


def test_usual_thresholds_act_on_few_to_many_rows_whatever_the_scores():
    for scale in (1.0, 0.001):
        rare = LabelledScores(LABELS, PROBABILITY * scale, WEIGHT, USER)
        shares = [row["acted_on"] for row in threshold_table(rare, benefit=0, cost=0.1)]
        assert shares == sorted(shares, reverse=True)
        assert shares == pytest.approx(SHARES_ACTED_ON[::-1], abs=0.01)


def test_the_threshold_from_which_acting_pays_is_among_the_usual_ones():
    assert 0.25 in [row["threshold"] for row in threshold_table(SCORED, benefit=4, cost=1)]
    assert all(row["acted_on"] > 0 for row in threshold_table(SCORED, benefit=1, cost=1000))


def test_acting_on_everything_brings_the_benefit_of_the_rate_less_the_cost():
    (row,) = threshold_table(SCORED, benefit=10, cost=2, thresholds=(0.0,))
    assert row["value"].value == pytest.approx(1000 * (10 * SCORED.rate(SCORED.weight) - 2))
    assert row["recall"].value == 1
