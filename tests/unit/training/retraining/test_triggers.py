"""What starts a retraining, as a function of records."""

import pytest

from tests.support.sample_records import sample
from training.retraining.triggers import drift_trigger, in_progress, live_auc, quality_trigger
from udfs.contracts.outputs import DriftWindow, ModelQuality
from udfs.rollout.plan import Challenger, Rollout

MINUTE = 60_000


def windows(*levels: str, version: str = "v1") -> list[DriftWindow]:
    return [
        sample(
            "drift",
            window_start=number * MINUTE,
            window_end=(number + 5) * MINUTE,
            model_version=version,
            level=level,
            moved=["price", "device"],
        )
        for number, level in enumerate(levels)
    ]


@pytest.mark.parametrize(
    ("records", "starts"),
    [
        (windows("alarm", "alarm", "alarm"), True),
        (windows("stable", "alarm", "alarm", "alarm"), True),
        (windows("alarm", "alarm"), False),
        (windows("alarm", "alarm", "alarm", "watch"), False),
        (windows("alarm", "watch", "alarm", "alarm"), False),
        (windows("alarm", "alarm", "alarm", version="v0"), False),
        ([*windows("alarm", "alarm", "alarm"), *windows("stable", "stable", "stable", "stable", version="v0")], True),
        (windows("alarm", "alarm", "alarm")[::-1], True),
        ([*windows("alarm", "alarm", "stable"), windows("", "", "alarm")[2]], True),  # the window's last record counts
        ([*windows("alarm", "alarm"), windows("alarm")[0]], False),  # and counts once
        ([], False),
    ],
)
def test_drift_starts_it_after_enough_windows_of_the_champion_in_a_row(records, starts):
    assert (drift_trigger(records, "v1", 3) is not None) == starts


def test_the_reason_names_the_last_window_and_what_moved():
    assert drift_trigger(windows("alarm"), "v1", 1) == (
        "drift alarm in 1 windows up to 1970-01-01 00:05 UTC: price, device moved"
    )


def quality(minute: int, scores: int, auc: float | None, version: str = "v1", arm: str = "champion") -> ModelQuality:
    return sample(
        "model_quality", event_minute=minute * MINUTE, model_version=version, arm=arm, scores=scores, roc_auc=auc
    )


def test_the_live_auc_weighs_minutes_by_their_scores():
    records = [quality(1, 100, 0.7), quality(2, 300, 0.9), quality(2, 100, 0.5, arm="not_eligible")]
    auc, scores = live_auc(records, "v1", 60, 500)
    assert (auc, scores) == (pytest.approx((70 + 270 + 50) / 500), 500)


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([quality(-58, 10_000, 0.1)], "older than the time looked at"),
        ([quality(2, 10_000, 0.1, version="v2")], "of another model"),
        ([quality(2, 10_000, None)], "all labels alike"),
    ],
)
def test_what_does_not_count_in_the_live_auc(others, why):
    assert live_auc([*others, quality(1, 100, 0.7), quality(2, 100, 0.7, arm="not_eligible")], "v1", 60, 1) == (
        pytest.approx(0.7),
        200,
    ), why


def test_the_oldest_minute_looked_at_counts():
    assert live_auc([quality(-57, 100, 0.5), quality(2, 100, 0.7)], "v1", 60, 1)[0] == pytest.approx(0.6)


def test_a_minute_that_was_told_again_counts_once():
    assert live_auc([quality(1, 50, 0.1), quality(1, 100, 0.7)], "v1", 60, 1) == (pytest.approx(0.7), 100)


def test_too_few_scores_start_nothing():
    assert live_auc([quality(1, 99, 0.1)], "v1", 60, 100) is None
    assert quality_trigger(None, 0.7, 60) is None


def test_quality_starts_it_below_the_bundles_interval_and_not_at_its_end():
    assert quality_trigger((0.7, 500), 0.7, 60) is None
    assert quality_trigger((0.65, 500), 0.7, 60) == (
        "live AUC 0.6500 over 60 min, 500 scores: its bundle's interval begins at 0.7000"
    )


def test_a_model_is_being_tried_while_it_is_shadow_or_challenger():
    challengers = (Challenger(version="v3", share=0.1, at_most=0.5, start=0.0),)
    rollout = Rollout(salt="s", champion="v1", shadows=("v2",), challengers=challengers)
    assert [in_progress(rollout, [version]) for version in ("v1", "v2", "v3", "v4")] == [None, "v2", "v3", None]
