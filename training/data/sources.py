"""Streams of Kafka records from recorded or simulated clicks."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO
from zlib import crc32

import msgspec
import numpy as np

from training.data.intake import Intake
from training.data.rows import Row, SourceError, format_of, lines_of, read_rows
from udfs.config.durations import now_ms
from udfs.contracts.clicks import EARLIEST_TIME_MS, Click, read_click
from udfs.contracts.lenient import read_object
from udfs.contracts.rejects import explain, unfit_row
from udfs.mapping.adapter import ClickAdapter, RowError
from udfs.mapping.columns import column_steps
from udfs.mapping.definition import (
    REQUIRED_FIELDS,
    ClickMapping,
    FileLayout,
    MappingError,
    MappingFile,
    in_order,
    same_names,
)

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS

#: Key, value, and event time in epoch milliseconds; None where a record has none that can be read.
Record = tuple[bytes | None, bytes | None, int | None]


def file_records(
    file: BinaryIO, mappings: MappingFile | None = None, shift_ms: int = 0, intake: Intake | None = None
) -> Iterator[Record]:
    """The records of an open file, with `shift_ms` added to their event times.

    Without mappings, lines of JSON are sent unchanged, and columns must be named like a click's fields. A row that the
    mapping can't adapt is counted in `intake`; its record is one that the job rejects as an unfit row.
    Raises SourceError, and MappingError for a column that is not there.
    """
    intake = Intake() if intake is None else intake
    latest_ms = now_ms() + DAY_MS
    if mappings is None and format_of(file.name) == "jsonl":
        for line in lines_of(file):
            intake.rows += 1
            yield _line_record(line, shift_ms, latest_ms)
        return
    mapping = None if mappings is None else _mapping_for(file, mappings)
    columns, rows = read_rows(file, FileLayout() if mapping is None else mapping.file)
    if mapping is None:
        if columns is None:
            raise SourceError(f"{file.name}: requires a mapping; `intent map {file.name}` proposes one")
        mappings = same_names(columns, file.name)
        mapping = _mapping_for(file, mappings)
    if columns is not None and mapping.file.header is None:
        check_columns(mapping, columns, mappings.name, file.name)
    yield from _adapted_records(rows, mapping, shift_ms, latest_ms, intake, file.name)


def check_columns(mapping: ClickMapping, columns: Sequence[str], mapping_name: str, source: str) -> None:
    """Raise MappingError when none of the columns that may fill a required field is in `source`."""
    for field in REQUIRED_FIELDS:
        names = in_order(mapping.columns.get(field, ()))
        if names and not any(name in columns or column_steps(name)[0] in columns for name in names):
            raise MappingError(
                f"{mapping_name}: key columns.{field}: no column {' or '.join(names)} in {source}, only "
                f"{', '.join(columns)}; correct the key, or set file.delimiter, file.encoding or file.header"
            )


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


def last_time(times_ms: np.ndarray) -> tuple[int, int]:
    """The last of n times int64[n], n > 0, without outliers, and the number of outliers.

    Outliers are at most one time in a thousand, or the last one, after a gap longer than all the times before it last.
    """
    times = np.sort(times_ms)
    most = max(1, len(times) // 1000)
    for outliers in range(min(most, len(times) - 2), 0, -1):
        last, next_one = times[-outliers - 1], times[-outliers]
        if next_one - last > max(last - times[0], DAY_MS):
            return int(last), outliers
    return int(times[-1]), 0


def weeks_to_shift(last_ms: int, now_ms: int) -> int:
    """Whole weeks, in milliseconds, that bring `last_ms` into the week that ends now: weekday and hour stay."""
    return (now_ms - last_ms) // WEEK_MS * WEEK_MS


class _Envelope(msgspec.Struct):
    user_id: str | int | None = None
    event_time: int | None = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def _line_record(line: bytes, shift_ms: int, latest_ms: int) -> Record:
    """The record of a line with its event time shifted. Other fields keep their bytes; broken lines are unchanged."""
    envelope = _envelope(line)
    key = None if envelope.user_id in (None, "") else str(envelope.user_id).encode()
    time_ms = envelope.event_time
    if time_ms is None or not EARLIEST_TIME_MS <= time_ms <= latest_ms:
        return key, line, None
    if not shift_ms:
        return key, line, time_ms
    return key, _with_time(line, time_ms + shift_ms), time_ms + shift_ms


def _with_time(line: bytes, time_ms: int) -> bytes:
    try:
        return msgspec.json.encode(_read_fields(line) | {"event_time": time_ms})
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # NaN, for example, which the contract ignores
        return json.dumps(read_object(line) | {"event_time": time_ms}).encode()


def _envelope(line: bytes) -> _Envelope | Click:
    """User and time of a line; neither where the job will not accept it anyway."""
    try:
        return _read_envelope(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # the contract is more lenient
    try:
        return read_click(line)
    except Exception as error:
        explain(line, error)  # raises again what a line can't cause
        return _Envelope()


def _mapping_for(file: BinaryIO, mappings: MappingFile) -> ClickMapping:
    name = file.name.rpartition("/")[2]
    mapping = mappings.for_file(name)
    if mapping is None:
        raise MappingError(f"{mappings.name}: key files: no pattern matches {name}")
    return mapping


def _adapted_records(
    rows: Iterable[Row], mapping: ClickMapping, shift_ms: int, latest_ms: int, intake: Intake, name: str
) -> Iterator[Record]:
    if mapping.event_id_prefix is not None:  # ids that repeat mark duplicates, and each file has a first row
        file_prefix = f"{mapping.event_id_prefix}-{crc32(os.fsencode(name)):08x}"
        mapping = msgspec.structs.replace(mapping, event_id_prefix=file_prefix)
    shown_name = os.fsencode(name).decode(errors="replace")  # so that any terminal prints it
    adapter, encode = ClickAdapter(mapping, latest_ms), msgspec.json.Encoder().encode
    try:
        for number, row in enumerate(rows, 1):
            intake.rows += 1
            try:
                if row.problem is not None:
                    raise RowError(row.problem)
                click = adapter.adapt(row.values, number)
                if click is None:
                    continue
                click["event_time"] += shift_ms
            except RowError as error:
                intake.add_unfit(f"{shown_name}, row {number}", str(error))
                yield None, unfit_row(row.as_bytes, str(error)), None
            else:
                yield click["user_id"].encode(), encode(click), click["event_time"]
    finally:  # also of a file that is not read to its end
        intake.end_of_file(adapter.named, adapter.absent, adapter.ignored)
