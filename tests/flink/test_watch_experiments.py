"""The job that watches experiments, on a mini cluster: what it says in the end is what the report says."""

import json
import random
import time
from math import inf
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from pyflink.table import ExplainDetail

from jobs.common.settings import experiment_settings
from jobs.common.submission import stream_table_environment
from jobs.common.tables import columns, create_table
from jobs.watch_experiments import ARRIVING_SESSIONS, find_source, watch_experiments
from tests.flink.conftest import files, read_json_lines, settings_of
from tests.support.ledgers import entries_of, rollout_of, write_ledger
from tests.support.oracles.experiment import expected_records, newest_records
from training.experiments.comparison import compare
from udfs.contracts.outputs import ExperimentResult
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.kpis import COUNTED, load_kpis
from udfs.rollout.experiments import experiments

pytestmark = pytest.mark.flink

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
KPIS = load_kpis(Path(__file__).parents[2] / "conf" / "kpis.yaml")
REVENUE = "revenue_per_session"
#: A report takes a cap from its own sessions, the job has one for all experiments.
WITHOUT_CAPS = {name: msgspec.structs.replace(kpi, winsorize=None) for name, kpi in KPIS.items()}
SHARES = {"challenger": 0.5, "champion": 0.5}
#: A challenger that is ramped from 10 % to 50 %, and another one in its place.
ROLLOUTS = [
    (START_MS - 100 * HOUR_MS, rollout_of("v0")),
    (START_MS, rollout_of("v0", v1=0.1)),
    (START_MS + 30 * HOUR_MS, rollout_of("v0", v1=0.5)),
    (START_MS + 60 * HOUR_MS, rollout_of("v0", v2=0.3)),
]
WAIT_SECONDS = 60


@pytest.fixture
def make_job(bundle_directory, tmp_path):
    """A function that builds the job over sessions of two files; returns it, and how to read its last words."""

    def make(sessions: list[dict], kpis: dict, caps: dict[str, float], *overrides: str):
        one_try = ("flink.restart-strategy.type=none", "experiments.interval=1 s", "checkpoints.interval=500 ms")
        settings = experiment_settings(settings_of(bundle_directory, *one_try, *overrides))
        tables = stream_table_environment(settings)
        arriving, written = tmp_path / "sessions", tmp_path / "experiments"
        arriving.mkdir()
        for number in range(2):
            (arriving / f"{number}.json").write_text("".join(json.dumps(row) + "\n" for row in sessions[number::2]))
        endless = files(arriving) | {"source.monitor-interval": "1 s"}  # at an end, timers would be lost
        soon = {f"sink.rolling-policy.{name}-interval": "100 ms" for name in ("rollover", "check")}
        tables.execute_sql(create_table("arriving_sessions", ARRIVING_SESSIONS, endless))
        tables.execute_sql(create_table("experiments", columns(ExperimentResult), files(written) | soon))
        job = watch_experiments(tables, settings, kpis, caps, find_source(settings))
        return job, lambda: newest_records(read_json_lines(written))

    return make


@pytest.fixture
def watch(make_job):
    """Run the job until it says what is wanted or time is up; returns its last words."""

    def run(sessions: list[dict], wanted: dict, kpis: dict, caps: dict[str, float], *overrides: str) -> dict:
        job, last_words = make_job(sessions, kpis, caps, *overrides)
        running = job.execute().get_job_client()
        deadline = time.monotonic() + WAIT_SECONDS
        while last_words() != wanted and time.monotonic() < deadline:
            time.sleep(0.2)
        running.cancel().result()
        return last_words()

    return run


def mixed_sessions() -> list[dict]:
    """Of users with history and without, who change arms and have none, and of bots, in any order."""
    rng = np.random.default_rng(7)
    rows = []
    for user in range(400):
        place, taste = rng.random(), rng.beta(1, 4)
        for number in range(1 + rng.poisson(4)):
            started_at = int(START_MS + (rng.random() - 0.2) * 100 * HOUR_MS) + number
            rollout = [rollout for time_ms, rollout in ROLLOUTS if time_ms <= started_at][-1]
            served = next(
                (("challenger", part.version) for part in rollout.challengers if place < part.share), ("champion", "v0")
            )
            if rng.random() < 0.1:
                served = [("challenger", "v1"), ("champion", "v0"), ("control", "v0"), (None, None)][rng.integers(4)]
            purchases = int(rng.random() < taste + 0.4 * (served[0] == "challenger"))
            rows.append(
                {
                    "user_id": f"user{user}",
                    "arm": served[0],
                    "model_version": served[1],
                    "started_at": started_at,
                    "ended_at": started_at + int(rng.integers(1, 900_000)),
                    "events": 5,
                    "pages": int(rng.integers(1, 4)),
                    **{name: int(rng.poisson(0.4)) for name in COUNTED},
                    "purchases": purchases,
                    "revenue": round(float(purchases * rng.lognormal(3, 1)), 2),
                    "form_starts": 0,
                    "is_bot": bool(rng.random() < 0.03),
                }
            )
    del rows[0]["is_bot"]  # as in records of earlier releases
    random.Random(7).shuffle(rows)
    return rows


def as_frame(sessions: list[dict]) -> pd.DataFrame:
    return pd.DataFrame([{"is_bot": False} | row for row in sessions])


def test_the_last_verdicts_are_those_of_the_reports_on_a_ledger_s_experiments(watch, tmp_path):
    sessions = mixed_sessions()
    found = experiments(entries_of(*ROLLOUTS), "challenger", "champion")
    assert {one.treatment.version: len(one.stretches) for one in found} == {"v1": 2, "v2": 1}
    reports = [compare(as_frame(sessions), WITHOUT_CAPS, experiment) for experiment in found]
    assert all(report.moved_users and report.bot_sessions and report.other_sessions for report in reports)
    assert all(report.findings["conversion_rate"].effect for report in reports)
    assert all(report.findings["form_completion_rate"].no_data for report in reports)
    wanted = expected_records(*reports)
    uri = write_ledger(tmp_path / "registry", *ROLLOUTS)
    assert watch(sessions, wanted, WITHOUT_CAPS, {}, f"model.registry={uri}") == wanted


def test_a_replay_is_judged_from_a_start_and_by_shares_of_its_own(watch):
    sessions = mixed_sessions()
    stretch = Stretch(START_MS, None, SHARES["challenger"], SHARES["champion"])
    experiment = Experiment(ExperimentArm("challenger"), ExperimentArm("champion"), (stretch,), START_MS)
    kpis = KPIS | {REVENUE: msgspec.structs.replace(KPIS[REVENUE], winsorize=0.9)}
    report = compare(as_frame(sessions), kpis, experiment)
    cap = report.findings[REVENUE].cap
    assert cap is not None
    wanted = expected_records(report)
    overrides = (f"experiments.start={START_MS}", f"experiments.shares={json.dumps(SHARES)}")
    assert watch(sessions, wanted, kpis, {REVENUE: cap}, *overrides) == wanted


def test_the_plan_has_both_functions_without_a_cluster(make_job):
    overrides = (f"experiments.start={START_MS}", f"experiments.shares={json.dumps(SHARES)}")
    kpis = KPIS | {REVENUE: msgspec.structs.replace(KPIS[REVENUE], winsorize=0.9)}
    job, _ = make_job([], kpis, {REVENUE: inf}, *overrides)
    plan = job.explain(ExplainDetail.JSON_EXECUTION_PLAN)
    assert "cells of users" in plan
    assert "verdicts" in plan
