"""Send a job three times as many clicks as it can score, and see how it gets over that.

    make overload MINUTES=5 HOT=0.2       # or: python -m tools.overload --minutes 5 --hot 0.2

The job has one core, and one click per batch. First a backlog shows the capacity. Then clicks come at a tenth of it,
for MINUTES at three times as much, and at a tenth again until the lag has drained and a minute longer. Afterwards all
records are compared with an offline run. The report is build/overload/report.md. The exit code is 1 if a record is
wrong, the lag did not drain, or so many clicks could not be sent.
"""

import argparse
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from jobs.common.settings import Settings
from tools.bench.context import CONF, FAILURES, BenchContext, bench_context, fresh_run
from tools.bench.latency import Receiver
from tools.console import console, note, step
from tools.overload.figures import NO_ANSWER, Plan, Sample, drained, find_figures
from tools.overload.report import markdown, write_plots
from tools.paths import PROJECT
from tools.stack import flink_client
from tools.stack.http_client import get_text
from tools.stack.local_stack import LocalStack
from tools.trials.answers import rejection_in, score_in
from tools.trials.capacity import BATCH_ROWS, PATIENCE_SECONDS, counted, measured_capacity, one_core
from tools.trials.sampling import Sampler, readings
from tools.trials.steady_load import Phase, SteadyLoad
from tools.trials.topics import read_all
from tools.trials.verdict import Clicks, differences
from udfs.config.durations import duration_ms
from udfs.models.bundle import load_bundle

OUT = PROJECT / "build" / "overload"
PARALLELISM = 2
NORMAL = 0.1  # of the capacity
LEAST_SENT = 0.9  # of what was planned
BEFORE_SECONDS, AFTER_SECONDS = 30, 60
SAMPLE_SECONDS = 3.0
SAMPLES_PER_LINE = 10  # of progress


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.overload", description="Send a job more clicks than it can score.")
    parser.add_argument("--minutes", type=float, default=5, help="how long the overload lasts (default: 5)")
    parser.add_argument("--times", type=float, default=3, help="overload as a multiple of the capacity (default: 3)")
    parser.add_argument("--hot", type=float, default=0, help="share of its clicks that are one user's (default: 0)")
    parser.add_argument(
        "--rows", type=int, default=BATCH_ROWS, help=f"workers.batch_rows of the job (default: {BATCH_ROWS})"
    )
    options = parser.parse_args(arguments)
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0 (got {options.minutes})")
    if not options.times > 1:
        parser.error(f"--times must be above 1, or it is no overload (got {options.times})")
    if not 0 <= options.hot < 1:
        parser.error(f"--hot must be at least 0 and below 1 (got {options.hot})")
    try:
        with bench_context("overload-", task_managers_at=one_core()) as context:
            return _run(context, options.minutes * 60, options.times, options.hot, options.rows)
    except (*FAILURES, RuntimeError) as error:
        print(f"overload: {error}", file=sys.stderr)
        return 1


def _run(context: BenchContext, seconds: float, times: float, hot: float, rows: int) -> int:
    bundle = context.model.bundle
    stack = context.cluster()
    overrides = [
        *fresh_run("overload"),
        "model.engine=native",  # the same digits whatever the size of a batch
        f"workers.batch_rows={rows}",
        f"job.parallelism={PARALLELISM}",
    ]
    settings = context.create_topics(overrides)
    stack.start_dashboard(CONF, [*context.common, *overrides])
    receiver = Receiver(stack.bootstrap_servers, settings.topics.scores)
    receiver.start()
    try:
        with context.running(overrides) as job:
            capacity = measured_capacity(stack, job, settings)
            plan = Plan(capacity, NORMAL * capacity, BEFORE_SECONDS, times * capacity, seconds, hot)
            samples = _overload(stack, settings, plan)
    finally:
        receiver.stop()
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "samples.json").write_bytes(msgspec.json.encode({"plan": plan, "samples": samples}))
    context.stop_cluster()  # the offline run can use its cores
    records, problems = _problems(stack, settings, bundle)
    if drained(samples, plan) is None:
        problems.append(f"the lag has not drained: {samples[-1].lag:,} clicks at the end")
    sent_ms, received_ms = np.array(receiver.times).reshape(-1, 2).T
    budget_ms = duration_ms(settings.execution.latency_budget)
    figures = find_figures(samples, plan, sent_ms, received_ms, budget_ms)
    if figures.sent_rate < LEAST_SENT * plan.overload:
        problems.append(f"only {figures.sent_rate:,.0f} of {plan.overload:,.0f} clicks per second could be sent")
    report = markdown(plan, figures, problems, records)
    (OUT / "report.md").write_text(report)
    write_plots(OUT, samples, plan, sent_ms, received_ms)
    console.print(report, markup=False)
    note(f"wrote {(OUT / 'report.md').relative_to(PROJECT)}")
    return int(bool(problems))


