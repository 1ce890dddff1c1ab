"""Rows are read from every format, clean or broken; a broken row spoils no other."""

import csv
import gzip
import io
import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import fastavro
import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.rows import SourceError, format_of, read_rows
from udfs.mapping.columns import column_reader
from udfs.mapping.definition import FileLayout

ROWS = [{"who": "1", "what": "scroll"}, {"who": "2", "what": "ä"}]


def rows_of(path: Path, content: bytes | str | None = None, **layout) -> list:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with path.open("rb") as file:
        return list(read_rows(file, FileLayout(**layout)).rows)


def values_of(path: Path, content: bytes | str | None = None, **layout) -> list[dict]:
    rows = rows_of(path, content, **layout)
    assert not [row.problem for row in rows if row.problem]
    return [row.values for row in rows]


def csv_of(rows: list[dict], **options) -> str:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0], **options)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def written(path: Path) -> Path:
    """ROWS in the format of the file's name."""
    plain = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in ROWS)
    content = {
        ".csv": lambda: csv_of(ROWS).encode(),
        ".tsv": lambda: csv_of(ROWS, delimiter="\t").encode(),
        ".jsonl": lambda: lines,
        ".ndjson": lambda: lines,
        ".json": lambda: lines,
        ".avro": _avro,
        ".parquet": _parquet,
    }[plain.suffix]()
    compress = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, lambda content: content)
    path.write_bytes(compress(content))
    return path


def zstd(content: bytes) -> bytes:
    out = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(out, "zstd") as stream:
        stream.write(content)
    return out.getvalue().to_pybytes()


def _avro() -> bytes:
    out = io.BytesIO()
    fields = [{"name": name, "type": "string"} for name in ROWS[0]]
    fastavro.writer(out, {"type": "record", "name": "Click", "fields": fields}, ROWS)
    return out.getvalue()


def _parquet() -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), out)
    return out.getvalue()


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".avro"])
def test_every_format_gives_the_same_rows(tmp_path, suffix, compression):
    assert values_of(written(tmp_path / f"c{suffix}{compression}")) == ROWS


def test_parquet_gives_the_same_rows(tmp_path):
    assert values_of(written(tmp_path / "c.parquet")) == ROWS


def test_a_compressed_file_of_several_parts_is_read_whole(tmp_path):
    for suffix, compress in ((".gz", gzip.compress), (".zst", zstd)):
        content = compress(b'{"a":1}\n') + compress(b'{"a":2}\n')
        assert values_of(tmp_path / f"c.jsonl{suffix}", content) == [{"a": 1}, {"a": 2}]


def test_a_layout_says_what_the_name_does_not(tmp_path):
    path = tmp_path / "clicks.dat"
    content = "1;ä\n2;b\n".encode("latin-1")
    layout = {"format": "csv", "delimiter": ";", "header": ("who", "what"), "encoding": "latin-1"}
    assert values_of(path, content, **layout) == [{"who": "1", "what": "ä"}, {"who": "2", "what": "b"}]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    assert values_of(tmp_path / "c.csv", csv_of(ROWS).encode(encoding), encoding=encoding) == ROWS
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    assert values_of(tmp_path / "c.jsonl", text.encode(encoding), encoding=encoding) == ROWS


def test_csv_may_have_a_byte_order_mark_quotes_blank_lines_and_windows_line_ends(tmp_path):
    text = '\ufeff"who",what\r\n\r\n"a, ""b""\nc",scroll\r\n'
    assert values_of(tmp_path / "c.csv", text) == [{"who": 'a, "b"\nc', "what": "scroll"}]


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_json_lines_may_have_a_byte_order_mark_and_blank_lines(tmp_path, end):
    assert values_of(tmp_path / "c.jsonl", '\ufeff{"a":1}\n\n \r\n{"a":2}' + end) == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ('[{"a":1},{"a":2}]', [{"a": 1}, {"a": 2}]),
        ('[\n {"a":1},\n {"a":2}\n]\n', [{"a": 1}, {"a": 2}]),
        ('{\n "a": 1\n}\n', [{"a": 1}]),
        ('{"a":1}\n{"a":2}\n', [{"a": 1}, {"a": 2}]),
        ("[]", []),
        ("", []),
    ],
)
def test_a_json_file_is_a_list_an_object_or_lines(tmp_path, content, values):
    assert values_of(tmp_path / "c.json", content) == values


def test_a_list_may_hold_what_is_no_row(tmp_path):
    good, bad = rows_of(tmp_path / "c.json", '[{"a":1}, 7]')
    assert (good.values, bad.problem, bad.as_bytes) == ({"a": 1}, "not a JSON object", b"7")


def test_what_json_has_no_word_for_matters_only_where_it_is_read(tmp_path):
    content = b'{"a": NaN, "b": 1}\n{"a": "\\ud83d", "b": 2}\n{"a": "\xff", "b": 3}\n'
    assert [values["b"] for values in values_of(tmp_path / "c.jsonl", content)] == [1, 2, 3]


