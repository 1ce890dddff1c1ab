"""What came of each score, what users did in sessions and what an experiment says, told by jobs that crash meanwhile,
from late clicks."""

import json
from collections import Counter
from contextlib import suppress
from zlib import crc32

import msgspec
import pandas as pd
import pytest

from tests.support.e2e.pipeline import CONF, Pipeline
from tests.support.oracles.experiment import expected_records, newest_records
from tools.stack.flink_client import JobError, wait_for
from tools.trials.sessions import expected_sessions
from training.data.dataset import read_clicks
from training.data.sources import Record, click_records
from training.experiments.comparison import compare
from training.simulation.clickstream import Simulation, simulate
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.kpis import load_kpis
from udfs.measurement.labels import LABELS_FILE, find_label, label_events

pytestmark = pytest.mark.e2e

LABEL = "purchase within 10 min"
DAY_MS, MINUTE_MS = 86_400_000, 60_000
WAIT_SECONDS = 60
CLOCKS = [f"clock {number}" for number in range(20)]  # so many that each partition has one, which moves its time on
#: Without caps: there are no sessions yet when the job is submitted, so that nothing says where outliers begin.
KPIS = {
    name: msgspec.structs.replace(kpi, winsorize=None) for name, kpi in load_kpis(CONF.parent / "kpis.yaml").items()
}
SHARES = {"challenger": 0.5, "champion": 0.5}
START_MS = 1_000_000_000_000  # before all clicks
EXPERIMENT = Experiment(
    ExperimentArm("challenger"), ExperimentArm("champion"), (Stretch(START_MS, None, *SHARES.values()),), START_MS
)


def arm_of(user: str) -> str:
    return list(SHARES)[crc32(user.encode()) % 2]


def score_records(clicks: list[dict]) -> list[Record]:
    """A score of each click, as the score job writes it."""
    scores = (
        {
            **{name: click[name] for name in ("user_id", "event_id", "event_name", "event_time")},
            "score": 0.5,
            "decision": True,
            "arm": arm_of(click["user_id"]),
            "model_version": "v1",
            "scored_at": click["event_time"],
            "source_partition": 0,
            "source_offset": number,
        }
        for number, click in enumerate(clicks)
    )
    return [(score["user_id"].encode(), json.dumps(score).encode(), None) for score in scores]


def test_outcomes_sessions_and_verdict_are_right_and_single_though_jobs_crash_and_clicks_are_late(pipeline, stack):
    label = find_label(LABEL, CONF.with_name(LABELS_FILE))
    stream = simulate(Simulation(users=200, hours=4, seed=6, late_share=0.05))
    clicks = list(stream.clicks())
    after_all_ms = int(stream.events["time_ms"].max()) + DAY_MS
    clock = {"user_id": "clock 0", "event_id": "clock", "event_name": "purchase", "event_time": after_all_ms}
    much_later = [
        clock | {"user_id": user, "event_name": name, "event_time": time_ms}
        for name, time_ms in (("purchase", after_all_ms), ("page_view", after_all_ms + 8 * MINUTE_MS))
        for user in CLOCKS
    ]
    payloads, scores = list(click_records(clicks)), score_records([*clicks, *much_later])
    half = len(clicks) // 2

    pipe = pipeline(
        "delivery.guarantee=exactly-once",
        f"outcomes.label={LABEL}",
        "event_time.lateness=5 min",
        "experiments.interval=1 s",
        f"experiments.start={START_MS}",
        f"experiments.shares={json.dumps(SHARES)}",
    )
    for job in ("jobs.measure_outcomes", "jobs.measure_sessions", "jobs.watch_experiments"):
        pipe.start_other(job)
    pipe.send("clicks", payloads[:half])
    pipe.send("scores", scores[:half])
    pipe.read("outcomes", at_least=half // 2)
    stack.kill_task_manager(stack.task_managers()[0])
    stack.start_task_manager()
    pipe.send("clicks", [*payloads[half:], *click_records(much_later)])
    pipe.send("scores", scores[half:])
    outcomes = pipe.read("outcomes", at_least=len(clicks))

    data = read_clicks([value for _, value, _ in payloads])
    positive, _ = label_events(label, data.user, data.records)
    assert sorted(outcome["source_offset"] for outcome in outcomes) == list(range(len(clicks)))
    assert positive.any()
    assert {outcome["source_offset"]: outcome["label"] for outcome in outcomes} == dict(enumerate(positive.tolist()))
    minutes = Counter(
        (outcome["event_time"] // MINUTE_MS * MINUTE_MS, outcome["arm"]) for outcome in outcomes if outcome["evaluated"]
    )
    quality = pipe.read("model_quality", at_least=len(minutes))
    assert {(row["event_minute"], row["arm"]): row["scores"] for row in quality} == minutes
    assert len(quality) == len(minutes)
    sessions = expected_sessions(clicks, arm_of)
    found = pd.DataFrame(pipe.read("sessions", at_least=len(sessions)))
    in_order = [
        frame.sort_values(["user_id", "started_at"], ignore_index=True) for frame in (found[sessions.columns], sessions)
    ]
    pd.testing.assert_frame_equal(*in_order, check_dtype=False, rtol=1e-6)

    report = compare(found, KPIS, EXPERIMENT)
    assert report.findings["revenue_per_session"].effect
    wanted = expected_records(report)
    with suppress(JobError):
        wait_for(lambda: newest_records(pipe.read("experiments")) == wanted, WAIT_SECONDS, "the verdict")
    assert newest_records(pipe.read("experiments")) == wanted

    assert late_records(pipe) == 0
    pipe.send("clicks", click_records([clock | {"event_id": "late", "event_time": after_all_ms - MINUTE_MS}]))
    wait_for(lambda: late_records(pipe) == 1, WAIT_SECONDS, "what comes too late to be counted")


def late_records(pipe: Pipeline) -> int:
    """What Flink counts as too late in the job that measures outcomes."""
    job = pipe.other_jobs[0]
    late = 0
    for vertex in pipe.stack.rest(f"/jobs/{job}")["vertices"]:
        path = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
        for name in (metric["id"] for metric in pipe.stack.rest(path)):
            if name.endswith("numLateRecordsDropped"):
                late += round(pipe.stack.rest(f"{path}?get={name}")[0]["sum"])
    return late
