"""Trial of a bundle in a process of its own, with limits: a model that loops or takes all memory ends only that.

The process comes from a server that has imported the libraries and runs no threads (multiprocessing's forkserver), so
that a trial takes a moment, and OpenMP can't hang in it.
"""

import math
import os
import resource
import signal
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from training.rollout.admission_settings import Admission
from udfs.config.durations import duration_ms
from udfs.config.text import one_line
from udfs.models.bundle import Bundle, BundleError, read_bundle

#: What the wall clock allows: the start of the process, and a multiple of the processor's time, as the machine may be
#: busy. It ends the trial of a model that waits and takes no time of the processor.
START_S = 30.0
WALL_CLOCK_FACTOR = 6

#: What a process may take to end after its answer.
EXIT_S = 5.0

#: What libraries say when an allocation fails: C++, NumPy, ONNX Runtime, glibc.
_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "unable to allocate", "failed to allocate", "cannot allocate memory")

_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__, "training.rollout.admission"])


def try_bundle(
    files: Mapping[str, bytes],
    origin: str,
    history_length: int | None,
    admission: Admission,
    check: Callable[[Bundle], None],
) -> None:
    """Load a bundle from its files and check it, within the bounds of time and memory.

    `check` is a function of a module. Raises BundleError that names the bound, what the check raised as BundleError, or
    how the process ended.
    """
    seconds = math.ceil(duration_ms(admission.time) / 1000)
    receiver, sender = _processes.Pipe(duplex=False)
    arguments = dict(files), origin, history_length, seconds, admission.memory_mib << 20, check, sender
    process = _processes.Process(target=_trial, args=arguments, daemon=True)
    process.start()
    sender.close()
    wall_clock_s = START_S + WALL_CLOCK_FACTOR * seconds
    has_ended = receiver.poll(wall_clock_s)
    try:
        message = receiver.recv_bytes().decode() if has_ended else None
    except EOFError:  # it ended without an answer
        message = None
    if has_ended:
        process.join(EXIT_S)
    process.kill()
    process.join()
    if not has_ended:
        raise BundleError(f"{origin}: the model was not loaded and tried within {wall_clock_s:g} s: it waits or loops")
    if message is None:
        message = f"{origin}: {_ending(process.exitcode, admission)}"
    if message:
        raise BundleError(message)


def _trial(
    files: Mapping[str, bytes],
    origin: str,
    history_length: int | None,
    seconds: int,
    memory: int,
    check: Callable[[Bundle], None],
    result: Connection,
) -> None:
    """Check the bundle in this process, which is for nothing else; send what is wrong with it, "" for nothing."""
    _limit(seconds, memory)
    try:
        check(read_bundle(files.__getitem__, origin, history_length))
    except Exception as error:
        message = str(error) if isinstance(error, BundleError) else f"{origin}: {one_line(error) or repr(error)}"
        if isinstance(error, MemoryError) or any(text in message.lower() for text in _OUT_OF_MEMORY):
            message = f"{origin}: {_memory(memory >> 20)}"
        result.send_bytes(message.encode())
    else:
        result.send_bytes(b"")


def _limit(seconds: int, memory: int) -> None:
    """Limit this process to so much more memory, in bytes, and processor time than it has taken."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    used = math.ceil(sum(os.times()[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _ending(exit_code: int, admission: Admission) -> str:
    """Why a process ended without an answer."""
    if exit_code == -signal.SIGXCPU:
        limit = f"the limit is {admission.time} (admission.time)"
        return f"to load and try the model takes more processor time than allowed; {limit}"
    if exit_code == -signal.SIGKILL:
        return "the process of the trial was killed (SIGKILL), as the system does when memory runs out"
    name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return (
        f"to load and try the model ends the process ({name}); it may take {admission.memory_mib} MiB of memory "
        "(admission.memory_mib), and models that need more often end like this"
    )


def _memory(mib: int) -> str:
    return f"to load and try the model takes more memory than allowed; the limit is {mib} MiB (admission.memory_mib)"
