"""Reading of recorded clicks and profile updates for training, in parts for parallel workers.

An archive is Parquet with the accepted records' own bytes and Kafka's timestamp, partition and offset. Other files
become click records by a mapping, as in `intent replay`; their rows stand for the offsets of one partition.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.intake import Intake
from training.data.rows import SourceError, find_files, format_of, parquet_metadata, reading
from training.data.sources import file_records
from udfs.mapping.definition import FileLayout, MappingError, MappingFile

BATCH_ROWS = 10_000
ROW_GROUPS_IN_PART = 8
_TICKS_IN_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
#: Rows of the file with number k stand for the offsets from k times this on.
OFFSETS_OF_FILE = 1 << 40
_COLUMNS = ["payload", "record_time", "source_partition", "source_offset"]


class Arrived(NamedTuple):
    """A range of arrival times by Kafka's timestamps, both ends included."""

    first_ms: int
    last_ms: int


@dataclass(frozen=True)
class Part:
    """A part of the data, read by one worker."""

    path: Path
    number: int  # of the file, in order of arrival
    row_groups: tuple[int, ...] | None = None  # of a file of an archive; None: any other file
    mappings: MappingFile | None = None  # of any other file
    arrived: Arrived | None = None  # other records of these row groups are skipped

    @property
    def is_archive(self) -> bool:
        return self.row_groups is not None


class Batch(NamedTuple):
    """n records in order; `arrival_ms` is None if the file has no arrival times."""

    keys: list[bytes | None]
    payloads: list[bytes | None]
    partition: np.ndarray  # int64[n]
    offset: np.ndarray  # int64[n]
    arrival_ms: np.ndarray | None  # int64[n]


def find_parts(data: Path, mappings: MappingFile | None = None, arrived: Arrived | None = None) -> list[Part]:
    """Find the parts of a file, or of all files under a directory in order of name.

    Of an archive, `arrived` selects the row groups with records in that range; it does not apply to other files. Files
    that no pattern of `mappings` matches are left out; see `unmatched_files`. Raises SourceError, and MappingError for
    a mapping of an archive.
    """
    parts = []
    for number, file in enumerate(find_files(data)):
        metadata = _archive_metadata(file)
        if metadata is not None and mappings is not None:
            raise MappingError(f"{mappings.name}: {file} is of an archive, which holds clicks: it needs no mapping")
        if metadata is None:
            mapping = None if mappings is None else mappings.for_file(file.name)
            if mappings is not None and mapping is None:
                continue
            format_of(str(file), FileLayout() if mapping is None else mapping.file)  # refuses an unknown one
            parts.append(Part(file, number, None, mappings))
        elif arrived is None:
            parts += row_group_parts(file, number, metadata.num_row_groups)
        else:
            ranges = [_arrivals(file, metadata, group) for group in range(metadata.num_row_groups)]
            groups = [
                n for n, (first, last) in enumerate(ranges) if first <= arrived.last_ms and last >= arrived.first_ms
            ]
            parts += [Part(file, number, tuple(batch), None, arrived) for batch in _batched(groups)]
    if not parts and mappings is not None:
        patterns = ", ".join(pattern for pattern, _ in mappings.by_pattern)
        raise MappingError(f"{mappings.name}: key files: no file of {data} matches {patterns}")
    return parts


def unmatched_files(data: Path, mappings: MappingFile) -> list[Path]:
    """The files that no pattern of the mappings matches."""
    return [file for file in find_files(data) if mappings.for_file(file.name) is None]


def newest_arrival_ms(archive: Path) -> int:
    """The arrival time of an archive's newest record, from the footers of its files. Raises SourceError for none."""
    files, newest = find_files(archive), -1
    days = {file.parent.name for file in files}
    if all(day.startswith("day=") for day in days):  # of arrival: the newest record is in the last one
        files = [file for file in files if file.parent.name == max(days)]
    for file in files:
        metadata = _archive_metadata(file)
        if metadata is None:
            raise SourceError(f"{file}: not an archive: when its records arrived is not known")
        newest = max([newest, *(_arrivals(file, metadata, group)[1] for group in range(metadata.num_row_groups))])
    if newest < 0:
        raise SourceError(f"{archive}: no record in it")
    return newest


