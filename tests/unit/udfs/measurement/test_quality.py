"""The measures of a window of labelled scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from udfs.measurement.quality import MEASURES


def precision_over_recall(label: np.ndarray, score: np.ndarray) -> float:
    """The precision at each distinct score, weighted by what it adds to the recall."""
    at_least = [label[score >= threshold] for threshold in sorted(set(score), reverse=True)]
    recall = [0.0, *(chosen.sum() / label.sum() for chosen in at_least)]
    return sum(chosen.mean() * (now - before) for chosen, before, now in zip(at_least, recall, recall[1:]))


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=40))
def test_the_measures_are_what_their_definitions_say(rows):
    score, label = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    measured = {name: function(score, label) for name, function in MEASURES.items()}
    pairs = [(good, bad) for good in score[label] for bad in score[~label]]
    wins = [1.0 if good > bad else 0.5 if good == bad else 0.0 for good, bad in pairs]
    assert measured["roc_auc"] == (pytest.approx(np.mean(wins)) if pairs else None)
    assert measured["average_precision"] == (pytest.approx(precision_over_recall(label, score)) if pairs else None)
    assert measured["log_loss"] == pytest.approx(-np.mean(np.log(np.where(label, score, 1 - score))))
    assert measured["scores"] == len(rows)
    assert measured["positive_rate"] == pytest.approx(label.mean())
    assert measured["mean_score"] == pytest.approx(score.mean())


def test_no_measure_is_above_1_by_rounding():
    rng = np.random.default_rng(0)
    label = np.arange(308) < 148
    score = np.sort(rng.random(308))[::-1]
    assert average_precision_score(label, score) > 1  # which the contract of model_quality does not allow
    assert MEASURES["average_precision"](score, label) == 1.0


def test_certain_and_wrong_is_a_finite_loss():
    assert np.isfinite(MEASURES["log_loss"](np.array([0.0, 1.0]), np.array([True, False])))
