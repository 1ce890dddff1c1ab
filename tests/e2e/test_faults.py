"""Processes die and come back while clicks flow: the job recovers by itself, and the scores are complete."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from jobs.local_stack import LocalStack
from jobs.processes import Process
from jobs.replay_send import at_rate
from tests.e2e.pipeline import Pipeline, positions

pytestmark = pytest.mark.e2e

RATE, USERS = 500, 300
BROKER_DOWN_SECONDS = 20


class FlowingClicks(threading.Thread):
    """Clicks at a steady rate, until `stop`."""

    def __init__(self, pipe: Pipeline):
        super().__init__()
        self._pipe = pipe
        self._enough = threading.Event()
        self.delivered = 0

    def run(self) -> None:
        self.delivered = self._pipe.send("clicks", at_rate(self._clicks(), RATE))

    def stop(self) -> None:
        self._enough.set()
        self.join()

    def _clicks(self) -> Iterator[tuple[bytes, bytes, None]]:
        number = 0
        while not self._enough.is_set():
            user = f"u{number % USERS}"
            now = time.time_ns() // 1_000_000
            yield user.encode(), json.dumps({"user_id": user, "event_name": "scroll", "event_time": now}).encode(), None
            number += 1


@pytest.fixture
def flowing():
    """A factory of FlowingClicks, none of which flows on after the test."""
    started = []

    def start(pipe: Pipeline) -> FlowingClicks:
        started.append(FlowingClicks(pipe))
        started[-1].start()
        return started[-1]

    yield start
    for clicks in started:
        clicks.stop()


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_the_scores_are_complete_whichever_part_dies(pipeline, stack, flowing, guarantee):
    pipe = pipeline(f"delivery.guarantee={guarantee}", "job.parallelism=2")
    pipe.start()
    clicks = flowing(pipe)
    pipe.wait_for_more_scores()

    stack.kill_task_manager(task_manager_of(stack, pipe))
    pipe.wait_for_more_scores()
    stack.start_task_manager()

    python_worker_of(stack, pipe).kill()
    pipe.wait_for_more_scores()

    stack.stop_broker()
    time.sleep(BROKER_DOWN_SECONDS)
    stack.start_broker()
    pipe.wait_for_more_scores()

    clicks.stop()
    accepted = {(record.partition, record.offset) for record in pipe.read_records("clicks")}
    pipe.wait_until_consumed("clicks")
    scored = Counter(positions(pipe.read("scores", at_least=len(accepted))))
    assert set(scored) == accepted
    assert len(accepted) >= clicks.delivered > 0
    if guarantee == "exactly-once":
        assert set(scored.values()) == {1}


def task_manager_of(stack: LocalStack, pipe: Pipeline) -> Process:
    """A TaskManager on which the job runs."""
    vertices = stack.rest(f"/jobs/{pipe.job}")["vertices"]
    subtask = stack.rest(f"/jobs/{pipe.job}/vertices/{vertices[0]['id']}")["subtasks"][0]
    return next(process for process in stack.task_managers() if process.name == subtask["taskmanager-id"])


def python_worker_of(stack: LocalStack, pipe: Pipeline) -> psutil.Process:
    """The newest Python process of a TaskManager on which the job runs."""
    children = psutil.Process(task_manager_of(stack, pipe).pid).children(recursive=True)
    workers = [child for child in children if any("beam" in word for word in child.cmdline())]
    return max(workers, key=lambda worker: worker.create_time())
