"""How fast the job is on this machine: `make bench` prints a table and writes build/bench.json. One run, one machine.

Throughput: a million clicks wait in Kafka, the job scores them into a sink that throws them away; the rate is that
between the two marks below, after start-up. Latency: producer to consumer through Kafka, at steady rates, with the
shipped settings. The bare loop does the same work in one plain process.
"""

import os
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from jobs import flink_client
from jobs.bare_loop import bare_loop_rate
from jobs.bench_dashboard import dashboard_figures, dashboard_words
from jobs.bench_inference import inference_figures, inference_words
from jobs.bench_latency import HOURS, SETTLE_SECONDS, USERS, in_a_process, latencies, latency_figures
from jobs.bench_measuring import USER_SHARE, measuring_figures
from jobs.bench_preparation import preparation_figures
from jobs.bench_swap import BATCH_BOUND_MS, job_swap_figures, swap_figures
from jobs.job_metrics import job_metric
from jobs.local_stack import PROJECT, LocalStack, StackError
from jobs.processes import ProcessError
from jobs.replay_send import send_at_once
from jobs.settings import Topics, load_settings
from jobs.topics import create_topics
from training.bundle import write_bundle
from training.examples import simulated_examples
from training.kafka_source import read_topic
from training.records import click_records
from training.settings import Training
from training.simulate import Simulation, simulate
from training.trainer import train_model
from udfs.model import load_bundle

CONF = PROJECT / "conf" / "local.yaml"
REPORT = PROJECT / "build" / "bench.json"

EVENTS = 1_000_000
COUNTED_FROM, COUNTED_TO = 200_000, 950_000  # the end is left out: partitions do not end together
SWAP_ROWS = 1_000  # of a batch
COPIES = 10  # of the clicks, for training's examples
POLL_SECONDS = 2  # serving the metrics costs the TaskManager work that the job then lacks
ALL_TREES = Training(
    rounds=200, patience=200, folds=2, prune=False, compare=(), parameters={"learning_rate": 0.02, "max_depth": 4}
)
BACKENDS = {"heap": "hashmap", "rocksdb": "rocksdb"}
PARALLELISMS = (1, 2, 4)
FOR_RATE = ("execution.bundle_size=5000", "execution.bundle_time=100 ms", "execution.buffer_timeout=50 ms")
FOR_SWAP = ("execution.bundle_size=1000", "job.parallelism=2")
#: What each profile is submitted with, the rates that it is measured at, and the one that warms it up.
PROFILES = {
    "throughput": ((), (500, 2_000, 10_000), 3_000),
    "latency": (
        ("execution.profile=latency", "execution.buffer_timeout=1 ms", "job.parallelism=1"),
        (500, 1_000, 2_000),
        1_500,
    ),
}
WARM_UP_SECONDS = 60
MEASURED_SECONDS = 20
DASHBOARD_SECONDS = 60
MEASURED_CLICKS = 250_000  # which the score job scores while the jobs that measure run beside it

console = Console(highlight=False)


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=PROJECT / "build"))
    figures: dict = {}
    try:
        _measure(directory, figures)
    except (StackError, ProcessError, flink_client.JobError) as error:
        figures["failed"] = str(error)  # what was measured by then is no less true
        print(f"bench: {error}", file=sys.stderr)
    else:
        console.print(_table(figures))
    REPORT.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    console.print(f"wrote {REPORT.relative_to(PROJECT)}")
    return int("failed" in figures)


def step(what: str) -> None:
    console.print(f"[bold]==> {what}[/bold]", soft_wrap=True)


