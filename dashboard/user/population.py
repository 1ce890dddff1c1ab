"""Columns of the population in a user's events, filled as the score job filled them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from training.data.dataset import Clicks
from udfs.contracts.event_layout import EventLayout
from udfs.contracts.outputs import iso_time
from udfs.population.store import PopulationError
from udfs.population.stored_tables import StoredTables
from udfs.population.tables import folds_of

NO_TABLES = (
    "features of the population have no values here, because population.dir is not known: set it, as the job has it"
)


def fill_clicks(clicks: Clicks, layout: EventLayout, tables: StoredTables | None) -> tuple[Clicks, list[str]]:
    """The clicks with the columns filled, and why they may hold other values than the job's."""
    user_ids = [clicks.user_ids[code] for code in clicks.user.tolist()]
    records, cautions = fill_events(clicks.records, user_ids, clicks.arrival_ms, layout, tables)
    return replace(clicks, records=records), cautions


def fill_events(
    records: np.ndarray,
    user_ids: Sequence[str],
    arrival_ms: np.ndarray,
    layout: EventLayout,
    tables: StoredTables | None,
) -> tuple[np.ndarray, list[str]]:
    """The n packed events EVENT[n] of users with the columns filled, by the arrival int64[n] of each.

    Also returns why the columns may hold other values than the job's.
    """
    if not layout.population_columns:
        return records, []
    if tables is None:
        return records, [NO_TABLES]
    refused = tables.refused
    try:
        boundaries = tables.boundaries()
    except PopulationError as error:
        return records, [f"features of the population have no values here: {error}"]
    filled = records.copy()
    tables.fill(filled, folds_of(user_ids), arrival_ms, boundaries)
    return filled, list(_cautions(arrival_ms, layout, boundaries, tables.refused - refused))


def _cautions(arrival_ms: np.ndarray, layout: EventLayout, boundaries: np.ndarray, refused: int) -> Iterator[str]:
    if not len(boundaries):
        yield "features of the population have no values here: population.dir has no tables"
    elif (first_ms := int(boundaries[0]) + layout.publication.delay_ms) > arrival_ms.min(initial=first_ms):
        yield (
            f"features of the population have no values before {iso_time(first_ms)}: population.dir has no older "
            "tables (population.keep)"
        )
    if refused:
        yield "a table of the population could not be read, so an older one was used; the log has the reason"
