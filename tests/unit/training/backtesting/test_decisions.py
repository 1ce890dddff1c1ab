"""Thresholds for a share of events."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.backtesting.decisions import break_even, threshold_of_share

SCORES = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, float("nan")]), min_size=1, max_size=30)


@given(SCORES, st.floats(0, 1))
def test_no_other_threshold_is_closer_to_the_share(scores, share):
    scores = np.array(scores, np.float32)
    distance = abs(np.mean(scores >= threshold_of_share(scores, share)) - share)
    for other in (*scores[~np.isnan(scores)], np.inf):
        assert distance <= abs(np.mean(scores >= other) - share) + 1e-12


def test_acting_pays_from_cost_over_benefit_on():
    assert break_even(benefit=10, cost=1) == 0.1
