"""How fast the jobs are that measure, each alone, and what the score job does beside all of them: for `make bench`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from jobs import flink_client
from jobs.job_metrics import job_metric, records_read
from jobs.local_stack import LocalStack
from jobs.replay_send import send_at_once
from jobs.settings import Topics
from training.kafka_source import read_topic
from training.records import Record

JOBS = ("measure_outcomes", "measure_sessions", "watch_drift", "watch_experiments")
USER_SHARE = 0.1  # of users in the feature log
WARM_UP_EVENTS = 100_000
SECONDS = 30.0  # of a measurement, at most
SESSIONS = 300_000
POLL_SECONDS = 1.0
TIMEOUT_S = 300


def measuring_figures(
    stack: LocalStack, conf: Path, overrides: Sequence[str], topics: Topics, records: Sequence[Record]
) -> dict[str, int]:
    """Records a second: `beside`, the clicks that the score job scores while all of them run, and what each reads by
    its name when it runs alone, on what was written then and from the beginning of the clicks.

    All jobs wait while `records` are sent to the topic of the clicks as fast as it takes them: jobs that are submitted
    beside one at full load would take minutes to start. Each has parallelism 1.
    """
    common = [*overrides, f"feature_log.user_share={USER_SHARE}", "job.parallelism=1"]
    stack.start_task_manager()
    submitted = [_submit(stack, conf, [*common, "source.start=latest"], name) for name in ("score_clicks", *JOBS)]
    score = submitted[0]
    try:
        for job in submitted:
            flink_client.wait_until_running(stack, job)
        send_at_once(stack.bootstrap_servers, topics.clicks, records)
        flink_client.wait_for(
            lambda: job_metric(stack, score, "scored") >= WARM_UP_EVENTS, TIMEOUT_S, f"{WARM_UP_EVENTS} clicks scored"
        )
        figures = {"beside": _rate(lambda: job_metric(stack, score, "scored"))}
    finally:
        for job in submitted:
            flink_client.cancel(stack, job)
    _multiply(stack, topics.sessions)
    for name in JOBS:
        job = _submit(stack, conf, [*common, "source.start=earliest"], name)
        try:
            flink_client.wait_for(lambda job=job: records_read(stack, job) > 0, TIMEOUT_S, f"{name} to read a record")
            figures[name] = _rate(lambda job=job: records_read(stack, job))
        finally:
            flink_client.cancel(stack, job)
    return figures


def _multiply(stack: LocalStack, topic: str) -> None:
    """Send the sessions that there are again, as those of other users: too few end in a minute to measure a rate by."""
    sessions = [
        msgspec.json.decode(value) for value in read_topic({"bootstrap.servers": stack.bootstrap_servers}, topic)
    ]
    copies = -(-SESSIONS // max(len(sessions), 1))
    users = (session | {"user_id": f"{session['user_id']}-{copy}"} for copy in range(copies) for session in sessions)
    records = ((user["user_id"].encode(), msgspec.json.encode(user), None) for user in users)
    send_at_once(stack.bootstrap_servers, topic, records)


def _submit(stack: LocalStack, conf: Path, overrides: Sequence[str], name: str) -> str:
    return flink_client.submit(stack, conf, overrides, module=f"jobs.{name}")


def _rate(count: Callable[[], int]) -> int:
    """By how much a count grows a second, until it has stopped growing or SECONDS have passed."""
    marks = [(time.monotonic(), count())]
    while marks[-1][0] < marks[0][0] + SECONDS:
        time.sleep(POLL_SECONDS)
        now = (time.monotonic(), count())
        if now[1] == marks[-1][1]:
            break
        marks.append(now)
    (began, first), (ended, last) = marks[0], marks[-1]
    return round((last - first) / max(ended - began, POLL_SECONDS))
