import json
import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.clicks import Click, ClickDecoder, ClickLimits, click_schema, pack_click
from udfs.contracts.identifiers import hash_id
from udfs.contracts.packed_events import (
    DEDUP_BY_EVENT,
    DEDUP_BY_NOTHING,
    DEDUP_BY_ORDER,
    EVENT,
    EVENT_FORMAT,
    EVENT_KINDS,
    NO_ID,
    PAGE_TYPES,
    read_histories,
)
from udfs.contracts.rejects import Reason, unfit_row

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


def with_text(text: bytes, **changes) -> bytes:
    """A click with JSON text in it that no value encodes to, where a value is "?"."""
    return click(**changes).replace(b'"?"', text)


DAY_MS = 86_400_000
BAD_RECORDS = {
    "no bytes": (b"", Reason.EMPTY_RECORD, "no bytes"),
    "a null record": (None, Reason.EMPTY_RECORD, "no bytes"),
    "half a record": (click()[:20], Reason.INVALID_JSON, "truncated"),
    "text": (b"hello", Reason.INVALID_JSON, "malformed"),
    "two objects": (click() + click(), Reason.INVALID_JSON, "more than one JSON object: send each as a record"),
    "two lines": (click() + b"\n" + click(), Reason.INVALID_JSON, "more than one JSON object"),
    "a comma too many": (click()[:-1] + b",}", Reason.INVALID_JSON, "malformed"),
    "framing": (
        b"\0\0\0\0\x07" + click(),
        Reason.INVALID_JSON,
        "Confluent framing (magic byte 0, schema id 7): set decode.format",
    ),
    "an array": (b"[1]", Reason.NOT_AN_OBJECT, "expected one object per record, got an array of 1: send each"),
    "null": (b"null", Reason.NOT_AN_OBJECT, "expected an object, got null"),
    "a JSON text": (json.dumps(click().decode()).encode(), Reason.NOT_AN_OBJECT, "encoded twice: send the object"),
    "an envelope": (
        json.dumps({"schema": {"type": "struct"}, "payload": json.loads(click())}).encode(),
        Reason.MISSING_FIELD,
        "a Kafka Connect envelope (schema, payload): set value.converter.schemas.enable=false",
    ),
    "no user": (click(user_id=...), Reason.MISSING_FIELD, "user_id"),
    "an empty user": (click(user_id=""), Reason.EMPTY_FIELD, "$.user_id"),
    "a blank user": (click(user_id=" \t\u3000"), Reason.EMPTY_FIELD, "user_id has only blanks"),
    "a null user": (click(user_id=None), Reason.WRONG_TYPE, "$.user_id"),
    "an object for a user": (click(user_id={"id": 7}), Reason.WRONG_TYPE, 'expected a text, got {"id": 7}'),
    "a boolean for a user": (click(user_id=True), Reason.WRONG_TYPE, "expected a text, got true - at `$.user_id`"),
    "a fraction for a user": (click(user_id=4.0), Reason.WRONG_TYPE, "expected a text, got 4.0 - at `$.user_id`"),
    "a long user": (click(user_id="x" * 129), Reason.TOO_LONG, "$.user_id"),
    "no name": (click(event_name=...), Reason.MISSING_FIELD, "event_name"),
    "no time": (click(event_time=...), Reason.MISSING_FIELD, "event_time"),
    "a time in words": (click(event_time="today"), Reason.WRONG_TYPE, 'got "today" - at `$.event_time`'),
    "a time without an offset": (
        click(event_time="2023-11-14T22:13:20"),
        Reason.WRONG_TYPE,
        "expected milliseconds since 1970, got",
    ),
    "a day that is none": (click(event_time="2023-02-30T10:00:00Z"), Reason.WRONG_TYPE, "2023-02-30"),
    "a boolean for a time": (click(event_time=True), Reason.WRONG_TYPE, "got true - at `$.event_time`"),
    "a negative time": (click(event_time=-1), Reason.OUT_OF_RANGE, "event_time -1: expected a time from 2000-01-01"),
    "a time in microseconds": (
        click(event_time=NOW * 1000),
        Reason.OUT_OF_RANGE,
        "event_time 1700000000000000 is in the year 55840; it looks like microseconds (2023-11-14): send milliseconds",
    ),
    "a time in nanoseconds": (
        click(event_time=NOW * 1_000_000),
        Reason.OUT_OF_RANGE,
        "it looks like nanoseconds (2023-11-14): send milliseconds",
    ),
    "a time in seconds": (
        click(event_time=NOW // 1000),
        Reason.OUT_OF_RANGE,
        "event_time 1700000000 is 1970-01-20 in ms; it looks like seconds (2023-11-14): send milliseconds",
    ),
    "a time beyond all": (click(event_time=10**400), Reason.OUT_OF_RANGE, "expected a time from 2000-01-01"),
    "a time before 2000": (click(event_time=946_684_799_999), Reason.OUT_OF_RANGE, "to 2100-01-01"),
    "a time too early": (click(event_time=NOW - 30 * DAY_MS - 1), Reason.TIME_TOO_OLD, "at most 2592000 s"),
    "a time too late": (click(event_time=NOW + 600_001), Reason.TIME_IN_FUTURE, "at most 600 s"),
    "NaN": (click(price=float("nan")), Reason.NOT_FINITE, "NaN is not a finite number - at `$.price`"),
    "infinity": (click(price=float("-inf")), Reason.NOT_FINITE, "-Infinity"),
    "infinity for a whole number": (click(engagement_time_msec=float("inf")), Reason.NOT_FINITE, "Infinity is not"),
    "NaN for a time": (click(event_time=float("nan")), Reason.NOT_FINITE, "NaN"),
    "NaN for a user": (click(user_id=float("nan")), Reason.WRONG_TYPE, "got NaN - at `$.user_id`"),
    "a number beyond floats": (click(price=1)[:-2] + b"1e999}", Reason.NOT_FINITE, "$.price"),
    "a text beyond floats": (click(price="1e999"), Reason.NOT_FINITE, "$.price"),
    "a negative price": (click(price=-1), Reason.OUT_OF_RANGE, "got -1 - at `$.price`"),
    "a refund below 0": (
        click(event_name="refund", value=-20.0),
        Reason.OUT_OF_RANGE,
        "expected at least 0 and at most 1,000,000,000,000, got -20.0 - at `$.value`",
    ),
    "a price with a separator": (click(price="1,299.00"), Reason.WRONG_TYPE, 'expected a number, got "1,299.00"'),
    "a price in words": (click(price="twelve"), Reason.WRONG_TYPE, 'got "twelve" - at `$.price`'),
    "an empty price": (click(price=""), Reason.WRONG_TYPE, 'got "" - at `$.price`'),
    "scrolled beyond the end": (click(percent_scrolled=101), Reason.OUT_OF_RANGE, "got 101 - at `$.percent_scrolled`"),
    "negative engagement": (
        click(engagement_time_msec=-5),
        Reason.OUT_OF_RANGE,
        "expected at least 0, got -5 - at `$.engagement_time_msec`",
    ),
    "an offset in hours": (click(utc_offset_minutes=5.5), Reason.WRONG_TYPE, "expected a whole number, got 5.5"),
    "a code for a device": (click(device_category=2), Reason.WRONG_TYPE, "$.device_category"),
    "a number for items": (click(items=7), Reason.WRONG_TYPE, "expected an array of objects, got 7 - at `$.items`"),
    "a list of ids for items": (click(items=["A1"]), Reason.WRONG_TYPE, 'got "A1" - at `$.items[0]`'),
    "a text for items": (click(items="A1, A2"), Reason.WRONG_TYPE, 'got "A1, A2" - at `$.items`'),
    "a bad id of an item": (click(items=[{"item_id": {}}]), Reason.WRONG_TYPE, "got {} - at `$.items[0].item_id`"),
    "a nesting bomb": (click(deep=0)[:-2] + b"[" * 30_000 + b"]" * 30_000 + b"}", Reason.TOO_DEEP, "nested too deeply"),
    "a bomb of objects": (click(deep=0)[:-2] + b'{"a":' * 9_000 + b"1" + b"}" * 9_001, Reason.TOO_DEEP, "nested"),
    "a bomb in a text": (click(items="[" * 30_000), Reason.TOO_DEEP, "nested"),
    "bytes that are not UTF-8": (b"\xfe\x00", Reason.INVALID_UTF8, "byte 0"),
    "UTF-16": (click().decode().encode("utf-16"), Reason.INVALID_UTF8, "UTF-16: set the producer's encoding to UTF-8"),
    "UTF-16 without a mark": (click().decode().encode("utf-16-be"), Reason.INVALID_UTF8, "not UTF-8 but UTF-16"),
    "a user that is not UTF-8": (click(user_id="a?").replace(b"?", b"\xff"), Reason.INVALID_UTF8, "byte 0xff"),
    "half of a surrogate pair": (
        with_text(b'"gift \\ud83d"', item_category="?"),
        Reason.INVALID_UTF8,
        "\\ud83d is half of a surrogate pair - at `$.item_category`",
    ),
    "half of one in an item": (
        with_text(b'"\\udc80"', items=[{"item_id": "?"}]),
        Reason.INVALID_UTF8,
        "at `$.items[0].item_id`",
    ),
    "a false unfit row": (b'{"unfit_row":"","reason":" "}', Reason.MISSING_FIELD, "user_id"),
    "an unfit row that is not UTF-8": (b'{"unfit_row":"\xff","reason":"r"}', Reason.UNFIT_ROW, "r"),
    "an unfit row that is too deep": (b'{"unfit_row":' + b"[" * 20_000, Reason.TOO_DEEP, "nested too deeply"),
    "a row that a mapping refuses": (unfit_row(b"a,b", "user_id is missing"), Reason.UNFIT_ROW, "user_id is missing"),
    "a megabyte": (click(note="x" * 1_000_000), Reason.TOO_LARGE, "at most 65536"),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_bad_record_is_rejected_with_its_reason(name):
    payload, reason, words = BAD_RECORDS[name]
    decoded = decode(payload)
    assert decoded.reasons == [reason.value], decoded.messages
    assert words in decoded.messages[0]
    assert (decoded.user_ids, decoded.events, decoded.event_ids) == ([None], [None], [None])


def assert_same(decoded, other) -> None:
    assert decoded == other
    assert decoded.event_names == other.event_names


def test_every_reason_has_a_record_that_shows_it():
    of_other_formats = {Reason.INVALID_FRAME, Reason.UNKNOWN_SCHEMA, Reason.INVALID_AVRO, Reason.INVALID_PROTOBUF}
    shown = {reason for _, reason, _ in BAD_RECORDS.values()}
    assert shown == set(Reason) - of_other_formats - {Reason.IGNORED, Reason.UNKNOWN_CURRENCY}


def test_a_bad_record_does_not_disturb_its_neighbours():
    good = click(event_id="e1")
    payloads = [good, *(payload for payload, _, _ in BAD_RECORDS.values()), good]
    decoded = decode(*payloads)
    assert [decoded.events[0], decoded.events[-1]] == [pack_click(Click("ada", "view_item", NOW, event_id="e1"))] * 2
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
    assert (event["scroll"], event["utc_offset_quarters"], event["device"]) == (90, -14, 2)


@pytest.mark.parametrize(
    ("fields", "by", "of"),
    [
        ({}, DEDUP_BY_NOTHING, None),
        ({"event_id": ""}, DEDUP_BY_NOTHING, None),
        ({"event_id": "e1"}, DEDUP_BY_EVENT, "e1"),
        ({"event_id": "e1", "transaction_id": "t1"}, DEDUP_BY_EVENT, "e1"),
        ({"event_name": "purchase", "event_id": "e1", "transaction_id": "t1"}, DEDUP_BY_ORDER, "t1"),
        ({"event_name": "purchase", "event_id": "e1", "transaction_id": ""}, DEDUP_BY_EVENT, "e1"),
        ({"event_name": "purchase"}, DEDUP_BY_NOTHING, None),
        ({"event_name": "purchase", "transaction_id": "(not set)"}, DEDUP_BY_NOTHING, None),
        ({"event_name": "purchase", "transaction_id": "x" * 129}, DEDUP_BY_NOTHING, None),
        ({"event_name": "purchase", "transaction_id": {"no": "text"}}, DEDUP_BY_NOTHING, None),
        ({"event_name": "purchase", "transaction_id": 42}, DEDUP_BY_ORDER, "42"),
        ({"event_id": " Undefined "}, DEDUP_BY_NOTHING, None),
        ({"event_id": "00000000-0000-0000-0000-000000000000"}, DEDUP_BY_NOTHING, None),
    ],
)
def test_what_shows_that_an_event_was_sent_before(fields, by, of):
    event = packed(**fields)
    assert (event["dedup_by"], event["dedup_key"]) == (by, 0 if of is None else hash_id(of))


@pytest.mark.parametrize(
    ("given", "visitor"),
    [("d1", "d1"), (17, "17"), (" ", None), ("null", None), (None, None), (True, None), ([], None)],
)
def test_an_anonymous_id_that_is_none_is_missing(given, visitor):
    decoded = decode(click(anonymous_id=given))
    assert (decoded.reasons, decoded.clicks[0].visitor) == ([None], visitor)


def test_ids_that_differ_in_a_digit_have_other_hashes():
    hashes = {hash_id(f"{prefix}{number}") for prefix in ("", "e1-", "é") for number in range(100_000)}
    assert len(hashes) == 300_000
    assert max(hashes) < 2**64


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


SHOE, SOCKS, COUPON = (
    {"item_id": "A", "price": 100.0, "quantity": 1},
    {"item_id": "B", "price": 50.0, "quantity": 2},
    {"item_id": "C", "price": -10},
)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"items": [SHOE, SOCKS]}, 200),
        ({"items": [SHOE, SOCKS], "value": 90.0}, 90),
        ({"items": [SHOE, SOCKS], "price": 100.0, "quantity": 1}, 200),
        ({"items": [SHOE, COUPON]}, 90),
        ({"items": [COUPON, SHOE]}, 90),
        ({"items": [SHOE, {"price": 7}]}, 107),
        ({"items": [SHOE, {"price": 10, "quantity": 0.5}]}, 105),
        ({"items": [SHOE, None, 7, "A", {"price": "a lot"}, {"price": None}]}, 100),
        ({"items": [SHOE, {"price": 10, "quantity": "some"}]}, 100),
        ({"items": [SHOE, {"price": 10, "quantity": -1}]}, 90),
        ({"items": [SHOE, {"price": 1e13}]}, 100),
        ({"items": [SHOE, {"price": "10.50", "quantity": "2"}]}, 121),
        ({"items": [{"price": 5}, {"price": -20}]}, 0),
        ({"items": [{"price": -20}]}, 0),
        ({"items": [SOCKS]}, 100),
        ({"items": [SOCKS], "quantity": 3}, 150),
        ({"items": [{"quantity": 3}], "price": 10.0}, 30),
        ({"items": [{"quantity": 3}, {"quantity": 1}], "price": 10.0}, 30),
        ({"items": [{"price": 10.0, "quantity": 3}], "price": 10.0}, 30),
        ({"items": [{"item_id": "A"}, {"item_id": "B"}]}, None),
        ({"items": [], "price": 4.0, "quantity": 1.5}, 6),
        ({"items": [None]}, None),
        ({"items": [None], "value": 90.0}, 90),
        ({"price": 4.0, "quantity": 2.0}, 8),
        ({"price": 4.0}, 4),
        ({"quantity": 2}, None),
    ],
    ids=str,
)
def test_the_value_of_an_event(fields, value):
    event = packed(event_name="purchase", **fields)
    assert event["value"] == value if value is not None else np.isnan(event["value"])


