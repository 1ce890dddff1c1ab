"""The functions of the job that publishes tables: entries of clicks in, a table of each window out."""

from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest

from tests.unit.udfs.contracts.test_clicks import NOW, click
from udfs.config.durations import now_ms
from udfs.features.declaration_file import population
from udfs.flink.population import FindEntries, PublishTable
from udfs.mapping.topic import ClickTopic
from udfs.population.store import PopulationError, TableStore
from udfs.population.tables import Counted, fold_of

LAYOUT = population().layout
TOPIC = ClickTopic(layout=LAYOUT)
EVERY = LAYOUT.publication.every_ms
DAY = 86_400_000


class Context:
    """A function's context, with its counters."""

    def __init__(self):
        self.counts: dict[str, int] = {}

    def get_metric_group(self):
        return self

    def add_group(self, *_):
        return self

    def counter(self, name):
        self.counts[name] = 0
        return SimpleNamespace(inc=lambda n: self.counts.update({name: self.counts[name] + n}))


def opened(function, context=None):
    function = cloudpickle.loads(cloudpickle.dumps(function))
    function.open(context or Context())
    return function


def test_a_click_has_an_entry_for_all_that_it_counts_for():
    payloads = [
        click(item_category="shoes"),
        b"{",
        click(event_name="purchase"),
        click(user_id="bob", item_category="shoes", event_name="purchase"),
    ]
    function = opened(FindEntries(TOPIC))
    found = function.columns(payloads, np.full(4, NOW))
    assert [field.name for field in function.result.fields] == list(found)
    assert found.pop("user_id") == ["ada", None, "ada", "bob"]
    category, purchases, everything, all_purchases = (column.tolist() for column in found.values())
    assert [entry is None for entry in category] == [False, True, True, False]
    assert [entry is None for entry in purchases] == [True, True, True, False]
    assert [entry is None for entry in everything] == [False, True, False, False]
    assert [entry is None for entry in all_purchases] == [True, True, False, False]
    assert category[0] - fold_of("ada") == category[3] - fold_of("bob")


def test_a_batch_without_an_accepted_click_has_no_entries():
    found = opened(FindEntries(TOPIC)).columns([b"{", None], np.full(2, NOW))
    assert found.pop("user_id") == [None, None]
    assert [column.tolist() for column in found.values()] == 4 * [[None, None]]


def test_a_window_becomes_a_table_and_comes_again_without_harm(tmp_path):
    context = Context()
    publish = opened(PublishTable(TOPIC, str(tmp_path), DAY), context)
    entries = opened(FindEntries(TOPIC)).columns([click(item_category="shoes")], np.array([NOW]))
    found = [column.compressed()[0] for column in list(entries.values())[1:] if column.count()]
    ends = np.array([EVERY, 2 * EVERY], float)  # SQL's EXTRACT gives numbers of any type
    windows = ends, [found, found], [[3] * len(found), [1] * len(found)]
    assert publish.columns(*windows) == {"boundary_ms": [EVERY, 2 * EVERY], "is_new": [True, True]}
    assert publish.columns(*windows)["is_new"] == [False, False]
    assert context.counts == {"population_tables_published": 2}
    everything = TableStore(str(tmp_path)).read(2 * EVERY).counts[Counted(None, None)].counts
    decay = 0.5 ** (EVERY / LAYOUT.publication.half_life_ms)
    assert everything.sum() == everything[0, fold_of("ada")] == pytest.approx(1 + 3 * decay)


def test_an_interval_that_is_not_over_is_not_published(tmp_path, caplog):
    publish = opened(PublishTable(TOPIC, str(tmp_path), DAY))
    boundary_ms = (now_ms() // EVERY + 2) * EVERY
    assert publish.columns(np.array([boundary_ms]), [[0]], [[1]])["is_new"] == [False]
    assert TableStore(str(tmp_path)).boundaries() == []
    assert "its interval is not over" in caplog.text


def test_a_table_that_can_not_be_gone_on_with_fails_the_task(tmp_path):
    (tmp_path / f"{EVERY:014d}.npz").write_bytes(b"half a tab")
    publish = opened(PublishTable(TOPIC, str(tmp_path), DAY))
    with pytest.raises(PopulationError, match=f"{EVERY:014d}.npz: not a table"):
        publish.columns(np.array([2 * EVERY]), [[]], [[]])
