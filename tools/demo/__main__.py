"""The demo: broker, cluster, model, job, clicks and scores on this machine, then a table of results.

    make demo            # or: python -m tools.demo [--keep]
    make demo DAY=1      # a whole day with all jobs instead: tools.demo.day.scenario

A simulated shop's half day is played in fast motion: first a backlog as fast as possible, which warms the JVM up, then
clicks at a steady rate, for which latency is measured. The same figures go to build/demo.json.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from rich.live import Live

from jobs.common.settings import Settings, load_settings
from jobs.common.topics import create_topics
from jobs.ops.replay.producer import at_rate, send
from tools.console import console, step
from tools.demo.day import scenario as demo_day
from tools.demo.outcome import DemoOutcome, report, report_table
from tools.demo.steps import await_answers, check, click_producer, demo_records, send_profiles, show_dashboard, train
from tools.demo.topic_watcher import TopicWatcher
from tools.paths import CONF, PROJECT, STACK
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack, StackError
from tools.stack.processes import ProcessError, is_running
from training.data.sources import Record
from training.modeling.settings import Training
from training.simulation.clickstream import Clickstream, Simulation, simulate

REPORT = PROJECT / "build" / "demo.json"

HOURS = 12
TRAINING_USERS, TRAINING_SEED = 3_000, 1
DEMO_USERS, DEMO_SEED = 2_000, 2
RATE = 500  # clicks per second
LIVE_SECONDS = 40

#: Every feature, so that the demo shows the job at full work; `make train` prunes.
QUICK_TRAINING = Training(model="xgboost", folds=3, repeats=0, rounds=150, prune=False, compare=())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.demo", description="Run the whole system with a simulated shop.")
    parser.add_argument("--keep", action="store_true", help="keep Kafka, Flink and the jobs running, in build/local")
    parser.add_argument("--day", action="store_true", help="replay a day in fast motion, with six of the seven jobs")
    options = parser.parse_args(arguments)
    keep, demonstrate = options.keep, demo_day.demonstrate if options.day else _demonstrate
    directory = STACK if keep else Path(tempfile.mkdtemp(prefix="demo-", dir=PROJECT / "build"))
    size = demo_day.CLUSTER if options.day else {}
    try:
        stack = LocalStack(directory, prefer_default_ports=keep, log=console.print, **size)
        if any(map(is_running, stack.processes.values())):
            raise StackError(f"{directory}: a stack is already running there; stop it with `make down`")
        try:
            demonstrate(stack)
        except BaseException:
            stack.stop()
            raise
        if keep:
            _explain_what_runs(stack)
        else:
            step("Stopping everything")
            stack.stop()
    except (StackError, ProcessError, flink_client.JobError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; all processes are stopped", file=sys.stderr)
        return 130
    return 0


def _demonstrate(stack: LocalStack) -> None:
    step(f"Starting Kafka and Flink (logs in {stack.directory.relative_to(PROJECT)}/log)")
    stack.start()

    step(f"Training a model on {TRAINING_USERS:,} simulated users")
    version = f"demo-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    bundle = train(
        simulate(_half_day(TRAINING_USERS, TRAINING_SEED)), QUICK_TRAINING, version, stack.directory / "models"
    )

    overrides = [f"model.bundle={bundle}", "source.start=latest"]
    settings = load_settings(CONF, [*overrides, f"kafka.bootstrap.servers={stack.bootstrap_servers}"])
    create_topics(settings, partitions=4, replication=1)
    stream = simulate(_half_day(DEMO_USERS, DEMO_SEED))
    send_profiles(stack, settings, stream)

    step(f"Submitting the job: flink run -pym jobs.score_clicks -pyfs dist/*.whl --conf {CONF.relative_to(PROJECT)}")
    job = flink_client.submit(stack, CONF, overrides)
    flink_client.wait_until_running(stack, job)
    console.print(f"    job {job} is running")
    show_dashboard(stack, CONF, overrides)

    outcome = DemoOutcome(settings.topics.dead_letters)
    topics = [settings.topics.scores, settings.topics.dead_letters]
    watcher = TopicWatcher(stack.bootstrap_servers, topics, outcome.received)
    watcher.start()
    try:
        _play(stack, settings, stream, outcome)
    finally:
        watcher.stop()
    figures = report(stream, outcome)
    REPORT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    console.print(report_table(figures))
    console.print(f"wrote {REPORT.relative_to(PROJECT)}")


def _half_day(users: int, seed: int) -> Simulation:
    """Simulated hours that end now, so that event times are within the job's limits."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=HOURS)
    return Simulation(users, HOURS, seed, start, late_share=0.02)


def _play(stack: LocalStack, settings: Settings, stream: Clickstream, outcome: DemoOutcome) -> None:
    """Send all clicks and wait for the answers."""
    records = list(demo_records(stream))
    backlog = max(len(records) - RATE * LIVE_SECONDS, 0)
    producer = click_producer(stack)
    try:
        step(f"Replaying a backlog of {backlog:,} clicks as fast as possible (warms up the JVM)")
        with _shown(outcome, backlog) as noted:
            check(send(producer, settings.topics.clicks, noted(records[:backlog]), record_timestamps=False))
            await_answers(lambda: outcome.answered, outcome.sent)
        step(f"Replaying {len(records) - backlog:,} clicks live at {RATE} per second")
        outcome.begin_live()
        with _shown(outcome, len(records)) as noted:
            live = at_rate(records[backlog:], RATE)
            check(send(producer, settings.topics.clicks, noted(live), record_timestamps=False))
            await_answers(lambda: outcome.answered, outcome.sent)
    finally:
        producer.close()


@contextmanager
def _shown(outcome: DemoOutcome, total: int):
    """A wrapper that notes records as they are sent; shows the results meanwhile."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, get_renderable=lambda: f"    {outcome.progress(total)}"):
            yield outcome.noted
        return

    def printing(records: Iterable[Record]) -> Iterator[Record]:
        for number, record in enumerate(outcome.noted(records)):
            if number % (10 * RATE) == 0:
                console.print(f"    {outcome.progress(total)}")
            yield record

    yield printing
    console.print(f"    {outcome.progress(total)}")


def _explain_what_runs(stack: LocalStack) -> None:
    step("Still running (show it with `make status`, stop it with `make down`)")
    console.print(f"    dashboard      {stack.dashboard_url}")
    console.print(f"    Flink          {stack.rest_url}")
    console.print(f"    Kafka          {stack.bootstrap_servers}")
    console.print(
        f"    more clicks    .venv/bin/intent replay --bootstrap-servers {stack.bootstrap_servers}"
        f" --simulate users=500,hours=2,seed=3 --times shift --rate {RATE}"
    )
    console.print(
        f"    follow scores  .venv/bin/intent peek scores dead_letters --conf {CONF.relative_to(PROJECT)}"
        f" --set kafka.bootstrap.servers={stack.bootstrap_servers} --follow"
    )


if __name__ == "__main__":
    sys.exit(main())
