"""Log and wait: examples from the vectors that the job scored, read from the archived feature_log.

The vectors are used as they are, bit for bit. Features that the logging model did not use are not in them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from training.data.archive import BATCH_ROWS, Part, row_group_parts
from training.data.dataset import Dataset
from training.data.examples import Examples, examples_of
from training.data.rows import SourceError, find_files, parquet_metadata, reading
from udfs.measurement.labels import Label

_COLUMNS = ["user_id", "event_time", "feature_schema_hash", "features", "source_partition", "source_offset"]
#: The key of an event. Offsets restart with a new topic, so partition and offset alone could match another event.
_KEY = ["user", "time_ms", "partition", "offset"]

LOG_ROWS = pa.schema(
    [
        ("user_id", pa.string()),
        ("time_ms", pa.int64()),
        ("partition", pa.int64()),
        ("offset", pa.int64()),
        ("features", pa.binary()),
    ]
)


@dataclass(frozen=True)
class FeatureLog:
    """An archived feature_log, and the schema hash and feature names of the rows to use."""

    path: Path
    schema_hash: str
    names: Sequence[str]


def find_log_parts(path: Path) -> list[Part]:
    """Find the parts for workers to read. Raises SourceError for a file that is not of a feature_log."""
    parts = []
    for number, file in enumerate(find_files(path)):
        metadata = parquet_metadata(file, str(file))
        missing = [name for name in _COLUMNS if name not in metadata.schema.to_arrow_schema().names]
        if missing:
            raise SourceError(f"{file}: not of a feature_log: column {missing[0]} is missing")
        parts += row_group_parts(file, number, metadata.num_row_groups)
    return parts


def read_log_part(part: Part, log: FeatureLog) -> Iterator[tuple[pa.RecordBatch, Counter]]:
    """Read the LOG_ROWS of a part, and count the rows with other schemas by their hash. Raises SourceError."""
    with reading(part.path):
        file = pq.ParquetFile(part.path)
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(part.row_groups), columns=_COLUMNS):
            for name in _COLUMNS:
                if batch.column(name).null_count:
                    raise SourceError(f"{part.path}: column {name}: a row has no value")
            hashes = batch.column("feature_schema_hash")
            matching = batch.filter(pc.equal(hashes, log.schema_hash))
            _check_lengths(matching, log, part.path)
            other_schemas = Counter(pc.filter(hashes, pc.not_equal(hashes, log.schema_hash)).to_pylist())
            names = ["user_id", "event_time", "source_partition", "source_offset", "features"]
            columns = [matching.column(name).cast(kind.type) for name, kind in zip(names, LOG_ROWS)]
            yield pa.RecordBatch.from_arrays(columns, schema=LOG_ROWS), other_schemas


def _check_lengths(rows: pa.RecordBatch, log: FeatureLog, path: Path) -> None:
    lengths = pc.binary_length(rows.column("features")).to_numpy(zero_copy_only=False)
    broken = np.flatnonzero(lengths != 4 * len(log.names))
    if broken.size:
        row = rows.slice(int(broken[0]), 1).to_pylist()[0]
        raise SourceError(
            f"{path}: partition {row['source_partition']}, offset {row['source_offset']}: features has "
            f"{lengths[broken[0]]} bytes, expected 4 for each of the {len(log.names)} features of this schema"
        )


def logged_examples(
    log: pa.Table,
    names: Sequence[str],
    data: Dataset,
    label: Label,
    partition: np.ndarray,
    offset: np.ndarray,
    data_end_ms: int,
) -> tuple[Examples, Counter]:
    """As `make_examples`, but only for the events in LOG_ROWS, with the logged vectors.

    Also counts rows by outcome: matched with a click or absent among the clicks, repeated, and differing from an
    earlier row of the same event, which is used. At-least-once delivery repeats rows; they differ if a job that
    recovered from a failure saw the event and a profile in another order.
    """
    labels, usable = data.label(label, data_end_ms)
    matches, counts = _match(log, data, partition, offset)
    matches = matches[usable[matches["row"]]]
    rows = matches["row"].to_numpy(np.int64)
    features = np.frombuffer(b"".join(matches["features"]), "<f4").astype(np.float32, copy=False)
    examples = examples_of(data, rows, labels[rows], names, features.reshape(-1, len(names)), partition, offset)
    return examples, counts


def _match(log: pa.Table, data: Dataset, partition: np.ndarray, offset: np.ndarray) -> tuple[pd.DataFrame, Counter]:
    """The log's rows with the matching `row` of the dataset, in its order, each event once."""
    events = pd.DataFrame(
        {
            "user": data.user,
            "time_ms": data.records["time_ms"],
            "partition": partition[data.positions],
            "offset": offset[data.positions],
            "row": np.arange(len(data.user)),
        }
    )[~data.is_history]
    logged = log.to_pandas()
    logged["user"] = pd.Index(data.user_ids, dtype=object).get_indexer(logged["user_id"])
    distinct = logged.drop_duplicates([*_KEY, "features"])
    first = distinct.drop_duplicates(_KEY)
    matches = first.merge(events, on=_KEY).sort_values("row")
    return matches, Counter(
        matched=len(matches),
        absent=len(first) - len(matches),
        repeated=len(logged) - len(distinct),
        differing=len(distinct) - len(first),
    )
