"""What clicks add, as integers that SQL sums, and the tables that are published of the sums."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from tests.support.examples import examples
from tests.support.population_events import LAYOUT, MINUTE, PUBLICATION, Did, arrivals_of, events, expected, records_of
from tests.support.published import publish_entries
from udfs.contracts.event_layout import PopulationColumn
from udfs.population.entries import counts_by, entries_of
from udfs.population.publishing import publish
from udfs.population.store import PopulationError, TableStore
from udfs.population.stored_tables import StoredTables
from udfs.population.tables import Counted, Counts, counted_by, folds_of

DAY = 86_400_000
HOURS = 10 * MINUTE, 20 * MINUTE, 30 * MINUTE, 40 * MINUTE


@examples(25)
@given(done=events)
def test_events_see_in_published_tables_what_counting_one_by_one_gives(tmp_path_factory, done):
    uri = str(tmp_path_factory.mktemp("population"))
    records, user_ids, arrival_ms = records_of(done), [one.user for one in done], arrivals_of(done)
    entries = entries_of(records, folds_of(user_ids), counted_by(LAYOUT), LAYOUT.kinds)
    publish_entries(uri, LAYOUT, user_ids, arrival_ms.tolist(), entries)
    tables = StoredTables(uri, LAYOUT)
    tables.fill(records, folds_of(user_ids), arrival_ms, tables.boundaries())
    found = np.stack([records[column.stored_name] for column in LAYOUT.population_columns], 1)
    np.testing.assert_allclose(found, expected(done), rtol=1e-5, atol=0.01)  # below 0.01, a count is left out


def counts(category: int, layout=LAYOUT) -> dict[Counted, Counts]:
    """What one event adds."""
    did = records_of([Did("ada", 1, category, "scroll")], layout)
    entries = entries_of(did, np.zeros(1, int), counted_by(layout), layout.kinds)
    found = np.concatenate([column.compressed() for column in entries])
    return counts_by(found, np.ones(len(found), int), counted_by(layout))


def test_a_published_table_is_never_written_again(tmp_path):
    store = TableStore(str(tmp_path))
    assert publish(store, HOURS[1], counts(1), LAYOUT, DAY)
    before = (tmp_path / f"{HOURS[1]:014d}.npz").read_bytes()
    assert not publish(store, HOURS[1], counts(2), LAYOUT, DAY)
    assert not publish(store, HOURS[0], counts(2), LAYOUT, DAY)
    assert store.boundaries() == [HOURS[1]]
    assert (tmp_path / f"{HOURS[1]:014d}.npz").read_bytes() == before


def test_tables_that_are_too_old_are_removed(tmp_path):
    store = TableStore(str(tmp_path))
    for boundary_ms in HOURS:
        publish(store, boundary_ms, counts(1), LAYOUT, keep_ms=15 * MINUTE)
    assert store.boundaries() == [HOURS[2], HOURS[3]]


def test_tables_of_another_schedule_are_not_gone_on_with(tmp_path):
    store = TableStore(str(tmp_path))
    publish(store, HOURS[0], counts(1), LAYOUT, DAY)
    other = replace(LAYOUT, publication=replace(PUBLICATION, half_life_ms=DAY))
    with pytest.raises(PopulationError, match="its tables were made with .*half_life_ms"):
        publish(store, HOURS[1], counts(1), other, DAY)


def test_entries_keep_their_meaning_when_columns_change():
    """A job's state has entries of the declaration before."""
    columns = LAYOUT.own_columns
    before, after = (replace(LAYOUT, own_columns=some) for some in (columns[:3], (columns[3], *columns[2:0:-1])))
    did = records_of([Did("ada", 1, 7, "view_item")], before)
    entries = entries_of(did, np.zeros(1, int), counted_by(before), before.kinds)
    found = counts_by(np.array([column[0] for column in entries]), np.array([2, 3, 4]), counted_by(after))
    assert {what: counts.counts.sum() for what, counts in found.items()} == {
        Counted(None, "purchase"): 0, Counted(None, None): 4, Counted("category", None): 3
    }  # fmt: skip


def test_what_a_declaration_adds_is_counted_from_then_on(tmp_path):
    store = TableStore(str(tmp_path))
    publish(store, HOURS[0], counts(1), LAYOUT, DAY)
    added = replace(LAYOUT, own_columns=(*LAYOUT.own_columns, PopulationColumn("items", "item")))
    publish(store, HOURS[1], counts(1, added), added, DAY)
    assert store.read(HOURS[1]).counts.keys() == store.read(HOURS[0]).counts.keys() | {Counted("item", None)}
