"""Processes die and come back while clicks flow: the job recovers by itself, and the scores are complete."""

import time
from collections import Counter
from contextlib import suppress

import psutil
import pytest

from tests.support.e2e.pipeline import Pipeline
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.supervision import supervised
from tools.trials.answers import rejection_in, score_in
from tools.trials.verdict import Clicks
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.e2e

RATE, USERS, BROKEN_EVERY = 50, [f"u{number}" for number in range(300)], 10
BROKER_DOWN_SECONDS = 10


def test_the_answers_are_complete_and_right_whichever_part_dies(pipeline, stack, flowing, bundle_directory):
    """Under both guarantees at the same time, and in the archive: three jobs, and the same faults for all."""
    pipes = {
        guarantee: pipeline(f"delivery.guarantee={guarantee}", f"job.parallelism={parallelism}", "model.engine=native")
        for guarantee, parallelism in (("exactly-once", 2), ("at-least-once", 1))
    }
    for pipe in pipes.values():
        pipe.start()
    pipes["exactly-once"].start_other("jobs.archive_clicks")
    clicks = {guarantee: flowing(pipe, RATE, USERS, BROKEN_EVERY) for guarantee, pipe in pipes.items()}
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

    bundle = load_bundle(bundle_directory, 64)
    for guarantee, pipe in pipes.items():
        clicks[guarantee].stop()
        sent = pipe.read_records("clicks")
        assert len(sent) >= clicks[guarantee].delivered > 0
        pipe.wait_until_consumed("clicks")
        offline = Clicks(sent, [], pipe.settings, bundle)
        accepted, rejected = offline.scores(), offline.dead_letters
        assert len(rejected) > len(sent) / BROKEN_EVERY - 1
        pipe.read("scores", at_least=len(accepted))
        pipe.read("dead_letters", at_least=len(rejected))
        scores = [score_in(record.value) for record in pipe.read_records("scores")]
        letters = [rejection_in(record.value) for record in pipe.read_records("dead_letters")]
        assert set(scores) == set(accepted.items())
        assert set(letters) == set(rejected.items())
        if guarantee == "exactly-once":
            assert (len(scores), len(letters)) == (len(accepted), len(rejected))
            pipe.wait_until_archived("clicks")
            assert Counter(record[:2] for record in pipe.archived("clicks")) == Counter(offline.scored)
        else:
            assert len(scores) > len(accepted)  # these faults do make a job repeat itself


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
