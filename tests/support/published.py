"""Tables as jobs.publish_population publishes them: its functions, and its SQL in plain Python."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from udfs.flink.population import FindEntries, entry_names
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
    columns = find_entries.columns(list(payloads), np.array(record_ms))
    every_ms = topic.layout.publication.every_ms
    by_user = Counter(
        ((time_ms // every_ms + 1) * every_ms, user, entry)
        for name in entry_names(topic)
        for user, entry, time_ms in zip(columns["user_id"], columns[name].tolist(), record_ms)
        if entry is not None
    )
    windows: dict[int, Counter] = {}
    for (boundary_ms, _, entry), events in by_user.items():
        windows.setdefault(boundary_ms, Counter())[entry] += min(events, MOST_PER_USER)
    for boundary_ms in sorted(windows):
        entries, events = (np.array([*column]) for column in zip(*windows[boundary_ms].items()))
        counts = counts_by(entries, events, counted_by(topic.layout))
        assert publish(TableStore(uri), boundary_ms, counts, topic.layout, KEEP_MS)
    return sorted(windows)
