"""Decoded clicks carry what other users did, as the tables of their time say."""

import json

import numpy as np
import pytest

from tests.support.fake_operator import FakeOperator
from tests.support.published import publish_clicks
from tests.unit.udfs.contracts.test_clicks import NOW, click
from tests.unit.udfs.workers.test_decode import Decoding, raw_record
from training.data.dataset import read_clicks
from training.data.population import fill_events
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import ClickLimits
from udfs.contracts.event_layout import EventLayout
from udfs.features.declaration_file import population
from udfs.features.user_slots import user_row_type
from udfs.mapping.topic import ClickTopic
from udfs.serving.population import Population
from udfs.workers.decode import ANONYMOUS, DEAD_LETTERS, ROWS, ClickHandler

LAYOUT: EventLayout = population().layout
EVERY, DELAY = LAYOUT.publication.every_ms, LAYOUT.publication.delay_ms
BOUNDARY = NOW // EVERY * EVERY
ANY_TIME = ClickLimits(max_behind_ms=10**13, max_ahead_ms=10**13)
TOPIC = ClickTopic(ANY_TIME, layout=LAYOUT)
ROW = user_row_type(LAYOUT.dtype)
MISSING = [None] * 5


def publish_at(uri, boundary_ms: int, *payloads: bytes) -> None:
    """Publish the table of a boundary, just before which these clicks arrived."""
    assert publish_clicks(str(uri), TOPIC, payloads, [boundary_ms - 1] * len(payloads)) == [boundary_ms]


def of_bob(**fields) -> bytes:
    return click(user_id="bob", **fields)


def handler(uri, follow_logins: bool = False) -> ClickHandler:
    return ClickHandler("clicks", TOPIC, follow_logins, Population(str(uri)))


def columns_of(record) -> list[float | None]:
    """The columns of the population in a row, in the order of the declaration."""
    (row,) = np.frombuffer(record.content[: ROW.itemsize], ROW)
    values = [row["event"][column.stored_name].item() for column in LAYOUT.population_columns]
    return [None if np.isnan(value) else value for value in values]


def shoes(user_id: str = "ada", **fields) -> bytes:
    return click(user_id=user_id, item_category="shoes", **fields)


@pytest.fixture
def tables(tmp_path):
    """Two tables: of bob's two events with shoes, and an interval later, of those and a purchase without a category."""
    publish_at(tmp_path, BOUNDARY - EVERY, shoes("bob"), shoes("bob", event_name="purchase"))
    publish_at(tmp_path, BOUNDARY, of_bob(event_name="purchase"))
    return tmp_path


def test_each_record_sees_the_table_of_its_arrival(tables):
    before, after = BOUNDARY + DELAY - 1, BOUNDARY + DELAY
    records = Decoding(handler(tables))(*(raw_record(None, shoes(), time_ms) for time_ms in (before, after, before)))
    assert columns_of(records[0]) == columns_of(records[2]) == [2, 1, 2, 1, 0.5]
    decayed = 0.5 ** (EVERY / LAYOUT.publication.half_life_ms)
    rate = (decayed + 30 * (1 + decayed) / (1 + 2 * decayed)) / (2 * decayed + 30)
    assert columns_of(records[1]) == pytest.approx([2 * decayed, decayed, 1 + 2 * decayed, 1 + decayed, rate])


def test_what_is_published_later_changes_nothing_for_records_that_come_again(tables):
    raw = [raw_record(None, shoes(), BOUNDARY + DELAY + step) for step in (-EVERY, 0)]
    first = Decoding(handler(tables))(*raw)
    for later in (1, 2, 3, 4):
        publish_at(tables, BOUNDARY + later * EVERY, shoes("cleo"))
    assert Decoding(handler(tables))(*raw) == first


def test_the_columns_are_those_that_training_makes_of_recorded_clicks(tmp_path):
    stream = simulate(Simulation(users=50, hours=5, seed=8, late_share=0.1))
    payloads = [json.dumps(click).encode() for click in stream.clicks()]
    recorded = read_clicks(payloads, stream.arrival_ms, TOPIC)
    wanted = fill_events(recorded.records, recorded.user, recorded.user_ids, recorded.arrival_ms, LAYOUT)

    arrival_ms = stream.arrival_ms.tolist()
    publish_clicks(str(tmp_path), TOPIC, payloads, arrival_ms)
    records = Decoding(handler(tmp_path))(*(raw_record(None, *record) for record in zip(payloads, arrival_ms)))
    events = np.concatenate([np.frombuffer(record.content[: ROW.itemsize], ROW)["event"] for record in records])
    assert len(events) == len(wanted) == len(payloads)
    assert events.tobytes() == wanted.tobytes()
    assert np.isfinite(wanted["own_category_events"]).sum() > 100


def test_a_users_own_events_are_never_among_them(tables):
    (record,) = Decoding(handler(tables))(raw_record(None, shoes("bob"), BOUNDARY + DELAY))
    assert columns_of(record) == [0, 0, 0, 0, None]


def test_without_a_table_the_columns_are_missing(tmp_path):
    decode = Decoding(handler(tmp_path / "none"))
    (record,) = decode(raw_record(None, shoes(), NOW))
    assert columns_of(record) == MISSING
    assert decode.metrics["gauge\tpopulation_age_seconds"] == -1


def test_all_else_is_as_without_these_columns(tables):
    """Order, ids, dead letters and rows of visitors."""
    raw = [
        raw_record(b"k", shoes(event_id="é1"), BOUNDARY + DELAY, 3, 1),
        raw_record(b"k", b"{", BOUNDARY + DELAY, 4, 1),
        raw_record(b"k", shoes(anonymous_id="visitor"), BOUNDARY + DELAY, 5, 1),
        raw_record(b"k", click(user_id="zoë"), BOUNDARY + DELAY, 6, 1),
    ]
    filled = Decoding(handler(tables, follow_logins=True))(*raw)
    plain = Decoding(ClickHandler("clicks", TOPIC, follow_logins=True))(*raw)
    assert [record.output for record in filled] == [ROWS, DEAD_LETTERS, ANONYMOUS, ROWS]
    assert filled[1] == plain[1]
    for with_values, without in zip(filled, plain):
        assert with_values.key == without.key
        if with_values.output != DEAD_LETTERS:
            assert None not in columns_of(with_values)[2:4]
            assert columns_of(without) == MISSING
            rows = [np.frombuffer(record.content[: ROW.itemsize], ROW).copy() for record in (with_values, without)]
            for column in LAYOUT.population_columns:
                rows[0]["event"][column.stored_name] = np.nan
            assert rows[0].tobytes() == rows[1].tobytes()
            assert with_values.content[ROW.itemsize :] == without.content[ROW.itemsize :]


def test_a_click_without_a_category_has_no_value_by_category(tables):
    (record,) = Decoding(handler(tables))(raw_record(None, click(user_id="ada"), BOUNDARY + DELAY - 1))
    assert columns_of(record) == [None, None, 2, 1, None]


def test_a_worker_shows_how_old_the_newest_table_is_and_what_it_refuses(tables):
    (tables / f"{BOUNDARY + EVERY:014d}.npz").write_bytes(b"half a tab")
    metrics = Decoding(handler(tables)).metrics
    assert metrics["gauge\tpopulation_age_seconds"] > 0
    assert metrics["gauge\tpopulation_tables_refused"] == 1


def test_a_real_worker_reads_the_tables(tables):
    with FakeOperator(handler(tables)) as operator:
        (record,) = operator.call([raw_record(None, shoes(), BOUNDARY + DELAY - 1)])
    assert columns_of(record) == [2, 1, 2, 1, 0.5]
