"""Records and schemas of a real registry. The fake of the other tests answers like it."""

import json
import time
from collections.abc import Iterator

import pytest
import urllib3

from tests.support.e2e.pipeline import original
from tests.support.schema_registry import RealSchemaRegistry, reference
from tests.support.schema_registry_fake import FakeSchemaRegistry
from tests.unit.udfs.formats.test_avro import CART, CART_VALUE, CLICK, ITEM, VALUE, cart_bytes
from tests.unit.udfs.formats.test_protobuf import CART as CART_PROTO
from tests.unit.udfs.formats.test_protobuf import CLICK as CLICK_PROTO
from tests.unit.udfs.formats.test_protobuf import ITEM as ITEM_PROTO
from tests.unit.udfs.formats.test_protobuf import SIZE, in_base64, message_class
from tests.unit.udfs.formats.test_record_format import avro, framed, reason_of
from udfs.contracts.rejects import Reason
from udfs.formats.record_format import Reader, reader, record_format
from udfs.formats.schema_registry import RegistryError, RegistryOptions, SchemaRegistry

#: Apicurio recognizes it by its first key.
JSON_SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def registry(run_directory) -> Iterator[RealSchemaRegistry]:
    with RealSchemaRegistry(run_directory / "schema-registry") as running:
        yield running


def reader_of(registry: RealSchemaRegistry, name: str) -> Reader:
    return reader(record_format(name, RegistryOptions(url=registry.url)))


def test_avro(registry):
    read = reader_of(registry, "avro")
    assert read(framed(registry.register("clicks-value", json.dumps(CLICK)), avro(CLICK, VALUE))) == VALUE


def test_avro_with_references(registry):
    registry.register("shop.Item", json.dumps(ITEM))
    cart = registry.register("carts-value", json.dumps(CART), references=[reference("shop.Item", "shop.Item")])
    assert reader_of(registry, "avro")(framed(cart, cart_bytes())) == CART_VALUE


def test_protobuf(registry):
    click = registry.register("proto-clicks-value", CLICK_PROTO, "PROTOBUF")
    content = message_class("com.example.Click")(user_id="ada").SerializeToString()
    assert reader_of(registry, "protobuf")(framed(click, b"\x02\x02" + content)) == {"user_id": "ada"}


@pytest.mark.parametrize("base64", [False, True])
def test_protobuf_with_references(registry, base64):
    """As text, or as Confluent's Python and .NET clients register it, which Apicurio keeps as it is."""
    size, item, cart, prefix = SIZE, ITEM_PROTO, CART_PROTO, "text-"
    if base64:
        dependencies = {"units/size.proto": SIZE, "item.proto": ITEM_PROTO}
        size, prefix = in_base64(SIZE), "base64-"
        item, cart = in_base64(ITEM_PROTO, **dependencies), in_base64(CART_PROTO, **dependencies)
    registry.register(f"{prefix}units/size.proto", size, "PROTOBUF")
    registry.register(
        f"{prefix}item.proto", item, "PROTOBUF", [reference("units/size.proto", f"{prefix}units/size.proto")]
    )
    number = registry.register(f"{prefix}carts", cart, "PROTOBUF", [reference("item.proto", f"{prefix}item.proto")])
    assert reader_of(registry, "protobuf")(framed(number, b"\0\x0a\x03\x0a\x01a")) == {"items": [{"id": "a"}]}


def test_unknown_and_unsuitable_schemas_are_rejected(registry):
    schema = registry.register("json-value", json.dumps(JSON_SCHEMA), "JSON")
    for schema_id in (schema, 0, 10_000, 2**31 - 1, 2**32 - 1):
        assert reason_of(reader_of(registry, "avro"), framed(schema_id, b"x"))[0] is Reason.UNKNOWN_SCHEMA


def test_a_wrong_address_rejects_nothing(registry):
    for url in (registry.url.removesuffix("/v7"), registry.url.removesuffix("/apis/ccompat/v7")):
        with pytest.raises(RegistryError, match=r"check schema_registry\.url"):
            SchemaRegistry(RegistryOptions(url=url)).schema(1)


