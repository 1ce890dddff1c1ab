"""The layout of a file is found from its content."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import fastavro
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from training.data.rows import SourceError
from training.inspection.file_sample import SAMPLE_ROWS, Sample, sample, stem_of
from udfs.mapping.definition import FileLayout

ROWS = [{"user": "1", "event": "scröll", "price": "1.50"}, {"user": "2", "event": "view, item", "price": "3"}]


def sample_of(path: Path, content: bytes | str) -> Sample:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return sample(path)


def lines_of(delimiter: str) -> str:
    return "\n".join(
        delimiter.join(f'"{text}"' if delimiter == "," and "," in text else text for text in values)
        for values in [ROWS[0].keys(), *(row.values() for row in ROWS)]
    )


@pytest.mark.parametrize(
    ("name", "delimiter", "layout"),
    [
        ("a.csv", ",", {}),
        ("a.csv", ";", {"delimiter": ";"}),
        ("a.csv", "|", {"delimiter": "|"}),
        ("a.csv", "\t", {"delimiter": "\t"}),
        ("a.tsv", "\t", {}),
        ("a.dat", ",", {"format": "csv"}),
        ("a.txt", "\t", {"format": "csv", "delimiter": "\t"}),
        ("a", ";", {"format": "csv", "delimiter": ";"}),
    ],
)
def test_delimiters(tmp_path: Path, name: str, delimiter: str, layout: dict):
    found = sample_of(tmp_path / name, lines_of(delimiter))
    assert (found.readable, found.layout) == (ROWS, FileLayout(**layout))


@given(
    st.sampled_from([",", ";", "|", "\t"]),
    st.lists(
        st.lists(st.sampled_from(["a", "1,5", "x y", "2;3", "p|q", "", "äö"]), min_size=3, max_size=3), min_size=3
    ),
)
def test_the_delimiter_that_splits_all_lines_alike(tmp_path_factory, delimiter: str, table: list[list[str]]):
    rows = [dict(zip(("user", "event", "price"), (f"u{row[0]}", *row[1:]))) for row in table]
    lines = ["user", "event", "price"], *(row.values() for row in rows)
    text = "\n".join(delimiter.join(f'"{value}"' if delimiter != "\t" else value for value in line) for line in lines)
    found = sample_of(tmp_path_factory.mktemp("delimiter") / "a.csv", text)
    assert found.layout.delimiter == (None if delimiter == "," else delimiter)
    assert found.readable == rows


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("1,2026-03-01T10:00:00Z,17\n2,2026-03-01T10:00:01Z,NULL\n", 3),
        ("1,pv,1511571723\n1,cart,1511571724\n", 3),
        ("1,2\n", 2),
        ("u1,2026-03-01\n", 2),
    ],
)
def test_files_without_a_header(tmp_path: Path, content: str, columns: int):
    found = sample_of(tmp_path / "a.csv", content)
    assert found.layout.header == tuple(f"column_{number}" for number in range(1, columns + 1))
    assert len(found.rows) == content.count("\n")


@pytest.mark.parametrize("content", ["user,event\nu,view\n", "user,2024,at\nu,x,1\nv,y,2\n", "user,at\n1,2026-03-01\n"])
def test_files_with_a_header(tmp_path: Path, content: str):
    assert sample_of(tmp_path / "a.csv", content).layout.header is None


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.tsv"])
def test_a_first_line_that_names_the_delimiter_needs_no_mapping_of_it(tmp_path: Path, name: str):
    found = sample_of(tmp_path / name, "sep=|\r\n" + lines_of("|"))
    assert (found.readable, found.layout) == (ROWS, FileLayout(format="csv" if name == "a.txt" else None))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("price\n5 €\n".encode("cp1252"), "cp1252"),
        ("café\n".encode("cp1252"), "latin-1"),
        (b"caf\xe9 \x85 \x81\n", "latin-1"),  # cp1252 has no 81
    ],
)
def test_characters_of_windows_tell_its_encoding(tmp_path: Path, content: bytes, encoding: str):
    assert sample_of(tmp_path / "a.csv", b"user\n" + content).layout.encoding == encoding


@pytest.mark.parametrize(("encoding", "found"), [("utf-8-sig", "utf-8"), ("latin-1", "latin-1"), ("utf-16", "utf-16")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_encodings(tmp_path: Path, name: str, encoding: str, found: str):
    text = "\n".join(map(json.dumps, ROWS)) if name == "a.jsonl" else lines_of("\t")
    text = text.replace("\\u00f6", "ö")
    result = sample_of(tmp_path / name, text.encode(encoding))
    assert (result.layout.encoding, result.readable) == (found, ROWS)


def test_a_character_across_the_end_of_the_first_megabyte(tmp_path: Path):
    content = "user,event\n" + "u,ö\n" * 400_000
    for shift in range(3):
        found = sample_of(tmp_path / "a.csv", "x" * shift + content)
        assert (found.layout, len(found.rows)) == (FileLayout(), SAMPLE_ROWS)


def test_a_list_of_events_inside_of_objects(tmp_path: Path):
    events = [{"type": "view", "ts": 1_772_355_600_000 + n, "aid": n} for n in range(3)]
    objects = [{"session": n, "items": [], "events": events[: n + 1]} for n in range(3)]
    found = sample_of(tmp_path / "a.jsonl", "\n".join(map(json.dumps, objects)))
    assert (found.layout, len(found.rows)) == (FileLayout(explode="events"), 6)
    batch = {"sentAt": "2026-03-01T10:00:00Z", "data": {"batch": events}}
    found = sample_of(tmp_path / "a.json", json.dumps(batch, indent=1))
    assert (found.layout.explode, found.readable[0]["aid"]) == ("data.batch", 0)


def test_a_list_of_products_is_none_of_events(tmp_path: Path):
    products = [{"sku": "A", "created_at": "2026-03-01T10:00:00Z"}]
    row = {"user": "u", "event": "purchase", "timestamp": "2026-03-01T10:00:00Z", "products": products}
    assert sample_of(tmp_path / "a.jsonl", json.dumps(row)).layout.explode is None
    row = {"user": "u", "products": [{"sku": "A"}]}
    assert sample_of(tmp_path / "a.jsonl", json.dumps(row)).layout.explode is None


@pytest.mark.parametrize("name", ["a.parquet", "a", "a.bin"])
def test_parquet(tmp_path: Path, name: str):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / name)
    found = sample(tmp_path / name)
    assert found.readable == ROWS
    assert found.layout.format == (None if name == "a.parquet" else "parquet")


def test_other_formats_without_a_name(tmp_path: Path):
    lines = "\n".join(map(json.dumps, ROWS))
    assert sample_of(tmp_path / "a.log", lines).layout == FileLayout(format="jsonl")
    assert sample_of(tmp_path / "b.log", json.dumps(ROWS)).layout == FileLayout(format="json")
    fields = [{"name": name, "type": "string"} for name in ROWS[0]]
    with (tmp_path / "c").open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, ROWS)
    assert sample(tmp_path / "c") == Sample(sample(tmp_path / "c").rows, FileLayout(format="avro"))
    assert sample(tmp_path / "c").readable == ROWS


def test_compressed_files(tmp_path: Path):
    text = lines_of(";").encode()
    for name, content in (("a.dat.gz", gzip.compress(text)), ("a.csv.zst", zstandard.compress(text))):
        found = sample_of(tmp_path / name, content)
        assert (found.readable, found.layout.delimiter) == (ROWS, ";")


def test_rows_that_cannot_be_read_are_kept_apart(tmp_path: Path):
    found = sample_of(tmp_path / "a.jsonl", '{"a": 1}\nnone\n{"a": 2}\n')
    assert (len(found.rows), found.readable) == (3, [{"a": 1}, {"a": 2}])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", "user,event\n", "a.csv: no row in it"),
        ("a.csv", "", "a.csv: no header line"),
        ("a.jsonl", "none\nnone\n", "a.jsonl: none of the first 2 rows can be read: not a JSON object"),
        ("a.jsonl", "none\n", "a.jsonl: the only row cannot be read: not a JSON object"),
        ("a.csv", "user,user\n1,2\n", "more than one column is called user"),
        ("a.csv.gz", "none", "a.csv.gz: cannot be read further"),
        ("a.parquet", "none", "a.parquet: cannot be read further"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str, problem: str):
    with pytest.raises(SourceError, match=problem):
        sample_of(tmp_path / name, content)


def test_a_directory_is_no_file(tmp_path: Path):
    with pytest.raises(SourceError, match="is a directory: pass one of its files"):
        sample(tmp_path)


@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.dat", "a.jsonl", "a.json", "a.tsv", "a.csv.gz", "a.avro"]))
def test_any_bytes_give_a_sample_or_a_reason(tmp_path_factory, content: bytes, name: str):
    with suppress(SourceError):
        assert sample_of(tmp_path_factory.mktemp("bytes") / name, content).rows


def test_stems():
    names = ["clicks.csv.gz", "a.b.jsonl", "x.dat", "events", "Shop.CSV", "t.tsv.zst", "e.parquet"]
    assert [stem_of(Path("d", name)) for name in names] == ["clicks", "a.b", "x", "events", "Shop", "t", "e"]