def test_very_long_engagement_saturates():
    assert packed(engagement_time_msec=86_400_000)["engagement_ds"] == 65_535
    assert packed(engagement_time_msec=90_000_000)["engagement_ds"] == 65_535
    assert packed(engagement_time_msec=10**30)["engagement_ds"] == 65_535


EXACT = {
    "event_time": NOW, "user_id": "42", "event_id": "7", "item_id": "12345", "item_category": "9", "value": 1299.0,
    "creative_slot": "3", "percent_scrolled": 90, "engagement_time_msec": 1_999, "utc_offset_minutes": 345,
    "page_location": "/p", "items": [{"item_id": "12345", "price": 3.0, "quantity": 1}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("event_time", float(NOW)),
        ("event_time", NOW + 0.9),
        ("event_time", str(NOW)),
        ("event_time", f"{NOW}.5"),
        ("event_time", "1.7e12"),
        ("user_id", 42),
        ("event_id", 7),
        ("item_id", 12345),
        ("item_category", 9),
        ("creative_slot", 3),
        ("value", 1299),
        ("value", "1299.00"),
        ("value", "1.299e3"),
        ("percent_scrolled", 90.0),
        ("percent_scrolled", 90.7),
        ("percent_scrolled", "90"),
        ("engagement_time_msec", 1999.5),
        ("engagement_time_msec", "1999"),
        ("utc_offset_minutes", 345.0),
        ("utc_offset_minutes", "345"),
        ("items", {"item_id": 12345, "price": "3.00", "quantity": 1.0}),
        ("items", '[{"item_id": "12345", "price": 3.0}]'),
        ("items", '{"item_id": 12345, "price": 3.0, "quantity": "1"}'),
        ("items", [{"item_id": 12345, "price": 3}, None]),
    ],
    ids=str,
)
def test_a_value_whose_meaning_is_certain_is_read(name, given):
    exact, lenient = decode(click(**EXACT)), decode(click(**EXACT | {name: given}))
    assert lenient.messages == [None]
    assert_same(lenient, exact)


