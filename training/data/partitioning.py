"""Partitioning of rows on disk: a hash of the user selects the bucket, and a bucket fits into memory."""

from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FLUSH_ROWS = 200_000


class Spill:
    """Writes rows by bucket into Arrow files: batch k of a file belongs to bucket k."""

    def __init__(self, prefix: Path, buckets: int, schema: pa.Schema):
        self._prefix, self._buckets, self._schema = prefix, buckets, schema
        self._pending: list[pa.RecordBatch] = []
        self._bucket_of: list[int] = []  # each pending row's
        self._files = 0

    def __enter__(self) -> "Spill":
        return self

    def __exit__(self, *_) -> None:
        self._flush()

    def add(self, user_ids: list[str], *columns: Sequence) -> None:
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column, kind.type)
            for column, kind in zip((user_ids, *columns), self._schema)
        ]
        self._pending.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._bucket_of += [crc32(user_id.encode()) % self._buckets for user_id in user_ids]
        if len(self._bucket_of) >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        bucket = np.array(self._bucket_of)
        order = np.argsort(bucket, kind="stable")
        table = pa.Table.from_batches(self._pending).take(order).combine_chunks()
        bounds = np.searchsorted(bucket[order], np.arange(self._buckets + 1))
        with (
            pa.OSFile(f"{self._prefix}-{self._files:04d}.arrow", "wb") as sink,
            pa.ipc.new_file(sink, self._schema) as writer,
        ):
            for start, end in zip(bounds[:-1], bounds[1:]):
                batches = table.slice(start, end - start).to_batches()
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], self._schema))
        self._pending, self._bucket_of = [], []
        self._files += 1


def gather(spill: Path, kind: str, bucket: int, schema: pa.Schema) -> pa.Table:
    """Read all rows of a bucket."""
    batches = []
    for file in sorted(spill.glob(f"{kind}-*.arrow")):
        with pa.memory_map(str(file)) as source:
            batches.append(pa.ipc.open_file(source).get_batch(bucket))
    return pa.Table.from_batches(batches, schema).combine_chunks()


def coded(ids: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """The code of each of n ids, int64[n], and the distinct ids by code, in order: the same for ids in any order.

    Splits go by these codes, so that they do not depend on the order of the rows of a file.
    """
    codes = pc.dictionary_encode(ids).combine_chunks()
    codes = codes if isinstance(codes, pa.DictionaryArray) else pc.dictionary_encode(pa.array([], pa.string()))
    by_code = pc.array_sort_indices(codes.dictionary).to_numpy().astype(np.int64)
    rank = np.empty(len(by_code), np.int64)
    rank[by_code] = np.arange(len(by_code))
    return rank[codes.indices.to_numpy(zero_copy_only=False)], codes.dictionary.take(by_code).to_pylist()


def unpack(column: pa.ChunkedArray, dtype: np.dtype) -> np.ndarray:
    """The records dtype[n] of a column with their bytes."""
    return np.frombuffer(b"".join(column.to_pylist()), dtype)
