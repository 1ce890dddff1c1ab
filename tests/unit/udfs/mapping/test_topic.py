"""A topic that is not in the contract: its records become clicks, dead letters with a reason, or nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.sources import file_records
from udfs.contracts.clicks import ClickLimits, pack_click, write_click
from udfs.contracts.currencies import Currencies
from udfs.contracts.packed_events import EVENT
from udfs.contracts.rejects import Reason
from udfs.formats.record_format import record_format
from udfs.formats.schema_registry import RegistryOptions
from udfs.mapping.definition import MappingFile, load_mapping, mapping_of
from udfs.mapping.topic import ClickTopic

AT = 1_772_355_600_000  # 2026-03-01 09:00 UTC
MAPPINGS = Path(__file__).parents[4] / "conf" / "mappings"
MAPPING = mapping_of(
    {
        "columns": {"user_id": "who", "event_name": "what", "event_time": "at", "price": "p"},
        "time_format": "epoch_ms",
        "ignored_users": ["bot"],
    },
    "m.yaml",
)


def decode(topic: ClickTopic, *records: bytes):
    return topic.decoder().decode(records, [AT] * len(records))


def row(**changes) -> bytes:
    return json.dumps({"who": "ada", "what": "scroll", "at": AT} | changes).encode()


@pytest.mark.parametrize(
    ("record", "reason", "message"),
    [
        (row(p="1,299.00"), Reason.UNFIT_ROW, "price (column p): '1,299.00' is not a number"),
        (row(who=None), Reason.UNFIT_ROW, "user_id (column who) is missing"),
        (row(at=AT // 1000), Reason.UNFIT_ROW, "it looks like seconds"),
        (row(who="bot"), Reason.IGNORED, "leaves this user or event out"),
        (row(p=-1), Reason.OUT_OF_RANGE, "$.price"),
        (row(at=AT - 31 * 86_400_000), Reason.TIME_TOO_OLD, "behind the record's timestamp"),
        (row(who="gift \ud83d"), Reason.UNFIT_ROW, "user_id (column who): 'gift \\ud83d' is not UTF-8"),
        (b"", Reason.EMPTY_RECORD, ""),
        (b"[]", Reason.NOT_AN_OBJECT, ""),
        (b'{"who": ', Reason.INVALID_JSON, ""),
        (b"\xff", Reason.INVALID_UTF8, ""),
        (b'{"unfit_row":"1,2","reason":"2 values for 3 columns"}', Reason.UNFIT_ROW, ""),
    ],
)
def test_a_record_that_is_no_click_is_rejected_with_the_reason(record, reason, message):
    decoded = decode(ClickTopic(mapping=MAPPING), record)
    assert (decoded.reasons, decoded.user_ids) == ([reason], [None])
    assert message in decoded.messages[0]


def test_a_record_of_segment_is_a_click():
    mapping = load_mapping(MAPPINGS / "segment.yaml").for_topic()
    record = {
        "type": "track",
        "event": "Order Completed",
        "anonymousId": "a-1",
        "messageId": "m-1",
        "timestamp": "2026-03-01T09:00:00.221Z",
        "properties": {"revenue": "14.99", "products": [{"product_id": "p1", "price": 14.99, "quantity": 1}]},
    }
    decoded = decode(ClickTopic(mapping=mapping), json.dumps(record).encode())
    assert (decoded.reasons, decoded.user_ids, decoded.event_names) == ([None], ["a-1"], ["purchase"])
    assert decoded.event_times_ms == [AT + 221]


@pytest.mark.parametrize("mapping", [None, MAPPING])
def test_a_frame_is_taken_off_before_the_record_is_read(mapping):
    framed = record_format("json", RegistryOptions(url="http://127.0.0.1:1"))
    click = {"user_id": "ada", "event_name": "scroll", "event_time": AT, "who": "ada", "what": "scroll", "at": AT}
    content = json.dumps(click).encode()
    topic = ClickTopic(ClickLimits(), mapping, framed)
    decoded = decode(topic, b"\x00\x00\x00\x00\x07" + content, content)
    assert decoded.reasons == [None, Reason.INVALID_FRAME]
    assert decoded.user_ids[0] == "ada"


def test_without_mapping_and_format_records_are_clicks_themselves():
    assert not ClickTopic().is_foreign
    assert ClickTopic(mapping=MAPPING).is_foreign
    record = json.dumps({"user_id": "ada", "event_name": "scroll", "event_time": AT}).encode()
    assert decode(ClickTopic(), record).user_ids == ["ada"]


def test_a_mapped_click_is_written_in_the_contract():
    click = ClickTopic(mapping=MAPPING).decoder().accept(row(p="2.5"), AT)
    written = write_click(click)
    assert json.loads(written) == {"user_id": "ada", "event_name": "scroll", "event_time": AT, "price": 2.5}
    again = decode(ClickTopic(), written)
    assert again.events == decode(ClickTopic(mapping=MAPPING), row(p="2.5")).events


CURRENCIES = Currencies(shop="EUR", rates={"USD": 0.5})


def order(**fields) -> bytes:
    return json.dumps({"user_id": "ada", "event_name": "purchase", "event_time": AT} | fields).encode()


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"value": 100, "currency": "EUR"}, 100),
        ({"value": 100}, 100),
        ({"value": 100, "currency": "usd"}, 50),
        ({"price": 10, "quantity": 3, "currency": "USD"}, 15),
        ({"items": [{"price": 10, "quantity": 3}, {"price": 20}], "currency": "USD"}, 25),
        ({"items": [{"price": 10, "quantity": 2.0}, {"price": "?"}], "currency": "USD"}, 10),
    ],
)
def test_amounts_are_those_of_the_shops_currency(fields, value):
    topic = ClickTopic(currencies=CURRENCIES)
    click = topic.decoder().accept(order(**fields), AT)
    assert np.frombuffer(pack_click(click), EVENT)["value"] == value
    assert np.frombuffer(pack_click(topic.decoder().accept(write_click(click), AT)), EVENT)["value"] == value


def test_a_currency_without_a_rate_is_rejected():
    decoded = decode(ClickTopic(currencies=CURRENCIES), order(value=16_000, currency="JPY"), order(currency="JPY"))
    assert decoded.reasons == [Reason.UNKNOWN_CURRENCY] * 2
    assert decoded.messages[0] == "currency JPY: no rate to EUR, only of EUR, USD; add it to the rates"


def test_without_a_shops_currency_amounts_are_taken_as_they_are():
    click = ClickTopic().decoder().accept(order(value=16_000, currency="JPY"), AT)
    assert (click.value, click.currency) == (16_000, "JPY")


ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1e13", "2.5", 1e13])
)
ODD_ITEMS = st.lists(
    st.none() | st.dictionaries(st.sampled_from(["item_id", "price", "quantity", "x"]), ODD), max_size=3
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("who", "what", "at", "p", "scroll", "engaged", "tz"), ODD)),
    ODD_ITEMS | ODD,
)
def test_a_topic_and_a_file_make_the_same_click_of_a_record(tmp_path_factory, fields, items):
    columns = {
        "user_id": "who", "event_name": "what", "event_time": "at", "price": "p", "items": "items",
        "percent_scrolled": "scroll", "engagement_time_msec": "engaged", "utc_offset_minutes": "tz",
    }  # fmt: skip
    mapping = mapping_of({"columns": columns, "time_format": "epoch_ms"}, "m.yaml")
    record = json.dumps({"who": "ada", "what": "scroll", "at": AT, "items": items} | fields).encode()
    path = tmp_path_factory.mktemp("files") / "c.jsonl"
    path.write_bytes(record)
    with path.open("rb") as file:
        ((_, value, _),) = file_records(file, MappingFile("m.yaml", (("*", mapping),)))
    from_topic, from_file = decode(ClickTopic(mapping=mapping), record), decode(ClickTopic(), value)
    assert from_topic.events == from_file.events
    assert from_topic.user_ids == from_file.user_ids
    assert from_topic.reasons == from_file.reasons
