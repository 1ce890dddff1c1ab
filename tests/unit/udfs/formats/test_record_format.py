"""Records in each format, plain and framed, and what happens to those that can't be read."""

import json
import pickle
import struct
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.schema_registry_fake import FakeSchemaRegistry
from tests.unit.udfs.formats.test_avro import CART, CART_VALUE, CLICK, ITEM, VALUE, cart_bytes
from tests.unit.udfs.formats.test_protobuf import CART as CART_PROTO
from tests.unit.udfs.formats.test_protobuf import CLICK as CLICK_PROTO
from tests.unit.udfs.formats.test_protobuf import DESCRIPTORS, SIZE, message_class
from tests.unit.udfs.formats.test_protobuf import ITEM as ITEM_PROTO
from tests.unit.udfs.formats.test_schema_registry import Clock, closed_url
from udfs.contracts.rejects import Reason, Reject
from udfs.formats.record_format import (
    ASK_AGAIN_S,
    UNUSABLE_KEPT,
    FormatError,
    Reader,
    RecordFormat,
    reader,
    record_format,
    unframed,
)
from udfs.formats.schema_registry import RegistryOptions, RegistryUnreachable, SchemaRegistry


@pytest.fixture
def fake() -> Iterator[FakeSchemaRegistry]:
    with FakeSchemaRegistry() as running:
        yield running


def framed(schema_id: int, content: bytes) -> bytes:
    return struct.pack(">bI", 0, schema_id) + content


def avro(schema: dict, value: object) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


def framed_reader(fake: FakeSchemaRegistry, name: str, clock: Clock | None = None) -> Reader:
    """A reader as a worker makes it, from a format that came to it as bytes."""
    clock = clock or Clock()
    options = RegistryOptions(url=fake.url)
    made = pickle.loads(pickle.dumps(record_format(name, options)))
    return reader(made, SchemaRegistry(options, clock.sleep, clock), clock)


def reason_of(read: Reader, payload: bytes | None) -> tuple[Reason, str]:
    with pytest.raises(Reject) as rejected:
        read(payload)
    return rejected.value.reason, str(rejected.value)


def test_json():
    read = reader(record_format())
    assert read(b'{"user_id": "ada", "n": [1, null, {"x": 1.5}]}') == {"user_id": "ada", "n": [1, None, {"x": 1.5}]}
    assert reason_of(read, b"{")[0] is Reason.INVALID_JSON
    assert reason_of(read, b"[1]")[0] is Reason.NOT_AN_OBJECT
    assert read(b'{"a": NaN, "b": 1}')["b"] == read(b'{"a": "\xff", "b": 1}')["b"] == 1  # an unread field is any
    assert reason_of(read, b'{"a": ' + b"[" * 100_000)[0] is Reason.TOO_DEEP
    assert reason_of(read, b"")[0] is Reason.EMPTY_RECORD
    assert reason_of(read, None)[0] is Reason.EMPTY_RECORD


def test_framed_json_needs_no_schema(fake):
    read = framed_reader(fake, "json")
    assert read(framed(7, b'{"user_id": "ada"}')) == {"user_id": "ada"}
    assert reason_of(read, framed(7, b"{"))[0] is Reason.INVALID_JSON
    assert fake.requests == []


def test_framed_avro_asks_once_per_schema(fake):
    click = fake.register("clicks-value", json.dumps(CLICK))
    fake.register("item", json.dumps(ITEM))
    cart = fake.register("carts-value", json.dumps(CART), references=[fake.refer("shop.Item", "item")])
    read = framed_reader(fake, "avro")
    for _ in range(3):
        assert read(framed(click, avro(CLICK, VALUE))) == VALUE
        assert read(framed(cart, cart_bytes())) == CART_VALUE
    assert len(fake.requests) == 3


def test_framed_protobuf_asks_once_per_schema(fake):
    click = fake.register("clicks-value", CLICK_PROTO, "PROTOBUF")
    fake.register("size", SIZE, "PROTOBUF")
    fake.register("item", ITEM_PROTO, "PROTOBUF", [fake.refer("units/size.proto", "size")])
    cart = fake.register("carts-value", CART_PROTO, "PROTOBUF", [fake.refer("item.proto", "item")])
    read = framed_reader(fake, "protobuf")
    message = message_class("com.example.Click")(user_id="ada").SerializeToString()
    for _ in range(3):
        assert read(framed(click, b"\x02\x02" + message)) == {"user_id": "ada"}
        assert read(framed(click, b"\x00" + message)) == {"name": "ada"}
        assert read(framed(cart, b"\x00" + b"\x0a\x03\x0a\x01a")) == {"items": [{"id": "a"}]}
    assert len(fake.requests) == 4


