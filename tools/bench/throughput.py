"""Throughput of the job in events per second, Kafka to Kafka, beside the bare loop in the same run.

All clicks wait in Kafka, the job reads them from the beginning and writes their scores; its rate is that between two
marks, after start-up.
"""

from itertools import islice
from pathlib import Path

import numpy as np

from tools.bench.bare_loop import bare_loop_rate
from tools.bench.context import COUNTED_FROM, COUNTED_TO, BenchContext, fresh_run
from tools.bench.hot_swap import POLL_SECONDS, job_swap_figures, job_swap_words
from tools.bench.latency import in_a_process
from tools.bench.rates import rate_between
from tools.console import note, step
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.metrics import job_metric
from udfs.kafka.reading import read_topic
from udfs.models.bundle import load_bundle

BACKENDS = {"heap": "hashmap", "rocksdb": "rocksdb"}
PARALLELISMS = (1, 2, 4)
BATCH_ROWS = 5_000  # of the bare loop
SWAP_PARALLELISM, SWAP_ROWS = 2, 1_000
SCORES_SAMPLED = 10_000


def measure(context: BenchContext) -> dict:
    """Events per second of the bare loop and, by state backend and parallelism, of the job; bytes per user in a
    savepoint, and of the average record; slow batches during a hot swap in the job."""
    figures: dict = {"features": context.model.features, "trees": context.model.trees}
    figures["bare_loop"] = bare_loop(context)
    clicks = context.waiting_clicks
    stack = context.cluster()
    figures["job"] = {name: {} for name in BACKENDS}
    for parallelism in PARALLELISMS:
        for name, backend in BACKENDS.items():
            step(f"Throughput: state on {name}, parallelism {parallelism}")
            overrides = reading(clicks, f"throughput-{name}-{parallelism}", parallelism, backend)
            settings = context.create_topics(overrides)
            with context.running(overrides) as job:
                rate = steady_rate(stack, job)
                figures["job"][name][str(parallelism)] = rate
                note(f"{rate:,} events/s, {rate / figures['bare_loop']:.2f} of the bare loop")
                if (name, parallelism) == ("rocksdb", PARALLELISMS[-1]):
                    size = _directory_bytes(flink_client.stop_with_savepoint(stack, job))
                    users = len({key for key, _, _ in context.records})
                    figures["state_bytes_per_user"] = round(size / users)
    scores = islice(read_topic(settings.kafka, settings.topics.scores), SCORES_SAMPLED)
    figures["record_bytes"] = {
        "clicks": context.key_bytes + float(np.mean([len(value) for _, value, _ in context.records])),
        "scores": context.key_bytes + float(np.mean([len(value) for value in scores])),
    }
    figures["swap"] = _swap(context, stack, clicks)
    note(job_swap_words(figures["swap"]))
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    bare_loop = figures["bare_loop"]
    job_rates = [
        (f"state on {name}, parallelism {parallelism}", f"{rate:,} events/s, {rate / bare_loop:.2f} of the bare loop")
        for name, rates in figures["job"].items()
        for parallelism, rate in rates.items()
    ]
    return [
        ("model", f"{figures['features']} features, {figures['trees']} trees"),
        ("bare loop: one process, no Flink, no Kafka", f"{bare_loop:,} events/s"),
        *job_rates,
        ("state per user in a savepoint", f"{figures['state_bytes_per_user']:,} bytes"),
        (f"hot swap in the job at full load, batches of {SWAP_ROWS:,} rows", job_swap_words(figures["swap"])),
    ]


def bare_loop(context: BenchContext) -> int:
    """Events per second of the bare loop over the same clicks."""
    payloads, bundle = [value for _, value, _ in context.records], context.model.bundle
    step("Bare loop")
    rate = round(in_a_process(_bare_loop, payloads, bundle))
    note(f"{rate:,} events/s")
    return rate


def reading(clicks: str, run: str, parallelism: int, backend: str = "rocksdb") -> list[str]:
    """Settings of a job that reads a topic of clicks from its beginning, and writes to topics of its own."""
    return [
        *fresh_run(run, "scores", "shadow_scores"),
        f"topics.clicks={clicks}",
        "source.start=earliest",
        f"state.backend={backend}",
        f"job.parallelism={parallelism}",
    ]


def steady_rate(stack: LocalStack, job: str, first: int = COUNTED_FROM, last: int = COUNTED_TO) -> int:
    """Events per second between two marks, by the job's own counter."""
    return round(rate_between(lambda: job_metric(stack, job, "scored"), first, last, note))


def _swap(context: BenchContext, stack: LocalStack, clicks: str) -> dict:
    step("Hot swap in the job at full load")
    overrides = [
        *reading(clicks, "throughput-swap", SWAP_PARALLELISM),
        f"model.registry={context.registry}",
        f"model.poll={POLL_SECONDS * 1000:.0f} ms",
        f"workers.batch_rows={SWAP_ROWS}",
    ]
    context.create_topics(overrides)
    with context.running(overrides) as job:
        flink_client.wait_for(
            lambda: job_metric(stack, job, "scored") >= COUNTED_FROM, 300, f"job {job} to score {COUNTED_FROM:,} clicks"
        )
        return job_swap_figures(stack, job, context.registry)


def _bare_loop(payloads: list[bytes], bundle: Path) -> float:
    return bare_loop_rate(payloads, load_bundle(bundle, 64), BATCH_ROWS, COUNTED_FROM)


def _directory_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