def test_an_exponent_is_a_time_too():
    assert_same(decode(with_text(b"1.7e12", event_time="?")), decode(click()))


@pytest.mark.parametrize(
    "payload",
    [
        b"\xef\xbb\xbf" + click(),
        with_text(b'"gift \\ud83d"', note="?"),
        with_text(b'{"\\udc00": ["\\ud83d\\u0041"]}', note="?"),
        with_text(b'"\xff\xfe"', note="?"),
        click(note=float("nan")),
        click(note=[{"deep": float("-inf")}]),
        with_text(b"1e999", note="?"),
        with_text(b"9" * 5_000, note="?"),
    ],
)
def test_what_nobody_reads_does_not_matter(payload):
    assert_same(decode(payload), decode(click()))
    assert_same(decode(payload[:-1] + b', "quantity": 2.0, "user_id": 42}'), decode(click(user_id="42", quantity=2)))


def test_of_a_key_that_is_given_twice_the_last_value_counts():
    assert decode(click()[:-1] + b', "user_id": "bo"}').user_ids == ["bo"]
    assert decode(click(user_id={})[:-1] + b', "user_id": "bo"}').user_ids == ["bo"]


def test_large_amounts_and_long_addresses_are_accepted():
    assert packed(value=1.2e9)["value"] == np.float32(1.2e9)
    assert packed(value=1e12)["value"] == np.float32(1e12)
    address = "https://shop.example/?gclid=" + "x" * 2_500
    assert packed(page_location=address)["page"] == crc32(address.encode())


