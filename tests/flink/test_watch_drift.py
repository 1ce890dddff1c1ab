"""The job that watches drift, on a mini cluster: its records equal a slow, obvious computation."""

import json

import msgspec
import pytest

from jobs.common.settings import drift_settings
from jobs.common.submission import table_environment
from jobs.common.tables import create_table
from jobs.watch_drift import DRIFT_COLUMNS, find_references, outcome_columns, vector_columns, watch_drift
from tests.flink.conftest import files, read_json_lines, settings_of
from tests.support.logged_vectors import feature_log, logged_vectors, outcomes
from tests.support.oracles.drift import assert_same_windows, expected_windows
from training.simulation.clickstream import Simulation
from udfs.contracts.outputs import DriftWindow
from udfs.measurement.drift import REFERENCE_FILE

pytestmark = pytest.mark.flink

ONE_TRY = ("flink.restart-strategy.type=none", "feature_log.user_share=1.0", "event_time.lateness=1 d")


@pytest.fixture
def watch(bundle_directory, tmp_path):
    """Run the job over given feature_log and outcomes; returns its settings and what it wrote."""

    def run(vectors: list[dict], results: list[dict], *overrides: str) -> tuple:
        settings = drift_settings(settings_of(bundle_directory, *ONE_TRY, *overrides))
        tables = table_environment(settings)
        sources = {
            "timed_vectors": (vector_columns(settings), vectors),
            "timed_outcomes": (outcome_columns(settings), results),
        }
        for name, (columns, rows) in sources.items():
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            tables.execute_sql(create_table(name, columns, files(tmp_path / name)))
        sink = {"connector": "filesystem", "path": (tmp_path / "drift").as_uri(), "format": "raw"}
        tables.execute_sql(create_table("drift", DRIFT_COLUMNS, sink))
        watch_drift(tables, settings, find_references(settings)).execute().wait()
        return settings, read_json_lines(tmp_path / "drift")

    return run


def test_drift_equals_that_of_a_batch_computation_though_events_are_late(watch, bundle_directory):
    busy = Simulation(users=1_000, hours=0.75, seed=9, visits_per_day=40.0, late_share=0.05)
    frame, names = logged_vectors(bundle_directory, busy)
    results = outcomes(frame, "test-model")
    unknown, broken = feature_log(frame[:50], names, "never-staged"), feature_log(frame[:50], names[:5], "test-model")
    vectors = [*unknown, *broken, *feature_log(frame, names, "test-model")]
    settings, written = watch(vectors, results.to_dict("records"), "drift.slide=2 min")

    reference = json.loads((bundle_directory / REFERENCE_FILE).read_bytes())
    evaluated = results[results["evaluated"]]
    wanted = list(expected_windows(frame, evaluated, reference, settings.drift, 600_000, 120_000))
    assert {row["model_version"] for row in written} == {"test-model"}
    assert_same_windows(written, wanted)
    assert any({"device", "product_views_1m"} <= set(row["moved"]) for row in written)
    assert any(row["label_rate"] is not None for row in written)


def test_the_records_are_those_of_the_contract(watch, bundle_directory):
    few = Simulation(users=20, hours=0.4, seed=2, visits_per_day=100.0)
    frame, names = logged_vectors(bundle_directory, few)
    _, written = watch(feature_log(frame, names, "test-model"), [], "drift.window=5 min", "drift.slide=5 min")
    records = [msgspec.convert(row, DriftWindow) for row in written]
    assert sum(record.rows for record in records) == len(frame)
    assert {record.label_rate for record in records} == {None}
    assert all(record.window_end - record.window_start == 300_000 for record in records)
