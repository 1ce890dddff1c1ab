"""What the processes of a stack use: memory, threads and file handles from /proc, and of a JVM the pools it tells."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import psutil

from tools.stack.local_stack import LocalStack
from tools.stack.processes import is_running

WORKER = "udfs.workers"


class Reading(msgspec.Struct, frozen=True):
    """What a process uses at a moment."""

    rss: int  # bytes
    threads: int
    handles: int


class JvmReading(msgspec.Struct, frozen=True):
    """What is in use in a JVM of Flink, in bytes. Its process keeps what it once had, so /proc can't tell a leak."""

    heap: int
    metaspace: int
    direct: int


#: https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/metrics/#memory
JVM_METRICS = {
    "heap": "Status.JVM.Memory.Heap.Used",
    "metaspace": "Status.JVM.Memory.Metaspace.Used",
    "direct": "Status.JVM.Memory.Direct.MemoryUsed",
}


def jvm_readings(stack: LocalStack) -> dict[str, JvmReading]:
    """What is in use in each JVM of Flink that Flink has figures of now; names as in `readings`."""
    found = {}
    with suppress(OSError):  # the JobManager is gone for a moment
        managers = {
            entry["id"]: f"/taskmanagers/{entry['id']}" for entry in stack.rest("/taskmanagers")["taskmanagers"]
        }
        for name, path in {"jobmanager": "/jobmanager", **managers}.items():
            metrics = stack.rest(f"{path}/metrics?get={','.join(JVM_METRICS.values())}")
            values = {metric["id"]: int(metric["value"]) for metric in metrics}
            if values.keys() == set(JVM_METRICS.values()):
                found[name] = JvmReading(**{field: values[metric] for field, metric in JVM_METRICS.items()})
    return found


def readings(stack: LocalStack) -> dict[str, Reading]:
    """What each process of the stack uses now, and each Python worker, by a name that a restart does not change."""
    found = {}
    for name, process in stack.processes.items():
        if is_running(process):
            for label, running in _with_workers(name, process.pid):
                with suppress(psutil.NoSuchProcess), running.oneshot():  # it has just ended
                    found[label] = Reading(running.memory_info().rss, running.num_threads(), running.num_fds())
    return found


def worker_label(command: list[str]) -> str | None:
    """The name of a Python worker, from its command line; None for another process.

    >>> worker_label(["python", "-m", "udfs.workers", "/dev/shm/intent-1", "score (1/2)"])
    'worker: score (1/2)'
    """
    return f"worker: {command[-1]}" if WORKER in command else None


def python_workers(process: psutil.Process) -> Iterator[tuple[str, psutil.Process]]:
    """The Python workers of a TaskManager, with their names."""
    # A script of Flink starts Java in its own place; below it are the workers, and helpers of theirs.
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if label := worker_label(child.cmdline()):
                yield label, child


def _with_workers(name: str, pid: int) -> Iterator[tuple[str, psutil.Process]]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        yield name, process
        yield from python_workers(process)


class Sampler(threading.Thread):
    """Calls a function every so many seconds, until `stop`. What it raises ends the thread, and `stop` raises it."""

    def __init__(self, seconds: float, sample: Callable[[], None]):
        super().__init__(name="sampler", daemon=True)
        self._seconds, self._sample = seconds, sample
        self._enough = threading.Event()
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._enough.wait(self._seconds):
                self._sample()
        except Exception as error:
            self._error = error

    def stop(self) -> None:
        self._enough.set()
        self.join()
        if self._error is not None:
            raise self._error