CONFLUENT_AVRO = {
    "type": "record",
    "name": "Click",
    "namespace": "shop",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "event_name", "type": {"type": "enum", "name": "Kind", "symbols": ["view_item"]}},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}]},
    ],
}
CONFLUENT_ITEM = """
syntax = "proto3"; package shop; import "google/type/money.proto";
message Item { string item_id = 1; google.type.Money price = 2; }
"""
CONFLUENT_PROTO = """
syntax = "proto3"; package shop; import "shop/item.proto"; import "google/protobuf/timestamp.proto";
enum Kind { UNKNOWN = 0; VIEW_ITEM = 1; }
message First { string a = 1; }
message Click {
  message Inner { int32 x = 1; }
  string user_id = 1; Kind event_name = 2; google.protobuf.Timestamp event_time = 3; repeated Item items = 4;
  optional int64 quantity = 5;
}
"""


@pytest.mark.parametrize(
    ("name", "payload", "row"),
    [
        (
            "avro",
            "000000000106616461008099b09fd6fca506020407cf",
            {"user_id": "ada", "event_name": "view_item", "event_time": 1_772_355_600_123, "price": 19.99},
        ),
        (
            "protobuf",
            "000000000302020a0361646110011a0b08908090cd0610c0a9d33a22070a0161120210032800",
            {
                "user_id": "ada",
                "event_name": "VIEW_ITEM",
                "event_time": 1_772_355_600_123,
                "items": [{"item_id": "a", "price": {"units": 3}}],
                "quantity": 0,
            },
        ),
        ("protobuf", "00000000030402000807", {"x": 7}),
        ("protobuf", "0000000003000a0171", {"a": "q"}),
        ("json", "00000000077b22757365725f6964223a22616461227d", {"user_id": "ada"}),
    ],
)
def test_records_of_confluents_own_serializers(fake, name, payload, row):
    """As confluent-kafka 2.16.1 wrote them; the schema's id is the only change."""
    fake.register("clicks-value", json.dumps(CONFLUENT_AVRO))
    fake.register("shop/item.proto", CONFLUENT_ITEM, "PROTOBUF")
    fake.register("p", CONFLUENT_PROTO, "PROTOBUF", [fake.refer("shop/item.proto", "shop/item.proto")])
    assert framed_reader(fake, name)(bytes.fromhex(payload)) == row


@pytest.mark.parametrize("name", ["json", "avro", "protobuf"])
def test_a_record_without_framing_is_rejected(fake, name):
    read = framed_reader(fake, name)
    fake.register("a", json.dumps(CLICK))
    read_once = framed(1, b"")
    for payload in (b'{"user_id": "ada"}', b"\x01\0\0\0\x01x"):
        reason, message = reason_of(read, payload)
        assert reason is Reason.INVALID_FRAME
        assert f"begins with 0x{payload[0]:02x}" in message
    for end in range(1, 5):
        assert reason_of(read, read_once[:end])[0] is Reason.INVALID_FRAME
    for nothing in (b"", None):
        assert reason_of(read, nothing)[0] is Reason.EMPTY_RECORD
    assert fake.requests == []


def test_the_magic_byte_is_checked_when_the_schema_is_known(fake):
    schema_id = fake.register("a", json.dumps(CLICK))
    read, payload = framed_reader(fake, "avro"), avro(CLICK, VALUE)
    assert read(framed(schema_id, payload)) == VALUE
    assert reason_of(read, b"\x01" + framed(schema_id, payload)[1:])[0] is Reason.INVALID_FRAME


def test_the_content_after_the_frame():
    assert unframed(framed(7, b"{}")) == b"{}"
    assert unframed(framed(7, b"")) == b""


def test_an_unknown_schema_is_asked_for_again_after_a_while(fake):
    clock = Clock()
    read, payload = framed_reader(fake, "avro", clock), framed(1, avro(CLICK, VALUE))
    for _ in range(3):
        reason, message = reason_of(read, payload)
        assert reason is Reason.UNKNOWN_SCHEMA
        assert message.startswith("schema id 1: ")
        assert "register the schema, then send the dead letters back" in message
    assert len(fake.requests) == 1
    fake.register("clicks-value", json.dumps(CLICK))
    assert reason_of(read, payload)[0] is Reason.UNKNOWN_SCHEMA
    clock.now += ASK_AGAIN_S
    assert read(payload) == VALUE
    assert len(fake.requests) == 2


def test_the_unknown_ids_that_are_remembered_are_bounded(fake):
    read = framed_reader(fake, "avro")
    for schema_id in range(2**31, 2**31 + UNUSABLE_KEPT + 10):
        assert reason_of(read, framed(schema_id, b""))[0] is Reason.UNKNOWN_SCHEMA
    assert len(read._unusable) == 10


@pytest.mark.parametrize(
    ("kind", "schema", "message"),
    [
        ("JSON", "{}", "it is of type JSON, but decode.format is avro"),
        ("AVRO", "{}", "not an Avro schema"),
    ],
)
def test_a_schema_that_can_not_be_used_is_named(fake, kind, schema, message):
    schema_id = fake.register("a", schema, kind)
    reason, text = reason_of(framed_reader(fake, "avro"), framed(schema_id, b"x"))
    assert reason is Reason.UNKNOWN_SCHEMA
    assert message in text


