"""Protobuf messages, written by Google's library or by hand, read into dicts."""

import struct
from base64 import b64encode
from contextlib import suppress

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from udfs.contracts.rejects import Reason, Reject
from udfs.formats.protobuf import MAIN_FILE, ProtobufSchema, compile_protos
from udfs.formats.schema_registry import SchemaError

CLICK = """
syntax = "proto3";
package com.example;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/wrappers.proto";
import "confluent/meta.proto";
import "confluent/type/decimal.proto";

enum Event { EVENT_UNSPECIFIED = 0; VIEW_ITEM = 1; PURCHASE = 2; }

message Other { string name = 1; }

message Click {
  option (confluent.message_meta) = { doc: "a click" };
  message Item {
    string item_id = 1 [(confluent.field_meta) = { tags: "PII" }];
    message Size { int32 width = 1; }
    Size size = 2;
  }
  string user_id = 1;
  Event event_name = 2;
  int64 event_time = 3;
  optional double price = 4;
  optional uint64 quantity = 5;
  repeated Item items = 6;
  Item best = 7;
  map<string, int64> counts = 8;
  map<int32, Item> by_rank = 9;
  map<bool, Event> by_flag = 10;
  repeated Event events = 11;
  repeated sint32 numbers = 12;
  oneof shown { string banner = 13; int32 slot = 14; }
  google.protobuf.Timestamp seen = 15;
  google.protobuf.Duration stayed = 16;
  google.protobuf.Struct extra = 17;
  google.protobuf.StringValue name = 18;
  confluent.type.Decimal amount = 19;
  bytes raw = 20;
  Click parent = 21;
  string camelCase = 22;
}
"""
DESCRIPTORS = compile_protos(CLICK)
SCHEMA = ProtobufSchema(DESCRIPTORS)
parse_click = SCHEMA.parser("com.example.Click")


def message_class(name: str, descriptors: bytes = DESCRIPTORS) -> type[Message]:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


Click = message_class("com.example.Click")


def test_a_message_becomes_a_dict():
    click = Click(user_id="ada", event_name=2, event_time=2**53 + 1, price=9.5, quantity=2**64 - 1, camelCase="x")
    click.items.add(item_id="a").size.width = 3
    click.items.add(item_id="b")
    click.best.item_id = "a"
    click.counts["x"] = 2**40
    click.by_rank[-1].item_id = "c"
    click.by_flag[True] = 1
    click.events.extend([1, 2])
    click.numbers.extend([-1, 0])
    click.slot = 0
    click.seen.FromMilliseconds(1_772_355_600_123)
    click.stayed.FromMilliseconds(1500)
    click.extra.update({"a": [1, "b", None], "c": {"d": True}})
    click.name.value = ""
    click.amount.value, click.amount.scale = (-1999).to_bytes(2, "big", signed=True), 2
    click.raw = b"\0\xff"
    click.parent.user_id = "bob"
    assert parse_click(click.SerializeToString(), 0) == {
        "user_id": "ada",
        "event_name": "PURCHASE",
        "event_time": 2**53 + 1,
        "price": 9.5,
        "quantity": 2**64 - 1,
        "items": [{"item_id": "a", "size": {"width": 3}}, {"item_id": "b"}],
        "best": {"item_id": "a"},
        "counts": {"x": 2**40},
        "by_rank": {"-1": {"item_id": "c"}},
        "by_flag": {"true": "VIEW_ITEM"},
        "events": ["VIEW_ITEM", "PURCHASE"],
        "numbers": [-1, 0],
        "slot": 0,
        "seen": 1_772_355_600_123,
        "stayed": 1.5,
        "extra": {"a": [1, "b", None], "c": {"d": True}},
        "name": "",
        "amount": -19.99,
        "raw": b"\0\xff",
        "parent": {"user_id": "bob"},
        "camelCase": "x",
    }


def test_bytes_are_read_as_the_specification_says():
    # Each field's number and wire type, then its value: a length and bytes, a varint, a double.
    payload = b"\x0a\x03ada" + b"\x10\x02" + b"\x18\xac\x02" + b"\x21" + struct.pack("<d", 1.5)
    click = {"user_id": "ada", "event_name": "PURCHASE", "event_time": 300, "price": 1.5}
    assert parse_click(payload, 0) == click
    assert parse_click(b"12345" + payload, 5) == click


