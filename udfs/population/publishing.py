"""Publishing a table: the newest one in the store, advanced."""

import logging

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.outputs import iso_time
from udfs.population.store import TableStore
from udfs.population.stored_tables import newest_table, schedule_of
from udfs.population.tables import Counted, Counts, Table, advanced

log = logging.getLogger(__name__)


def last_published(store: TableStore, layout: EventLayout) -> Table | None:
    """The newest table, which the next one is made from; None if there is none.

    It may count other things than the layout's columns need: what a declaration adds is counted from now on. Raises
    PopulationError if it can't be read, or was made by another schedule.
    """
    return newest_table(store, schedule_of(layout))


def publish(
    store: TableStore, boundary_ms: int, counts: dict[Counted, Counts], layout: EventLayout, keep_ms: int
) -> bool:
    """Write the table of a boundary, given what was counted since the newest one; remove those that are too old.

    Returns False if the store has a table of this boundary, or a later one: a published table never changes, so that
    events see the same one when they are processed again. Raises PopulationError.
    """
    boundaries = store.boundaries()
    if boundaries and boundaries[-1] >= boundary_ms:
        log.info("%s: the table of %s is not written again", store.uri, iso_time(boundary_ms))
        return False
    table = advanced(last_published(store, layout), boundary_ms, counts, layout.publication)
    store.write(table)
    keys = sum(len(found.keys) for found in table.counts.values())
    log.info("%s: published the table of %s with %d keys", store.uri, iso_time(boundary_ms), keys)
    for old_ms in boundaries:
        if old_ms < boundary_ms - keep_ms:
            store.remove(old_ms)
    return True
