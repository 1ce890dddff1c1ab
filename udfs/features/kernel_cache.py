"""A cache for the kernel that numba compiles, so that a worker starts in a second instead of six.

numba files a function by the path and time of its source file. Here both are wrong: the wheel has a new path for each
job, and the kernel depends on generated code and on the layouts, which are other files. So it is filed by the content
of all of them.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Self

from numba import config

#: Where the sources are. Workers import them from a wheel that is not unpacked.
PACKAGE = files("udfs")

#: From there on: what compiled functions are made of.
SOURCES = (
    "contracts/event_layout.py",
    "contracts/outputs.py",
    "contracts/packed_events.py",
    "contracts/profiles.py",
    "features/entry_points.py",
    "features/event_codes.py",
    "features/kernel.py",
    "features/row_functions.py",
    "features/slot_functions.py",
    "features/user_slots.py",
    "workers/protocol.py",
    "workers/score_writer.py",
)


def entry_options() -> dict:
    """Options of `njit` for a function that Python calls; they set this cache, whichever module is imported first."""
    config.CACHE_LOCATOR_CLASSES = "udfs.features.kernel_cache.KernelCacheLocator"
    return {"error_model": "numpy", "nogil": True, "cache": is_usable()}


class KernelCacheLocator:
    """A cache locator, as numba's option CACHE_LOCATOR_CLASSES takes it by name."""

    def __init__(self, function):
        self._line = function.__code__.co_firstlineno
        self._code_hash = function.__globals__.get("CODE_HASH", "")  # of code that was generated, see kernel.py
        self._py_file = function.__code__.co_filename  # numba names it when it warns of what it can't keep

    @classmethod
    def from_function(cls, function, _source_path: str) -> Self:
        return cls(function)

    def ensure_cache_path(self) -> None:
        cache_directory().mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(cache_directory())

    def get_source_stamp(self) -> str:
        return content_hash()

    def get_disambiguator(self) -> str:
        return f"{self._line}{self._code_hash}"


@contextmanager
def one_compiles(name: str) -> Iterator[None]:
    """Let one process at a time compile what has this name: the others then find it compiled."""
    if not is_usable():
        yield
        return
    with (cache_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def content_hash() -> str:
    """SHA-256, in hex, of the sources that decide what the kernel computes."""
    digest = sha256()
    for name in SOURCES:
        digest.update(PACKAGE.joinpath(name).read_bytes())
    return digest.hexdigest()


def cache_directory() -> Path:
    """The user's own cache directory: its content is executed, so others must not be able to write to it."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "purchase-intent" / content_hash()[:16]


def is_usable() -> bool:
    """Whether the cache can be written; otherwise the kernel is compiled in every process."""
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return False
    return os.access(cache_directory(), os.W_OK)
