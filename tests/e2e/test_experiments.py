"""An experiment watched by a job that crashes meanwhile: it ends at what the report says."""

import json
import random

import pandas as pd
import pytest

from jobs.flink_client import wait_for
from tests.e2e.pipeline import CONF
from tests.experiment_oracle import expected_records, newest_records
from tests.unit.test_experiment import sessions_of
from training.experiment import compare
from udfs.kpis import load_kpis

pytestmark = pytest.mark.e2e

KPIS = load_kpis(CONF.parent / "kpis.yaml")
SHARES = {"challenger": 0.5, "champion": 0.5}
START_MS = 1_000_000  # a user's second session begins then
WAIT_SECONDS = 90


def test_the_verdict_is_that_of_the_report_though_the_job_crashes(pipeline, stack):
    sessions = sessions_of(400, {"champion": 0.2, "challenger": 0.5})
    random.Random(1).shuffle(sessions)
    records = [(session["user_id"].encode(), json.dumps(session).encode(), None) for session in sessions]
    half = len(records) // 2
    pipe = pipeline(
        "delivery.guarantee=exactly-once",
        "experiments.interval=1 s",
        f"experiments.start={START_MS}",
        f"experiments.shares={json.dumps(SHARES)}",
    )
    pipe.start_other("jobs.watch_experiments")
    pipe.send("sessions", records[:half])
    pipe.read("experiments", at_least=len(KPIS))
    stack.kill_task_manager(stack.task_managers()[0])
    stack.start_task_manager()
    pipe.send("sessions", records[half:])

    wanted = expected_records(compare(pd.DataFrame(sessions), KPIS, "challenger", "champion", START_MS, SHARES))
    assert wanted["conversion_rate"]["is_better"]
    wait_for(lambda: wanted.items() <= newest_records(pipe.read("experiments")).items(), WAIT_SECONDS, "the verdict")
