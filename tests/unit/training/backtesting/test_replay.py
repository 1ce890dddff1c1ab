"""Which events count, and which model scores each of them."""

from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace

from tests.support.bundles import files_of, manifest_of
from training.backtesting.leakage import leak
from training.backtesting.replay import DecisionPolicy, ReplayWindow, Tenure
from training.backtesting.schedule import boundaries
from udfs.models.bundle import TrainingWindow


def test_a_label_counts_once_its_horizon_has_passed():
    window = ReplayWindow(from_ms=10, to_ms=100, known_ms=90, horizon_ms=20)
    mature, others = window.rows(np.array([9, 10, 70, 71, 99, 100]))
    assert (mature.tolist(), others.tolist()) == ([1, 2], [3, 4])


def test_each_event_is_scored_by_the_model_that_serves_then():
    policy = DecisionPolicy(
        "retrained",
        "retrained",
        (
            Tenure(10, ("b",), lambda features: features[:, 0]),
            Tenure(20, ("a",), lambda features: features[:, 0]),
            Tenure(30, ("a",), None),
        ),
    )
    features = np.array([[1, -1], [2, -2], [3, -3], [4, -4], [5, -5]], np.float32)
    scores = policy.scores(["a", "b"], features, np.array([9, 10, 19, 20, 30]))
    assert scores.tolist() == pytest.approx([np.nan, -2, -3, 4, np.nan], nan_ok=True)


def test_trainings_are_at_the_begin_and_after_each_interval():
    window = ReplayWindow(from_ms=5, to_ms=25, known_ms=25, horizon_ms=1)
    assert boundaries(window, 10) == [5, 15]
    assert boundaries(window, 100) == [5]


@pytest.mark.parametrize(("end", "leaks"), [("2026-01-02T11:30", False), ("2026-01-02T11:31", True)])
def test_a_model_leaks_if_its_labels_reach_into_the_backtest(end, leaks):
    window = TrainingWindow(datetime(2026, 1, 1, tzinfo=UTC), datetime.fromisoformat(f"{end}:00+00:00"))
    manifest = replace(manifest_of("v1", files_of(1)), training_window=window)
    begin_ms = int(datetime(2026, 1, 2, 12, tzinfo=UTC).timestamp() * 1000)
    assert (leak(manifest, begin_ms) is not None) == leaks