def _measure(directory: Path, figures: dict) -> None:
    step("Training a model of all features, 200 trees")
    bundle = directory / "model"
    examples = simulated_examples(simulate(Simulation(3_000, 24)))
    trained = train_model(examples, ALL_TREES)
    write_bundle(bundle, trained.manifest, trained.files)
    figures |= {"trees": int(trained.manifest.metrics["rounds"]), "features": len(trained.manifest.features)}

    step("Engines by batch size, shadows")
    figures["inference"] = inference_figures(load_bundle(bundle, 64), examples)
    for words in inference_words(figures["inference"]).items():
        console.print(f"    {': '.join(words)}")

    step("A hot swap at full load")
    figures["swap"] = swap_figures(bundle, examples, SWAP_ROWS, directory / "registry")
    console.print(f"    {_swap_words(figures['swap'])}")
    del examples

    step(f"Simulating {EVENTS} clicks of {USERS} users")
    stream = simulate(Simulation(USERS, HOURS))
    records = list(islice(click_records(stream.clicks()), EVENTS))
    users = len({key for key, _, _ in records})
    figures["cores"] = os.cpu_count()
    key_bytes = float(np.mean([len(key) for key, _, _ in records]))
    figures["record_bytes"] = {"clicks": key_bytes + float(np.mean([len(value) for _, value, _ in records]))}

    step("The bare loop")
    figures["bare_loop"] = in_a_process(_bare_loop, [value for _, value, _ in records], bundle)
    console.print(f"    {figures['bare_loop']:.0f} events/s")

    step(f"Preparing examples of {COPIES * EVENTS} archived clicks")
    figures["preparation"] = preparation_figures(records, COPIES, directory / "preparation")
    shutil.rmtree(directory / "preparation")

    with LocalStack(
        directory / "stack", task_managers=1, slots=4, task_manager_memory="6g", report=console.print
    ) as stack:
        common = [f"model.bundle={bundle}", "decode.max_behind=36500 d"]
        every_topic = [f"model.registry={directory / 'registry'}", f"feature_log.user_share={USER_SHARE}"]
        settings = load_settings(CONF, [*common, *every_topic, f"kafka.bootstrap.servers={stack.bootstrap_servers}"])
        create_topics(settings, partitions=4, replication=1)
        step("Sending the clicks to Kafka")
        send_at_once(stack.bootstrap_servers, settings.topics.clicks, records)
        del records[MEASURED_CLICKS:]

        figures["throughput"] = {name: {} for name in BACKENDS}
        for parallelism in PARALLELISMS:
            for name, backend in BACKENDS.items():
                step(f"Throughput: state on {name}, parallelism {parallelism}")
                overrides = [*common, *FOR_RATE, f"state.backend={backend}", f"job.parallelism={parallelism}"]
                job = flink_client.submit(stack, CONF, [*overrides, "source.start=earliest"], module="jobs.bench_job")
                rate = _steady_rate(stack, job)
                figures["throughput"][name][f"p{parallelism}"] = round(rate)
                console.print(f"    {rate:.0f} events/s")
                if (name, parallelism) == ("rocksdb", PARALLELISMS[-1]):
                    savepoint = flink_client.stop_with_savepoint(stack, job)
                    size = sum(file.stat().st_size for file in savepoint.rglob("*") if file.is_file())
                    figures["state_bytes_per_user"] = round(size / users)
                else:
                    flink_client.cancel(stack, job)

        step("A hot swap in the job at full load")
        figures["job_swap"] = job_swap_figures(stack, CONF, [*common, *FOR_SWAP], directory / "registry", COUNTED_FROM)
        console.print(f"    {_job_swap_words(figures['job_swap'])}")

        figures["latency_ms"] = {}
        for profile in PROFILES:
            job = _warm_job(stack, settings.topics, profile, common)
            figures["latency_ms"][profile] = _profile_latencies(stack, settings.topics, profile)
            if profile == "throughput":
                step("The dashboard beside the job")
                figures["dashboard"] = dashboard_figures(stack, CONF, common, settings.topics, DASHBOARD_SECONDS)
                console.print(f"    {dashboard_words(figures['dashboard'])}")
            flink_client.cancel(stack, job)
        step("The jobs that measure")
        figures["measuring"] = measuring_figures(stack, CONF, common, settings.topics, records)
        console.print(f"    {_measuring_words(figures['measuring'])}")

        scores = islice(read_topic(settings.kafka, settings.topics.scores), 10_000)
        figures["record_bytes"]["scores"] = key_bytes + float(np.mean([len(value) for value in scores]))
    best = max(rate for rates in figures["throughput"].values() for rate in rates.values())
    figures["best_to_bare_loop"] = round(best / figures["bare_loop"], 3)


