"""The published schema of clicks and the decoder agree: what one of them accepts, the other one accepts too."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from math import ceil, floor, nan

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.support.contracts import contract
from udfs.contracts.clicks import LATEST_TIME_MS, Click, ClickDecoder, ClickLimits, pack_click, read_leniently

SCHEMA = contract("clicks")
PARTS = SCHEMA["$defs"]
FIELDS = PARTS["Click"]["properties"]
VALIDATOR = Draft202012Validator(SCHEMA)
ANY_TIME = ClickDecoder(ClickLimits(max_behind_ms=LATEST_TIME_MS, max_ahead_ms=LATEST_TIME_MS))
BASE = {"user_id": "ada", "event_name": "purchase", "event_time": 1_772_355_600_000}
WIDE = 1e15  # of numbers without a bound

some_text = st.text(max_size=20) | st.sampled_from(["12", "-1", "1.50", "1e3", "01", "NaN", "{}", "[{}]", "[1]", " "])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | some_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def values(schema: dict) -> st.SearchStrategy:
    """Values that a schema allows."""
    if "$ref" in schema:
        return objects(PARTS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of(*map(values, schema["anyOf"]))
    types = schema.get("type")
    if types is None:
        return anything
    makers = {"string": texts, "number": numbers, "integer": integers, "array": arrays, "null": lambda _: st.none()}
    return st.one_of(*(makers[name](schema) for name in ([types] if isinstance(types, str) else types)))


def objects(schema: dict) -> st.SearchStrategy:
    """Objects with all required fields and some others, unknown ones among them."""
    fields = {name: values(field) for name, field in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema["required"]}
    known = st.fixed_dictionaries(required, optional=fields)
    names = st.text(max_size=5).filter(lambda name: name not in schema["properties"])
    unknown = st.dictionaries(names, anything, max_size=2)
    return st.builds(lambda others, record: others | record, unknown, known)


def arrays(schema: dict) -> st.SearchStrategy:
    (first,) = map(values, schema["prefixItems"])
    return st.lists(first, max_size=3) | st.builds(lambda one, others: [one, *others], first, st.lists(anything))


def numbers(schema: dict) -> st.SearchStrategy:
    low, high = schema.get("minimum", -WIDE), schema.get("maximum", WIDE)
    return st.floats(low, high) | st.integers(ceil(low), floor(high))


def integers(schema: dict) -> st.SearchStrategy:
    whole = st.integers(schema.get("minimum", -(10**9)), schema.get("maximum", 10**9))
    return whole | whole.map(float) if "minimum" in schema else whole


def texts(schema: dict) -> st.SearchStrategy:
    if "contentSchema" in schema:
        return values(schema["contentSchema"]).map(json.dumps)
    pattern = re.compile(schema.get("pattern", ""))
    if "number" in schema["type"]:
        written = numbers(schema).map(json.dumps)
    elif "minimum" in schema:
        written = integers(schema).map(json.dumps)
    else:
        written = st.text(min_size=schema.get("minLength", 0), max_size=min(schema.get("maxLength", 99), 99))
    return written.filter(pattern.search)


records = objects(PARTS["Click"])


def decode(payload: bytes):
    return ANY_TIME.decode([payload], [BASE["event_time"]])


@given(records)
def test_the_decoder_accepts_each_record_that_the_schema_allows(record):
    assert VALIDATOR.is_valid(record)
    decoded = decode(json.dumps(record).encode())
    assert decoded.reasons == [None], decoded.messages


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), anything, max_size=3))
def test_the_schema_allows_each_record_that_the_decoder_accepts(fields):
    record = BASE | fields
    if decode(json.dumps(record).encode()).reasons == [None]:
        assert [error.message for error in VALIDATOR.iter_errors(record)] == []


def breaches(schema: dict) -> Iterator:
    """Values that break one rule of a field's schema each."""
    value = schema["anyOf"][0] if "anyOf" in schema else schema
    if "type" not in value:
        return  # anything goes
    yield from ({"of": "another type"}, True)
    if "number" in value["type"] or "integer" in value["type"] and "minimum" in value:
        yield from ("many", "1,299.00", "1_000", " 1", "01", "NaN", "")
    if "minimum" in value:
        yield from (value["minimum"] - 1, value["minimum"] - 0.5)
    if "maximum" in value:
        yield from (value["maximum"] + 1, value["maximum"] + 0.5, value["maximum"] * 1e6)
    if "maxLength" in value:
        yield "x" * (value["maxLength"] + 1)
    if "minLength" in value:
        yield ""


