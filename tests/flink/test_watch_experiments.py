"""The job that watches an experiment, on a mini cluster: what it says in the end is what the report says."""

import json
import random
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.common.settings import experiment_settings
from jobs.common.tables import columns, create_table
from jobs.watch_experiments import ARRIVING_SESSIONS, watch_experiments
from tests.flink.conftest import environment, files, read_json_lines, settings_of
from tests.support.oracles.experiment import expected_records, newest_records
from training.experiments.comparison import compare
from udfs.contracts.outputs import ExperimentResult
from udfs.measurement.kpis import COUNTED, load_kpis

pytestmark = pytest.mark.flink

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
KPIS = load_kpis(Path(__file__).parents[2] / "conf" / "kpis.yaml")
SHARES = {"challenger": 0.5, "champion": 0.5}
WAIT_SECONDS = 60


@pytest.fixture
def watch(bundle_directory, tmp_path):
    """Run the job over sessions of two files until it says what is wanted or time is up; returns its last words."""

    def run(sessions: list[dict], wanted: dict[str, dict], *overrides: str) -> dict[str, dict]:
        one_try = ("flink.restart-strategy.type=none", "experiments.interval=1 s", "checkpoints.interval=500 ms")
        settings = experiment_settings(settings_of(bundle_directory, *one_try, *overrides))
        tables = environment(settings)
        arriving, written = tmp_path / "sessions", tmp_path / "experiments"
        arriving.mkdir()
        for number in range(2):
            (arriving / f"{number}.json").write_text("".join(json.dumps(row) + "\n" for row in sessions[number::2]))
        endless = files(arriving) | {"source.monitor-interval": "1 s"}  # at an end, open windows would be lost
        soon = {f"sink.rolling-policy.{name}-interval": "100 ms" for name in ("rollover", "check")}
        tables.execute_sql(create_table("arriving_sessions", ARRIVING_SESSIONS, endless))
        tables.execute_sql(create_table("experiments", columns(ExperimentResult), files(written) | soon))
        job = watch_experiments(tables, settings, KPIS).execute().get_job_client()
        deadline = time.monotonic() + WAIT_SECONDS
        while newest_records(read_json_lines(written)) != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        job.cancel().result()
        return newest_records(read_json_lines(written))

    return run


def mixed_sessions() -> list[dict]:
    """Of users with history and without, who change arms and have none, in any order."""
    rng = np.random.default_rng(7)
    rows = []
    for user in range(400):
        usual = rng.choice(["challenger", "champion", "control"], p=[0.4, 0.4, 0.2])
        taste = rng.beta(1, 4)
        for number in range(1 + rng.poisson(3)):
            moved = rng.random() < 0.1
            arm = rng.choice(["challenger", "champion", "control", "none"]) if moved else usual
            started_at = int(START_MS + (rng.random() - 0.4) * 100 * HOUR_MS) + number
            purchases = int(rng.random() < taste + 0.4 * (arm == "challenger"))
            rows.append(
                {
                    "user_id": f"user{user}",
                    "arm": None if arm == "none" else str(arm),
                    "model_version": "v1",
                    "started_at": started_at,
                    "ended_at": started_at + int(rng.integers(1, 900_000)),
                    "events": 5,
                    "pages": int(rng.integers(1, 4)),
                    **{name: int(rng.poisson(0.4)) for name in COUNTED},
                    "purchases": purchases,
                    "revenue": round(float(purchases * rng.lognormal(3, 1)), 2),
                }
            )
    random.Random(7).shuffle(rows)
    return rows


def test_the_last_verdict_is_that_of_the_report_on_the_same_sessions(watch):
    sessions = mixed_sessions()
    report = compare(pd.DataFrame(sessions), KPIS, "challenger", "champion", START_MS, SHARES)
    assert report.findings["conversion_rate"].is_better
    wanted = expected_records(report)
    assert wanted.keys() == KPIS.keys()
    overrides = (f"experiments.start={START_MS}", f"experiments.shares={json.dumps(SHARES)}")
    assert watch(sessions, wanted, *overrides) == wanted
