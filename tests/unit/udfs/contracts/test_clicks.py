import json
import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.clicks import Click, ClickDecoder, ClickLimits, click_schema, pack_click
from udfs.contracts.packed_events import EVENT, EVENT_FORMAT, EVENT_KINDS, NO_ID, PAGE_TYPES, read_histories
from udfs.contracts.rejects import Reason

NOW = 1_700_000_000_000


def click(**changes) -> bytes:
    fields = {"user_id": "ada", "event_name": "view_item", "event_time": NOW, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def decode(*payloads, record_time=NOW, **limits):
    return ClickDecoder(ClickLimits(**limits)).decode(payloads, [record_time] * len(payloads))


def packed(**changes) -> np.void:
    decoded = decode(click(**changes))
    assert decoded.reasons == [None], decoded.messages
    return np.frombuffer(decoded.events[0], EVENT)[0]


BAD_RECORDS = {
    "no bytes": (b"", Reason.EMPTY_RECORD, "no bytes"),
    "a null record": (None, Reason.EMPTY_RECORD, "no bytes"),
    "half a record": (click()[:20], Reason.INVALID_JSON, "truncated"),
    "text": (b"hello", Reason.INVALID_JSON, "malformed"),
    "two objects": (click() + click(), Reason.INVALID_JSON, "trailing"),
    "an array": (b"[1]", Reason.NOT_AN_OBJECT, "got `array`"),
    "null": (b"null", Reason.NOT_AN_OBJECT, "got `null`"),
    "no user": (click(user_id=...), Reason.MISSING_FIELD, "user_id"),
    "an empty user": (click(user_id=""), Reason.EMPTY_FIELD, "$.user_id"),
    "a null user": (click(user_id=None), Reason.WRONG_TYPE, "$.user_id"),
    "a number for a user": (click(user_id=7), Reason.WRONG_TYPE, "$.user_id"),
    "a long user": (click(user_id="x" * 129), Reason.TOO_LONG, "$.user_id"),
    "no name": (click(event_name=...), Reason.MISSING_FIELD, "event_name"),
    "no time": (click(event_time=...), Reason.MISSING_FIELD, "event_time"),
    "a time in words": (click(event_time="today"), Reason.WRONG_TYPE, "$.event_time"),
    "a time with a fraction": (click(event_time=1.5), Reason.WRONG_TYPE, "$.event_time"),
    "a boolean for a time": (click(event_time=True), Reason.WRONG_TYPE, "$.event_time"),
    "a negative time": (click(event_time=-1), Reason.OUT_OF_RANGE, "$.event_time"),
    "a time in microseconds": (click(event_time=NOW * 1000), Reason.OUT_OF_RANGE, "$.event_time"),
    "a time in seconds": (click(event_time=NOW // 1000), Reason.TIME_TOO_OLD, "behind the record's timestamp"),
    "a time too early": (click(event_time=NOW - 30 * 86_400_000 - 1), Reason.TIME_TOO_OLD, "at most 2592000 s"),
    "a time too late": (click(event_time=NOW + 600_001), Reason.TIME_IN_FUTURE, "at most 600 s"),
    "NaN": (click(price=float("nan")), Reason.NOT_FINITE, "NaN"),
    "infinity": (click(price=float("-inf")), Reason.NOT_FINITE, "-Infinity"),
    "NaN in a field nobody reads": (click(other=float("nan")), Reason.NOT_FINITE, "NaN"),
    "a number beyond floats": (click(price=1)[:-2] + b"1e999}", Reason.NOT_FINITE, "$.price"),
    "a negative price": (click(price=-1), Reason.OUT_OF_RANGE, "$.price"),
    "a price in words": (click(price="12"), Reason.WRONG_TYPE, "$.price"),
    "scrolled beyond the end": (click(percent_scrolled=101), Reason.OUT_OF_RANGE, "$.percent_scrolled"),
    "a long page": (click(page_location="/" * 2049), Reason.TOO_LONG, "$.page_location"),
    "a bad entry of items": (click(items=[{"item_id": 7}]), Reason.WRONG_TYPE, "$.items[0].item_id"),
    "a nesting bomb": (click(deep=0)[:-2] + b"[" * 30_000 + b"]" * 30_000 + b"}", Reason.TOO_DEEP, "nested too deeply"),
    "a bomb of objects": (click(deep=0)[:-2] + b'{"a":' * 9_000 + b"1" + b"}" * 9_001, Reason.TOO_DEEP, "nested"),
    "bytes that are not UTF-8": (b"\xff\xfe\x00", Reason.INVALID_UTF8, "byte 0"),
    "a user that is not UTF-8": (click(user_id="a?").replace(b"?", b"\xff"), Reason.INVALID_UTF8, "0xff"),
    "half of a surrogate pair": (click(user_id="?").replace(b"?", b"\\ud800"), Reason.INVALID_JSON, "surrogate"),
    "a megabyte": (click(note="x" * 1_000_000), Reason.TOO_LARGE, "at most 65536"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_is_rejected_with_its_reason(name):
    payload, reason, words = BAD_RECORDS[name]
    decoded = decode(payload)
    assert decoded.reasons == [reason.value], decoded.messages
    assert words in decoded.messages[0]
    assert (decoded.user_ids, decoded.events, decoded.event_ids) == ([None], [None], [None])


def test_every_reason_has_a_record_that_shows_it():
    assert {reason for _, reason, _ in BAD_RECORDS.values()} == set(Reason)


def test_a_bad_record_does_not_disturb_its_neighbours():
    good = click(event_id="e1")
    payloads = [good, *(payload for payload, _, _ in BAD_RECORDS.values()), good]
    decoded = decode(*payloads)
    assert [decoded.events[0], decoded.events[-1]] == [pack_click(Click("ada", "view_item", NOW))] * 2
    assert all(len(column) == len(payloads) for column in vars(decoded).values())


def test_the_bounds_on_time_are_configurable():
    late = click(event_time=NOW - 5_000)
    assert decode(late, max_behind_ms=5_000).reasons == [None]
    assert decode(late, max_behind_ms=4_999).reasons == [Reason.TIME_TOO_OLD.value]


def test_an_event_is_packed_field_by_field():
    event = packed(
        event_name="add_to_cart", item_id="i1", item_category="shoes", page_location="/p/1", page_type="product",
        price=12.5, quantity=2, engagement_time_msec=1_999, percent_scrolled=90, device_category="mobile",
        utc_offset_minutes=-210,
    )  # fmt: skip
    assert event["time_ms"] == NOW
    assert (event["item"], event["category"], event["page"]) == (crc32(b"i1"), crc32(b"shoes"), crc32(b"/p/1"))
    assert event["value"] == 25.0
    assert event["engagement_ds"] == 19
    assert EVENT_KINDS[event["kind"]] == "add_to_cart"
    assert PAGE_TYPES[event["page_type"]] == "product"
    assert (event["scroll"], event["utc_offset_quarters"], event["device"], event["spare"]) == (90, -14, 2, 0)


def test_what_an_event_leaves_out_is_marked_as_missing():
    event = packed()
    assert (event["item"], event["category"], event["page"]) == (NO_ID,) * 3
    assert np.isnan(event["value"])
    assert (event["page_type"], event["device"], event["engagement_ds"]) == (0, 0, 0)


def test_an_unknown_event_name_is_kept_as_other_and_unknown_fields_are_ignored():
    event = packed(event_name="spun_the_wheel", colour={"of": ["wheel"]})
    assert EVENT_KINDS[event["kind"]] == "other"


def test_the_value_of_an_event_wins_over_price_times_quantity():
    assert packed(value=99.0, price=1.0, quantity=3)["value"] == 99.0
    assert packed(price=0.0)["value"] == 0.0


def test_the_first_of_the_items_describes_an_event_that_does_not_describe_itself():
    items = [{"item_id": "a", "item_category": "c", "price": 2.0, "quantity": 3}, {"item_id": "b"}]
    assert packed(items=items) == packed(item_id="a", item_category="c", price=2.0, quantity=3)
    assert packed(items=items, item_id="own")["item"] == crc32(b"own")


def test_very_long_engagement_saturates():
    assert packed(engagement_time_msec=86_400_000)["engagement_ds"] == 65_535


@given(st.binary(max_size=200))
def test_no_bytes_stop_the_decoder(payload):
    decoded = decode(payload)
    assert decoded.reasons[0] is None or Reason(decoded.reasons[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(Click.__struct_fields__), json_values))
def test_no_json_stops_the_decoder(fields):
    decoded = decode(json.dumps(fields).encode())
    assert decoded.reasons[0] is None or Reason(decoded.reasons[0])


@given(st.lists(st.sampled_from([click(), b"", b"{", click(user_id="bo")]), max_size=20), st.integers(0, 20))
def test_batches_do_not_matter(payloads, cut):
    whole, first, second = decode(*payloads), decode(*payloads[:cut]), decode(*payloads[cut:])
    for name, column in vars(whole).items():
        assert column == getattr(first, name) + getattr(second, name)


def test_the_packed_format_is_the_dtype():
    assert struct.calcsize(EVENT_FORMAT) == EVENT.itemsize == 32


def test_the_schema_describes_the_record():
    schema = click_schema()["$defs"]["Click"]
    assert schema["required"] == ["user_id", "event_name", "event_time"]
    assert set(schema["properties"]) == set(Click.__struct_fields__)


def test_histories_are_laid_end_to_end():
    first, second = (pack_click(Click("ada", "view_item", time)) for time in (1, 2))
    records, starts, ends = read_histories([first, first + second])
    assert records["time_ms"].tolist() == [1, 1, 2]
    assert (starts.tolist(), ends.tolist()) == ([0, 1], [1, 3])


@pytest.mark.parametrize("history", [b"", b"x" * 31, b"x" * 33])
def test_a_history_of_broken_records_is_refused(history):
    with pytest.raises(ValueError, match=rf"history 1 has {len(history)} bytes"):
        read_histories([b"\0" * 32, history])
