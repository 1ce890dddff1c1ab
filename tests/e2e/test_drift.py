"""Drift, told by a job that crashes meanwhile, from late events."""

import json

import pandas as pd
import pytest

from tests.support.logged_vectors import feature_log, logged_vectors, outcomes
from tests.support.oracles.drift import assert_same_windows, expected_windows
from training.data.sources import Record
from training.simulation.clickstream import Simulation
from udfs.measurement.drift import REFERENCE_FILE

pytestmark = pytest.mark.e2e

DAY_MS = 86_400_000
CLOCKS = 20  # users, so many that each partition has one, which moves its time on


def records(rows: list[dict]) -> list[Record]:
    return [(row["user_id"].encode(), json.dumps(row).encode(), None) for row in rows]


def test_drift_is_right_and_told_once_though_the_job_crashes_and_events_are_late(pipeline, stack, bundle_directory):
    busy = Simulation(users=1_000, hours=0.75, seed=9, visits_per_day=40.0, late_share=0.05)
    frame, names = logged_vectors(bundle_directory, busy)
    results = outcomes(frame, "test-model")
    vectors, labels = feature_log(frame, names, "test-model"), results.to_dict("records")
    last = frame[-1:].assign(event_time=frame["event_time"].max() + DAY_MS)
    much_later = pd.concat([last.assign(user_id=f"clock {number}") for number in range(CLOCKS)])
    wanted_of = frame, results[results["evaluated"]], json.loads((bundle_directory / REFERENCE_FILE).read_bytes())
    half = len(frame) // 2

    pipe = pipeline(
        "feature_log.user_share=1.0",
        "delivery.guarantee=exactly-once",
        "event_time.lateness=5 min",
        "drift.slide=2 min",
    )
    wanted = list(expected_windows(*wanted_of, pipe.settings.drift, 600_000, 120_000))
    pipe.start_other("jobs.watch_drift")
    pipe.send("feature_log", records(vectors[:half]))
    pipe.send("outcomes", records(labels[:half]))
    pipe.read("drift", at_least=5)
    stack.kill_task_manager(stack.task_managers()[0])
    stack.start_task_manager()
    pipe.send("feature_log", records([*vectors[half:], *feature_log(much_later, names, "test-model")]))
    clock = outcomes(much_later, "test-model").assign(matured_at=much_later["event_time"])
    pipe.send("outcomes", records([*labels[half:], *clock.to_dict("records")]))
    assert_same_windows(pipe.read("drift", at_least=len(wanted)), wanted)
