"""How fast the jobs are that measure, each alone, and what the score job does beside all of them: for `make bench`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from jobs import flink_client
from jobs.job_metrics import job_metric, records_read
from jobs.local_stack import LocalStack

JOBS = ("measure_outcomes", "measure_sessions", "watch_drift", "watch_experiments")
USER_SHARE = 0.1  # of users in the feature log
WARM_UP_EVENTS = 50_000
SECONDS = 30.0  # of a measurement, at most
POLL_SECONDS = 1.0
TIMEOUT_S = 300


def measuring_figures(stack: LocalStack, conf: Path, overrides: Sequence[str]) -> dict[str, int]:
    """Records a second: `beside`, the clicks that the score job scores while all of them run, and what each reads by
    its name when it runs alone, on what was written then.

    The topic of the clicks holds enough of them to last. Each job has parallelism 1 and starts at the earliest record.
    """
    common = [*overrides, f"feature_log.user_share={USER_SHARE}", "source.start=earliest", "job.parallelism=1"]
    stack.start_task_manager()
    score = flink_client.submit(stack, conf, common)
    others = [_submit(stack, conf, common, name) for name in JOBS]
    try:
        flink_client.wait_for(
            lambda: job_metric(stack, score, "scored") >= WARM_UP_EVENTS, TIMEOUT_S, f"{WARM_UP_EVENTS} clicks scored"
        )
        figures = {"beside": _rate(lambda: job_metric(stack, score, "scored"))}
    finally:
        for job in (score, *others):
            flink_client.cancel(stack, job)
    for name in JOBS:
        job = _submit(stack, conf, common, name)
        try:
            flink_client.wait_for(lambda job=job: records_read(stack, job) > 0, TIMEOUT_S, f"{name} to read a record")
            figures[name] = _rate(lambda job=job: records_read(stack, job))
        finally:
            flink_client.cancel(stack, job)
    return figures


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