@pytest.mark.parametrize("line", [b'{"a": 1', b"[1]", b"7", b'"x"', b"[" * 5000, b"\xff"])
def test_a_line_that_is_no_object_spoils_no_other(tmp_path, line):
    good, bad, last = rows_of(tmp_path / "c.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert (good.values, last.values) == ({"a": 1}, {"a": 3})
    assert bad.problem
    assert bad.as_bytes == line


def test_a_row_of_another_length_is_named_by_its_line(tmp_path):
    first, second, third = rows_of(tmp_path / "c.csv", "who,what,at\n\na,scroll\nb,scroll,5,6,7\nc,scroll,5\n")
    assert (first.problem, first.as_bytes) == ("line 3: 2 values for 3 columns", b"a,scroll")
    assert (second.problem, second.as_bytes) == ("line 4: 5 values for 3 columns", b"b,scroll,5,6,7")
    assert third.values == {"who": "c", "what": "scroll", "at": "5"}


def test_a_row_of_another_length_over_several_lines_is_one_row_shown_by_its_first_line(tmp_path):
    text = 'who,what,at\na,"two\nlines, and\nthree",5,6\nb,scroll,5\n'
    bad, good = rows_of(tmp_path / "c.csv", text)
    assert (bad.problem, bad.as_bytes) == ("line 2: 4 values for 3 columns", b'a,"two')
    assert good.values == {"who": "b", "what": "scroll", "at": "5"}


def test_an_open_quote_that_ends_in_a_row_of_another_length_spoils_its_own_row_only(tmp_path):
    text = 'who,what,at\na,"24 inch,5\nb,scroll,5\nc,"x",5,"y"\nd,scroll,6\n'
    rows = rows_of(tmp_path / "c.csv", text)
    assert [row.values.get("who") for row in rows] == [None, "b", None, "d"]
    assert rows[0].as_bytes == b'a,"24 inch,5'


@pytest.mark.parametrize("rows_after", [2, 500])
def test_an_open_quote_spoils_its_own_row_only(tmp_path, rows_after):
    lines = ["who,what", 'u1,"24 inch', *(f"u{number},scroll" for number in range(rows_after))]
    bad, *others = rows_of(tmp_path / "c.csv", "\n".join(lines))
    assert bad.problem.startswith("line 2: ")
    assert "quote" in bad.problem
    assert bad.as_bytes == b'u1,"24 inch'
    assert [row.values["who"] for row in others] == [f"u{number}" for number in range(rows_after)]


def test_an_open_quote_that_a_later_one_seems_to_close_spoils_its_own_row_only(tmp_path):
    bad, quoted, last = rows_of(tmp_path / "c.csv", 'who,what\nu1,"24 inch\nu2,"a ""b"""\nu3,c\n')
    assert bad.problem.startswith("line 2: ")
    assert (quoted.values["what"], last.values["what"]) == ('a "b"', "c")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_first_line_may_name_the_delimiter(tmp_path, end, mark):
    text = f"{mark}sep=;{end}who;what{end}a;b{end}c{end}"
    good, bad = rows_of(tmp_path / "c.csv", text)
    assert good.values == {"who": "a", "what": "b"}
    assert bad.problem == "line 4: 1 value for 2 columns"
    assert values_of(tmp_path / "d.csv", "sep=;\na;b\n", header=("who", "what")) == [{"who": "a", "what": "b"}]
    assert values_of(tmp_path / "e.tsv", "sep=|\nwho|what\na|b\n") == [{"who": "a", "what": "b"}]
    with pytest.raises(SourceError, match="no header line"):
        rows_of(tmp_path / "f.csv", "sep=;")


def test_a_column_may_be_called_like_the_line_that_names_the_delimiter(tmp_path):
    assert values_of(tmp_path / "c.csv", "sep=;,what\na,b\n") == [{"sep=;": "a", "what": "b"}]


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=20))
def test_what_csv_writes_reads_back(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("csv") / "c.csv"
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    writer.writerows(table)
    assert values_of(path, out.getvalue()) == [dict(zip("ab", values)) for values in table]


SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".avro", ".parquet", ".csv.gz", ".jsonl.zst")


@given(st.binary(max_size=200), st.sampled_from(SUFFIXES))
def test_no_bytes_break_a_reader(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("any") / f"c{suffix}"
    with suppress(SourceError):
        assert all(row.values or row.problem is not None or row.original for row in rows_of(path, b"a,b\n" + content))
    with suppress(SourceError):
        rows_of(path, content)


def test_two_columns_of_a_name_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"c\.csv: more than one column is called user: rename them"):
        rows_of(tmp_path / "c.csv", "user,event,user\na,b,c\n")
    named = values_of(tmp_path / "d.csv", "a,b,c\n", header=("user", "event", "user_2"))
    assert named == [{"user": "a", "event": "b", "user_2": "c"}]


