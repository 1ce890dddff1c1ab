"""Throughput of the SQL jobs, each alone, and of the score job while all of them run: the part `measuring`."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from jobs.ops.replay.producer import send_at_once
from tools.bench.context import EVENTS, BenchContext, fresh_run
from tools.console import note, step
from tools.stack import flink_client
from tools.stack.metrics import job_metric, records_read
from udfs.kafka.reading import read_topic

JOBS = ("measure_outcomes", "measure_sessions", "watch_drift", "watch_experiments")
USER_SHARE = 0.1  # of users in the feature log
BESIDE_CLICKS = 250_000  # which wait for the score job while the others run beside it
WARM_UP_EVENTS = 100_000
SECONDS = 30.0  # of a measurement, at most
SESSIONS = 300_000
EXPERIMENT = ["experiments.start=2000-01-01T00:00:00Z", "experiments.shares={challenger: 0.5, champion: 0.5}"]
POLL_SECONDS = 1.0
TIMEOUT_S = 300


def measure(context: BenchContext) -> dict[str, int]:
    """Records per second: `beside`, those that the score job scores while all jobs run, and by name those that each job
    reads when it runs alone.

    A job alone reads the output of the score job from the beginning. All jobs wait while the clicks are sent: jobs
    submitted beside one at full load would take minutes to start. Each has parallelism 1.
    """
    stack = context.cluster()
    common = [*fresh_run("measuring"), f"feature_log.user_share={USER_SHARE}", "job.parallelism=1", *EXPERIMENT]
    topics = context.create_topics(common).topics
    stack.start_task_manager()
    with context.running([*common, "source.start=latest"]) as score:
        with ExitStack() as beside:
            step("score_clicks and the measurement jobs, side by side")
            for name in JOBS:
                beside.enter_context(context.running([*common, "source.start=latest"], f"jobs.{name}"))
            context.send(topics.clicks, context.records[:BESIDE_CLICKS])
            _wait_for_scores(context, score, WARM_UP_EVENTS)
            figures = {"beside": _rate(lambda: job_metric(stack, score, "scored"))}
            note(f"{figures['beside']:,} events/s of score_clicks")
        context.send(topics.clicks, context.records[BESIDE_CLICKS:])
        _wait_for_scores(context, score, EVENTS)
    _multiply(stack.bootstrap_servers, topics.sessions)
    for name in JOBS:
        step(f"{name} alone")
        with context.running([*common, "source.start=earliest"], f"jobs.{name}") as job:
            flink_client.wait_for(lambda job=job: records_read(stack, job) > 0, TIMEOUT_S, f"{name} to read a record")
            figures[name] = _rate(lambda job=job: records_read(stack, job))
            note(f"{figures[name]:,} records/s")
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    alone = [(f"{name}, alone", f"{rate:,} records/s") for name, rate in figures.items() if name != "beside"]
    return [*alone, ("score_clicks beside all of them", f"{figures['beside']:,} events/s")]


def _wait_for_scores(context: BenchContext, job: str, count: int) -> None:
    flink_client.wait_for(
        lambda: job_metric(context.stack, job, "scored") >= count, TIMEOUT_S, f"{count:,} clicks to be scored", 1.0
    )


def _multiply(bootstrap_servers: str, topic: str) -> None:
    """Send copies of the sessions as those of other users: too few end in a minute to measure a rate by."""
    step(f"Sending about {SESSIONS:,} sessions")
    sessions = [msgspec.json.decode(value) for value in read_topic({"bootstrap.servers": bootstrap_servers}, topic)]
    copies = -(-SESSIONS // max(len(sessions), 1))
    users = (session | {"user_id": f"{session['user_id']}-{copy}"} for copy in range(copies) for session in sessions)
    records = ((user["user_id"].encode(), msgspec.json.encode(user), None) for user in users)
    send_at_once(bootstrap_servers, topic, records)


def _rate(count: Callable[[], int]) -> int:
    """The growth of a count per second, until it stops growing or SECONDS have passed."""
    marks = [(time.monotonic(), count())]
    while marks[-1][0] < marks[0][0] + SECONDS:
        time.sleep(POLL_SECONDS)
        now = (time.monotonic(), count())
        if now[1] == marks[-1][1]:
            break
        marks.append(now)
    (began, first), (ended, last) = marks[0], marks[-1]
    return round((last - first) / max(ended - began, POLL_SECONDS))