def _warm_job(stack: LocalStack, topics: Topics, profile: str, overrides: list[str]) -> str:
    """The job in a profile, warmed up."""
    of_profile, _, rate = PROFILES[profile]
    step(f"Latency, profile {profile}: warming up")
    job = flink_client.submit(stack, CONF, [*overrides, *of_profile, "source.start=latest"])
    flink_client.wait_until_running(stack, job)
    latencies(stack.bootstrap_servers, topics, rate, WARM_UP_SECONDS)
    return job


def _profile_latencies(stack: LocalStack, topics: Topics, profile: str) -> dict[str, dict]:
    """By rate, p50 and p99 of the running job in ms."""
    figures = {}
    for rate in PROFILES[profile][1]:
        step(f"Latency, profile {profile}, at {rate} events/s")
        found = latency_figures(stack.bootstrap_servers, topics, rate, SETTLE_SECONDS + MEASURED_SECONDS)
        figures[str(rate)] = found
        console.print(f"    p50 {found['p50']} ms, p99 {found['p99']} ms of {found['events']} events")
    return figures


def _bare_loop(payloads: list[bytes], bundle: Path) -> float:
    return round(bare_loop_rate(payloads, load_bundle(bundle, 64), batch=5_000, skip=COUNTED_FROM))


def _steady_rate(stack: LocalStack, job: str) -> float:
    """Events a second between two marks, by the job's own counter, at the times when it was seen to pass them."""
    marks: list[tuple[float, int]] = []

    def passed() -> bool:
        count = job_metric(stack, job, "scored")
        if count >= COUNTED_FROM and (not marks or count > marks[-1][1]):
            marks.append((time.monotonic(), count))
        return count >= COUNTED_TO

    flink_client.wait_for(passed, 600, f"job {job} to score {COUNTED_TO} clicks", POLL_SECONDS)
    (began, first), (ended, last) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def _table(figures: dict) -> Table:
    table = Table("what", "figure", title=f"{figures['features']} features, {figures['trees']} trees")
    for name, rates in figures["throughput"].items():
        for parallelism, rate in rates.items():
            ratio = rate / figures["bare_loop"]
            table.add_row(f"state on {name}, {parallelism}", f"{rate} events/s, {ratio:.2f} of the bare loop")
    table.add_row("bare loop, one process", f"{figures['bare_loop']} events/s")
    for profile, rates in figures["latency_ms"].items():
        for rate, latency in rates.items():
            table.add_row(f"profile {profile} at {rate} events/s", f"p50 {latency['p50']} ms, p99 {latency['p99']} ms")
    for what, words in inference_words(figures["inference"]).items():
        table.add_row(what, words)
    table.add_row("dashboard", dashboard_words(figures["dashboard"]))
    table.add_row("hot swap", _swap_words(figures["swap"]))
    table.add_row("jobs that measure", _measuring_words(figures["measuring"]))
    table.add_row("hot swap in the job", _job_swap_words(figures["job_swap"]))
    made = figures["preparation"]
    table.add_row(
        f"examples of {made['events']} clicks",
        f"{made['events_per_s']} events/s, {made['seconds']} s, {made['peak_mib']} MiB at most, "
        f"{made['events_per_s'] / made['pandas_events_per_s']:.2f} of pandas with 5 features",
    )
    table.add_row("state a user", f"{figures['state_bytes_per_user']} bytes")
    return table


def _swap_words(swap: dict[str, float]) -> str:
    return (
        f"longest batch of {SWAP_ROWS} {swap['longest_during_ms']} ms while another model is taken over, "
        f"{swap['longest_before_ms']} ms before"
    )


def _job_swap_words(swap: dict[str, dict[str, int]]) -> str:
    told = (f"{of['slow']} of {of['batches']} {when}" for when, of in swap.items())
    return f"batches of more than {BATCH_BOUND_MS} ms: {', '.join(told)} a swap"


def _measuring_words(rates: dict[str, int]) -> str:
    alone = ", ".join(f"{name} {rate}" for name, rate in rates.items() if name != "beside")
    return f"records/s of each alone: {alone}; events/s of the score job beside all of them: {rates['beside']}"


if __name__ == "__main__":
    sys.exit(main())
