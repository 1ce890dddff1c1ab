"""The job that watches drift, on a mini cluster: its records equal a slow, obvious computation."""

import json
from base64 import b64encode

import msgspec
import numpy as np
import pandas as pd
import pytest

from jobs.settings import drift_settings
from jobs.tables import create_table
from jobs.watch_drift import DRIFT_COLUMNS, find_references, outcome_columns, vector_columns, watch_drift
from tests.drift_oracle import expected_windows
from tests.flink.conftest import environment, files, read_json_lines, settings_of
from training.dataset import arrange, read_clicks
from training.simulate import Simulation, simulate
from udfs.drift import REFERENCE_FILE, WindowDrift
from udfs.features import FeatureComputer
from udfs.model import load_bundle

pytestmark = pytest.mark.flink

ONE_TRY = ("flink.restart-strategy.type=none", "feature_log.user_share=1.0", "event_time.lateness=1 d")
HORIZON_MS = 600_000


@pytest.fixture
def watch(bundle_directory, tmp_path):
    """Run the job over given feature_log and outcomes; returns its settings and what it wrote."""

    def run(vectors: list[dict], outcomes: list[dict], *overrides: str) -> tuple:
        settings = drift_settings(settings_of(bundle_directory, *ONE_TRY, *overrides))
        tables = environment(settings)
        sources = {
            "timed_vectors": (vector_columns(settings), vectors),
            "timed_outcomes": (outcome_columns(settings), outcomes),
        }
        for name, (columns, rows) in sources.items():
            (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
            tables.execute_sql(create_table(name, columns, files(tmp_path / name)))
        sink = {"connector": "filesystem", "path": (tmp_path / "drift").as_uri(), "format": "raw"}
        tables.execute_sql(create_table("drift", DRIFT_COLUMNS, sink))
        watch_drift(tables, settings, find_references(settings)).execute().wait()
        return settings, read_json_lines(tmp_path / "drift")

    return run


def logged(bundle_directory, **simulation) -> tuple[pd.DataFrame, np.ndarray]:
    """Vectors as a frame, in the order of their arrival, and as float32[n, features]; late ones are among them."""
    stream = simulate(Simulation(late_share=0.05, **simulation))
    data = arrange(read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms))
    manifest = load_bundle(bundle_directory, None).manifest
    order = np.argsort(data.positions)
    matrix = data.features(FeatureComputer(manifest.features), order)
    frame = pd.DataFrame(matrix, columns=list(manifest.features))
    frame["event_time"] = data.records["time_ms"][order].astype(int)
    frame["user_id"] = np.array(data.user_ids, object)[data.user[order]]
    frame["score"] = (frame["event_time"] % 997 / 997).astype(np.float32)
    return frame, matrix


def rows_of(frame: pd.DataFrame, matrix: np.ndarray, version: str) -> list[dict]:
    return [
        {
            "user_id": user,
            "event_time": time_ms,
            "score": float(score),
            "model_version": version,
            "features": b64encode(vector.tobytes()).decode(),
        }
        for user, time_ms, score, vector in zip(frame["user_id"], frame["event_time"], frame["score"], matrix)
    ]


def outcomes_of(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": frame["user_id"],
            "model_version": "test-model",
            "matured_at": frame["event_time"] + HORIZON_MS,
            "label": frame["event_time"] % 7 == 0,
            "evaluated": frame["event_time"] % 5 != 0,
        }
    )


def test_drift_equals_that_of_a_batch_computation_though_events_are_late(watch, bundle_directory):
    frame, matrix = logged(bundle_directory, users=400, hours=1.5, seed=9, visits_per_day=40.0)
    device, views = list(frame.columns).index("device"), list(frame.columns).index("product_views_1m")
    shifted = frame["event_time"] > frame["event_time"].median()
    matrix[shifted & (frame["event_time"] % 3 == 0), device] = 9.0
    matrix[shifted, views] = np.nan
    frame[list(frame.columns[: matrix.shape[1]])] = matrix
    outcomes = outcomes_of(frame)
    vectors = rows_of(frame, matrix, "test-model")
    other = rows_of(frame[:50], matrix[:50], "never-staged") + rows_of(frame[:50], matrix[:50, :5], "test-model")
    settings, written = watch([*vectors, *other], outcomes.to_dict("records"))

    reference = json.loads((bundle_directory / REFERENCE_FILE).read_bytes())
    evaluated = outcomes[outcomes["evaluated"]]
    wanted = list(expected_windows(frame, evaluated, reference, settings.drift, 600_000, 60_000))
    assert {row.pop("model_version") for row in written} == {"test-model"}
    found = sorted(written, key=lambda row: row["window_start"])
    assert [row["rows"] for row in found] == [row["rows"] for row in wanted]
    for row, expected in zip(found, wanted):
        for feature, of_oracle in zip(row.pop("features"), expected.pop("features"), strict=True):
            assert feature == {
                name: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float | list) else value
                for name, value in of_oracle.items()
            }
        assert row == {
            name: pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value
            for name, value in expected.items()
        }
    assert any({"device", "product_views_1m"} <= set(row["moved"]) for row in found)
    assert any(row["label_rate"] is not None for row in found)


def test_the_records_are_those_of_the_contract(watch, bundle_directory):
    frame, matrix = logged(bundle_directory, users=20, hours=0.5, seed=2, visits_per_day=100.0)
    _, written = watch(rows_of(frame, matrix, "test-model"), [], "drift.window=5 min", "drift.slide=5 min")
    records = [msgspec.convert(row, WindowDrift) for row in written]
    assert sum(record.rows for record in records) == len(frame)
    assert {record.level for record in records} == {"stable"}
    assert {record.label_rate for record in records} == {None}
    assert all(record.window_end - record.window_start == 300_000 for record in records)