def test_what_is_not_set_is_left_out():
    assert parse_click(b"", 0) == {}
    assert parse_click(Click(user_id="", event_time=0, event_name=0).SerializeToString(), 0) == {}


def test_an_optional_field_that_is_set_to_its_default_is_kept():
    assert parse_click(Click(price=0, quantity=0).SerializeToString(), 0) == {"price": 0.0, "quantity": 0}


def test_an_enums_number_without_a_name_stays_a_number():
    assert parse_click(Click(event_name=77, events=[2, 77]).SerializeToString(), 0) == {
        "event_name": 77,
        "events": ["PURCHASE", 77],
    }


def test_fields_that_the_schema_lacks_are_ignored():
    assert parse_click(b"\x0a\x03ada" + b"\xf8\x3f\x05", 0) == {"user_id": "ada"}


def test_proto2():
    schema = """
    syntax = "proto2";
    message R {
      required string a = 1; optional int32 b = 2 [default = 7]; extensions 100 to 199;
      repeated group G = 3 { optional int32 c = 4; }
    }
    extend R { optional string more = 100; }
    """
    parse = ProtobufSchema(compile_protos(schema)).parser()
    assert parse(b"", 0) == {}
    assert parse(b"\x0a\x01x\x10\x00\x1b\x20\x05\x1c\xa2\x06\x01y", 0) == {
        "a": "x",
        "b": 0,
        "g": [{"c": 5}],
        "more": "y",
    }


@pytest.mark.parametrize(
    ("position", "message", "content"),
    [
        (b"\0", "com.example.Other", {"name": "ada"}),  # short for [0]
        (b"\x02\0", "com.example.Other", {"name": "ada"}),
        (b"\x02\x02", "com.example.Click", {"user_id": "ada"}),
        (b"\x04\x02\0", "com.example.Click.Item", {"item_id": "ada"}),
        (b"\x06\x02\0\0", "com.example.Click.Item.Size", {"width": 5}),
    ],
)
def test_framed_records_name_their_message_type(position, message, content):
    payload = message_class(message)(**content).SerializeToString()
    for _ in range(2):  # the second time, the parser is known
        assert SCHEMA.framed(b"12345" + position + payload, 5) == content


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (b"", "cut off"),
        (b"\x02", "cut off"),
        (b"\x04\x02", "cut off"),
        (b"\xff\xff\xff\xff\xff\x01", "cut off"),
        (b"\x02\x04", r"no message at position \[2\]"),
        (b"\x02\x01", r"no message at position \[-1\]"),
        (b"\x04\0\0", r"no message at position \[0, 0\]"),
        (b"\x01", "-1 indexes"),
        (b"\x7e" + b"\0" * 63, "63 indexes"),
        (b"\x80\0", "0 indexes"),
    ],
)
def test_a_position_of_no_message_type_is_rejected(position, message):
    with pytest.raises(Reject, match=message) as rejected:
        SCHEMA.framed(b"12345" + position, 5)
    assert rejected.value.reason is Reason.INVALID_PROTOBUF


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0a",  # no length
        b"\x0a\x05ada",  # shorter than its length
        b"\x0a\x01\xff",  # not UTF-8
        b"\x0f",  # a wire type that does not exist
        b"\x18" + b"\xff" * 11,  # an endless varint
        b"\x9a\x01\x0e\x0a\x02\x07\xcf\x18" + b"\x80\x80\x80\x80\xf8\xff\xff\xff\xff\x01",  # 10 ** 2147483648
    ],
)
def test_bytes_that_are_no_message_are_rejected(payload):
    with pytest.raises(Reject, match=r"not a message com\.example\.Click") as rejected:
        parse_click(payload, 0)
    assert rejected.value.reason is Reason.INVALID_PROTOBUF


def test_nesting_without_end_is_rejected():
    payload = b""
    for _ in range(5000):
        length = len(payload)
        varint = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
        payload = b"\xaa\x01" + varint + payload
    with pytest.raises(Reject):
        parse_click(payload, 0)