def test_the_fake_answers_like_the_real_one(registry):
    """Apart from texts of errors, and from fields that the real one adds or writes out."""
    schema, http = json.dumps(ITEM), urllib3.PoolManager(retries=False)
    with FakeSchemaRegistry() as fake:
        for running in (registry, fake):
            running.register("same/subject", schema)
        for path in (
            "subjects/same%2Fsubject/versions/1",
            "subjects/same%2Fsubject/versions/7",
            "subjects/none/versions/1",
        ):
            real, made = (http.request("GET", f"{running.url}/{path}?deleted=true") for running in (registry, fake))
            assert real.status == made.status
            assert real.json().get("error_code") == made.json().get("error_code")
            assert real.json().get("schema") == made.json().get("schema")
        real, made = (http.request("GET", f"{running.url}/schemas/ids/10000") for running in (registry, fake))
        assert (real.status, real.json()["error_code"]) == (made.status, made.json()["error_code"]) == (404, 40403)


# In the job

EVENT = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "visitor", "type": "string"},
        {"name": "what", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "amount", "type": ["null", "string"]},
    ],
}
MAPPING = """
columns: {user_id: visitor, event_name: what, event_time: at, value: amount}
values: {event_name: {bought: purchase}}
time_format: epoch_ms
ignored_users: [crawler]
"""


def test_the_job_scores_a_foreign_topic_and_loses_no_record_in_silence(registry, pipeline, tmp_path):
    schema, mapping = registry.register("events-value", json.dumps(EVENT)), tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    pipe = pipeline("decode.format=avro", f"schema_registry.url={registry.url}", f"clicks.mapping={mapping}")
    pipe.start()

    def event(visitor: str, what: str, amount: str | None = None) -> bytes:
        now = time.time_ns() // 1_000_000
        return framed(schema, avro(EVENT, {"visitor": visitor, "what": what, "at": now, "amount": amount}))

    sent = {
        event("ada", "seen"): None,
        event("ada", "bought", "12.50"): None,
        event("ada", "bought", "1,299.00"): Reason.UNFIT_ROW,
        event("crawler", "seen"): Reason.IGNORED,
        b'{"user_id": "ada"}': Reason.INVALID_FRAME,
        framed(999_999, b"x"): Reason.UNKNOWN_SCHEMA,
        event("ada", "seen")[:-5]: Reason.INVALID_AVRO,
        event("bob", "seen"): None,
    }
    pipe.send("clicks", [(b"any", value, None) for value in sent])
    scores, clicks = (
        sorted(pipe.read(role, at_least=3), key=lambda record: (record["user_id"], record["event_name"]))
        for role in ("scores", "mapped_clicks")
    )
    letters = pipe.read("dead_letters", at_least=4)
    assert [(score["user_id"], score["event_name"]) for score in scores] == [
        ("ada", "other"),
        ("ada", "purchase"),
        ("bob", "other"),
    ]
    sources = sorted((score["source_partition"], score["source_offset"]) for score in scores)
    assert sorted((click.pop("source_partition"), click.pop("source_offset")) for click in clicks) == sources
    assert [{**click, "event_time": None} for click in clicks] == [
        {"user_id": "ada", "event_name": "purchase", "event_time": None, "value": 12.5},
        {"user_id": "ada", "event_name": "seen", "event_time": None},
        {"user_id": "bob", "event_name": "seen", "event_time": None},
    ]
    assert {click["event_time"] for click in clicks} == {score["event_time"] for score in scores}
    no_letter = (None, Reason.IGNORED)
    rejected = {value: reason for value, reason in sent.items() if reason not in no_letter}
    assert {original(letter): letter["reason"] for letter in letters} == rejected
    unfit = next(letter for letter in letters if letter["reason"] == "unfit_row")
    assert unfit["message"].startswith("value (column amount): '1,299.00' is not a number")
