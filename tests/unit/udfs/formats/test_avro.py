"""Avro records, written by fastavro or by hand, read into the values that JSON would have had."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from uuid import UUID

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udfs.contracts.rejects import Reason, Reject
from udfs.formats.avro import avro_parser
from udfs.formats.schema_registry import SchemaError

MS = 1_772_355_600_123
MOMENT = datetime.fromtimestamp(MS / 1000, UTC).replace(microsecond=123_456)

CLICK = {
    "type": "record",
    "name": "Click",
    "namespace": "com.example",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "event_name", "type": {"type": "enum", "name": "Event", "symbols": ["view_item", "purchase"]}},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "quantity", "type": ["null", "int"], "default": None},
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Item", "fields": [{"name": "item_id", "type": "string"}]},
            },
        },
        {"name": "labels", "type": {"type": "map", "values": ["string", "long"]}},
        {"name": "best", "type": ["null", "Item"]},
    ],
}
VALUE = {
    "user_id": "ada",
    "event_name": "purchase",
    "event_time": MS,
    "price": 9.5,
    "quantity": None,
    "items": [{"item_id": "a"}, {"item_id": "b"}],
    "labels": {"campaign": "spring", "clicks": 2**40},
    "best": {"item_id": "a"},
}


def written(schema: object, value: object) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def record_of(*types: object) -> dict:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields}


def test_a_record_becomes_a_dict():
    assert avro_parser(json.dumps(CLICK))(written(CLICK, VALUE), 0) == VALUE


def test_bytes_are_read_as_the_specification_says():
    schema = record_of("string", "long", ["null", "double"], "boolean")
    # A length and 2 bytes; zigzag -64; the union's second type and a double; true.
    payload = b"\x04hi" + b"\x7f" + b"\x02" + b"\0\0\0\0\0\0\xf8\x3f" + b"\x01"
    assert avro_parser(json.dumps(schema))(payload, 0) == {"f0": "hi", "f1": -64, "f2": 1.5, "f3": True}


def test_a_record_begins_where_it_is_said_to():
    assert avro_parser(json.dumps(CLICK))(b"12345" + written(CLICK, VALUE), 5) == VALUE


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        ({"type": "long", "logicalType": "timestamp-millis"}, MOMENT, MS),
        ({"type": "long", "logicalType": "timestamp-micros"}, MOMENT, MS),
        ({"type": "long", "logicalType": "timestamp-nanos"}, MS * 1_000_000 + 7, MS),
        ({"type": "long", "logicalType": "timestamp-micros"}, -1, -1),  # before 1970 time goes on forwards
        ({"type": "long", "logicalType": "local-timestamp-millis"}, MOMENT.replace(tzinfo=None), MS),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, MOMENT.replace(tzinfo=None), MS),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], MOMENT, MS),
        (["null", {"type": "long", "logicalType": "timestamp-micros"}], None, None),
        ({"type": "int", "logicalType": "date"}, date(2026, 3, 1), date(2026, 3, 1)),
        ({"type": "int", "logicalType": "time-millis"}, time(0, 0, 1, 500_000), 1500),
        ({"type": "long", "logicalType": "time-micros"}, time(0, 0, 1, 500_000), 1_500_000),
        ({"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}, Decimal("-19.99"), -19.99),
        (
            {"type": "fixed", "name": "F", "size": 8, "logicalType": "decimal", "precision": 6, "scale": 2},
            Decimal("0.07"),
            0.07,
        ),
        ({"type": "bytes", "logicalType": "decimal", "precision": 6}, Decimal(12), 12.0),
        ({"type": "string", "logicalType": "uuid"}, UUID(int=5), str(UUID(int=5))),
        ({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}, UUID(int=5).bytes, str(UUID(int=5))),
        ({"type": "string", "logicalType": "unheard-of"}, "x", "x"),
        ("bytes", b"\0\xff", b"\0\xff"),
        ({"type": "fixed", "name": "X", "size": 2}, b"ab", b"ab"),
        ("long", -(2**63), -(2**63)),
        ("float", 0.5, 0.5),
        ("boolean", False, False),
        (["null", "string", "long"], 3, 3),
        ({"type": "map", "values": {"type": "array", "items": "int"}}, {"a": [1], "b": []}, {"a": [1], "b": []}),
    ],
)
def test_types(kind, value, read):
    schema = record_of(kind)
    parsed = avro_parser(json.dumps(schema))(written(schema, {"f0": value}), 0)
    assert parsed == {"f0": read}
    assert type(parsed["f0"]) is type(read)


def test_a_logical_type_beside_a_fields_type_has_no_meaning():
    schema = record_of("long")
    schema["fields"][0]["logicalType"] = "timestamp-micros"
    assert avro_parser(json.dumps(schema))(written(record_of("long"), {"f0": MS}), 0) == {"f0": MS}


ITEM = {"type": "record", "name": "Item", "namespace": "shop", "fields": [{"name": "item_id", "type": "string"}]}
CART = {
    "type": "record",
    "name": "Cart",
    "namespace": "shop",
    "fields": [{"name": "items", "type": {"type": "array", "items": "shop.Item"}}, {"name": "gift", "type": "Item"}],
}
CART_VALUE = {"items": [{"item_id": "a"}], "gift": {"item_id": "b"}}


def cart_bytes() -> bytes:
    named = {}
    fastavro.parse_schema(ITEM, named)
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(CART, named), CART_VALUE)
    return out.getvalue()


def test_types_can_come_from_other_schemas():
    assert avro_parser(json.dumps(CART), [json.dumps(ITEM)])(cart_bytes(), 0) == CART_VALUE


@pytest.mark.parametrize("schema", [["shop.Item", "shop.Cart"], "shop.Cart"])
def test_a_whole_schema_can_be_types_of_other_schemas(schema):
    """Several kinds of event on one topic: a union of references."""
    parse = avro_parser(json.dumps(schema), [json.dumps(ITEM), json.dumps(CART)])
    index = b"\x02" if isinstance(schema, list) else b""
    assert parse(index + cart_bytes(), 0) == CART_VALUE


def test_every_prefix_of_a_record_is_rejected():
    parse, payload = avro_parser(json.dumps(CLICK)), written(CLICK, VALUE)
    for end in range(len(payload)):
        with pytest.raises(Reject) as rejected:
            parse(payload[:end], 0)
        assert rejected.value.reason is Reason.INVALID_AVRO


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x02a\x00" + b"\x00", "1 bytes follow the end of the record"),
        (b"\x02a\x08", "index of an enum's symbol or of a union's type is out of range"),
        (b"\x02\xff\x00", "a string is not UTF-8"),
        (b"\x02", "ends before its last field"),
        (b"\x01\x00", "ends before its last field"),
    ],
)
def test_a_record_that_does_not_fit_says_why(payload, message):
    schema = record_of("string", {"type": "enum", "name": "E", "symbols": ["A", "B"]})
    with pytest.raises(Reject, match=message) as rejected:
        avro_parser(json.dumps(schema))(payload, 0)
    assert rejected.value.reason is Reason.INVALID_AVRO


def test_a_schema_of_something_else_than_a_record_has_no_objects():
    with pytest.raises(Reject, match="not of a record, but of str") as rejected:
        avro_parser('"string"')(b"\x02a", 0)
    assert rejected.value.reason is Reason.NOT_AN_OBJECT


NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


def test_a_recursive_type_is_read():
    value = {"next": {"next": {"next": None}}}
    assert avro_parser(json.dumps(NODE))(written(NODE, value), 0) == value


def test_nesting_without_end_is_rejected_and_does_not_end_the_process():
    with pytest.raises(Reject) as rejected:
        avro_parser(json.dumps(NODE))(b"\x02" * 60_000 + b"\0", 0)
    assert rejected.value.reason is Reason.TOO_DEEP


def test_types_that_are_used_twice_are_not_recursive():
    """32 types, each of which has the next one twice, are checked without visiting 2**32 of them."""
    types = [{"type": "record", "name": "T0", "fields": [{"name": "x", "type": "int"}]}]
    for number in range(1, 32):
        fields = [{"name": name, "type": f"T{number - 1}"} for name in "ab"]
        types.append({"type": "record", "name": f"T{number}", "fields": fields})
    avro_parser(json.dumps(types[-1]), [json.dumps(kind) for kind in types[:-1]])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("", "not an Avro schema"),
        ('{"type": "record"}', "not an Avro schema"),
        (json.dumps(CART), "names a type that it does not define: shop.Item"),
        ("[" * 100_000, "not an Avro schema"),
        ('"\\udc80"', r"names a type that it does not define: \\udc80$"),
    ],
)
def test_an_unusable_schema_is_refused(schema, message):
    with pytest.raises(SchemaError, match=message):
        avro_parser(schema)


def test_a_default_that_breaks_its_type_does_not_matter_to_readers():
    schema = record_of("string")
    schema["fields"][0]["default"] = None
    assert avro_parser(json.dumps(schema))(b"\x02a", 0) == {"f0": "a"}


@given(st.binary(max_size=200))
@example(b"\xff" * 20)
@example(b"\x06ada\x02" + b"\xff" * 15)
def test_random_bytes_are_read_or_rejected(payload):
    with suppress(Reject):
        assert isinstance(RANDOM(payload, 0), dict)


RANDOM = avro_parser(json.dumps(CLICK))
