"""The first rows of a file of clicks whose layout is found from its content, where its name doesn't tell."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from training.data.rows import (
    COMPRESSED,
    DELIMITER_LINE,
    FORMAT_OF_SUFFIX,
    Row,
    SourceError,
    decompressed,
    read_rows,
    reading,
    usual_delimiter,
    without_compression,
)
from training.inspection.field_names import name_score
from training.inspection.value_formats import ENOUGH, MISSING_TEXTS, Column, columns_of, is_number_or_time
from udfs.mapping.definition import FileLayout

SAMPLE_ROWS = 10_000
_HEAD_BYTES = 1 << 20
_HEAD_ROWS = 200  # that decide on the delimiter, the header and a list of events inside objects
_DELIMITERS = (",", ";", "\t", "|")
_CONSISTENT = 0.9  # share of the lines with as many values as most of them have
_MAGIC = {b"PAR1": "parquet", b"Obj\x01": "avro"}


class Sample(NamedTuple):
    """The first rows of a file, those that can't be read too, and its layout."""

    rows: list[Row]
    layout: FileLayout

    @property
    def readable(self) -> list[dict[str, Any]]:
        """The columns of the rows that can be read."""
        return [row.values for row in self.rows if row.problem is None]


def sample(path: Path) -> Sample:
    """The first SAMPLE_ROWS rows of a file. Raises SourceError, also if none of them can be read."""
    if path.is_dir():
        raise SourceError(f"{path}: is a directory: pass one of its files")
    if not path.exists():
        raise SourceError(f"{path}: no such file")
    head, is_whole = _head(path)
    layout = _layout(path, head, is_whole)
    column = _events_inside(_read(path, layout, _HEAD_ROWS))
    if column is not None:
        layout = msgspec.structs.replace(layout, explode=column)
    result = Sample(_read(path, layout, SAMPLE_ROWS), layout)
    if not result.rows:
        raise SourceError(f"{path}: no row in it")
    if not result.readable:
        few = "the only row cannot" if len(result.rows) == 1 else f"none of the first {len(result.rows):,} rows can"
        raise SourceError(f"{path}: {few} be read: {result.rows[0].problem}")
    return result


def stem_of(path: Path) -> str:
    """The name of a file without the endings that name its format."""
    name = path.name
    for suffixes in (COMPRESSED, (*FORMAT_OF_SUFFIX, ".dat", ".txt")):
        name = next((name[: -len(suffix)] for suffix in suffixes if name.lower().endswith(suffix)), name)
    return name


def _read(path: Path, layout: FileLayout, limit: int) -> list[Row]:
    with path.open("rb") as file:
        return list(islice(read_rows(file, layout).rows, limit))


def _head(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, decompressed, and whether they are all."""
    with reading(path), path.open("rb") as file:
        head = decompressed(file, path.name).read(_HEAD_BYTES + 1)
    if head.startswith(b"PK\x03\x04"):
        raise SourceError(f"{path}: a ZIP archive or an Excel file: unpack it, or export it as CSV")
    return head[:_HEAD_BYTES], len(head) <= _HEAD_BYTES


def _layout(path: Path, head: bytes, is_whole: bool) -> FileLayout:
    suffix = Path(without_compression(path.name)).suffix
    told = FORMAT_OF_SUFFIX.get(suffix)
    file_format = told or _format(head)
    layout = FileLayout(format=None if told else file_format)
    if file_format in ("parquet", "avro"):
        return layout
    encoding = _encoding(head, is_whole)
    layout = msgspec.structs.replace(layout, encoding=encoding)
    if file_format != "csv":
        return layout
    lines = head.decode(encoding, "replace").removeprefix("\ufeff")
    if not is_whole:
        lines = lines[: lines.rfind("\n") + 1]
    usual = usual_delimiter(path.name)
    if named := DELIMITER_LINE.match(lines):
        delimiter, table = usual, _split(lines[named.end() :], named[1])
    else:
        delimiter, table = _table(lines)
    header = None if not table or _has_header(table) else tuple(f"column_{n}" for n in range(1, len(table[0]) + 1))
    return msgspec.structs.replace(layout, delimiter=None if delimiter == usual else delimiter, header=header)


def _format(head: bytes) -> str:
    """The format of a file whose name doesn't tell."""
    if head[:4] in _MAGIC:
        return _MAGIC[head[:4]]
    text = head.decode("latin-1").lstrip("\xef\xbb\xbf\xff\xfe\0 \r\n\t")
    return {"{": "jsonl", "[": "json"}.get(text[:1], "csv")


def _encoding(head: bytes, is_whole: bool) -> str:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=is_whole)
    except UnicodeDecodeError:
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        return "cp1252" if _is_windows(head) else "latin-1"
    return "utf-8"


def _is_windows(head: bytes) -> bool:
    """Whether a text has characters of Windows, such as the euro sign, where latin-1 has control characters."""
    try:
        head.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return any(0x80 <= byte <= 0x9F for byte in set(head))


def _table(lines: str) -> tuple[str, list[list[str]]]:
    """The delimiter that splits most lines into equally many values, and the values."""
    best, best_rank, best_table = ",", (False, 0.0), []
    for delimiter in _DELIMITERS:
        table = _split(lines, delimiter)
        width, count = Counter(map(len, table)).most_common(1)[0] if table else (0, 0)
        share = count / len(table) if width > 1 else 0.0
        rank = (share >= _CONSISTENT, width if share >= _CONSISTENT else share)
        if rank > best_rank or not best_table:
            best, best_rank, best_table = delimiter, rank, table
    return best, best_table


def _split(lines: str, delimiter: str) -> list[list[str]]:
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    table = []
    try:
        for row in csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter, quoting=quoting):
            if row:
                table.append(row)
            if len(table) == _HEAD_ROWS:
                break
    except csv.Error:
        pass
    return table


def _has_header(table: Sequence[Sequence[str]]) -> bool:
    """Whether the first line names the columns: it has letters, and no number or time where other lines have one."""
    first, *others = table
    if not any(character.isalpha() for value in first for character in value):
        return False
    for column, name in enumerate(first):
        if is_number_or_time(name):
            below = [
                row[column] for row in others if column < len(row) and row[column].strip() not in ("", *MISSING_TEXTS)
            ]
            if sum(map(is_number_or_time, below)) >= _CONSISTENT * len(below):
                return False
    return True


def _events_inside(rows: Sequence[Row]) -> str | None:
    """The column that holds a list of events, where the rows themselves are none."""
    columns = columns_of([row.values for row in rows if row.problem is None])
    if _best(columns, "event_name") and _best(columns, "event_time", _has_times):
        return None
    lists = [
        column for column in columns if (column.entries or ()) and _best(_inside(column), "event_time", _has_times)
    ]
    return max(lists, key=lambda column: len(column.entries)).name if lists else None


def _inside(column: Column) -> list[Column]:
    entries: list[Mapping[str, Any]] = column.entries
    return columns_of(entries[:_HEAD_ROWS])


def _best(columns: Sequence[Column], field: str, fits=bool) -> bool:
    """Whether a column has a name of the field, and values that fit."""
    return any(name_score(column.name, field) >= 0.6 and column.given and fits(column) for column in columns)


def _has_times(column: Column) -> bool:
    return column.time_format is not None and column.time_format.share >= ENOUGH