BREACHES = [
    *((name, value) for name, field in FIELDS.items() if name != "items" for value in breaches(field)),
    *((name, None) for name in PARTS["Click"]["required"]),
    ("user_id", " \t"),
    ("user_id", 1.5),
    ("event_name", 7),
    ("event_time", "2026-03-01"),
    ("event_time", "2026-03-01T10:00:00"),
    ("utc_offset_minutes", 5.5),
    ("utc_offset_minutes", "5.5"),
    ("items", 7),
    ("items", [7]),
    ("items", [[]]),
    *(("items", [{name: value}]) for name in ("item_id", "item_category") for value in ({}, 1.5, "x" * 257)),
    ("items", {"item_id": "x" * 257}),
]


@pytest.mark.parametrize(("name", "value"), BREACHES, ids=lambda value: str(value)[:30])
def test_a_record_that_breaks_one_rule_is_rejected_by_both(name, value):
    record = BASE | {name: value}
    decoded = decode(json.dumps(record).encode())
    assert decoded.reasons != [None]
    assert name in decoded.messages[0]
    assert not VALIDATOR.is_valid(record)


@pytest.mark.parametrize("name", PARTS["Click"]["required"])
def test_a_record_without_a_required_field_is_rejected_by_both(name):
    record = {field: value for field, value in BASE.items() if field != name}
    assert decode(json.dumps(record).encode()).reasons == ["missing_field"]
    assert not VALIDATOR.is_valid(record)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if "minimum" in json.dumps(field)])
def test_a_number_that_is_read_is_finite(name):
    for value in (nan, float("inf"), float("-inf")):
        assert decode(json.dumps(BASE | {name: value}).encode()).reasons == ["not_finite"]


def test_what_json_schema_cannot_say_of_numbers_in_texts_the_decoder_checks():
    for text in ("-1", "1e13", "1e999"):
        assert VALIDATOR.is_valid(BASE | {"value": text})
        assert decode(json.dumps(BASE | {"value": text}).encode()).reasons != [None]


def strict(payload: bytes) -> Click | None:
    """The click as a strict decoder reads it; None if it refuses the record."""
    try:
        return msgspec.json.decode(payload, type=Click)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def assert_same(payload: bytes) -> None:
    click = strict(payload)
    if click is not None:
        lenient = read_leniently(payload)
        assert pack_click(lenient) == pack_click(click)
        assert {**msgspec.structs.asdict(lenient), "items": 0} == {**msgspec.structs.asdict(click), "items": 0}


@given(records | st.dictionaries(st.sampled_from(sorted(FIELDS)), anything, max_size=3).map(BASE.__or__))
def test_the_lenient_decoder_reads_as_the_strict_one_does(record):
    assert_same(json.dumps(record).encode())
    assert_same(json.dumps(record, ensure_ascii=False).encode())


strict_records = st.fixed_dictionaries(
    {"user_id": st.text(min_size=1, max_size=9), "event_name": st.just("purchase"), "event_time": st.just(10**12)},
    optional={
        "item_id": st.text(max_size=9),
        "price": st.floats(0, 1e12),
        "quantity": st.integers(0, 9) | st.floats(0, 9),
        "items": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "item_id": st.text(max_size=9),
                    "price": st.floats(-99, 99),
                    "quantity": st.integers(-9, 9),
                },
            ),
            max_size=3,
        ),
        "unread": anything,
    },
)


@given(strict_records, st.integers(0), st.binary(min_size=1, max_size=1))
def test_a_changed_byte_makes_no_difference_between_them(record, place, byte):
    payload = json.dumps(record, ensure_ascii=False).encode()
    place %= len(payload)
    assert strict(payload) is not None
    assert_same(payload)
    assert_same(payload[:place] + byte + payload[place + 1 :])


def test_times_of_the_schema_are_those_of_this_century():
    low, high = (datetime.fromtimestamp(FIELDS["event_time"][name] / 1000, UTC) for name in ("minimum", "maximum"))
    assert (low.year, high.year) == (2000, 2100)
