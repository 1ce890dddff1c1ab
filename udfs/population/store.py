"""Where tables of the population are kept: a directory on any file system that fsspec knows, a file for each table.

<boundary, ms since 1970, 14 digits>.npz       written whole or not at all, and never changed to another content
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from fsspec.core import url_to_fs

from udfs.config.text import one_line
from udfs.contracts.event_layout import EventLayout, Publication
from udfs.population.tables import FOLDS, Counted, Counts, Table, counted_by

FORMAT = 1
_NAME = re.compile(r"(\d{14})\.npz")


class _Head(msgspec.Struct, frozen=True):
    """What a file holds beside the counts, which are in this order."""

    format: int
    boundary_ms: int
    publication: Publication
    counted: list[tuple[str | None, str | None]]


class PopulationError(ValueError):
    """Tables that can't be read or used; the message is one line that names the file or the directory."""


class TableStore:
    """The tables in a directory or at an fsspec URL, such as s3://bucket/population."""

    def __init__(self, uri: str):
        """Raises PopulationError when no installed file system can read such a URL."""
        self.uri = uri.rstrip("/")
        try:
            self._files, self._root = url_to_fs(self.uri, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise PopulationError(f"{uri}: {error}") from None

    def boundaries(self) -> list[int]:
        """The boundaries of all tables, in ms, ascending. Raises PopulationError."""
        try:
            paths = self._files.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:  # each file system has its own
            raise self._error(self.uri, error) from None
        names = (path.rstrip("/").rpartition("/")[2] for path in paths)
        return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))

    def read(self, boundary_ms: int) -> Table:
        """The table of a boundary. Raises PopulationError."""
        path = self._path(boundary_ms)
        return decode_table(self._try(self._files.cat_file, path), path)

    def write(self, table: Table) -> None:
        """Write a table, in the place of one with the same boundary. Raises PopulationError."""
        path = self._path(table.boundary_ms)
        self._try(self._files.makedirs, self._root, exist_ok=True)
        self._try(self._files.pipe_file, f"{path}.part", value=encode_table(table))
        self._try(self._files.mv, f"{path}.part", path)

    def remove(self, boundary_ms: int) -> None:
        """Remove a table. Raises PopulationError."""
        self._try(self._files.rm_file, self._path(boundary_ms))

    def _path(self, boundary_ms: int) -> str:
        return f"{self._root}/{boundary_ms:014d}.npz"

    def _try(self, operation: Callable, path: str, *arguments, **options) -> Any:
        try:
            return operation(path, *arguments, **options)
        except Exception as error:  # each file system has its own
            raise self._error(path, error) from None

    @staticmethod
    def _error(path: str, error: Exception) -> PopulationError:
        return PopulationError(f"{path}: {one_line(error) or type(error).__name__}")


def encode_table(table: Table) -> bytes:
    """A table as the content of a file."""
    head = _Head(FORMAT, table.boundary_ms, table.publication, list(table.counts))
    arrays = {"head": np.frombuffer(msgspec.json.encode(head), np.uint8)}
    for number, counts in enumerate(table.counts.values()):
        arrays |= {f"keys_{number}": counts.keys, f"counts_{number}": counts.counts}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def decode_table(content: bytes, origin: str) -> Table:
    """The table that `encode_table` made. Raises PopulationError."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            head = msgspec.json.decode(arrays["head"].tobytes(), type=_Head)
            if head.format != FORMAT:
                raise PopulationError(f"{origin}: format is {head.format}, this code reads {FORMAT}")
            counts = {
                Counted(*counted): Counts(arrays[f"keys_{number}"], arrays[f"counts_{number}"])
                for number, counted in enumerate(head.counted)
            }
    except PopulationError:
        raise
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise PopulationError(f"{origin}: not a table of the population: {one_line(error)}") from None
    for found in counts.values():
        _check(found, origin)
    return Table(head.boundary_ms, head.publication, counts)


def check_table(table: Table, layout: EventLayout, origin: str) -> None:
    """Raises PopulationError for a table that can't fill the columns of a layout."""
    if table.publication != layout.publication:
        raise PopulationError(
            f"{origin}: its tables were made with {table.publication}, the declaration has {layout.publication}: "
            "use another population.dir, or the declaration that they were made with"
        )
    for by, kind in counted_by(layout):
        if (by, kind) not in table.counts:
            raise PopulationError(
                f"{origin}: its newest table does not count {kind or 'events'} by {by or 'nothing'}: submit "
                "jobs.publish_population with the same declaration"
            )


def _check(counts: Counts, origin: str) -> None:
    keys, values = counts
    if keys.dtype != np.uint32 or keys.ndim != 1 or values.shape != (len(keys), FOLDS) or values.dtype != np.float32:
        raise PopulationError(f"{origin}: not a table of the population: arrays of another type or shape")
    if not ((np.diff(keys.astype(np.int64)) > 0).all() and np.isfinite(values).all() and (values >= 0).all()):
        raise PopulationError(f"{origin}: damaged: keys out of order, or counts that are none")