ITEM = (
    'syntax = "proto3"; package shop; import "units/size.proto"; message Item { string id = 1; units.Size size = 2; }'
)
SIZE = 'syntax = "proto3"; package units; message Size { int32 width = 1; }'
CART = 'syntax = "proto3"; package shop; import "item.proto"; message Cart { repeated Item items = 1; }'


def in_base64(schema: str, **dependencies: str) -> str:
    """As some producers register their schemas: a FileDescriptorProto, which names its file."""
    files = FileDescriptorSet.FromString(compile_protos(schema, dependencies)).file
    return b64encode(files[-1].SerializeToString()).decode()


@pytest.mark.parametrize("cart_in_base64", [False, True])
@pytest.mark.parametrize("item_in_base64", [False, True])
def test_schemas_import_others(cart_in_base64, item_in_base64):
    dependencies = {"units/size.proto": SIZE, "item.proto": ITEM}
    cart, item = CART, ITEM
    if cart_in_base64:
        cart = in_base64(CART, **dependencies)
    if item_in_base64:
        item = in_base64(ITEM, **{"units/size.proto": SIZE})
    descriptors = compile_protos(cart, {"units/size.proto": SIZE, "item.proto": item})
    message = message_class("shop.Cart", descriptors)()
    message.items.add(id="a").size.width = 3
    assert ProtobufSchema(descriptors).framed(b"\0" + message.SerializeToString(), 0) == {
        "items": [{"id": "a", "size": {"width": 3}}]
    }


@pytest.mark.parametrize(
    ("schema", "dependencies", "message"),
    [
        ("", {}, "has no message"),
        ("message {", {}, "not a Protobuf schema"),
        ('{"type": "record"}', {}, "not a Protobuf schema"),
        (CART, {}, "item.proto: File not found"),
        (CART, {"item.proto": ITEM}, "units/size.proto: File not found"),
        (CART, {"../../item.proto": ITEM}, "outside of its directory"),
        (CART, {"/tmp/item.proto": ITEM}, "outside of its directory"),
    ],
)
def test_an_unusable_schema_is_refused(schema, dependencies, message):
    with pytest.raises(SchemaError, match=message):
        ProtobufSchema(compile_protos(schema, dependencies)).parser()


def test_a_missing_compiler_is_no_fault_of_the_schema(monkeypatch, tmp_path):
    (tmp_path / "grpc_tools.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="is grpcio-tools installed"):
        compile_protos(SIZE)


@pytest.mark.parametrize("descriptors", [b"", b"\xff", CLICK.encode()])
def test_descriptors_that_are_none_are_refused(descriptors):
    with pytest.raises(SchemaError, match="not a complete set of Protobuf descriptors"):
        ProtobufSchema(descriptors)


def test_descriptors_without_their_imports_are_refused():
    files = FileDescriptorSet.FromString(DESCRIPTORS)
    alone = FileDescriptorSet(file=[file for file in files.file if file.name == MAIN_FILE])
    with pytest.raises(SchemaError, match="--include_imports"):
        ProtobufSchema(alone.SerializeToString())


def test_a_message_type_is_chosen_by_name():
    assert SCHEMA.parser()(b"\x0a\x03ada", 0) == {"name": "ada"}
    assert SCHEMA.parser("com.example.Click")(b"\x0a\x03ada", 0) == {"user_id": "ada"}
    with pytest.raises(SchemaError, match=r"no message Clicks, but com\.example\.Click, com\.example\.Other"):
        SCHEMA.parser("Clicks")
    with pytest.raises(SchemaError, match="a single value"):
        SCHEMA.parser("google.protobuf.Timestamp")


@given(st.binary(max_size=200))
@example(b"\x8a\x01\x0e\x0a\x0c\x0a\x01a\x12\x07\x11" + struct.pack("<d", float("nan")))
def test_random_bytes_are_read_or_rejected(payload):
    for parse in (parse_click, SCHEMA.framed):
        with suppress(Reject):
            assert isinstance(parse(payload, 0), dict)
