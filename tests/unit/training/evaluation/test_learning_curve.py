"""The learning curve's intervals."""

import numpy as np
import pytest
from scipy.special import expit

from training.evaluation.learning_curve import _estimates
from training.modeling.metrics import LabelledScores


def test_the_interval_at_a_share_is_that_of_models_trained_on_so_few_users():
    rng, parts = np.random.default_rng(1), []
    for separation in (0.4, 0.7, 1.1, 0.5, 0.9):
        labels = rng.random(400) < 0.3
        probability = expit(rng.normal(size=400) + separation * labels)
        scored = LabelledScores(labels, probability, np.ones(400), np.arange(400))
        parts.append({("m", 0.25): scored, ("m", 1.0): scored})
    estimates, _ = _estimates(parts, "m", [0.25, 1.0], folds=5, seed=1)
    quarter, whole = (estimates["m", share].high - estimates["m", share].low for share in (0.25, 1.0))
    # Of 5 folds, 4 are trained on: 1/4 of the users is tested per user trained on, and with a quarter of these, 1.
    assert quarter / whole == pytest.approx(np.sqrt((1 / 5 + 1) / (1 / 5 + 1 / 4)))
