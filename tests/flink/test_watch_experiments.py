"""The job that watches an experiment, on a mini cluster: what it says in the end is what the report says."""

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.flink_client import wait_for
from jobs.settings import experiment_settings
from jobs.tables import create_table
from jobs.watch_experiments import ARRIVING_SESSIONS, EXPERIMENTS_COLUMNS, watch_experiments
from tests.flink.conftest import environment, files, read_json_lines, settings_of
from training.experiment import Report, compare
from udfs.kpis import COUNTED, load_kpis

pytestmark = pytest.mark.flink

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
KPIS = load_kpis(Path(__file__).parents[2] / "conf" / "kpis.yaml")
SHARES = {"challenger": 0.5, "champion": 0.5}
WAIT_SECONDS = 60


@pytest.fixture
def watch(bundle_directory, tmp_path):
    """Run the job over given sessions, in two files, until it has said of each KPI what `is_last` waits for."""

    def run(sessions: list[dict], is_last, *overrides: str) -> dict[str, dict]:
        one_try = ("flink.restart-strategy.type=none", "experiments.interval=500 ms", "checkpoints.interval=500 ms")
        settings = experiment_settings(settings_of(bundle_directory, *one_try, *overrides))
        tables = environment(settings)
        arriving = tmp_path / "sessions"
        arriving.mkdir()
        for number in range(2):
            (arriving / f"{number}.json").write_text("".join(json.dumps(row) + "\n" for row in sessions[number::2]))
        options = files(arriving) | {"source.monitor-interval": "1 s"}  # no end, at which open windows would be lost
        tables.execute_sql(create_table("arriving_sessions", ARRIVING_SESSIONS, options))
        tables.execute_sql(create_table("experiments", EXPERIMENTS_COLUMNS, files(tmp_path / "experiments")))
        job = watch_experiments(tables, settings, KPIS).execute().get_job_client()
        try:
            wait_for(lambda: is_last(newest(tmp_path / "experiments")), WAIT_SECONDS, "the last verdict")
        finally:
            job.cancel().result()
        return newest(tmp_path / "experiments")

    return run


def newest(directory: Path) -> dict[str, dict]:
    """The newest record of each KPI."""
    return {row["kpi"]: row for row in sorted(read_json_lines(directory), key=lambda row: row["at"])}


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
            purchases = int(rng.random() < taste + 0.2 * (arm == "challenger"))
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
    overrides = [f"experiments.start={START_MS}", f"experiments.shares={json.dumps(SHARES)}"]

    def is_last(rows: dict[str, dict]) -> bool:
        return len(rows) == len(KPIS) and all(says(rows[kpi], report) for kpi in KPIS)

    try:
        rows = watch(sessions, is_last, *overrides)
    finally:
        print(report.users)
    assert set(rows) == set(KPIS)
    assert {row["decision"] for row in rows.values()} == {report.decision}


def says(row: dict, report: Report) -> bool:
    """Whether a record says what the report does."""
    finding = report.findings[row["kpi"]]
    effect = finding.effect
    wanted = {
        "treatment_users": report.users["challenger"],
        "baseline_users": report.users["champion"],
        "treatment_value": effect.treatment,
        "baseline_value": effect.baseline,
        "difference": effect.difference,
        "low": effect.low,
        "high": effect.high,
        "p_value": effect.p_value,
        "sample_ratio_p": report.sample_ratio_p,
    }
    words = (finding.is_better, finding.is_worse, finding.guardrail, report.decision)
    return (row["is_better"], row["is_worse"], row["guardrail"], row["decision"]) == words and all(
        row[name] == pytest.approx(value, rel=1e-6) for name, value in wanted.items()
    )