def _arrivals(file: Path, metadata: pq.FileMetaData, group: int) -> Arrived:
    """The first and the last arrival in a row group, from its statistics or, if it has none, from its rows."""
    names, unit = metadata.schema.names, metadata.schema.to_arrow_schema().field("record_time").type.unit
    column = metadata.row_group(group).column(names.index("record_time"))
    statistics = column.statistics
    if column.physical_type == "INT64" and statistics is not None and statistics.has_min_max:
        return Arrived(statistics.min_raw // _TICKS_IN_MS[unit], statistics.max_raw // _TICKS_IN_MS[unit])
    with reading(file):
        times = _milliseconds(pq.ParquetFile(file).read_row_group(group, ["record_time"]).column(0))
    return Arrived(int(times.min()), int(times.max())) if len(times) else Arrived(0, -1)


def _batched(groups: list[int]) -> list[list[int]]:
    return [groups[first : first + ROW_GROUPS_IN_PART] for first in range(0, len(groups), ROW_GROUPS_IN_PART)]


def row_group_parts(file: Path, number: int, groups: int) -> list[Part]:
    """Split a Parquet file with a number of row groups into parts."""
    return [Part(file, number, tuple(batch)) for batch in _batched(list(range(groups)))]


def _archive_metadata(file: Path) -> pq.FileMetaData | None:
    """The Parquet metadata of a file of an archive; None for any other file."""
    if file.suffix not in (".parquet", ""):  # Flink names its files without a suffix
        return None
    metadata = parquet_metadata(file, str(file))
    return metadata if set(_COLUMNS) <= set(metadata.schema.to_arrow_schema().names) else None


def read_part(part: Part, intake: Intake | None = None) -> Iterator[Batch]:
    """The records of a part; rows of files are counted in `intake`. Raises SourceError or MappingError."""
    return _archive_batches(part) if part.is_archive else _file_batches(part, Intake() if intake is None else intake)


def _archive_batches(part: Part) -> Iterator[Batch]:
    with reading(part.path):
        file = pq.ParquetFile(part.path)
        names = [*_COLUMNS, *({"record_key"} & set(file.schema_arrow.names))]
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(part.row_groups), columns=names):
            times = _milliseconds(batch.column("record_time"))
            if part.arrived is not None:
                in_range = (part.arrived.first_ms <= times) & (times <= part.arrived.last_ms)
                batch, times = batch.filter(pa.array(in_range)), times[in_range]
            size = batch.num_rows
            keys = batch.column("record_key").to_pylist() if "record_key" in names else [None] * size
            yield Batch(
                keys,
                batch.column("payload").to_pylist(),
                _integers(batch.column("source_partition")),
                _integers(batch.column("source_offset")),
                times,
            )


def _milliseconds(times: pa.Array | pa.ChunkedArray) -> np.ndarray:
    return times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy()


def _integers(column: pa.Array) -> np.ndarray:
    return column.cast(pa.int64()).to_numpy(zero_copy_only=False)


def _file_batches(part: Part, intake: Intake) -> Iterator[Batch]:
    with part.path.open("rb") as file:
        records, offset = file_records(file, part.mappings, intake=intake), part.number * OFFSETS_OF_FILE
        while batch := list(islice(records, BATCH_ROWS)):
            offsets = np.arange(offset, offset + len(batch), dtype=np.int64)
            keys, payloads, _ = zip(*batch)
            yield Batch(list(keys), list(payloads), np.zeros(len(batch), np.int64), offsets, None)
            offset += len(batch)
