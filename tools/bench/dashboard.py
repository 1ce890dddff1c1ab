"""Cost of the dashboard: its effect on the job's latency, and its response time while the job is busy.

`make bench` measures a minute; `python -m tools.bench.dashboard --minutes 10` does as long as you like, alone, and
writes build/bench_dashboard.json.
"""

import argparse
import sys
import threading
import time

import msgspec
import numpy as np
import psutil

from jobs.common.settings import TopicNames
from tools.bench.context import CONF, BenchContext, bench_context, fresh_run
from tools.bench.latency import SHIPPED, latency_figures, latency_words, warm_up
from tools.bench.rates import MIB
from tools.console import note, step
from tools.paths import PROJECT
from tools.stack import flink_client
from tools.stack.http_client import get_text
from tools.stack.local_stack import LocalStack, StackError
from tools.stack.processes import ProcessError, stop

REPORT = PROJECT / "build" / "bench_dashboard.json"
RATE = 10_000
WITH_SECONDS = 60
WITHOUT_SECONDS = 60
RUNS = {"without": "before", "with": "with the dashboard", "without_again": "after"}
PAGES = ("live", "experiment", "kpis", "models", "drift", "dead-letters")


def measure(context: BenchContext, seconds: int = WITH_SECONDS) -> dict:
    """The figures of a dashboard that runs for `seconds` beside the warmed-up job."""
    stack = context.cluster()
    overrides = [*fresh_run("dashboard", "clicks", "scores"), *SHIPPED]
    topics = context.create_topics(overrides).topics
    with context.running(overrides):
        step("Warming up the job for a minute")
        warm_up(stack.bootstrap_servers, topics)
        figures = dashboard_figures(stack, [*context.common, *overrides], topics, seconds)
    for words in rows(figures):
        note(": ".join(words))
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    answers, held = figures["answers"], figures["dashboard_mib"]
    latencies = "; ".join(f"{period} {latency_words(figures[name])}" for name, period in RUNS.items())
    asked = answers["pages"] + answers["failed"]
    return [
        (f"job latency at {RATE:,} events/s", latencies),
        ("response time of the dashboard", f"{latency_words(answers)}; {answers['failed']} of {asked} requests failed"),
        ("resources of the dashboard", f"{figures['dashboard_cores']} cores, {held[0]} MiB, at the end {held[1]} MiB"),
    ]


class Viewer(threading.Thread):
    """Requests one page of a dashboard after the other, one per second, like a user who looks at it."""

    def __init__(self, port: int):
        super().__init__(daemon=True)
        self._port = port
        self._stopping = threading.Event()
        self.answered_ms: list[float] = []
        self.failed = 0

    def run(self) -> None:
        number = 0
        while not self._stopping.wait(1.0):
            began = time.perf_counter()
            try:
                get_text(self._port, f"/data/{PAGES[number % len(PAGES)]}")
            except OSError:
                self.failed += 1
            else:
                self.answered_ms.append((time.perf_counter() - began) * 1000)
            number += 1

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def dashboard_figures(stack: LocalStack, overrides: list[str], topics: TopicNames, seconds: int) -> dict:
    """Latency of the job at RATE without the dashboard, with it for `seconds`, and without it again; and response times
    of the dashboard.

    The job is already running and warm. Times in ms, memory in MiB, load in cores.
    """
    step(f"{RATE:,} events/s without the dashboard, {WITHOUT_SECONDS} s")
    figures = {"without": latency_figures(stack.bootstrap_servers, topics, RATE, WITHOUT_SECONDS)}
    step(f"{RATE:,} events/s with the dashboard, {seconds} s")
    stack.start_dashboard(CONF, overrides)
    process = stack.processes["dashboard"]
    looked_at = psutil.Process(process.pid)
    viewer = Viewer(process.ports["page"])
    viewer.start()
    try:
        began, cpu, memory = time.monotonic(), looked_at.cpu_times(), looked_at.memory_info().rss
        figures["with"] = latency_figures(stack.bootstrap_servers, topics, RATE, seconds)
        spent = sum(looked_at.cpu_times()[:2]) - sum(cpu[:2])
        figures["dashboard_cores"] = round(spent / (time.monotonic() - began), 3)
        figures["dashboard_mib"] = [round(size / MIB) for size in (memory, looked_at.memory_info().rss)]
    finally:
        viewer.stop()
        stop([process])
    p50, p99, longest = np.percentile(viewer.answered_ms, [50, 99, 100]).round(1).tolist()
    figures["answers"] = {
        "pages": len(viewer.answered_ms),
        "failed": viewer.failed,
        "p50": p50,
        "p99": p99,
        "longest": longest,
    }
    step(f"{RATE:,} events/s without the dashboard again, {WITHOUT_SECONDS} s")
    figures["without_again"] = latency_figures(stack.bootstrap_servers, topics, RATE, WITHOUT_SECONDS)
    return figures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.bench.dashboard", description="Measure the load of the dashboard.")
    parser.add_argument("--minutes", type=float, default=10, help="minutes with the dashboard (default: 10)")
    options = parser.parse_args(arguments)
    try:
        with bench_context("bench-dashboard-") as context:
            figures = measure(context, round(options.minutes * 60))
    except (StackError, ProcessError, flink_client.JobError) as error:
        print(f"bench_dashboard: {error}", file=sys.stderr)
        return 1
    REPORT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    print(f"wrote {REPORT.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
