"""Rows of files in the formats that shops export: CSV, JSON Lines, JSON, Parquet and Avro, plain or compressed."""

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import fastavro
import msgspec
import pyarrow
import pyarrow.parquet

from training.data.intake import counted
from udfs.config.text import one_line
from udfs.contracts.lenient import read_object
from udfs.contracts.rejects import Reject, explain
from udfs.mapping.columns import column_reader, column_steps, structured
from udfs.mapping.definition import FileLayout

PARQUET_BATCH_ROWS = 8_192
#: Lines of one row of CSV. A quote that is not closed spans more, or breaks the rules of its row.
MAX_LINES_IN_ROW = 100
#: The first line with which Excel names the delimiter; it is no row.
DELIMITER_LINE = re.compile(r"sep=([^\r\n])(\r\n?|\n|$)")
FORMAT_OF_SUFFIX = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".avro": "avro",
}
COMPRESSED = (".gz", ".zst")
BY_NAME = FileLayout()  # all of it follows from the file's name


class SourceError(ValueError):
    """A source that can't be read; the message is one line that names the file and the rule."""


class Row(NamedTuple):
    """A row of a file."""

    values: dict[str, Any]
    problem: str | None = None  # why no mapping can adapt it
    original: bytes | None = None  # its bytes, in formats where each row has its own

    @property
    def as_bytes(self) -> bytes:
        """The bytes of the row, or its columns as JSON."""
        if self.original is not None:
            return self.original
        return json.dumps(self.values, ensure_ascii=False, default=str).encode("utf-8", "surrogateescape")


class Rows(NamedTuple):
    """The rows of a file, and its columns where every row has the same."""

    columns: list[str] | None
    rows: Iterator[Row]


def read_rows(file: BinaryIO, layout: FileLayout = BY_NAME) -> Rows:
    """The rows of an open file. Raises SourceError; so do the rows, where the file can't be read further."""
    name = file.name
    file_format = format_of(name, layout)
    with reading(name):
        if file_format == "parquet":
            columns, rows = _parquet_rows(file, name)
        elif file_format == "avro":
            columns, rows = None, _avro_rows(decompressed(file, name), name)
        elif file_format == "csv":
            columns, rows = _csv_rows(decompressed(file, name), name, layout)
        else:
            columns, rows = None, _json_rows(decompressed(file, name), layout.encoding, file_format == "json")
    if layout.explode:
        columns, rows = None, _exploded(rows, layout.explode)
    return Rows(columns, _until_unreadable(rows, name))


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file of JSON Lines, without line breaks, byte-order mark and blank lines. Raises SourceError."""
    return _until_unreadable(_json_lines(decompressed(file, file.name), "utf-8"), file.name)


def format_of(name: str, layout: FileLayout = BY_NAME) -> str:
    """The format of a file, one of FILE_FORMATS. Raises SourceError for an unknown one."""
    suffix = Path(without_compression(name)).suffix
    file_format = layout.format or FORMAT_OF_SUFFIX.get(suffix)
    if file_format is None:
        raise SourceError(
            f"{name}: unknown format {suffix or 'without a suffix'}: expected {', '.join(FORMAT_OF_SUFFIX)}, or one of "
            "these with .gz or .zst; or set file.format in a mapping"
        )
    return file_format


def parquet_metadata(file: BinaryIO | Path, name: str) -> pyarrow.parquet.FileMetaData:
    """Read the metadata of a Parquet file. Raises SourceError with `name`."""
    try:
        return pyarrow.parquet.read_metadata(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{name}: not a Parquet file: {one_line(error)}") from None


def find_files(data: Path) -> list[Path]:
    """The file, or all files under the directory except hidden ones, by name. Raises SourceError for none."""
    if not data.exists():
        raise SourceError(f"{data}: no such file or directory")
    hidden = (".", "_")  # unfinished files and metadata of Flink and Spark
    files = [data] if data.is_file() else sorted(
        file
        for file in data.rglob("*")
        if file.is_file() and not any(name.startswith(hidden) for name in file.relative_to(data).parts)
    )  # fmt: skip
    if not files:
        raise SourceError(f"{data}: no file in it")
    return files


@contextmanager
def reading(name: str | Path) -> Iterator[None]:
    """Turn the errors of a broken file into SourceError, in one line that names the file."""
    try:
        yield
    except SourceError:
        raise
    except (OSError, EOFError, zlib.error, csv.Error, pyarrow.ArrowException) as error:
        raise SourceError(f"{name}: cannot be read further: {one_line(error)}") from None
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:  # all of which fastavro raises
        raise SourceError(f"{name}: cannot be read further: {type(error).__name__}: {one_line(error)}") from None


def _until_unreadable(rows: Iterable[Any], name: str) -> Iterator[Any]:
    with reading(name):
        yield from rows


def without_compression(name: str) -> str:
    """The name of a file without the suffix of its compression."""
    return next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), name)


def decompressed(file: BinaryIO, name: str) -> io.BufferedIOBase:
    """The content of an open file, decompressed as its name says."""
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if name.endswith(".zst"):
        return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"))
    return file


def _texts(stream: io.BufferedIOBase, encoding: str) -> Iterator[str]:
    """The lines of a text. Bytes that UTF-8 does not know pass through, so that only their own row is unfit."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding, errors = "utf-8-sig", "surrogateescape"
    else:
        errors = "replace"
    return io.TextIOWrapper(stream, encoding, errors, newline="")


