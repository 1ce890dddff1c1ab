"""Tables of a store for events at their arrival."""

import logging
from dataclasses import replace
from functools import lru_cache

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.outputs import iso_time
from udfs.population.store import PopulationError, TableStore, check_table
from udfs.population.tables import Table, advanced, boundary_before, fill, needed_by

log = logging.getLogger(__name__)

IN_MEMORY = 3  # tables: events in order of arrival need two at a time, and a new one is read before they need it


def newest_table(store: TableStore, layout: EventLayout) -> Table | None:
    """The newest table; None if there is none. Raises PopulationError if it can't be read or can't fill the columns."""
    boundaries = store.boundaries()
    return _read(store, boundaries[-1], layout) if boundaries else None


def schedule_of(layout: EventLayout) -> EventLayout:
    """A layout that tables of the same schedule fit, whatever they count."""
    return replace(layout, own_columns=())


class StoredTables:
    """The tables of a store, which fill the columns of a layout; the last few that were used are kept in memory."""

    def __init__(self, uri: str, layout: EventLayout):
        """Raises PopulationError when no installed file system can read such a URL."""
        self._store, self._layout = TableStore(uri), layout
        self._read = lru_cache(maxsize=IN_MEMORY)(self._read_table)
        self._decayed = lru_cache(maxsize=IN_MEMORY)(self._load_decayed)
        self._unreadable: set[int] = set()
        self.refused = 0  # tables that events needed and could not have

    def boundaries(self) -> np.ndarray:
        """The boundaries of all tables, int64[m] in ms, ascending. Raises PopulationError.

        Tables that could not be read are tried again from now on.
        """
        boundaries = np.array(self._store.boundaries(), np.int64)
        self._unreadable.clear()
        return boundaries

    def check(self, boundary_ms: int) -> None:
        """Raises PopulationError if the table of a boundary can't be read, or can't fill all columns."""
        check_table(self._read(boundary_ms), self._layout, self._store.uri)

    def fill(self, records: np.ndarray, folds: np.ndarray, arrival_ms: np.ndarray, boundaries: np.ndarray) -> None:
        """Fill the columns of the population in n writable events EVENT[n] of users' folds int64[n].

        `arrival_ms` int64[n] are their times of arrival, `boundaries` int64[m] those of the tables that exist. Where
        there is none of a boundary, as after an hour without events, the one before has decayed until then. A column
        that a table does not count yet is missing. So the values depend only on the tables and on the times of arrival,
        not on when they are computed.
        """
        wanted = boundary_before(arrival_ms, self._layout.publication)
        distinct = np.unique(wanted).tolist()
        if len(distinct) == 1:
            self._fill(records, folds, self._table(boundaries, distinct[0]))
            return
        for boundary_ms in distinct:
            rows = np.flatnonzero(wanted == boundary_ms)
            part = records[rows]
            self._fill(part, folds[rows], self._table(boundaries, boundary_ms))
            records[rows] = part

    def _fill(self, records: np.ndarray, folds: np.ndarray, table: Table | None) -> None:
        fill(records, folds, self._layout, table)
        for column in self._layout.population_columns:
            if table is not None and not table.counts.keys() >= set(needed_by(column)):
                records[column.stored_name] = column.missing

    def _table(self, boundaries: np.ndarray, wanted_ms: int) -> Table | None:
        """The table at a boundary, made of the last readable one; None if there is none."""
        for boundary_ms in reversed(boundaries[: np.searchsorted(boundaries, wanted_ms, side="right")].tolist()):
            if boundary_ms in self._unreadable:
                continue
            try:
                return self._read(boundary_ms) if boundary_ms == wanted_ms else self._decayed(boundary_ms, wanted_ms)
            except PopulationError as error:
                self._unreadable.add(boundary_ms)
                self.refused += 1
                log.warning("refused, events see the table before that of %s: %s", iso_time(boundary_ms), error)
        return None

    def _read_table(self, boundary_ms: int) -> Table:
        return _read(self._store, boundary_ms, schedule_of(self._layout))

    def _load_decayed(self, boundary_ms: int, until_ms: int) -> Table:
        return advanced(self._read(boundary_ms), until_ms, {}, self._layout.publication)


def _read(store: TableStore, boundary_ms: int, layout: EventLayout) -> Table:
    table = store.read(boundary_ms)
    check_table(table, layout, store.uri)
    if table.boundary_ms != boundary_ms:
        raise PopulationError(f"{store.uri}: the table of {iso_time(boundary_ms)} is that of another time")
    return table
