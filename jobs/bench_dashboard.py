"""What the dashboard costs the job, and how fast it answers while the job is busy.

`make bench` measures a minute; `python -m jobs.bench_dashboard --minutes 10` does as long as you like, alone, and
writes build/bench_dashboard.json.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import psutil

from jobs import flink_client
from jobs.bench_latency import latencies, latency_figures
from jobs.local_http import get_text
from jobs.local_stack import PROJECT, LocalStack, StackError
from jobs.processes import ProcessError, stop
from jobs.settings import Topics, load_settings
from jobs.topics import create_topics
from training.bundle import write_bundle
from training.examples import simulated_examples
from training.settings import Training
from training.simulate import Simulation, simulate
from training.trainer import train_model

CONF = PROJECT / "conf" / "local.yaml"
REPORT = PROJECT / "build" / "bench_dashboard.json"
RATE = 10_000
WARM_UP_SECONDS = 60
WITHOUT_SECONDS = 60
PAGES = ("live", "experiment", "kpis", "models", "drift", "dead-letters")


class Viewer(threading.Thread):
    """Asks a dashboard for one page after the other, one a second, as somebody who looks at it does."""

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


def dashboard_figures(stack: LocalStack, conf: Path, overrides: Sequence[str], topics: Topics, seconds: int) -> dict:
    """Latency of the job without the dashboard, with it for some seconds, and without it again, at RATE; what the
    dashboard answers meanwhile.

    The job runs already, and is warm. Times in ms, memory in MiB, load in cores.
    """
    figures = {"without": latency_figures(stack.bootstrap_servers, topics, RATE, WITHOUT_SECONDS)}
    stack.start_dashboard(conf, overrides)
    process = stack.processes["dashboard"]
    looked_at = psutil.Process(process.pid)
    viewer = Viewer(process.ports["page"])
    viewer.start()
    try:
        began, cpu, memory = time.monotonic(), looked_at.cpu_times(), looked_at.memory_info().rss
        figures["with"] = latency_figures(stack.bootstrap_servers, topics, RATE, seconds)
        spent = sum(looked_at.cpu_times()[:2]) - sum(cpu[:2])
        figures["dashboard_cores"] = round(spent / (time.monotonic() - began), 3)
        figures["dashboard_mib"] = [round(of / 2**20) for of in (memory, looked_at.memory_info().rss)]
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
    figures["without_again"] = latency_figures(stack.bootstrap_servers, topics, RATE, WITHOUT_SECONDS)
    return figures


def dashboard_words(figures: dict) -> str:
    of_the_job = {name: figures[name] for name in ("without", "with", "without_again")}
    told = (f"{name.replace('_', ' ')} p50 {of['p50']} ms, p99 {of['p99']} ms" for name, of in of_the_job.items())
    answers = figures["answers"]
    return (
        f"the job {'; '.join(told)}; pages answered in p50 {answers['p50']} ms, p99 {answers['p99']} ms, "
        f"{answers['failed']} of {answers['pages'] + answers['failed']} failed; {figures['dashboard_cores']} cores, "
        f"{figures['dashboard_mib'][0]} to {figures['dashboard_mib'][1]} MiB"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="jobs.bench_dashboard", description="What the dashboard costs the job.")
    parser.add_argument("--minutes", type=float, default=10, help="beside the dashboard; 10")
    options = parser.parse_args(arguments)
    directory = Path(tempfile.mkdtemp(prefix="bench-dashboard-", dir=PROJECT / "build"))
    bundle = directory / "model"
    trained = train_model(simulated_examples(simulate(Simulation(2_000, 12))), Training(folds=2, rounds=100))
    write_bundle(bundle, trained.manifest, trained.files)
    overrides = [f"model.bundle={bundle}", "source.start=latest", "decode.max_behind=36500 d"]
    try:
        with LocalStack(directory / "stack", task_managers=1, slots=4, task_manager_memory="6g") as stack:
            settings = load_settings(CONF, [*overrides, f"kafka.bootstrap.servers={stack.bootstrap_servers}"])
            create_topics(settings, partitions=4, replication=1)
            flink_client.wait_until_running(stack, flink_client.submit(stack, CONF, overrides))
            print(f"==> Warming up, {WARM_UP_SECONDS} s", flush=True)
            latencies(stack.bootstrap_servers, settings.topics, RATE // 3, WARM_UP_SECONDS)
            print(f"==> {RATE} events/s: a minute, {options.minutes:g} min with the dashboard, a minute", flush=True)
            figures = dashboard_figures(stack, CONF, overrides, settings.topics, round(options.minutes * 60))
    except (StackError, ProcessError, flink_client.JobError) as error:
        print(f"bench_dashboard: {error}", file=sys.stderr)
        return 1
    REPORT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    print(dashboard_words(figures))
    print(f"wrote {REPORT.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
