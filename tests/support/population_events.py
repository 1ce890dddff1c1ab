"""Events of several users, and what the columns of the population hold for them: counted one by one."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from udfs.contracts.event_layout import EventLayout, PopulationColumn, Publication
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.population.tables import DRAWN_BY, MOST_PER_USER, fold_of

MINUTE = 60_000
PUBLICATION = Publication(every_ms=10 * MINUTE, delay_ms=2 * MINUTE, half_life_ms=300 * MINUTE)
LAYOUT = EventLayout(
    own_columns=(
        PopulationColumn("views", "category", "view_item"),
        PopulationColumn("events", "category"),
        PopulationColumn("all_events"),
        PopulationColumn("all_purchases", None, "purchase"),
        PopulationColumn("view_rate", "category", "view_item", rate=True),
    ),
    publication=PUBLICATION,
)


class Did(NamedTuple):
    """An event: who, when it arrived in minutes, the category (0: none), and its kind."""

    user: str
    minute: int
    category: int
    kind: str


#: Two of the users are of the same fold.
USERS = (
    "ada",
    "bob",
    "cleo",
    "dan",
    "eve",
    next(name for name in map(str, range(999)) if fold_of(name) == fold_of("ada")),
)
events = st.lists(
    st.builds(
        Did,
        st.sampled_from(USERS),
        st.integers(0, 120),
        st.integers(0, 2),
        st.sampled_from(["view_item", "purchase", "scroll"]),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


def records_of(done: list[Did], layout: EventLayout = LAYOUT) -> np.ndarray:
    records = np.zeros(len(done), layout.dtype)
    for record, one in zip(records, done):
        record["time_ms"] = one.minute * MINUTE
        record["category"], record["kind"] = one.category, EVENT_KINDS.index(one.kind)
    for column in layout.own_columns:
        records[column.stored_name] = column.missing
    return records


def arrivals_of(done: list[Did]) -> np.ndarray:
    return np.array([one.minute * MINUTE for one in done], np.int64)


def expected(done: list[Did], layout: EventLayout = LAYOUT) -> np.ndarray:
    """The columns of the population of each event, float[n, columns]; they are by category, or by nothing."""
    every, delay, half_life = (
        length / MINUTE
        for length in (layout.publication.every_ms, layout.publication.delay_ms, layout.publication.half_life_ms)
    )

    def others(one: Did, table: float, by: str | None, kind: str | None) -> float:
        """The events of others before a table, each with its decay."""
        counted: dict[tuple, int] = {}
        for other in done:
            fits = by is None or other.category == one.category
            fits &= kind in (None, other.kind)
            if fits and other.minute < table and fold_of(other.user) != fold_of(one.user):
                key = other.user, other.minute // every
                counted[key] = min(counted.get(key, 0) + 1, MOST_PER_USER)
        return sum(
            times * 0.5 ** ((table - (interval + 1) * every) / half_life) for (_, interval), times in counted.items()
        )

    values = np.full((len(done), len(layout.population_columns)), np.nan)
    for row, one in enumerate(done):
        table = (one.minute - delay) // every * every
        if not any(other.minute < table for other in done):
            continue
        for place, column in enumerate(layout.population_columns):
            if column.by == "category" and not one.category:
                continue
            values[row, place] = others(one, table, column.by, column.kind)
            if column.rate:
                everything = others(one, table, None, None)
                share = others(one, table, None, column.kind) / everything if everything else np.nan
                of_key = others(one, table, column.by, None)
                values[row, place] = (values[row, place] + DRAWN_BY * share) / (of_key + DRAWN_BY)
    return values
