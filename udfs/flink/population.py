"""SQL functions of the job that publishes the population's tables: what clicks add, and the table of a boundary."""

import logging

import numpy as np
from pyflink.table import DataTypes
from pyflink.table.types import DataType
from pyflink.table.udf import FunctionContext

from udfs.config.durations import now_ms
from udfs.contracts.outputs import iso_time
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.mapping.topic import ClickTopic
from udfs.population.entries import counts_by, entries_of
from udfs.population.publishing import publish
from udfs.population.store import TableStore
from udfs.population.tables import counted_by, folds_of

log = logging.getLogger(__name__)

CLOCKS_DIFFER_MS = 60_000  # at most, those of the TaskManager and of Kafka


class FindEntries(ColumnFunction):
    """Finds what each click record adds to the tables: `entry_0` and so on; a rejected one has neither user nor entry.

    An entry is null where the event does not count.
    """

    def __init__(self, topic: ClickTopic):
        self._topic = topic

    @property
    def result(self) -> DataType:
        entries = {name: DataTypes.BIGINT() for name in entry_names(self._topic)}
        return row_type(user_id=DataTypes.STRING(), **entries)

    def open(self, context: FunctionContext) -> None:
        self._decoder = self._topic.decoder()

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks, layout = self._decoder.decode(payloads, record_ms.tolist()), self._topic.layout
        accepted = [row for row, event in enumerate(clicks.events) if event is not None]
        records = np.frombuffer(b"".join(clicks.events[row] for row in accepted), layout.dtype)
        folds = folds_of([clicks.user_ids[row] for row in accepted])
        columns: dict[str, Column] = {"user_id": clicks.user_ids}
        found = entries_of(records, folds, counted_by(layout), layout.kinds)
        for name, entries in zip(entry_names(self._topic), found):
            columns[name] = np.ma.masked_all(len(payloads), np.int64)
            columns[name][accepted] = entries
        return columns


class PublishTable(ColumnFunction):
    """Publishes the table of each window's end, given its entries and how many events each has.

    `is_new` is false for one that was published before, and for one that ends in the future: the input has ended, as
    after `flink stop --drain`, and the rest of the window is to come. An error fails the task, and the window comes
    again.
    """

    result = row_type(boundary_ms=DataTypes.BIGINT(), is_new=DataTypes.BOOLEAN())

    def __init__(self, topic: ClickTopic, uri: str, keep_ms: int):
        self._layout, self._uri, self._keep_ms = topic.layout, uri, keep_ms

    def open(self, context: FunctionContext) -> None:
        self._store = TableStore(self._uri)
        self._published = self.metric_group(context).counter("population_tables_published")

    def columns(self, ends: np.ndarray, entries: list, events: list) -> dict[str, Column]:
        boundaries = [int(end) for end in ends]
        is_new = [self._publish(*window) for window in zip(boundaries, entries, events)]
        self._published.inc(sum(is_new))
        return {"boundary_ms": boundaries, "is_new": is_new}

    def _publish(self, boundary_ms: int, entries: list, events: list) -> bool:
        if boundary_ms > now_ms() + CLOCKS_DIFFER_MS:
            log.warning("not published, because its interval is not over: the table of %s", iso_time(boundary_ms))
            return False
        counts = counts_by(np.array(entries, np.int64), np.array(events, np.int64), counted_by(self._layout))
        return publish(self._store, boundary_ms, counts, self._layout, self._keep_ms)


def entry_names(topic: ClickTopic) -> list[str]:
    """The names of the entries in a result of FindEntries."""
    return [f"entry_{number}" for number in range(len(counted_by(topic.layout)))]
