"""A day of the simulated shop in fast motion, with all jobs, then tables of results.

    make demo DAY=1      # or: python -m tools.demo --day

Event times are those of yesterday, 6:00 to 22:00 UTC, and run SPEED times faster than the clock, while Kafka stamps
records as they are sent. So an event is at most 42 h behind its record and never ahead of it, well within
`decode.max_behind` and `.max_ahead`. All that is measured goes by event times. While a model is trained, the day stands
still. That the users of one arm buy more often, and that all behave otherwise from the afternoon on, is simulated; the
jobs have to find it out. The same figures go to build/demo_day.json.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from jobs.common.settings import Settings, load_settings
from jobs.common.topics import create_topics
from jobs.ops.replay.producer import at_recorded_speed, send
from tools.console import console, note, step
from tools.demo.day.figures import report
from tools.demo.day.models import (
    AFTER_SHIFT,
    CHALLENGER,
    CHALLENGER_SHARE,
    CONTROL_SHARE,
    FIRST_SHARE,
    HISTORY_HOURS,
    SALT,
    DemoModels,
)
from tools.demo.day.outcome import DayOutcome, clock_time
from tools.demo.day.tables import report_tables
from tools.demo.steps import await_answers, check, click_producer, demo_records, send_profiles, show_dashboard
from tools.demo.topic_watcher import TopicWatcher
from tools.paths import CONF, PROJECT
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from training.data.sources import Record
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.traffic import HOUR_MS
from udfs.measurement.labels import CONVERTED

REPORT = PROJECT / "build" / "demo_day.json"
MINUTE_MS = 60_000

#: In the order in which they are submitted: each reads what those before it write.
JOBS = (
    "jobs.score_clicks",
    "jobs.archive_clicks",
    "jobs.measure_outcomes",
    "jobs.measure_sessions",
    "jobs.watch_drift",
    "jobs.watch_experiments",
)
CLUSTER = {"task_managers": 2, "slots": 3}  # a slot for each job
TOPICS = ("scores", "shadow_scores", "dead_letters", "outcomes", "sessions", "kpis", "drift", "experiments")

SPEED = 160
USERS, SEED = 5_000, 2
BEGINS, DAY_HOURS = 6, 16  # from 6:00 to 22:00
RETRAIN, START, RAMP, SHIFT, RETRAIN_AGAIN = 1.5, 2.5, 3.0, 9.0, 12.5  # hours after the day's beginning

PROGRESS_SECONDS = 10
DRAIN_SECONDS = 180  # for the backlog of the jobs when the day is over


class Moment(NamedTuple):
    """An action in the course of the day."""

    time_ms: int
    what: str
    act: Callable[[], None]


def demonstrate(stack: LocalStack) -> None:
    """Start the stack and play the day on it."""
    step(f"Starting Kafka and Flink (logs in {stack.directory.relative_to(PROJECT)}/log)")
    stack.start()
    begin = datetime.now(UTC).replace(hour=BEGINS, minute=0, second=0, microsecond=0) - timedelta(days=1)
    begin_ms = round(begin.timestamp() * 1000)
    stream = simulate(_two_days(begin))
    day = stream.between(begin_ms, begin_ms + DAY_HOURS * HOUR_MS)
    models = DemoModels(stack.directory / f"day-{datetime.now(UTC):%Y%m%dT%H%M%S}", stream)

    step(f"Training a model on the previous day of {USERS:,} simulated users")
    models.begin(begin_ms)
    overrides = _overrides(models, stack.directory)
    settings = load_settings(CONF, [*overrides, f"kafka.bootstrap.servers={stack.bootstrap_servers}"])
    create_topics(settings, partitions=4, replication=1)
    send_profiles(stack, settings, day)
    _submit(stack, overrides, begin_ms + round(RAMP * HOUR_MS))
    show_dashboard(stack, CONF, overrides)

    outcome = DayOutcome({getattr(settings.topics, role): role for role in TOPICS})
    watcher = TopicWatcher(stack.bootstrap_servers, list(outcome.roles), outcome.received)
    watcher.start()
    try:
        step(f"Replaying {len(day):,} clicks of {DAY_HOURS} h in {DAY_HOURS * 3600 // SPEED} s (times in UTC)")
        _play(stack, settings, day, outcome, moments(models, begin_ms))
        _await_outcomes(day, outcome)
    finally:
        watcher.stop()
    figures = report(day, outcome, *(begin_ms + round(hours * HOUR_MS) for hours in (RAMP, SHIFT)))
    REPORT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    console.print(report_tables(figures))
    console.print(f"wrote {REPORT.relative_to(PROJECT)}")


def _two_days(begin: datetime) -> Simulation:
    return Simulation(
        users=USERS,
        hours=HISTORY_HOURS + DAY_HOURS,
        seed=SEED,
        start=begin - timedelta(hours=HISTORY_HOURS),
        late_share=0.02,
        shift_at=HISTORY_HOURS + SHIFT,
        lift_at=HISTORY_HOURS + RAMP,
        lift_start=CONTROL_SHARE,
        lift_end=CONTROL_SHARE + CHALLENGER_SHARE,
        lift_salt=SALT,
        lift_challenger_salt=CHALLENGER,
    )


def _overrides(models: DemoModels, directory: Path) -> list[str]:
    return [
        "job.parallelism=1",
        "source.start=latest",
        f"model.registry={models.registry}",
        "model.poll=1 s",
        "feature_log.user_share=0.5",
        f"archive.dir={(directory / 'archive').as_uri()}",
        "archive.interval=15 s",
        "workers.linger=50 ms",  # six jobs share the cores: fewer, larger batches of score_clicks
        "execution.buffer_timeout=50 ms",
    ]


def _submit(stack: LocalStack, overrides: Sequence[str], experiment_start_ms: int) -> None:
    shares = {"challenger": CHALLENGER_SHARE, "champion": 1 - CONTROL_SHARE - CHALLENGER_SHARE}
    job_overrides = {
        "jobs.watch_drift": ["drift.window=1 h", "drift.slide=10 min"],
        "jobs.watch_experiments": [
            f"experiments.start={experiment_start_ms}",
            f"experiments.shares={msgspec.json.encode(shares).decode()}",
            "experiments.interval=10 s",
        ],
    }
    for number, module in enumerate(JOBS, 1):
        step(f"Submitting job {number} of {len(JOBS)}: {module}")
        job = flink_client.submit(stack, CONF, [*overrides, *job_overrides.get(module, ())], module=module)
        flink_client.wait_until_running(stack, job)


def moments(models: DemoModels, begin_ms: int) -> list[Moment]:
    """The actions in the course of the day, in order."""

    def at(hours: float) -> int:
        return begin_ms + round(hours * HOUR_MS)

    def retrain() -> None:
        models.retrain(CHALLENGER, at(RETRAIN - HISTORY_HOURS), at(RETRAIN))

    def retrain_again() -> None:
        models.retrain(AFTER_SHIFT, at(SHIFT), at(RETRAIN_AGAIN))

    return [
        Moment(at(RETRAIN), f"training {CHALLENGER} on the last 24 h, then running it in shadow", retrain),
        Moment(at(START), f"starting {CHALLENGER} as challenger with {FIRST_SHARE:.0%} of the users", models.start),
        Moment(at(RAMP), f"ramping it to {CHALLENGER_SHARE:.0%}; its users buy more often from now on", models.ramp),
        Moment(at(SHIFT), "a sale begins: all users change their habits, unknown to the jobs", lambda: None),
        Moment(at(RETRAIN_AGAIN), f"training {AFTER_SHIFT} on the sale, then running it in shadow", retrain_again),
    ]


def parts(records: Sequence[Record], times_ms: Sequence[int]) -> Iterator[Sequence[Record]]:
    """Cut records, in order of arrival, at the first one of each time or later: one part more than times.

    >>> [len(part) for part in parts([(b"", b"", 1), (b"", b"", None), (b"", b"", 5), (b"", b"", 2)], [3, 9])]
    [2, 2, 0]
    """
    start = 0
    for time_ms in times_ms:
        later = (number for number in range(start, len(records)) if (records[number][2] or 0) >= time_ms)
        end = next(later, len(records))
        yield records[start:end]
        start = end
    yield records[start:]


def _play(stack: LocalStack, settings: Settings, day: Clickstream, outcome: DayOutcome, todo: Sequence[Moment]) -> None:
    """Send the day at its speed, pausing for the action of each moment."""
    records = list(demo_records(day))
    producer = click_producer(stack)
    try:
        for part, moment in zip(parts(records, [moment.time_ms for moment in todo]), [*todo, None]):
            paced = at_recorded_speed(part, SPEED)
            check(send(producer, settings.topics.clicks, _with_progress(paced, outcome), record_timestamps=False))
            if moment is not None:
                console.print(f"    [bold]{clock_time(moment.time_ms)}  {moment.what}[/bold]")
                moment.act()
    finally:
        producer.close()
    await_answers(lambda: outcome.answered, outcome.sent, DRAIN_SECONDS)


def _with_progress(records: Iterable[Record], outcome: DayOutcome) -> Iterator[Record]:
    """Yield the records, and print the progress every PROGRESS_SECONDS."""
    due = time.monotonic() + PROGRESS_SECONDS
    for record in records:
        outcome.sent += 1
        if record[2] is not None and time.monotonic() >= due:
            due += PROGRESS_SECONDS
            note(outcome.progress(record[2]))
        yield record


def _await_outcomes(day: Clickstream, outcome: DayOutcome) -> None:
    """Wait for the outcomes of the scores whose horizon has passed at the end of the day."""
    time_ms = day.events["time_ms"]
    over_ms = int(time_ms.max()) - CONVERTED.horizon_ms - 2 * MINUTE_MS
    expected = int((time_ms <= over_ms).sum())
    what = f"{expected:,} outcomes of scores before {clock_time(over_ms)} UTC"
    flink_client.wait_for(lambda: len(outcome.outcomes) >= expected, DRAIN_SECONDS, what)
