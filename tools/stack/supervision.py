"""What Kubernetes or YARN does, for a local stack: processes of the cluster that have ended are replaced."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tools.stack.local_stack import LocalStack
from tools.stack.processes import ProcessError, is_running

POLL_SECONDS = 0.5


@contextmanager
def supervised(stack: LocalStack, task_managers: int) -> Iterator[None]:
    """Keep so many TaskManagers and the JobManager running meanwhile, in a thread.

    A JobManager finds its jobs again only with high availability.
    """
    enough = threading.Event()

    def supervise() -> None:
        while not enough.wait(POLL_SECONDS):
            with suppress(ProcessError):  # it ended again while it started, and is started again
                if not is_running(stack.processes["jobmanager"]):
                    stack.start_job_manager()
                if len(stack.task_managers()) < task_managers:
                    stack.start_task_manager()

    supervisor = threading.Thread(target=supervise, name="supervisor", daemon=True)
    supervisor.start()
    try:
        yield
    finally:
        enough.set()
        supervisor.join()
