"""Processes that outlive the command that started them, and that any later command can stop by their record.

A record names a process by pid and creation time, so that a pid which the system has since given to another process is
never signalled. Child processes are found by a marker that they inherit in their environment.
"""

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil

MARKER = "LOCAL_STACK_PROCESS"  # not INTENT_..., which would be read as a setting
GRACE_SECONDS = 15.0
POLL_SECONDS = 0.1

_children: list[subprocess.Popen] = []  # Python warns of a Popen that is dropped while its process runs


class ProcessError(RuntimeError):
    """A process failed to start or to stay up; the message has the end of its log and the path of the log."""


@dataclass(frozen=True)
class Place:
    """Where processes of the stack run: their address, and what their commands begin with, to run somewhere else."""

    host: str = "127.0.0.1"
    launcher: tuple[str, ...] = ()


HERE = Place()


@dataclass(frozen=True)
class Process:
    """A started process. `created` is psutil's creation time in seconds, `marker` is its and its descendants' alone."""

    name: str
    pid: int
    created: float
    marker: str
    log: str
    ports: Mapping[str, int]


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    directory: Path,
    environment: Mapping[str, str],
    ports: Mapping[str, int],
) -> Process:
    """Start `command` in `directory`, protected from Ctrl-C in this terminal, with its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    marker = f"{name}-{os.urandom(8).hex()}"
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=directory,
            env={**environment, MARKER: marker},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(child)
    return Process(name, child.pid, psutil.Process(child.pid).create_time(), marker, str(log), dict(ports))


def is_running(process: Process) -> bool:
    return _find(process) is not None


def kill(process: Process) -> None:
    """End the process at once, as a crash would; its child processes are not ended."""
    running = _find(process)
    if running is not None:
        _signal(running.kill)
        _wait([running], GRACE_SECONDS)


def stop(processes: Iterable[Process], grace_seconds: float = GRACE_SECONDS) -> None:
    """Ask the processes to end; after the grace period, kill them and all their descendants that still run."""
    processes = list(processes)
    alive = [running for process in processes if (running := _find(process)) is not None]
    for running in alive:
        _signal(running.terminate)
    _wait(alive, grace_seconds)
    remaining = _descendants({process.marker for process in processes})
    for running in remaining:
        _signal(running.kill)
    _wait(remaining, GRACE_SECONDS)


def wait_until(ready: Callable[[], bool], process: Process, timeout_seconds: float) -> None:
    """Poll `ready`; raise ProcessError when the process ends or the time is up before that."""
    deadline = monotonic() + timeout_seconds
    while not ready():
        if not is_running(process):
            raise ProcessError(f"{process.name} exited while starting\n{log_tail(process)}")
        if monotonic() > deadline:
            raise ProcessError(f"{process.name} was not ready after {timeout_seconds:.0f} s\n{log_tail(process)}")
        sleep(POLL_SECONDS)


def log_tail(process: Process, lines: int = 15) -> str:
    """The last lines of the process's log, then its path."""
    text = Path(process.log).read_text(errors="replace")
    return "\n".join([f"  | {line}" for line in text.splitlines()[-lines:]] + [f"  log: {process.log}"])


def _find(process: Process) -> psutil.Process | None:
    try:
        candidate = psutil.Process(process.pid)
        # psutil derives the creation time from the boot time, which a clock correction moves a little.
        same = abs(candidate.create_time() - process.created) < 2
    except psutil.NoSuchProcess:
        return None
    return candidate if same and _is_alive(candidate) else None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait(processes: list[psutil.Process], seconds: float) -> None:
    # Not psutil.wait_procs: it waits for the zombie of another process's child until the time is up.
    deadline = monotonic() + seconds
    while any(map(_is_alive, processes)) and monotonic() < deadline:
        sleep(POLL_SECONDS)
    _children[:] = [child for child in _children if child.poll() is None]


def _descendants(markers: set[str]) -> list[psutil.Process]:
    descendants = []
    for candidate in psutil.process_iter():
        try:
            if candidate.environ().get(MARKER) in markers:
                descendants.append(candidate)
        except psutil.Error:  # ended meanwhile, or another user's
            continue
    return descendants


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):  # ended by itself
        send()
