"""Run the score job for hours at half of its capacity, and report whether anything grows.

    make soak HOURS=2                     # or: python -m tools.soak --hours 2

Every ten minutes the model is swapped, and every half an hour another job is submitted and cancelled. Memory, threads
and file handles of each process, what is in use in each JVM of Flink, the size of state and checkpoints, lag and
latency are recorded all along, in build/soak/TIME/rows.jsonl. Interrupt it whenever you like: the report,
build/soak/TIME/report.md, is of what there is then; `--report build/soak/TIME` writes it again. The exit code is 1 if
not each click has a score.
"""

import argparse
import itertools
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from jobs.common.settings import Settings
from tools.bench.context import FAILURES, BenchContext, bench_context, fresh_run
from tools.bench.hot_swap import enter_other
from tools.bench.latency import Receiver
from tools.console import console, note, step
from tools.paths import CONF, PROJECT
from tools.soak.report import markdown, write_plots
from tools.soak.series import Checkpoint, Row, binned, percentile
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.trials.capacity import BATCH_ROWS, PATIENCE_SECONDS, counted, measured_capacity, one_core
from tools.trials.sampling import Sampler, jvm_readings, readings
from tools.trials.steady_load import Phase, SteadyLoad
from udfs.rollout.registry import Registry

OUT = PROJECT / "build" / "soak"
PARALLELISM = 2
SHARE = 0.5  # of the capacity
SAMPLE_SECONDS = 15.0
SAMPLES_PER_LINE = 8  # of progress
SWAP_MINUTES, SUBMISSION_MINUTES, BLOCK_MINUTES = 10.0, 30.0, 15.0
OTHER_JOB = "jobs.measure_sessions"
OTHER_JOB_SECONDS = 30
#: The broker drops what is older, so that its files do not grow with the hours.
RETENTION = {"log.retention.bytes": 64 << 20, "log.segment.bytes": 16 << 20, "log.retention.check.interval.ms": 60_000}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.soak", description="Run the job for hours, and report what grows.")
    parser.add_argument("--hours", type=float, default=2, help="how long it lasts (default: 2)")
    parser.add_argument("--rate", type=float, help="clicks per second (default: half of the capacity, measured first)")
    parser.add_argument(
        "--rows", type=int, default=BATCH_ROWS, help=f"workers.batch_rows of the job (default: {BATCH_ROWS})"
    )
    for name, default, what in (
        ("swap", SWAP_MINUTES, "between two hot swaps"),
        ("submission", SUBMISSION_MINUTES, "between two submissions of another job"),
        ("block", BLOCK_MINUTES, "of a block, whose mean is one point of a slope; also of the warm-up"),
    ):
        parser.add_argument(
            f"--{name}-minutes", type=float, default=default, help=f"minutes {what} (default: {default:g})"
        )
    parser.add_argument("--report", type=Path, metavar="DIR", help="write the report of an earlier run again")
    options = parser.parse_args(arguments)
    for name in ("hours", "rate", "swap_minutes", "submission_minutes", "block_minutes"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0 (got {value})")
    if options.report is not None:
        return _report(options.report, {}, options.block_minutes / 60)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with bench_context("soak-", broker_options=RETENTION, task_managers_at=one_core()) as context:
            return _run(context, options)
    except (*FAILURES, RuntimeError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("soak: interrupted before the load began", file=sys.stderr)
        return 130


def _run(context: BenchContext, options: argparse.Namespace) -> int:
    registry = Registry(str(context.registry))
    stack = context.cluster()
    overrides = [
        *fresh_run("soak"),
        f"model.registry={registry.uri}",
        "model.poll=1 s",
        f"workers.batch_rows={options.rows}",
        f"job.parallelism={PARALLELISM}",
    ]
    settings = context.create_topics(overrides)
    out = OUT / f"{datetime.now(UTC):%Y-%m-%d-%H%M}"
    out.mkdir(parents=True, exist_ok=True)
    with context.running(overrides) as job:
        if options.rate is None:
            capacity = measured_capacity(stack, job, settings)
            rate, of_capacity = SHARE * capacity, f", {SHARE:.0%} of the capacity"
        else:
            rate, of_capacity = options.rate, ""
        done = {"clicks per second": f"{rate:,.0f}{of_capacity}"}
        try:
            _soak(context, settings, job, rate, options, out / "rows.jsonl", done)
        finally:
            written = _report(out, done, options.block_minutes / 60)
    return max(written, int("without an answer" in done))


def _soak(
    context: BenchContext,
    settings: Settings,
    job: str,
    rate: float,
    options: argparse.Namespace,
    file: Path,
    done: dict[str, str],
) -> None:
    """Run the load until the end or an interrupt, record rows, and add to `done` what there is to say of it."""
    stack, registry = context.stack, Registry(str(context.registry))
    step(f"{rate:,.0f} clicks per second for {options.hours:g} hours")
    receiver = Receiver(stack.bootstrap_servers, settings.topics.scores)
    load = SteadyLoad(stack.bootstrap_servers, settings.topics.clicks, [Phase(rate)])
    began, samples = time.time(), itertools.count(1)
    with counted(stack, settings) as (clicks, answers), file.open("ab", buffering=0) as rows:

        def sample() -> None:
            sent_ms, received_ms = np.array(receiver.take()).reshape(-1, 2).T
            answered = answers()  # first, or the lag might be negative
            lag = clicks() - answered
            latencies = binned(received_ms - sent_ms)
            row = Row(time.time(), readings(stack), _checkpoint(stack, job), lag, latencies, jvm_readings(stack))
            rows.write(msgspec.json.encode(row) + b"\n")
            if next(samples) % SAMPLES_PER_LINE == 0:
                note(
                    f"{(row.at_s - began) / 60:,.0f} of {options.hours * 60:,.0f} min: {answered:,} clicks answered, "
                    f"{lag:,} wait; p99 {percentile([row.latencies], 0.99):,.0f} ms"
                )

        sampler = Sampler(SAMPLE_SECONDS, sample)
        receiver.start()
        load.start()
        sampler.start()
        swaps = _Regularly(options.swap_minutes * 60, lambda: enter_other(registry))
        submissions = _Regularly(options.submission_minutes * 60, lambda: _submit_and_cancel(stack, settings, context))
        ends = time.monotonic() + options.hours * 3600
        try:
            while time.monotonic() < ends and sampler.is_alive():
                swaps.call_if_due()
                submissions.call_if_due()
                time.sleep(1)
        except KeyboardInterrupt:
            done["interrupted"] = "yes"
        finally:
            sampler.stop()
            sent = load.stop()
            receiver.stop()
        with suppress(flink_client.JobError):  # what is missing is reported
            flink_client.wait_for(lambda: clicks() == answers(), PATIENCE_SECONDS / 10, "the last scores")
        done |= {"clicks sent": f"{sent:,}", "hot swaps": str(swaps.calls), "submissions": str(submissions.calls)}
        if clicks() != answers():
            done["without an answer"] = f"{clicks() - answers():,} clicks"


class _Regularly:
    """Calls a function every so many seconds, from now on."""

    def __init__(self, seconds: float, function: Callable[[], object]):
        self._seconds, self._function = seconds, function
        self._began = time.monotonic()
        self.calls = 0

    def call_if_due(self) -> None:
        if time.monotonic() - self._began >= (self.calls + 1) * self._seconds:
            self._function()
            self.calls += 1


def _submit_and_cancel(stack: LocalStack, settings: Settings, context: BenchContext) -> None:
    overrides = [*context.common, *fresh_run("soak"), f"sessions.name=soak-sessions-{time.time():.0f}"]
    job = flink_client.submit(stack, CONF, overrides, module=OTHER_JOB)
    flink_client.wait_until_running(stack, job)
    time.sleep(OTHER_JOB_SECONDS)
    flink_client.cancel(stack, job)


def _checkpoint(stack: LocalStack, job: str) -> Checkpoint | None:
    """The newest completed checkpoint; None if there is none, or no answer."""
    try:
        newest = stack.rest(f"/jobs/{job}/checkpoints")["latest"]["completed"]
    except OSError:
        return None
    if newest is None:
        return None
    return Checkpoint(newest["state_size"], newest["checkpointed_size"], newest["end_to_end_duration"])


def _report(directory: Path, done: Mapping[str, str], block_hours: float) -> int:
    """Write the report of the rows in a directory."""
    file = directory / "rows.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    rows = [msgspec.json.decode(line, type=Row) for line in lines]
    if not rows:
        print(f"soak: {file}: no rows; a run writes one every {SAMPLE_SECONDS:g} s", file=sys.stderr)
        return 1
    report = markdown(rows, done, block_hours, warm_up_hours=block_hours)
    (directory / "report.md").write_text(report)
    write_plots(directory, rows)
    console.print(report, markup=False)
    note(f"wrote {directory / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
