"""Tables as jobs.publish_population publishes them: its functions, and its SQL in plain Python."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.flink.population import FindEntries
from udfs.mapping.topic import ClickTopic
from udfs.population.entries import counts_by
from udfs.population.publishing import publish
from udfs.population.store import TableStore
from udfs.population.tables import MOST_PER_USER, counted_by

KEEP_MS = 10**15


def publish_clicks(uri: str, topic: ClickTopic, payloads: Sequence[bytes], record_ms: Sequence[int]) -> list[int]:
    """Publish the tables of records with their times of arrival; returns the boundaries."""
    find_entries = FindEntries(topic)
    find_entries.open(None)
    user_ids, *entries = find_entries.columns(list(payloads), np.array(record_ms)).values()
    return publish_entries(uri, topic.layout, user_ids, record_ms, entries)


def publish_entries(
    uri: str,
    layout: EventLayout,
    user_ids: Sequence[str | None],
    record_ms: Sequence[int],
    entries: Sequence[np.ma.MaskedArray],
) -> list[int]:
    """Publish the tables of events by their entries, as entries_of gives them; returns the boundaries."""
    every_ms = layout.publication.every_ms
    by_user = Counter(
        ((time_ms // every_ms + 1) * every_ms, user, entry)
        for column in entries
        for user, entry, time_ms in zip(user_ids, column.tolist(), record_ms)
        if entry is not None
    )
    windows: dict[int, Counter] = {}
    for (boundary_ms, _, entry), events in by_user.items():
        windows.setdefault(boundary_ms, Counter())[entry] += min(events, MOST_PER_USER)
    for boundary_ms in sorted(windows):
        summed, events = (np.array([*column]) for column in zip(*windows[boundary_ms].items()))
        assert publish(TableStore(uri), boundary_ms, counts_by(summed, events, counted_by(layout)), layout, KEEP_MS)
    return sorted(windows)
