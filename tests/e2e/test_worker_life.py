"""Workers come and go with their job, and leave nothing behind."""

from pathlib import Path

import psutil
import pytest

from tools.stack import flink_client
from tools.stack.local_stack import LocalStack

pytestmark = pytest.mark.e2e

SUBMISSIONS = 3


def test_nothing_is_left_of_workers_when_their_job_has_ended(pipeline, stack, run_directory):
    memory = run_directory / "worker-memory"
    memory.mkdir()
    pipe = pipeline(f"workers.memory_dir={memory}", "workers.cached_users=100", "job.parallelism=2")
    (task_manager,) = stack.task_managers()
    descriptors = []
    for _ in range(SUBMISSIONS):
        pipe.start()
        workers = workers_of(stack)
        assert len(workers) == 5  # one of profiles, and of the others one a task
        assert list(memory.iterdir()) == []  # both sides hold the files open, nobody can find them
        assert all(worker.uids().real == psutil.Process(task_manager.pid).uids().real for worker in workers)
        flink_client.cancel(stack, pipe.job)
        flink_client.wait_for(lambda: not workers_of(stack), 10, "the workers to end")
        flink_client.wait_for(lambda: not open_memory(task_manager.pid, memory), 10, "their memory to be given back")
        descriptors.append(psutil.Process(task_manager.pid).num_fds())
    pipe.job = None
    assert descriptors[-1] <= descriptors[0] + 5, descriptors


def workers_of(stack: LocalStack) -> list[psutil.Process]:
    children = psutil.Process(stack.task_managers()[0].pid).children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE and "udfs.workers" in child.cmdline()]


def open_memory(pid: int, directory: Path) -> list[str]:
    """What a process holds open of files in a directory that are deleted and still have a size."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(directory) in str(link.readlink()) and link.stat().st_size:
                found.append(str(link))
        except FileNotFoundError:  # closed since it was listed
            continue
    return found
