"""Hot swap: the duration of batches while the worker switches to another model."""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.metrics import job_buckets, job_metric
from training.bundles.writer import write_bundle
from training.data.examples import Examples
from training.rollout.ledger import append, next_entry, upload_bundle
from training.rollout.transitions import first
from udfs.models.bundle import directory_files, load_bundle
from udfs.rollout.registry import Registry
from udfs.serving.bootstrap import follow, serving_registry
from udfs.serving.deployment import Deployment, Options

POLL_SECONDS = 0.5
SECONDS_BEFORE, SECONDS_AFTER = 3.0, 2.0
BATCH_BOUND_MS = 100  # one of udfs.metrics.LATENCY_BOUNDS_MS
JOB_TIMEOUT_S = 300
HISTORY_LENGTH = 64  # as conf/base.yaml has it
JOB_SECONDS = 3.0  # before and during a swap in the job: its clicks must not run out meanwhile


def two_models(bundle: Path, directory: Path) -> Path:
    """Make `directory` a registry with a model under its own version, which serves, and under another; returns it."""
    registry = Registry(str(directory))
    old = load_bundle(bundle, None)
    files = {name: (bundle / name).read_bytes() for name in old.manifest.files}
    again = msgspec.structs.replace(old.manifest, version=f"{old.manifest.version}-again")
    write_bundle(directory / "again", again, files)
    for staged in (bundle, directory / "again"):
        upload_bundle(registry, directory_files(staged))
    _enter(registry, old.manifest.version)
    return directory


def swap_figures(directory: Path, examples: Examples, rows: int) -> dict[str, float]:
    """Durations of batches of `rows` rows before and during a swap, in ms, and the seconds until the swap.

    They are the median and the longest batch in the 3 s before a swap, and the longest batch from the ledger's new
    entry until 2 s after the swap. Batches follow each other without a pause, as at full load. `directory` is a
    registry of `two_models`.
    """
    registry = Registry(str(directory))
    serving = serving_registry(registry.uri, HISTORY_LENGTH, Options(), POLL_SECONDS)
    poller = follow(serving)
    score = batch_scorer(examples, rows)
    try:
        before = _batch_times(lambda: score(poller.current), SECONDS_BEFORE)
        enter_other(registry)
        entered = time.perf_counter()
        during = []
        while poller.number == serving.number:
            during += _batch_times(lambda: score(poller.current), 0.0)
        swapped = time.perf_counter() - entered
        during += _batch_times(lambda: score(poller.current), SECONDS_AFTER)
    finally:
        poller.stop()
    return {
        "rows": rows,
        "median_ms": round(sorted(before)[len(before) // 2] * 1000, 2),
        "longest_before_ms": round(max(before) * 1000, 2),
        "longest_during_ms": round(max(during) * 1000, 2),
        "seconds_to_swap": round(swapped, 2),
    }


def swap_words(swap: dict[str, float]) -> str:
    return (
        f"longest batch of {swap['rows']:,} rows {swap['longest_during_ms']} ms during the swap, "
        f"{swap['longest_before_ms']} ms before"
    )


def job_swap_figures(stack: LocalStack, job: str, directory: Path) -> dict[str, dict[str, int]]:
    """The numbers of batches that a job scores, and of those longer than BATCH_BOUND_MS, before and during a swap.

    `directory` is a registry of `two_models`, which the job polls at full load. The swap to its other model is measured
    from JOB_SECONDS before it, and from the ledger's new entry until JOB_SECONDS after it.
    """
    registry = Registry(str(directory))
    started = _batches(stack, job)
    time.sleep(JOB_SECONDS)
    before = _batches(stack, job)
    old, new = enter_other(registry)
    flink_client.wait_for(
        lambda: job_metric(stack, job, "model", version=new) and not job_metric(stack, job, "model", version=old),
        JOB_TIMEOUT_S,
        f"all workers of job {job} to serve {new}",
    )
    time.sleep(JOB_SECONDS)
    after = _batches(stack, job)
    return {"before": _between(started, before), "during": _between(before, after)}


def job_swap_words(swap: dict[str, dict[str, int]]) -> str:
    parts = (f"{counts['slow']} of {counts['batches']} {when}" for when, counts in swap.items())
    return f"batches over {BATCH_BOUND_MS} ms: {', '.join(parts)} the swap"


def _batches(stack: LocalStack, job: str) -> dict[str, int]:
    batches, fast = job_buckets(stack, job, "predict_ms", "+Inf", str(BATCH_BOUND_MS))
    return {"batches": batches, "slow": batches - fast}


def _between(first: dict[str, int], last: dict[str, int]) -> dict[str, int]:
    return {name: last[name] - first[name] for name in last}


def enter_other(registry: Registry) -> tuple[str, str]:
    """Serve the other model; returns the versions of the previous and of the new one."""
    old = registry.rollout()[1].champion
    new = next(version for version in registry.versions() if version != old)
    _enter(registry, new)
    return old, new


def _enter(registry: Registry, version: str) -> None:
    append(registry, next_entry(registry), first(version), by="bench", command=("bench",), why="benchmark")


def batch_scorer(examples: Examples, rows: int) -> Callable[[Deployment], None]:
    """A function that scores the histories of the first rows of examples by a deployment."""
    starts, ends = examples.starts[:rows], examples.ends[:rows]
    histories = [examples.events[start:end].tobytes() for start, end in zip(starts, ends)]
    users, profiles = [f"u{row}" for row in range(len(starts))], [None] * len(starts)
    first_seen_ms = examples.events["time_ms"][starts].astype("int64")
    return lambda deployment: deployment.score(users, histories, ends - starts, first_seen_ms, profiles)


def _batch_times(score: Callable[[], None], seconds: float) -> list[float]:
    """Seconds of each batch; one at least."""
    times = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        score()
        times.append(time.perf_counter() - started)
    return times