@pytest.mark.parametrize("name", ["avro", "protobuf"])
def test_an_unreachable_registry_rejects_nothing(name):
    clock, options = Clock(), RegistryOptions(url=closed_url(), give_up_after="10 s")
    read = reader(RecordFormat(name=name, registry=options), SchemaRegistry(options, clock.sleep, clock), clock)
    for _ in range(2):  # nothing is remembered
        clock.slept.clear()
        with pytest.raises(RegistryUnreachable):
            read(framed(1, b"x"))
        assert 5 < sum(clock.slept) <= 10


def test_records_are_read_again_when_the_registry_is_back(fake):
    schema_id = fake.register("a", json.dumps(CLICK))
    read = framed_reader(fake, "avro")
    fake.statuses[:] = [503] * 5
    assert read(framed(schema_id, avro(CLICK, VALUE))) == VALUE


def test_unframed_avro(tmp_path):
    (tmp_path / "click.avsc").write_text(json.dumps(CLICK))
    made = record_format("avro", schema=tmp_path / "click.avsc")
    (tmp_path / "click.avsc").unlink()  # the workers do not have the file
    read = reader(pickle.loads(pickle.dumps(made)))
    assert read(avro(CLICK, VALUE)) == VALUE
    assert reason_of(read, b"\xff")[0] is Reason.INVALID_AVRO
    assert reason_of(read, b"")[0] is Reason.EMPTY_RECORD


@pytest.mark.parametrize(("file", "content"), [("click.proto", CLICK_PROTO.encode()), ("click.desc", DESCRIPTORS)])
def test_unframed_protobuf(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    payload = message_class("com.example.Click")(user_id="ada").SerializeToString()
    made = record_format("protobuf", schema=tmp_path / file, message="com.example.Click")
    read = reader(pickle.loads(pickle.dumps(made)))
    assert read(payload) == {"user_id": "ada"}
    assert reason_of(read, b"\x0a")[0] is Reason.INVALID_PROTOBUF
    assert reason_of(read, None)[0] is Reason.EMPTY_RECORD
    assert reader(record_format("protobuf", schema=tmp_path / file))(payload) == {"name": "ada"}


REGISTRY = RegistryOptions(url="http://localhost:8081")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "avro"}, "key decode.format: avro needs a schema"),
        ({"name": "protobuf"}, "key decode.format: protobuf needs a schema"),
        ({"name": "json", "schema": "click.avsc"}, "key decode.schema: decode.format is json; leave out"),
        (
            {"name": "avro", "schema": "click.avsc", "registry": REGISTRY},
            "key decode.schema: schema_registry has",
        ),
        ({"name": "avro", "schema": "missing.avsc"}, "key decode.schema: .*missing.avsc: .*No such file"),
        ({"name": "avro", "schema": "click.proto"}, "key decode.schema: .*click.proto: not an Avro schema"),
        ({"name": "avro", "schema": "noise"}, "key decode.schema: .*noise: 'utf-8' codec"),
        ({"name": "avro", "schema": "click.avsc", "message": "Click"}, "key decode.message: only for"),
        ({"name": "protobuf", "registry": REGISTRY, "message": "Click"}, "key decode.message: only for"),
        ({"name": "protobuf", "schema": "click.avsc"}, "key decode.schema: .*click.avsc: not a complete set"),
        ({"name": "protobuf", "schema": "bad.proto"}, "key decode.schema: .*bad.proto: not a Protobuf schema"),
        ({"name": "protobuf", "schema": "click.proto", "message": "Click"}, "no message Click, but com.example.Click"),
    ],
)
def test_settings_that_can_not_be_used_are_refused(tmp_path, settings, message):
    (tmp_path / "click.avsc").write_text(json.dumps(CLICK))
    (tmp_path / "click.proto").write_text(CLICK_PROTO)
    (tmp_path / "bad.proto").write_text("message {")
    (tmp_path / "noise").write_bytes(b"\xff\xfe")
    if "schema" in settings:
        settings = settings | {"schema": tmp_path / settings["schema"]}
    with pytest.raises(FormatError, match=message) as refused:
        record_format(**settings)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def readers() -> Iterator[list[Reader]]:
    """Framed readers of schemas 1 (Avro) and 2 (Protobuf), which are known."""
    with FakeSchemaRegistry() as fake:
        fake.register("a", json.dumps(CLICK))
        fake.register("b", CLICK_PROTO, "PROTOBUF")
        made = [framed_reader(fake, name) for name in ("json", "avro", "protobuf")]
        for schema_id, read in enumerate(made):
            with pytest.raises(Reject):
                read(framed(schema_id, b"\xff"))
        yield made


@given(st.binary(max_size=100), st.sampled_from([b"", b"\0", *[framed(number, b"") for number in (1, 2, 3, 2**31)]]))
@example(b"", framed(2**32 - 1, b""))
def test_random_bytes_are_read_or_rejected(readers, noise, head):
    for read in readers:
        with suppress(Reject):
            assert isinstance(read(head + noise), dict)