def _overload(stack: LocalStack, settings: Settings, plan: Plan) -> list[Sample]:
    step(f"{plan.overload:,.0f} clicks per second for {plan.overload_s / 60:g} min, then {plan.normal:,.0f}")
    samples: list[Sample] = []
    phases = [Phase(plan.normal, plan.before_s), Phase(plan.overload, plan.overload_s, plan.hot), Phase(plan.normal)]
    with counted(stack, settings) as (clicks, answers):

        def sample() -> None:
            rss = {name: reading.rss for name, reading in readings(stack).items()}
            answered = answers()  # first, or the lag might be negative
            now = Sample(time.time(), clicks(), answered, rss, _backlog(stack))
            if len(samples) % SAMPLES_PER_LINE == 0:
                note(f"{now.clicks:,} clicks sent, of which {now.lag:,} wait")
            samples.append(now)

        sample()
        load = SteadyLoad(stack.bootstrap_servers, settings.topics.clicks, phases)
        load.start()
        sampler = Sampler(SAMPLE_SECONDS, sample)
        sampler.start()
        excess = (plan.overload / plan.capacity - 1) * plan.overload_s
        patience = plan.before_s + 3 * (plan.overload_s + excess) + 120
        try:
            flink_client.wait_for(lambda: drained(list(samples), plan) is not None, patience, "the lag to drain", 1.0)
            note(f"the lag has drained; {AFTER_SECONDS} s longer")
            time.sleep(AFTER_SECONDS)
        except flink_client.JobError as error:
            note(str(error))  # the report says it too
        finally:
            sampler.stop()
            load.stop()
        flink_client.wait_for(lambda: clicks() == answers(), PATIENCE_SECONDS, "the last scores")
    return samples


def _backlog(stack: LocalStack) -> dict | None:
    """What the dashboard says of a backlog; None if it sees none."""
    try:
        page = get_text(stack.processes["dashboard"].ports["page"], "/data/live")
    except OSError:
        return {"trend": NO_ANSWER}
    return msgspec.json.decode(page)["status"]["backlog"]


def _problems(stack: LocalStack, settings: Settings, bundle: Path) -> tuple[int, list[str]]:
    """The number of clicks, and what is wrong with the answers to them."""
    step("Checking every record")
    topics, servers = settings.topics, stack.bootstrap_servers
    clicks = Clicks(
        read_all(servers, topics.clicks, PATIENCE_SECONDS),
        [],
        settings,
        load_bundle(bundle, settings.state.history_length),
    )
    scores = [score_in(record.value) for record in read_all(servers, topics.scores, PATIENCE_SECONDS)]
    dead_letters = [rejection_in(record.value) for record in read_all(servers, topics.dead_letters, PATIENCE_SECONDS)]
    return len(clicks), [
        *differences("scores", clicks.scores(), scores),
        *differences("dead letters", clicks.dead_letters, dead_letters),
    ]


if __name__ == "__main__":
    sys.exit(main())
