"""Which events count, and which model scores each of them."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace

from tests.support.bundles import files_of, manifest_of
from training.backtesting.leakage import leak
from training.backtesting.replay import DecisionPolicy, ReplayWindow, Tenure, replay
from training.backtesting.schedule import boundaries
from training.data.examples import Examples, save_examples, save_logins
from udfs.contracts.packed_events import EVENT
from udfs.models.bundle import TrainingWindow


def test_a_label_counts_once_its_horizon_has_passed():
    window = ReplayWindow(from_ms=10, to_ms=100, known_ms=90, horizon_ms=20)
    mature, others = window.rows(np.array([9, 10, 70, 71, 99, 100]))
    assert (mature.tolist(), others.tolist()) == ([1, 2], [3, 4])
    assert window.last_ms == 70


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


def bucket(user_ids: list[str], user: list[int], time_ms: list[int], labels: list[bool]) -> Examples:
    n = len(user)
    return Examples(
        names=("x",),
        features=np.arange(n, dtype=np.float32)[:, None],
        labels=np.array(labels),
        weight=np.ones(n, np.float32),
        user=np.array(user),
        time_ms=np.array(time_ms),
        partition=np.zeros(n, np.int64),
        offset=np.arange(n),
        starts=np.zeros(n, np.int64),
        ends=np.ones(n, np.int64),
        events=np.zeros(n, EVENT),
        user_ids=np.array(user_ids),
    )


@pytest.mark.parametrize(("logins", "users", "positive_users"), [(None, 4, 3), ({("cookie", "ada")}, 3, 2)])
def test_buckets_are_scored_one_by_one_and_ids_of_one_person_count_as_one(tmp_path, logins, users, positive_users):
    save_examples(bucket(["ada", "bob"], [0, 0, 1], [10, 99, 20], [True, True, False]), tmp_path / "00000")
    save_examples(bucket(["cookie", "eve"], [0, 1, 1], [10, 20, 30], [True, False, True]), tmp_path / "00001")
    if logins:
        save_logins(logins, tmp_path)
    policy = DecisionPolicy("v1", "model", (Tenure(0, ("x",), lambda features: features[:, 0]),))
    window = ReplayWindow(from_ms=10, to_ms=100, known_ms=100, horizon_ms=5)
    found = replay([tmp_path / "00000", tmp_path / "00001"], window, [policy])
    assert (found.events, found.immature, found.positives) == (5, 1, 3)
    assert (found.users, found.positive_users) == (users, positive_users)
    assert found.scores("v1").tolist() == [0, 2, 0, 1, 2]
    assert [scored.user.tolist() for scored in found.buckets] == [[0, 1], [2, 3, 3]]
    people = found.by_person()
    assert sum(len(np.unique(scored.user)) for scored in people) == users
    if logins:
        (scored,) = people
        assert np.lexsort((scored.time_ms, scored.user)).tolist() == [*range(5)]
        assert sorted(Counter(scored.user.tolist()).values()) == [1, 2, 2]  # ada's are those of both buckets
