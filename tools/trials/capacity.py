"""How many clicks a job can score, by the time it takes for a backlog."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

from jobs.common.settings import Settings
from tools.bench.rates import rate_between, records_in
from tools.console import note, step
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.metrics import job_metric
from tools.stack.processes import HERE, Place
from tools.trials.steady_load import Phase, SteadyLoad

#: With one click per batch, the job is so slow that one process can send three times the clicks that it can score.
BATCH_ROWS = 1
BACKLOG, COUNTED_FROM, COUNTED_TO = 75_000, 40_000, 71_000  # the first half warms up; partitions do not end together
PATIENCE_SECONDS = 1_200


def one_core() -> Place:
    """Where TaskManagers and their workers have one core, and leave the others to whoever sends and measures.

    Everywhere, if this machine has one core, or no `taskset`.
    """
    cores = sorted(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else []
    taskset = shutil.which("taskset")
    return Place(launcher=(taskset, "-c", str(cores[0]))) if taskset and len(cores) > 1 else HERE


@contextmanager
def counted(stack: LocalStack, settings: Settings) -> Iterator[tuple[Callable[[], int], Callable[[], int]]]:
    """Functions that count the clicks sent, and the scores and dead letters."""
    servers, topics = stack.bootstrap_servers, settings.topics
    with (
        records_in(servers, topics.clicks) as clicks,
        records_in(servers, topics.scores) as scores,
        records_in(servers, topics.dead_letters) as dead_letters,
    ):
        yield clicks, lambda: scores() + dead_letters()


def measured_capacity(stack: LocalStack, job: str, settings: Settings) -> float:
    """Send a job a backlog; returns the clicks per second at which it is scored, when all of it is."""
    step(f"Capacity: {BACKLOG:,} clicks at once")
    load = SteadyLoad(stack.bootstrap_servers, settings.topics.clicks, [Phase(BACKLOG, 1)])
    load.start()
    load.finish(PATIENCE_SECONDS)
    capacity = rate_between(lambda: job_metric(stack, job, "scored"), COUNTED_FROM, COUNTED_TO, note)
    note(f"{capacity:,.0f} clicks per second")
    with counted(stack, settings) as (clicks, answers):
        flink_client.wait_for(lambda: clicks() == answers(), PATIENCE_SECONDS, "the backlog to drain")
    return capacity
