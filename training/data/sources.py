"""Streams of Kafka records from recorded or simulated clicks."""

import codecs
import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import pyarrow
import pyarrow.parquet

from training.data.mapping import ClickMapping, RowError, check_columns, click_adapter, same_names
from udfs.config.text import one_line
from udfs.contracts.clicks import LATEST_TIME_MS

WEEK_MS = 7 * 86_400_000
PARQUET_BATCH_ROWS = 8_192
FORMATS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")

#: Key, value, and event time in epoch milliseconds; None where a record has none that can be read.
Record = tuple[bytes | None, bytes | None, int | None]
#: Called for each row that a mapping can't adapt, with its number, from 1, and the reason.
UnfitReporter = Callable[[int, str], None]


class SourceError(ValueError):
    """A source that can't be read; the message is one line that names the file and the rule."""


class Row(NamedTuple):
    """A row of a file."""

    values: dict[str, Any]
    problem: str | None = None  # why no mapping can adapt it
    original: bytes | None = None  # its bytes, in formats where each row has its own


def ignore_unfit(_number: int, _reason: str) -> None:
    """Ignore unfit rows."""


def file_records(
    file: BinaryIO,
    mapping: ClickMapping | None = None,
    shift_ms: int = 0,
    on_unfit: UnfitReporter = ignore_unfit,
    mapping_name: str = "mapping",
) -> Iterator[Record]:
    """The records of an open CSV, JSON Lines or Parquet file, with `shift_ms` added to their event times.

    Without a mapping, lines of JSON are sent unchanged, and columns must be named like a click's fields. A row that
    the mapping can't adapt is reported to `on_unfit` and sent unchanged, as JSON: it becomes a dead letter.
    Raises SourceError, and MappingError for a column that is not there.
    """
    file_format = format_of(file.name)
    try:
        if file_format == ".parquet":
            columns, rows = _parquet_rows(file)
        else:
            lines = iter(gzip.GzipFile(fileobj=file) if file.name.endswith(".gz") else file)
            if file_format == ".jsonl" and mapping is None:
                yield from (_line_record(line.removesuffix(b"\n"), shift_ms) for line in lines)
                return
            columns, rows = _csv_rows(lines, file.name) if file_format == ".csv" else (None, _json_rows(lines))
        if mapping is None:
            mapping = same_names(columns, file.name)
        elif columns is not None:
            check_columns(mapping, columns, mapping_name, file.name)
        yield from _adapted_records(rows, mapping, shift_ms, on_unfit)
    except (OSError, EOFError, zlib.error, csv.Error, pyarrow.ArrowException) as error:
        raise SourceError(f"{file.name}: cannot be read further: {one_line(error)}") from None


def click_records(clicks: Iterable[dict[str, Any]], shift_ms: int = 0) -> Iterator[Record]:
    """The records of clicks that keep the contract, such as simulated ones."""
    encode = msgspec.json.Encoder().encode
    for click in clicks:
        time_ms = click["event_time"] + shift_ms
        yield click["user_id"].encode(), encode({**click, "event_time": time_ms}), time_ms


def profile_records(profiles: Iterable[dict[str, Any]]) -> Iterator[Record]:
    """The records of profiles that keep the contract, such as simulated ones."""
    encode = msgspec.json.Encoder().encode
    for profile in profiles:
        yield profile["user_id"].encode(), encode(profile), None


def count_and_last_time(records: Iterable[Record]) -> tuple[int, int | None]:
    """The number of records and their latest event time, None if no record has one."""
    count, last = 0, None
    for _, _, time_ms in records:
        count += 1
        if time_ms is not None and (last is None or time_ms > last):
            last = time_ms
    return count, last


def weeks_to_shift(last_ms: int, now_ms: int) -> int:
    """Whole weeks, in milliseconds, that bring `last_ms` into the week that ends now: weekday and hour stay."""
    return (now_ms - last_ms) // WEEK_MS * WEEK_MS


