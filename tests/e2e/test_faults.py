"""Processes die and come back while clicks flow: the job recovers by itself, and the scores are complete."""

import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest

from tests.support.e2e.pipeline import Pipeline, positions
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.supervision import supervised

pytestmark = pytest.mark.e2e

RATE, USERS = 100, [f"u{number}" for number in range(300)]
BROKER_DOWN_SECONDS = 10


def test_the_scores_are_complete_whichever_part_dies(pipeline, stack, flowing):
    """Under both guarantees at the same time, and in the archive: three jobs, and the same faults for all."""
    pipes = {
        guarantee: pipeline(f"delivery.guarantee={guarantee}", f"job.parallelism={parallelism}")
        for guarantee, parallelism in (("exactly-once", 2), ("at-least-once", 1))
    }
    for pipe in pipes.values():
        pipe.start()
    pipes["exactly-once"].start_other("jobs.archive_clicks")
    clicks = {guarantee: flowing(pipe, RATE, USERS) for guarantee, pipe in pipes.items()}
    wait_for_more_scores(pipes)

    # A TaskManager may also end with the archive's Python workers: when one dies in the middle of a batch, Flink fails
    # to close the broken Arrow stream (ArrowSerializer.close), which it takes for a fatal error.
    with supervised(stack, task_managers=1):
        stack.kill_task_manager(stack.task_managers()[0])
        wait_for_more_scores(pipes)

        kill(workers_of(stack, "pyflink"))  # of the archive
        wait_for_more_scores(pipes)

    # Some that score and some that decode: `make chaos` kills either alone.
    score, decode = (workers_of(stack, "udfs.workers", name) for name in ("score", "decode clicks"))
    kill_in_the_middle_of_a_batch([*score[: len(score) // 2], *decode[len(decode) // 2 :]])
    wait_for_more_scores(pipes)
    killed = workers_of(stack, "udfs.workers")
    kill(killed)  # at this rate most probably between two batches, and between a batch and its checkpoint
    kill_while_they_start(stack, killed)
    wait_for_more_scores(pipes)

    # Killed, not stopped: a broker that shuts down in order hands its partitions over, here to nobody, and Kafka then
    # drops the marker of a transaction that commits just now. Another broker would write it.
    stack.kill_broker()
    time.sleep(BROKER_DOWN_SECONDS)
    stack.start_broker()
    wait_for_more_scores(pipes)

    for guarantee, pipe in pipes.items():
        clicks[guarantee].stop()
        accepted = {(record.partition, record.offset) for record in pipe.read_records("clicks")}
        pipe.wait_until_consumed("clicks")
        scored = Counter(positions(pipe.read("scores", at_least=len(accepted))))
        assert set(scored) == accepted
        assert len(accepted) >= clicks[guarantee].delivered > 0
        if guarantee == "exactly-once":
            assert set(scored.values()) == {1}
            pipe.wait_until_archived("clicks")
            assert Counter(record[:2] for record in pipe.archived("clicks")) == Counter(accepted)


def wait_for_more_scores(pipes: dict[str, Pipeline]) -> None:
    for pipe in pipes.values():
        pipe.wait_for_more_scores(3 * RATE)


def workers_of(stack: LocalStack, *words: str) -> list[psutil.Process]:
    """The Python processes of the TaskManager whose command lines have all of these words in them."""
    found = []
    for child in psutil.Process(stack.task_managers()[0].pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if all(word in line for word in words):
                found.append(child)
    assert found, words
    return found


def kill(workers: list[psutil.Process]) -> None:
    for worker in workers:
        with suppress(psutil.NoSuchProcess):  # it may have ended with another one
            worker.kill()


def kill_in_the_middle_of_a_batch(workers: list[psutil.Process]) -> None:
    """Stopped, each soon has a batch that it does not answer."""
    for worker in workers:
        worker.suspend()
    time.sleep(1)
    kill(workers)


def kill_while_they_start(stack: LocalStack, ended: list[psutil.Process]) -> None:
    """Kill the workers that Flink starts in place of those that have ended, as soon as they are there."""

    def started() -> list[psutil.Process]:
        with suppress(AssertionError):
            return [worker for worker in workers_of(stack, "udfs.workers") if worker not in ended]
        return []

    flink_client.wait_for(lambda: bool(started()), 60, "new workers", poll_seconds=0.05)
    kill(started())