class _Lines:
    """Lines for csv.reader, of which those that a bad row swallowed can be given back."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self._returned: list[str] = []
        self.taken: list[str] = []  # of the present row
        self.number = 1  # of the row's first line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) == MAX_LINES_IN_ROW:
            raise StopIteration
        line = self._returned.pop() if self._returned else next(self._lines)
        self.taken.append(line)
        return line

    def next_row(self) -> None:
        self.number += len(self.taken)
        self.taken = []

    def give_back(self) -> None:
        """Give all lines of the present row back."""
        self._returned += reversed(self.taken)
        self.taken = []

    def keep_first(self) -> str:
        """Give all lines of the present row back but its first one, which is returned."""
        first, *others = self.taken
        self._returned += reversed(others)
        self.taken = [first]
        return first


def _csv_rows(stream: io.BufferedIOBase, name: str, layout: FileLayout) -> tuple[list[str], Iterator[Row]]:
    lines = _Lines(_texts(stream, layout.encoding))
    named = DELIMITER_LINE.fullmatch(next(lines, ""))
    lines.next_row() if named else lines.give_back()
    delimiter = named[1] if named else layout.delimiter or usual_delimiter(name)
    # A tab-separated file, such as Snowplow's, has JSON with quotes in its columns and none around them.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, strict=True, quoting=quoting)
    columns = _header(lines, reader, name) if layout.header is None else _known_header(lines, reader, layout.header)
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise SourceError(
            f"{name}: more than one column is called {', '.join(twice)}: rename them, or name all columns in "
            "file.header of a mapping"
        )
    return columns, _csv_records(lines, reader, columns, delimiter)


def usual_delimiter(name: str) -> str:
    """The delimiter of CSV in a file of that name."""
    return "\t" if without_compression(name).endswith(".tsv") else ","


def _header(lines: _Lines, reader: Iterator[list[str]], name: str) -> list[str]:
    for columns in reader:
        if columns:
            return columns
        lines.next_row()
    raise SourceError(f"{name}: no header line that names the columns")


def _known_header(lines: _Lines, reader: Iterator[list[str]], header: tuple[str, ...]) -> list[str]:
    """The columns that a mapping names, or those of them that the file itself names in its first line."""
    try:
        first = next(reader, [])
    except csv.Error:
        first = []
    if first and set(first) <= set(header):
        return first
    lines.give_back()
    return list(header)


def _csv_records(lines: _Lines, reader: Iterator[list[str]], columns: list[str], delimiter: str) -> Iterator[Row]:
    while True:
        lines.next_row()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem, first = f"line {lines.number}: {error}; is a quote not closed?", lines.keep_first()
        else:
            if not values:
                continue
            if len(values) == len(columns):
                yield Row(dict(zip(columns, values)))
                continue
            problem = f"line {lines.number}: {counted(len(values), 'value')} for {counted(len(columns), 'column')}"
            is_one_row = not any(_is_row(line, len(columns), delimiter) for line in lines.taken[1:])
            first = lines.taken[0] if is_one_row else lines.keep_first()
        yield Row({}, problem, first.rstrip("\r\n").encode("utf-8", "surrogateescape"))


def _is_row(line: str, width: int, delimiter: str) -> bool:
    """Whether a line within quotes is a row of its own: then the quote before it was not closed."""
    return line.count('"') % 2 == 0 and len(next(csv.reader([line], delimiter=delimiter), [])) == width


def _json_lines(stream: io.BufferedIOBase, encoding: str) -> Iterator[bytes]:
    for text in _texts(stream, encoding):
        line = text.encode("utf-8", "surrogateescape").strip()
        if line:
            yield line


def _json_rows(stream: io.BufferedIOBase, encoding: str, may_be_one_value: bool) -> Iterator[Row]:
    """A row for each line; of a file that is one JSON value, for each entry of the list, or for the object."""
    lines = _json_lines(stream, encoding)
    if may_be_one_value:
        first = next(lines, b"")
        lines = chain([first] if first else [], lines)
        if _json_row(first).problem is not None:
            content = b"\n".join(lines)
            try:
                value = msgspec.json.decode(content)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                lines = iter(content.splitlines())
            else:
                yield from (
                    Row(entry) if isinstance(entry, dict) else Row({}, "not a JSON object", msgspec.json.encode(entry))
                    for entry in (value if isinstance(value, list) else [value])
                )
                return
    yield from map(_json_row, lines)


def _json_row(line: bytes) -> Row:
    try:
        return Row(read_object(line), original=line)
    except Reject as error:  # which says what the line is instead
        return Row({}, str(error), line)
    except Exception as error:  # explain() raises again what a line can't cause
        return Row({}, f"not a JSON object: {explain(line, error)}", line)


def _parquet_rows(file: BinaryIO, name: str) -> tuple[list[str], Iterator[Row]]:
    parquet = pyarrow.parquet.ParquetFile(file)
    columns = parquet.schema_arrow.names
    if len(set(columns)) < len(columns):
        raise SourceError(f"{name}: more than one column is called the same: {', '.join(columns)}")
    return columns, _parquet_records(parquet)


def _parquet_records(parquet: pyarrow.parquet.ParquetFile) -> Iterator[Row]:
    readers = {field.name: read for field in parquet.schema_arrow if (read := _object_reader(field.type)) is not None}
    for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS):
        for values in batch.to_pylist():
            for name, read in readers.items():
                values[name] = read(values[name])
            yield Row(values)


def _object_reader(kind: pyarrow.DataType) -> Callable[[Any], Any] | None:
    """The function that makes objects of the maps in values of a type, which PyArrow gives as pairs; None for none."""
    if pyarrow.types.is_map(kind):
        read = _object_reader(kind.item_type) or (lambda value: value)
        return lambda pairs: pairs if pairs is None else {str(key): read(value) for key, value in pairs}
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        read = _object_reader(kind.value_type)
        return read and (lambda values: values if values is None else [read(value) for value in values])
    if pyarrow.types.is_struct(kind):
        readers = {field.name: read for field in kind if (read := _object_reader(field.type)) is not None}
        if readers:
            return lambda values: (
                values if values is None else values | {name: read(values[name]) for name, read in readers.items()}
            )
    return None


def _avro_rows(stream: io.BufferedIOBase, name: str) -> Iterator[Row]:
    try:
        yield from map(Row, fastavro.reader(stream))
    except MemoryError:  # a length in a broken file is any number
        raise SourceError(f"{name}: not an Avro file, or broken") from None


def _exploded(rows: Iterable[Row], column: str) -> Iterator[Row]:
    """A row for each entry of the list in a column: the entry's keys, over the columns of the row around it."""
    read, outermost = column_reader(column), column_steps(column)[0]
    for row in rows:
        entries = structured(read(row.values)) if row.problem is None else None
        if row.problem is not None:
            yield row
        elif not isinstance(entries, list):
            yield Row(row.values, f"column {column} is not a list of events", row.original)
        else:
            around = {name: value for name, value in row.values.items() if name not in (column, outermost)}
            for entry in entries:
                problem = None if isinstance(entry, dict) else f"column {column} holds an entry that is no object"
                yield Row(around | entry if problem is None else {column: entry}, problem)
