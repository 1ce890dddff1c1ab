"""The job that publishes the population's tables, on a mini cluster: they are those of a batch computation."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from jobs.common.settings import click_topic, population_settings
from jobs.common.submission import table_environment
from jobs.common.tables import KAFKA_METADATA, create_table
from jobs.publish_population import PUBLISHED_COLUMNS, click_columns, publish_population
from tests.flink.conftest import files, json_line, settings_of
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import DecodedClicks
from udfs.mapping.topic import ClickTopic
from udfs.population.store import TableStore
from udfs.population.tables import (
    MOST_PER_USER,
    Counts,
    Table,
    advanced,
    boundary_after,
    count,
    counted_by,
    counts_of,
    folds_of,
)

pytestmark = pytest.mark.flink

DELAY_MS, STEP_MS = 40_000, 100
HALF_HOURS = "extends: population\npopulation: {every: 30m, half_life: 2h}\n"


def arriving() -> list[tuple[bytes, int]]:
    """Clicks with their times of arrival, of which neighbours have changed places: some rejected, some of a bot."""
    stream = simulate(Simulation(users=80, hours=3, seed=9, visits_per_day=60.0))
    clicks = [(json.dumps(click).encode(), click["event_time"] + DELAY_MS) for click in stream.clicks()]
    payload, arrival_ms = next((payload, time) for payload, time in clicks if b"item_category" in payload)
    bot = json.dumps(json.loads(payload) | {"user_id": "bot", "event_name": "purchase"}).encode()
    clicks += [(bot, arrival_ms + number * STEP_MS) for number in range(2 * MOST_PER_USER)]
    clicks += [(b"{", arrival_ms)]
    clicks.sort(key=lambda click: click[1])
    pairs = [clicks[start : start + 2] for start in range(0, len(clicks), 2)]
    return [click for pair in pairs for click in reversed(pair)]


def expected(clicks: list[tuple[bytes, int]], topic: ClickTopic) -> Iterator[Table]:
    """The tables of all half hours with clicks."""
    payloads, times = zip(*clicks)
    decoded: DecodedClicks = topic.decoder().decode(payloads, times)
    accepted = [row for row, event in enumerate(decoded.events) if event is not None]
    records = np.frombuffer(b"".join(decoded.events[row] for row in accepted), topic.layout.dtype)
    user_ids, users = np.unique([decoded.user_ids[row] for row in accepted], return_inverse=True)
    boundaries = boundary_after(np.array(times)[accepted], topic.layout.publication)
    table = None
    for boundary_ms in np.unique(boundaries).tolist():
        rows, since = boundaries == boundary_ms, {}
        for what in counted_by(topic.layout):
            user, keys, events = count(records[rows], users[rows], what, topic.layout.kinds).T
            since[what] = counts_of(keys, folds_of(user_ids.tolist())[user], events)
        table = advanced(table, boundary_ms, since, topic.layout.publication)
        yield table


def as_dict(counts: Counts) -> dict[int, list[float]]:
    return dict(zip(counts.keys.tolist(), counts.counts.tolist()))


def test_the_tables_are_those_of_a_batch_computation(bundle_directory, tmp_path):
    (tmp_path / "features.yaml").write_text(HALF_HOURS)
    declared = f"clicks.declaration={tmp_path / 'features.yaml'}", f"population.dir={tmp_path / 'tables'}"
    one_try = "flink.restart-strategy.type=none", "decode.max_behind=36500 d"
    settings = population_settings(settings_of(bundle_directory, *one_try, *declared))
    topic, clicks = click_topic(settings), arriving()
    lines = [json_line(number, None, payload, time_ms) for number, (payload, time_ms) in enumerate(clicks)]
    (tmp_path / "clicks").write_text("".join(lines))

    tables = table_environment(settings)
    columns = click_columns(settings, dict.fromkeys(KAFKA_METADATA, ""))
    tables.execute_sql(create_table("arriving_clicks", columns, files(tmp_path / "clicks")))
    tables.execute_sql(create_table("published", PUBLISHED_COLUMNS, {"connector": "blackhole"}))
    publish_population(tables, settings, topic).execute().wait()

    store, wanted = TableStore(settings.population.dir), list(expected(clicks, topic))
    assert store.boundaries() == [table.boundary_ms for table in wanted]
    assert len(wanted) >= 6
    for table in wanted:
        found = store.read(table.boundary_ms)
        assert found.publication == table.publication
        assert {what: as_dict(counts) for what, counts in found.counts.items()} == {
            what: as_dict(counts) for what, counts in table.counts.items()
        }
