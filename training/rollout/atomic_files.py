"""Atomic writes of registry files: through a temporary file on a local file system; object stores are atomic."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from fsspec.implementations.local import LocalFileSystem

from udfs.rollout.registry import Registry


def create_file(registry: Registry, names: Sequence[str], content: bytes) -> None:
    """Create a file, or raise FileExistsError: exactly one of several writers succeeds."""
    _write(registry, names, content, "xb", os.link)


def replace_file(registry: Registry, names: Sequence[str], content: bytes) -> None:
    """Write a file, replacing an existing one. Readers see the old content or the new one."""
    _write(registry, names, content, "wb", os.replace)


def make_directory(registry: Registry, names: Sequence[str]) -> None:
    registry.files.makedirs(registry.path(*names), exist_ok=True)


def _write(
    registry: Registry, names: Sequence[str], content: bytes, mode: str, put: Callable[[str, str], None]
) -> None:
    make_directory(registry, names[:-1])
    path = registry.path(*names)
    if not isinstance(registry.files, LocalFileSystem):
        with registry.files.open(path, mode) as file:
            file.write(content)
        return
    with NamedTemporaryFile(dir=Path(path).parent, prefix=".", suffix=".unfinished", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            put(file.name, path)
        finally:
            Path(file.name).unlink(missing_ok=True)
    directory = os.open(Path(path).parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
