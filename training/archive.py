"""Reading recorded clicks and profile updates for training, in parts that workers read side by side.

An archive is Parquet with the accepted records' own bytes and Kafka's timestamp, partition and offset. Other files
(CSV, JSON Lines, Parquet) become click records by a mapping, as in jobs/replay; their rows stand for the offsets of one
partition.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.mapping import ClickMapping
from training.records import SourceError, file_records, format_of, parquet_metadata

BATCH_ROWS = 10_000
ROW_GROUPS_IN_PART = 8
#: Rows of the file with number k stand for the offsets from k times this on.
OFFSETS_OF_FILE = 1 << 40
_COLUMNS = ["payload", "record_time", "source_partition", "source_offset"]


@dataclass(frozen=True)
class Part:
    """What one worker reads in one go."""

    path: Path
    number: int  # of the file, in order of arrival
    row_groups: tuple[int, ...] | None = None  # of an archive's file; None: a file that is no archive
    mapping: ClickMapping | None = None

    @property
    def is_archive(self) -> bool:
        return self.row_groups is not None


class Batch(NamedTuple):
    """n records in order; `arrival_ms` is None where the file does not tell."""

    keys: list[bytes | None]
    payloads: list[bytes | None]
    partition: np.ndarray  # int64[n]
    offset: np.ndarray  # int64[n]
    arrival_ms: np.ndarray | None  # int64[n]


def find_parts(data: Path, mapping: ClickMapping | None = None) -> list[Part]:
    """The parts of a file, or of all files under a directory, by name. Raises SourceError."""
    parts = []
    for number, file in enumerate(find_files(data)):
        groups = _archive_row_groups(file)
        if groups is None:
            format_of(str(file))  # refuses an unknown one
            parts.append(Part(file, number, None, mapping))
        else:
            parts += row_group_parts(file, number, groups)
    return parts


def find_files(data: Path) -> list[Path]:
    """The file, or all files under the directory but hidden ones, by name. Raises SourceError when there is none."""
    if not data.exists():
        raise SourceError(f"{data}: no such file or directory")
    hidden = (".", "_")  # what Flink and Spark have not finished, or keep beside the data
    files = [data] if data.is_file() else sorted(
        file
        for file in data.rglob("*")
        if file.is_file() and not any(name.startswith(hidden) for name in file.relative_to(data).parts)
    )  # fmt: skip
    if not files:
        raise SourceError(f"{data}: no file in it")
    return files


def row_group_parts(file: Path, number: int, groups: int) -> list[Part]:
    """A Parquet file with so many row groups, cut into parts."""
    firsts = range(0, groups, ROW_GROUPS_IN_PART)
    return [Part(file, number, tuple(range(first, min(first + ROW_GROUPS_IN_PART, groups)))) for first in firsts]


def _archive_row_groups(file: Path) -> int | None:
    """How many row groups a file of an archive has; None for another file."""
    if file.suffix not in (".parquet", ""):  # Flink names its files without a suffix
        return None
    metadata = parquet_metadata(file, str(file))
    return metadata.num_row_groups if set(_COLUMNS) <= set(metadata.schema.to_arrow_schema().names) else None


def read_part(part: Part) -> Iterator[Batch]:
    """The records of a part. Raises SourceError, MappingError or OSError naming the file."""
    return _archive_batches(part) if part.is_archive else _file_batches(part)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what Parquet raises for a broken file into SourceError, a line that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read further: {' '.join(str(error).split())}") from None


def _archive_batches(part: Part) -> Iterator[Batch]:
    with reading(part.path):
        file = pq.ParquetFile(part.path)
        names = [*_COLUMNS, *({"record_key"} & set(file.schema_arrow.names))]
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(part.row_groups), columns=names):
            size = batch.num_rows
            keys = batch.column("record_key").to_pylist() if "record_key" in names else [None] * size
            times = batch.column("record_time").cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
            yield Batch(
                keys,
                batch.column("payload").to_pylist(),
                _integers(batch.column("source_partition")),
                _integers(batch.column("source_offset")),
                times.to_numpy(zero_copy_only=False),
            )


def _integers(column: pa.Array) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _file_batches(part: Part) -> Iterator[Batch]:
    with part.path.open("rb") as file:
        records, offset = file_records(file, part.mapping), part.number * OFFSETS_OF_FILE
        while batch := list(islice(records, BATCH_ROWS)):
            offsets = np.arange(offset, offset + len(batch), dtype=np.int64)
            keys, payloads, _ = zip(*batch)
            yield Batch(list(keys), list(payloads), np.zeros(len(batch), np.int64), offsets, None)
            offset += len(batch)