def test_the_case_of_devices_and_page_types_does_not_matter():
    exact, other, unknown = (
        decode(click(device_category=device, page_type=page)).events
        for device, page in (("mobile", "product"), ("Mobile", "PRODUCT"), ("smartphone", "blog"))
    )
    assert exact == other
    assert unknown == decode(click()).events


def test_names_of_events_are_taken_as_they_are():
    for name in ("Purchase", "addToCart", "Order Completed"):
        decoded = decode(click(event_name=name))
        assert decoded.event_names == [name]
        assert EVENT_KINDS[np.frombuffer(decoded.events[0], EVENT)[0]["kind"]] == "other"


def test_the_limits_hold_for_what_is_read_leniently():
    assert decode(click(event_time=str(NOW - 30 * DAY_MS - 1))).reasons == [Reason.TIME_TOO_OLD]


def test_a_decoder_may_read_another_format():
    def parse(payload: bytes) -> Click:
        return Click(payload.decode(), "scroll", NOW)

    decoder = ClickDecoder(parse=parse)
    assert decoder.decode([b"ada", b" "], [NOW, NOW]).user_ids == ["ada", None]
    assert decoder.parse(b"bo").user_id == "bo"


def test_a_message_shows_the_beginning_of_a_long_value():
    (message,) = decode(click(user_id=["x" * 1_000])).messages
    assert message == f'expected a text, got ["{"x" * 58}... - at `$.user_id`'


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
    assert struct.calcsize(EVENT_FORMAT) == EVENT.itemsize == 40


def test_the_schema_describes_the_record():
    schema = click_schema()["$defs"]["Click"]
    assert schema["required"] == ["user_id", "event_name", "event_time"]
    assert set(schema["properties"]) == set(Click.__struct_fields__)


def test_histories_are_laid_end_to_end():
    first, second = (pack_click(Click("ada", "view_item", time)) for time in (1, 2))
    records, starts, ends = read_histories([first, first + second])
    assert records["time_ms"].tolist() == [1, 1, 2]
    assert (starts.tolist(), ends.tolist()) == ([0, 1], [1, 3])


@pytest.mark.parametrize("history", [b"", b"x" * 39, b"x" * 41])
def test_a_history_of_broken_records_is_refused(history):
    with pytest.raises(ValueError, match=rf"history 1 has {len(history)} bytes"):
        read_histories([b"\0" * 40, history])