def parquet_metadata(file: BinaryIO | Path, name: str) -> pyarrow.parquet.FileMetaData:
    """Read the metadata of a Parquet file. Raises SourceError with `name`."""
    try:
        return pyarrow.parquet.read_metadata(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{name}: not a Parquet file: {one_line(error)}") from None


def format_of(name: str) -> str:
    """The suffix for the format of a file, without .gz. Raises SourceError for an unknown one."""
    if not name.endswith(FORMATS):
        raise SourceError(f"{name}: unknown format; the name must end in {', '.join(FORMATS)}")
    return Path(name.removesuffix(".gz")).suffix


class _Envelope(msgspec.Struct):
    user_id: str | None = None
    event_time: int | None = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_object = msgspec.json.Decoder(dict[str, Any]).decode
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _line_record(line: bytes, shift_ms: int) -> Record:
    """The record of a line with its event time shifted. Other fields keep their bytes; broken lines are unchanged."""
    try:
        envelope = _read_envelope(line)
    except _NOT_JSON:
        return None, line, None
    key = envelope.user_id.encode() if envelope.user_id else None
    time_ms = _kafka_time(envelope.event_time)
    if time_ms is None or not shift_ms:
        return key, line, time_ms
    return key, msgspec.json.encode(_read_fields(line) | {"event_time": time_ms + shift_ms}), time_ms + shift_ms


def _adapted_records(
    rows: Iterable[Row], mapping: ClickMapping, shift_ms: int, on_unfit: UnfitReporter
) -> Iterator[Record]:
    adapt, encode = click_adapter(mapping), msgspec.json.Encoder().encode
    for number, row in enumerate(rows, 1):
        try:
            if row.problem is not None:
                raise RowError(row.problem)
            click = adapt(row.values, number)
            click["event_time"] += shift_ms
            record = click["user_id"].encode(), encode(click), _kafka_time(click["event_time"])
        except (RowError, UnicodeEncodeError) as error:
            on_unfit(number, str(error))
            yield None, _as_json(row.values) if row.original is None else row.original, None
        else:
            yield record


def _kafka_time(time_ms: int | None) -> int | None:
    return time_ms if time_ms is not None and 0 <= time_ms <= LATEST_TIME_MS else None


def _csv_rows(lines: Iterator[bytes], name: str) -> tuple[list[str], Iterator[Row]]:
    reader = csv.reader(_text(lines))
    columns = next(reader, None)
    if not columns:
        raise SourceError(f"{name}: no header line that names the columns")
    return columns, (_csv_row(columns, values) for values in reader if values)


def _csv_row(columns: list[str], values: list[str]) -> Row:
    row = dict(zip(columns, values))
    if len(values) == len(columns):
        return Row(row)
    surplus = {"": values[len(columns) :]} if len(values) > len(columns) else {}
    return Row(row | surplus, f"{len(values)} values for {len(columns)} columns")


def _text(lines: Iterator[bytes]) -> Iterator[str]:
    """Decode line by line; bytes that are not UTF-8 pass through, so that only their own row is unfit."""
    first = next(lines, b"").removeprefix(codecs.BOM_UTF8)
    return (line.decode("utf-8", "surrogateescape") for line in itertools.chain([first], lines))


def _json_rows(lines: Iterator[bytes]) -> Iterator[Row]:
    return (_json_row(line.removesuffix(b"\n")) for line in lines)


def _json_row(line: bytes) -> Row:
    try:
        return Row(_read_object(line), original=line)
    except _NOT_JSON as error:
        return Row({}, f"not a JSON object: {error}", line)


def _parquet_rows(file: BinaryIO) -> tuple[list[str], Iterator[Row]]:
    parquet = pyarrow.parquet.ParquetFile(file)
    batches = parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS)
    return parquet.schema_arrow.names, (Row(values) for batch in batches for values in batch.to_pylist())


def _as_json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")
