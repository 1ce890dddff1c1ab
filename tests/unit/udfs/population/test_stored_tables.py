"""The table that an event sees depends on its arrival alone; one that can't be read is passed over."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.population_events import LAYOUT, MINUTE, PUBLICATION, Did, records_of
from udfs.contracts.event_layout import PopulationColumn
from udfs.population.store import PopulationError, TableStore
from udfs.population.stored_tables import IN_MEMORY, StoredTables, newest_table
from udfs.population.tables import Counted, Counts, Table, counted_by, folds_of

EVENTS = Counted("category", None)
HALF_LIFE = PUBLICATION.half_life_ms // MINUTE


def write(uri, minute: int, events: float, publication=PUBLICATION) -> None:
    """A table of a boundary in which another user did so many events with category 1."""
    counts = np.zeros((1, 16), np.float32)
    counts[0, folds_of(["bob"])] = events
    of_all = dict.fromkeys(counted_by(LAYOUT), Counts(np.ones(1, np.uint32), counts))
    TableStore(str(uri)).write(Table(minute * MINUTE, publication, of_all))


def seen(tables: StoredTables, *minutes: float) -> list[float]:
    """What ada's events with category 1 see, by their arrival."""
    records = records_of([Did("ada", 0, 1, "scroll")] * len(minutes))
    arrival_ms = np.array([round(minute * MINUTE) for minute in minutes])
    tables.fill(records, folds_of(["ada"] * len(minutes)), arrival_ms, tables.boundaries())
    return records["own_events"].tolist()


def test_events_see_a_table_from_its_delay_on(tmp_path):
    write(tmp_path, 10, 5)
    write(tmp_path, 20, 7)
    tables = StoredTables(str(tmp_path), LAYOUT)
    assert seen(tables, 22, 11.9, 12, 21.9, 31) == [7.0, pytest.approx(np.nan, nan_ok=True), 5.0, 5.0, 7.0]


def test_without_a_table_there_is_no_value(tmp_path):
    assert np.isnan(seen(StoredTables(str(tmp_path / "none"), LAYOUT), 22, 50)).all()


def test_an_event_that_is_processed_again_sees_the_same_table_whatever_is_newer(tmp_path):
    write(tmp_path, 10, 5)
    first = seen(StoredTables(str(tmp_path), LAYOUT), 12, 21)
    for minute in range(20, 20 + 10 * (IN_MEMORY + 2), 10):
        write(tmp_path, minute, minute)
    again = StoredTables(str(tmp_path), LAYOUT)
    seen(again, *range(22, 70, 10))
    assert seen(again, 12, 21) == first == [5.0, 5.0]


def test_after_intervals_without_events_the_counts_have_decayed(tmp_path):
    write(tmp_path, 10, 8)
    assert seen(StoredTables(str(tmp_path), LAYOUT), 12 + HALF_LIFE) == [pytest.approx(4.0)]


def test_a_column_that_a_table_does_not_count_yet_is_missing(tmp_path):
    write(tmp_path, 10, 5)
    added = replace(LAYOUT, own_columns=(*LAYOUT.own_columns, PopulationColumn("items", "item")))
    tables, records = StoredTables(str(tmp_path), added), records_of([Did("ada", 0, 1, "scroll")], added)
    records["item"] = 3
    tables.fill(records, folds_of(["ada"]), np.array([12 * MINUTE]), tables.boundaries())
    assert (records["own_events"].tolist(), tables.refused) == ([5], 0)
    assert np.isnan(records["own_items"]).all()
    with pytest.raises(PopulationError, match="does not count events by item"):
        tables.check(10 * MINUTE)


def test_a_damaged_table_is_passed_over_until_it_can_be_read(tmp_path, caplog):
    write(tmp_path, 10, 5)
    (tmp_path / f"{20 * MINUTE:014d}.npz").write_bytes(b"half a tab")
    tables = StoredTables(str(tmp_path), LAYOUT)
    wanted = [pytest.approx(5 * 0.5 ** (10 / HALF_LIFE))]
    assert seen(tables, 22) == wanted
    assert tables.refused == 1
    assert "events see the table before that of 1970-01-01T00:20:00.000Z" in caplog.text
    write(tmp_path, 20, 7)
    assert seen(tables, 22) == [7.0]


def test_an_unreadable_table_is_not_read_for_each_batch(tmp_path):
    (tmp_path / f"{20 * MINUTE:014d}.npz").write_bytes(b"half a tab")
    tables = StoredTables(str(tmp_path), LAYOUT)
    boundaries = tables.boundaries()
    for _ in range(3):
        tables.fill(records_of([Did("ada", 0, 1, "scroll")]), np.zeros(1, int), np.array([22 * MINUTE]), boundaries)
    assert tables.refused == 1


def test_a_table_of_another_schedule_or_of_another_boundary_is_refused(tmp_path):
    write(tmp_path, 10, 5, replace(PUBLICATION, every_ms=5 * MINUTE))
    with pytest.raises(PopulationError, match="its tables were made with"):
        newest_table(TableStore(str(tmp_path)), LAYOUT)
    write(tmp_path, 10, 5)
    (tmp_path / f"{10 * MINUTE:014d}.npz").rename(tmp_path / f"{20 * MINUTE:014d}.npz")
    with pytest.raises(PopulationError, match="is that of another time"):
        newest_table(TableStore(str(tmp_path)), LAYOUT)
