"""Files of tables: what is written is read, and what is no such file is refused by its name."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.population_events import LAYOUT, PUBLICATION
from udfs.contracts.event_layout import EventLayout, PopulationColumn
from udfs.population.store import PopulationError, TableStore, check_table, decode_table, encode_table
from udfs.population.tables import FOLDS, NO_COUNTS, Counted, Counts, Table, counted_by

COUNTS = Counts(np.array([1, 2**32 - 1], np.uint32), np.arange(2 * FOLDS, dtype=np.float32).reshape(2, FOLDS))
TABLE = Table(600_000, PUBLICATION, dict.fromkeys(counted_by(LAYOUT), COUNTS) | {Counted(None, None): NO_COUNTS})


def assert_same(one: Table, other: Table) -> None:
    assert (one.boundary_ms, one.publication, list(one.counts)) == (
        other.boundary_ms, other.publication, list(other.counts)
    )  # fmt: skip
    for counted in one.counts:
        for mine, others in zip(one.counts[counted], other.counts[counted]):
            assert mine.dtype == others.dtype
            np.testing.assert_array_equal(mine, others)


@pytest.mark.parametrize("uri", ["{}/tables", "file://{}/tables/", "memory://{}/tables"])
def test_tables_are_kept_by_their_boundaries(tmp_path, uri):
    store = TableStore(uri.format(tmp_path))
    assert store.boundaries() == []
    for boundary_ms in (1_200_000, 600_000):
        store.write(replace(TABLE, boundary_ms=boundary_ms))
    assert store.boundaries() == [600_000, 1_200_000]
    assert_same(store.read(600_000), TABLE)
    store.write(replace(TABLE, counts={}))
    assert_same(store.read(600_000), replace(TABLE, counts={}))
    store.remove(600_000)
    assert store.boundaries() == [1_200_000]


def test_other_files_of_the_directory_are_no_tables(tmp_path):
    store = TableStore(str(tmp_path))
    store.write(TABLE)
    for name in ("_SUCCESS", "00000000600000.npz.part", "600000.npz"):
        (tmp_path / name).touch()
    assert store.boundaries() == [600_000]


def damaged(**arrays) -> bytes:
    with np.load(io.BytesIO(encode_table(TABLE))) as stored:
        content = io.BytesIO()
        np.savez(content, **(dict(stored) | arrays))
    return content.getvalue()


def head(**changes) -> bytes:
    with np.load(io.BytesIO(encode_table(TABLE))) as stored:
        content = json.loads(stored["head"].tobytes()) | changes
    return damaged(head=np.frombuffer(json.dumps(content).encode(), np.uint8))


WHOLE = encode_table(TABLE)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not a table of the population"),
        (b"PK\x03\x04 and more", "not a table of the population"),
        (WHOLE[: len(WHOLE) // 2], "not a table of the population"),
        (WHOLE[:200] + bytes(60) + WHOLE[260:], "not a table of the population"),
        (head(format=2), "format is 2, this code reads 1"),
        (head(publication={"every_ms": "1h"}), r"Expected `int`, got `str` - at `\$.publication.every_ms`"),
        (head(boundary_ms="soon"), "Expected `int`, got `str`"),
        (head(counted=[["category"]]), "not a table of the population"),
        (damaged(head=np.array([1, 2])), "not a table of the population"),
        (damaged(head=np.frombuffer(b"[]", np.uint8)), "not a table of the population"),
        (damaged(keys_0=np.array([1, 2])), "arrays of another type or shape"),
        (damaged(counts_0=np.zeros((3, FOLDS), np.float32)), "arrays of another type or shape"),
        (damaged(keys_0=np.array([2, 1], np.uint32)), "damaged: keys out of order"),
        (damaged(counts_0=-COUNTS.counts), "damaged: keys out of order, or counts that are none"),
        (damaged(keys_0=np.array([None])), "not a table of the population"),
    ],
)
def test_what_is_no_table_is_refused_by_name(content, expected):
    with pytest.raises(PopulationError, match=expected) as caught:
        decode_table(content, "00000000600000.npz")
    assert str(caught.value).startswith("00000000600000.npz: ")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PopulationError, match=r"00000000600000\.npz: .*No such file"):
        TableStore(str(tmp_path)).read(600_000)
    with pytest.raises(PopulationError, match="00000000600000.npz"):
        TableStore(str(tmp_path)).remove(600_000)
    with pytest.raises(PopulationError, match="what://tables: "):
        TableStore("what://tables")


def test_a_table_fits_a_layout_whose_columns_it_can_fill():
    check_table(TABLE, LAYOUT, "tables")
    check_table(TABLE, EventLayout(own_columns=LAYOUT.own_columns[:1], publication=PUBLICATION), "tables")
    with pytest.raises(PopulationError, match="tables: its tables were made with .*use another population.dir"):
        check_table(TABLE, EventLayout(own_columns=LAYOUT.own_columns), "tables")
    more = EventLayout(own_columns=(PopulationColumn("by_hour", "hour", "purchase"),), publication=PUBLICATION)
    with pytest.raises(PopulationError, match="tables: its newest table does not count purchase by hour: submit"):
        check_table(TABLE, more, "tables")