def test_a_file_may_name_some_of_the_known_columns_itself(tmp_path):
    header = ("user", "event", "page", "time")
    assert values_of(tmp_path / "c.csv", "time,user\n5,u\n", header=header) == [{"time": "5", "user": "u"}]
    row = {"user": "u", "event": "e", "page": "p", "time": "5"}
    assert values_of(tmp_path / "d.csv", "u,e,p,5\nu,e,p,5\n", header=header) == [row, row]


def test_tab_separated_columns_may_hold_quotes(tmp_path):
    values = values_of(tmp_path / "c.tsv", 'who\tcontext\na\t{"x": "y"}\nb\t"\n')
    assert [row["context"] for row in values] == ['{"x": "y"}', '"']


def test_a_list_of_events_is_a_row_for_each(tmp_path):
    content = '{"session": 7, "events": [{"aid": 1, "ts": 5}, {"aid": 2, "ts": 6}]}\n{"session": 8, "events": []}\n'
    assert values_of(tmp_path / "c.jsonl", content, explode="events") == [
        {"session": 7, "aid": 1, "ts": 5},
        {"session": 7, "aid": 2, "ts": 6},
    ]


@pytest.mark.parametrize("line", ['{"events": 7}', '{"e": []}', '{"events": [1]}', "broken"])
def test_what_is_no_list_of_events_is_unfit(tmp_path, line):
    (row,) = rows_of(tmp_path / "c.jsonl", line, explode="events")
    assert row.problem


def test_parquet_keeps_times_lists_and_nulls(tmp_path):
    at = datetime(2024, 1, 1, tzinfo=UTC)
    table = pyarrow.Table.from_pylist([{"at": at, "items": [{"id": "a"}]}, {"at": None, "items": None}])
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert values_of(tmp_path / "c.parquet") == [{"at": at, "items": [{"id": "a"}]}, {"at": None, "items": None}]


def test_maps_of_parquet_are_objects(tmp_path):
    text = pyarrow.map_(pyarrow.string(), pyarrow.string())
    counts = pyarrow.map_(pyarrow.int32(), pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    lists = pyarrow.list_(pyarrow.struct([("at", pyarrow.int64()), ("tags", text)]))
    schema = pyarrow.schema([("params", text), ("counts", counts), ("lists", lists), ("plain", pyarrow.list_(text))])
    rows = [
        {
            "params": {"page": "/x", "none": None},
            "counts": {7: {"a": 1}},
            "lists": [{"at": 5, "tags": {"b": "c"}}, {"at": 6, "tags": None}, None],
            "plain": [{"d": "e"}, None],
        },
        {"params": {}, "counts": None, "lists": None, "plain": []},
        {"params": None, "counts": {8: None}, "lists": [], "plain": None},
    ]
    pairs = [
        {
            "params": [("page", "/x"), ("none", None)],
            "counts": [(7, [("a", 1)])],
            "lists": [{"at": 5, "tags": [("b", "c")]}, {"at": 6, "tags": None}, None],
            "plain": [[("d", "e")], None],
        },
        {"params": [], "counts": None, "lists": None, "plain": []},
        {"params": None, "counts": [(8, None)], "lists": [], "plain": None},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs, schema), tmp_path / "c.parquet")
    rows[0]["counts"], rows[2]["counts"] = {"7": {"a": 1}}, {"8": None}
    assert values_of(tmp_path / "c.parquet") == rows
    assert column_reader("params.page")(rows[0]) == "/x"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"", "no header line"),
        ("c.csv.gz", b"not gzip", "cannot be read further: Not a gzipped file"),
        # A gzip header holds the second it was made in, and xdist's workers must name a test alike.
        pytest.param(
            "c.csv.gz", gzip.compress(b"who,what\na,b\n", mtime=0)[:-9], "cannot be read further: ", id="cut gz"
        ),
        pytest.param("c.jsonl.zst", zstd(b'{"a":1}\n' * 9)[:-4], "cannot be read further: ", id="cut zst"),
        ("c.jsonl.zst", b"not zstd", "cannot be read further: "),
        ("c.parquet", b"not parquet", "cannot be read further: "),
        ("c.avro", b"not avro", "cannot be read further: "),
        ("c.xlsx", b"", "unknown format .xlsx: expected .csv, .tsv, .jsonl"),
        ("c", b"", "unknown format without a suffix: expected .csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, message):
    with pytest.raises(SourceError) as refusal:
        rows_of(tmp_path / name, content)
    assert str(refusal.value).startswith(f"{tmp_path / name}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_is_read_as_a_stream(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("a,b\n" + "1,2\n" * 200_000)
    with path.open("rb") as file:
        rows = read_rows(file).rows
        assert next(rows).values == {"a": "1", "b": "2"}
        assert file.tell() < path.stat().st_size / 2


@pytest.mark.parametrize(("name", "expected"), [("a.csv.gz", "csv"), ("a.b.ndjson.zst", "jsonl"), ("x/a.tsv", "csv")])
def test_the_format_is_that_of_the_name(name, expected):
    assert format_of(name) == expected
