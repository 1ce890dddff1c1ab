"""The population's tables in a worker: events see those of their time, and a thread reads each new one in advance."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.outputs import iso_time
from udfs.population.stored_tables import StoredTables
from udfs.population.tables import folds_of
from udfs.serving.poller import Poller

NO_TABLE = 0  # its boundary


@dataclass(frozen=True)
class Population:
    """Where a job finds the tables: plain data, which is sent to the workers."""

    dir: str
    poll_s: float = 30.0


class PopulationColumns:
    """Fills the columns of the population, and follows what is published."""

    def __init__(self, population: Population, layout: EventLayout, clock: Callable[[], float] = time.time):
        """Raises PopulationError if the tables can't be listed: events would silently lack them."""
        self._tables, self._layout, self._clock = StoredTables(population.dir, layout), layout, clock
        self._poller = Poller(
            self._list, self._with_newest, self._tables.boundaries(), NO_TABLE, population.poll_s, name=_name
        )

    def start(self) -> None:
        """Read the newest table, and start to poll."""
        self.poll_once()
        self._poller.start()

    def stop(self) -> None:
        self._poller.stop()

    def poll_once(self) -> None:
        self._poller.poll_once()

    @property
    def refused(self) -> int:
        """Failed attempts to read a table or the directory."""
        return self._poller.refused + self._tables.refused

    @property
    def age_s(self) -> int:
        """How long ago the newest table's boundary was; -1 if there is no table."""
        known = self._poller.current
        return int(self._clock() - int(known[-1]) / 1000) if len(known) else -1

    def fill(self, events: list[bytes], user_ids: list[str], arrival_ms: list[int]) -> list[bytes]:
        """The n packed events of users with the columns filled, by the arrival of each."""
        content = bytearray(b"".join(events))
        records = np.frombuffer(content, self._layout.dtype)
        self._tables.fill(records, folds_of(user_ids), np.array(arrival_ms, np.int64), self._poller.current)
        size = records.itemsize
        return [bytes(content[start : start + size]) for start in range(0, len(content), size)]

    def _list(self) -> tuple[int, np.ndarray]:
        boundaries = self._tables.boundaries()
        return int(boundaries[-1]) if len(boundaries) else NO_TABLE, boundaries

    def _with_newest(self, boundaries: np.ndarray) -> np.ndarray:
        """The boundaries, after the newest table was read and checked."""
        if len(boundaries):
            self._tables.check(int(boundaries[-1]))
        return boundaries


def _name(boundary_ms: int) -> str:
    return f"the table of {iso_time(boundary_ms)}" if boundary_ms else "an earlier table, or none,"
