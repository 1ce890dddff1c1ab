"""The lock for one retraining at a time, also across machines and crashes.

    retraining/lock/<8 digits>.json     the holder; the highest number counts

A process takes the lock by creating the file of the next number, which only one process can do. To release the lock, it
writes the time into the file. After a crash, the lock expires when the process is gone or, if that can't be seen from
here (another machine or container), when the lock is older than a limit. The file of the highest number is never
removed, so each number is taken once. A process that was wrongly considered dead finds out by `check` before it changes
anything.
"""

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from training.rollout.atomic_files import create_file, replace_file
from udfs.rollout.registry import Registry, RegistryError

DIRECTORY = "retraining/lock"


class LockError(RegistryError):
    """Another process is retraining. The message is one line that names it."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process that took the lock; `process` distinguishes it from a later one with the same pid."""

    owner: str
    host: str
    pid: int
    system: str  # the running kernel and the process namespace: processes can be seen from the same one alone
    process: str
    started: datetime
    released: datetime | None = None

    def __str__(self) -> str:
        return f"{self.owner}@{self.host}, process {self.pid}, since {self.started:%Y-%m-%d %H:%M:%S} UTC"


class Lock:
    """A held lock."""

    def __init__(self, registry: Registry, number: int, holder: Holder):
        self._registry, self._number, self._holder = registry, number, holder

    def check(self) -> None:
        """Raises LockError when another process has taken over."""
        newest = max(_numbers(self._registry), default=0)
        if newest != self._number:
            raise LockError(
                f"{self._registry.uri}: another process took over, as this one was too slow; "
                "only that process continues"
            )

    def release(self) -> None:
        released = msgspec.structs.replace(self._holder, released=datetime.now(UTC))
        replace_file(self._registry, _file(self._number), msgspec.json.encode(released))


@contextmanager
def locked(registry: Registry, limit_ms: int) -> Iterator[Lock]:
    """Hold the lock. Raises LockError if another process does; one that can't be seen from here holds it `limit_ms`."""
    lock = _take(registry, limit_ms)
    try:
        yield lock
    finally:
        lock.release()


def _take(registry: Registry, limit_ms: int) -> Lock:
    numbers = _numbers(registry)
    newest = max(numbers, default=0)
    if newest:
        holder = _read(registry, newest)
        if _holds(holder, limit_ms):
            raise LockError(f"{registry.uri}: one retraining at a time: {holder} has not finished")
    pid = os.getpid()
    holder = Holder(
        owner=_user(),
        host=socket.gethostname(),
        pid=pid,
        system=_system(),
        process=process_start(pid) or "",
        started=datetime.now(UTC),
    )
    try:
        create_file(registry, _file(newest + 1), msgspec.json.encode(holder))
    except FileExistsError:
        raise LockError(f"{registry.uri}: one retraining at a time: another one began at this moment") from None
    for number in numbers:
        with suppress(FileNotFoundError):  # another process that broke this lock may have removed it already
            registry.files.rm_file(registry.path(*_file(number)))
    return Lock(registry, newest + 1, holder)


def _holds(holder: Holder, limit_ms: int) -> bool:
    if holder.released is not None:
        return False
    if holder.system == _system():
        return process_start(holder.pid) == holder.process
    return datetime.now(UTC) - holder.started < timedelta(milliseconds=limit_ms)


def process_start(pid: int) -> str | None:
    """The start of a process of this system, in clock ticks; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else fields[18]  # proc_pid_stat(5), field 22


def _system() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _numbers(registry: Registry) -> list[int]:
    return [int(name[:8]) for name in registry.names(DIRECTORY) if name[:8].isdigit()]


def _read(registry: Registry, number: int) -> Holder:
    try:
        return msgspec.json.decode(registry.read(*_file(number)), type=Holder)
    except FileNotFoundError:
        raise LockError(f"{registry.uri}: one retraining at a time: another one began at this moment") from None
    except msgspec.DecodeError as error:
        raise RegistryError(f"{registry.path(*_file(number))}: not a lock: {error}") from None


def _file(number: int) -> tuple[str, ...]:
    return (*DIRECTORY.split("/"), f"{number:08d}.json")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return str(os.getuid())
