"""Click records in all formats, through the handler that decodes them in the job.

Contract: each record becomes a row for the score operator or a dead letter with a known reason, a message and the
record's bytes; a mapping may leave records out. The click that is written for the measuring jobs (topic mapped_clicks)
is accepted by them and means the same.
"""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import fastavro
import msgspec
import numpy as np
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.paths import PROJECT
from udfs.contracts.clicks import Click, ClickDecoder, click_of, pack_click, read_leniently
from udfs.contracts.currencies import Currencies
from udfs.contracts.outputs import DeadLetter
from udfs.contracts.rejects import Reason, explain, unfit_row
from udfs.features.declaration_file import read_declaration
from udfs.formats.protobuf import compile_protos
from udfs.formats.record_format import RecordFormat, reader
from udfs.formats.schema_registry import RegistryOptions, Schema, SchemaError
from udfs.mapping.columns import column_steps
from udfs.mapping.definition import ClickMapping, in_order, load_mapping, mapping_of
from udfs.mapping.topic import ClickTopic
from udfs.mapping.values import EPOCH_UNITS
from udfs.workers.decode import ANONYMOUS, DEAD_LETTERS, MAPPED_CLICKS, RAW_RECORD, ClickHandler
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import Rows
from udfs.workers.server import Handler

NOW_MS = 1_700_000_000_000
_RECORD = {
    "user_id": "ada", "event_name": "view_item", "event_time": NOW_MS, "event_id": "e-1", "anonymous_id": "device-7",
    "item_id": "sku-1", "item_category": "shoes", "price": 19.9, "quantity": 2, "value": 39.8, "currency": "EUR",
    "transaction_id": "t-1", "items": [{"item_id": "a", "price": 19.9, "quantity": 1}, {"price": -2, "quantity": 1}],
    "page_location": "https://shop.example/p/1", "page_type": "product", "creative_slot": "hero",
    "percent_scrolled": 90, "engagement_time_msec": 1200, "device_category": "mobile", "utc_offset_minutes": 60,
}  # fmt: skip
_REQUIRED = {"user_id": "ada", "event_name": "purchase", "event_time": NOW_MS}
VALID_JSON = tuple(
    json.dumps(record).encode()
    for record in (
        _RECORD,
        _REQUIRED,
        {name: str(value) for name, value in _RECORD.items() if name != "items"},
        _REQUIRED | {"items": json.dumps(_RECORD["items"])},
        _REQUIRED | {"items": {"price": "3", "quantity": "x"}, "event_time": float(NOW_MS)},
        _REQUIRED | {"user_id": 42, "event_id": 7, "page_type": "HOME", "device_category": "Smart TV"},
    )
)
JSON_CORPUS = (
    *VALID_JSON,
    json.dumps({"schema": {"type": "struct"}, "payload": _RECORD}).encode(),
    json.dumps([_RECORD]).encode(),
    json.dumps(json.dumps(_RECORD)).encode(),
    unfit_row(b"ada;view_item;yesterday", "event_time (column time): 'yesterday' is not a time"),
    b"",
    b"\x00\x00\x00\x00\x07" + json.dumps(_REQUIRED).encode(),
    b"\xef\xbb\xbf" + json.dumps(_REQUIRED).encode(),
    json.dumps(_REQUIRED).encode("utf-16"),
    json.dumps(_REQUIRED).encode() * 2,
)

AVRO_SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "event_name", "type": {"type": "enum", "name": "Event", "symbols": ["view_item", "purchase"]}},
        {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "event_id", "type": ["null", {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"}]},
        {"name": "price", "type": ["null", "double"]},
        {"name": "value", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}]},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "page_location", "type": ["null", "string"]},
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Item",
                    "fields": [
                        {"name": "item_id", "type": ["string", "long", "null"]},
                        {"name": "price", "type": ["null", "float"]},
                        {"name": "quantity", "type": ["null", "int"]},
                    ],
                },
            },
        },
        {"name": "labels", "type": {"type": "map", "values": ["string", "long", "boolean"]}},
    ],
}  # fmt: skip
_RECURSIVE_SCHEMA = {
    "type": "record",
    "name": "Node",
    "fields": [
        {"name": "user_id", "type": "string"},
        {"name": "event_name", "type": "string"},
        {"name": "event_time", "type": "long"},
        {"name": "next", "type": ["null", "Node"]},
    ],
}
_AVRO_CLICK = {
    "user_id": "ada", "event_name": "purchase", "event_time": NOW_MS * 1000, "event_id": bytes(range(16)), "price": 9.5,
    "value": b"\x03\xe8", "day": 19_700, "page_location": "https://shop.example", "labels": {"a": "b", "n": 2**40},
    "items": [{"item_id": "a", "price": 1.5, "quantity": 2}, {"item_id": 7, "price": None, "quantity": None}],
}  # fmt: skip

PROTO = """
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/wrappers.proto";
    import "confluent/type/decimal.proto";
    enum Kind { other = 0; view_item = 1; purchase = 2; }
    message Item { string item_id = 1; double price = 2; google.protobuf.DoubleValue quantity = 3; }
    message Click {
      string user_id = 1;
      Kind event_name = 2;
      google.protobuf.Timestamp event_time = 3;
      optional string event_id = 4;
      repeated Item items = 5;
      map<string, sint64> counts = 6;
      google.protobuf.Struct context = 7;
      confluent.type.Decimal value = 8;
      string page_location = 9;
      bytes signature = 14;
      optional float price = 10;
      repeated Click around = 11;
      oneof offset { int32 utc_offset_minutes = 12; string zone = 13; }
    }
"""
_PROTO_CLICK = {
    "user_id": "ada", "event_name": "view_item", "event_time": "2023-11-14T22:13:20Z", "event_id": "e", "price": 2.5,
    "items": [{"item_id": "a", "price": 1, "quantity": 2}], "counts": {"a": -3}, "context": {"a": [1, {"b": None}]},
    "value": {"value": "A+g=", "precision": 6, "scale": 2}, "page_location": "http://x", "signature": "aHR0cA==",
    "utc_offset_minutes": 60,
    "around": [{"user_id": "bob"}],
}  # fmt: skip

#: What a shop's own kinds and columns, of all types, are filled from.
_DECLARATION = {
    "extends": "standard",
    "kinds": {"spun_the_wheel": 100},
    "columns": {
        "rating": {"type": "number", "bytes": 1, "scale": 10},
        "stock": {"type": "number", "bytes": 4, "scale": 1_000_000},
        "plan": {"type": "category", "names": ["free", "pro"]},
        "brand": {"type": "identifier"},
        "shelf": {"type": "identifier", "field": "item_id"},
    },
}
_OWN = {"rating": 4.5, "stock": 12, "plan": "Pro", "brand": "acme"}
_CURRENCIES = Currencies(shop="EUR", rates={"USD": 0.9, "JPY": 0.006})


def json_clicks() -> Target:
    """Plain JSON; a record that the strict decoder accepts means the same to the lenient one."""
    handle, strict = _handling(ClickTopic()), msgspec.json.Decoder(Click).decode

    def run(data: bytes) -> str:
        outcome = handle(data)
        try:
            click = strict(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return outcome
        if pack_click(click) != pack_click(read_leniently(data)):
            raise ContractError("the lenient decoder reads another event than the strict one")
        return outcome

    return Target(JSON_CORPUS, run)


def own_columns() -> Target:
    """JSON with own kinds and columns, amounts in several currencies, and logins that are followed."""
    layout = read_declaration(_DECLARATION, "own").layout
    corpus = [json.dumps(_RECORD | _OWN | {"currency": "USD"}), json.dumps(_REQUIRED | _OWN | {"stock": "1e3"})]
    corpus += [json.dumps(_REQUIRED | {"event_name": "spun_the_wheel", "plan": 3, "rating": 10**400})]
    handle = _handling(ClickTopic(currencies=_CURRENCIES, layout=layout), follow_logins=True)
    return Target((*(text.encode() for text in corpus), *JSON_CORPUS), handle)


def avro_clicks() -> Target:
    """Avro without framing."""
    topic = ClickTopic(record_format=RecordFormat(name="avro", schema=json.dumps(AVRO_SCHEMA)))
    return Target(tuple(_avro_corpus()), _handling(topic))


def protobuf_clicks() -> Target:
    """Protobuf without framing."""
    descriptors = compile_protos(PROTO)
    topic = ClickTopic(record_format=RecordFormat(name="protobuf", descriptors=descriptors, message="Click"))
    return Target(tuple(_protobuf_corpus(descriptors)), _handling(topic))


def framed_clicks() -> Target:
    """Avro with the framing of a schema registry: known schemas, a recursive one, broken ones, and unknown ids."""
    schemas = [Schema(json.dumps(schema)) for schema in (AVRO_SCHEMA, _RECURSIVE_SCHEMA, {"type": "nothing"})]
    schemas += [Schema("{"), Schema('"string"'), Schema(PROTO, "PROTOBUF")]

    class Registry:
        def schema(self, schema_id: int) -> Schema:
            if not 0 < schema_id <= len(schemas):
                raise SchemaError("the schema registry has no such schema")
            return schemas[schema_id - 1]

        def dependencies(self, _schema: Schema) -> dict[str, str]:
            return {}

    read = reader(RecordFormat(name="avro", registry=RegistryOptions(url="http://localhost")), Registry())
    decoder = ClickDecoder(parse=lambda payload: click_of(read(payload)))

    def run(data: bytes) -> str:
        decoded = decoder.decode([data], [NOW_MS])
        (reason,), (message,) = decoded.reasons, decoded.messages
        if reason is None:
            return f"accepted {decoded.event_names}"
        return _checked_reject(reason, message)

    node = {"user_id": "ada", "event_name": "search", "event_time": NOW_MS, "next": None}
    deep = b"\x06ada\x0csearch" + b"\x80\xe8\x9b\xfa\xf9\x62"
    contents = [*_avro_corpus(), _avro(_RECURSIVE_SCHEMA, node | {"next": node}), (deep + b"\x02") * 3_000]
    corpus = [struct.pack(">bI", 0, number) + content for number in range(len(schemas) + 1) for content in contents]
    return Target(tuple(corpus), run)


def mapped_clicks() -> Target:
    """Foreign JSON through the mappings of conf/mappings and one that has everything; the first byte names it."""
    mappings = [load_mapping(path).by_pattern[0][1] for path in sorted((PROJECT / "conf" / "mappings").glob("*.yaml"))]
    mappings.append(mapping_of(_FULL_MAPPING, "full"))
    handles = [_handling(ClickTopic(mapping=mapping)) for mapping in mappings]
    rows = [[_row_of(mapping), *_FOREIGN_ROWS] for mapping in mappings]
    corpus = [bytes([number]) + json.dumps(row).encode() for number, fitting in enumerate(rows) for row in fitting]

    def run(data: bytes) -> str:
        return handles[data[0] % len(handles)](data[1:]) if data else "nothing"

    return Target(tuple(corpus), run)


_FULL_MAPPING = {
    "columns": {
        "user_id": ["user", "ctx.device.id"], "event_name": "event.type", "event_time": "date", "price": "p",
        "value": "total", "quantity": "n", "items": "lines", "currency": "cur", "page_location": "url",
        "percent_scrolled": "scroll", "engagement_time_msec": "ms", "anonymous_id": "cookie",
    },
    "items": {"item_id": "sku", "price": "cost", "quantity": "n"}, "keep": {"rating": "stars"},
    "values": {"event_name": {"buy": "purchase", "see": "view_item"}}, "missing": ["NULL", "-"],
    "defaults": {"event_name": "other"}, "ignored_users": ["0"], "ignored_events": ["ping"],
    "numbers": {"decimal": ",", "thousands": "."}, "multiply": {"engagement_time_msec": 1000, "quantity": "1/3"},
    "time_format": "%d.%m.%Y %H:%M:%S.%f", "time_of_day": "clock", "add_ms": "plus", "time_zone": "Europe/Berlin",
    "user_time_zone": ["zone"], "currencies": {"shop": "EUR", "rates": {"USD": 0.9}},
}  # fmt: skip
_FOREIGN_ROWS = (
    {
        "user": "ada", "ctx": {"device": {"id": "d"}}, "event": {"type": "buy"}, "date": "14.11.2023",
        "clock": "22:13:20.5", "p": "$1.234,5", "total": "12,50 EUR", "n": "3", "cur": "USD", "url": "http://x",
        "lines": [{"sku": "a", "cost": "1,5", "n": 1}, {"sku": 3, "cost": "x", "n": None}], "scroll": "50", "ms": 1.5,
        "cookie": "c", "stars": 5, "plus": 7, "zone": "America/New_York",
    },
    {
        "event_date": "20231114", "event_timestamp": NOW_MS * 1000, "event_name": "view_item", "user_pseudo_id": "1.2",
        "event_params": [{"key": "page_location", "value": {"string_value": "http://x", "int_value": None}},
                         {"key": "engagement_time_msec", "value": {"int_value": 5}}],
        "device": {"category": "mobile", "time_zone_offset_seconds": 3600}, "items": [{"item_id": "a", "price": 1.5}],
        "ecommerce": {"transaction_id": "t", "purchase_revenue": 3.5},
    },
)  # fmt: skip


def _row_of(mapping: ClickMapping) -> dict:
    """A row that the mapping makes a click of."""
    moment = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    if per_ms := EPOCH_UNITS.get(mapping.time_format):
        time = int(NOW_MS * per_ms)
    else:
        time = moment.isoformat() if mapping.time_format == "iso8601" else moment.strftime(mapping.time_format)
    row: dict = {}
    if mapping.time_of_day is not None:
        time, _, time_of_day = time.partition(" ")
        _put(row, column_steps(mapping.time_of_day), time_of_day)
    names = mapping.values.get("event_name", {})
    values = {**_RECORD, "event_time": time, "event_name": next(iter(names), "view_item"), "price": "5", "value": "7"}
    values["items"] = [{name: 1 for columns in mapping.items.values() for name in in_order(columns)}]
    for field, columns in mapping.columns.items():
        _put(row, column_steps(in_order(columns)[0]), values[field])
    return row


def _put(row: dict, steps: list[str | int], value: Any) -> None:
    """Set the value at a path, whose numbers lead through lists."""
    *way, last = [step for step in steps if not isinstance(step, int)]
    for step in way:
        row = row.setdefault(step, {})
    row[last] = value


def _handling(topic: ClickTopic, follow_logins: bool = False) -> Callable[[bytes], str]:
    """The function that has one record decoded, checks the answer and returns what it is."""
    handler = ClickHandler("clicks", topic, follow_logins)
    process = opened(handler)
    limits = replace(topic.limits, max_record_bytes=1 << 31)  # those of the record that it comes from have held
    measuring = ClickDecoder(limits=limits, layout=topic.layout)
    head_bytes = handler._rows.type.itemsize

    def run(data: bytes) -> str:
        rows, mapped, letters = [], [], []
        for output, content in process(None, data):
            {DEAD_LETTERS: letters, MAPPED_CLICKS: mapped}.get(output, rows).append((output, content))
        if letters:
            if len(letters) > 1 or rows or mapped:
                raise ContractError("a rejected record is something else as well")
            return check_letter(letters[0][1], data)
        if not rows:
            if topic.mapping is None or mapped:
                raise ContractError("a record is neither a row nor a dead letter")
            return "left out"
        if len(rows) > 1 or len(mapped) != topic.is_foreign:
            raise ContractError("a record became several, or lacks its click for the measuring jobs")
        ((output, row),) = rows
        row[head_bytes:].decode()
        if topic.is_foreign:
            _check_mapped(mapped[0][1], row, measuring)
        return f"{'anonymous' if output == ANONYMOUS else 'accepted'} {row[28 + 26]}"

    return run


def opened(handler: Handler) -> Callable[[bytes | None, bytes | None], Sequence[tuple[int, bytes]]]:
    """The function that passes a record's key and value to an opened handler; it returns outputs and their content."""
    handler.open(None, Metrics(np.zeros(200, np.int64)).group())
    slots = np.array([-1], np.int32)

    def process(key: bytes | None, value: bytes | None) -> list[tuple[int, bytes]]:
        lengths = [-1 if part is None else len(part) for part in (key, value)]
        raw = _RAW.pack(NOW_MS, 7, 3, *lengths) + (key or b"") + (value or b"")
        answer = []
        for record in handler.process(Rows(raw, np.array([len(raw)]), slots)):
            output, size = _HEADER.unpack_from(record)
            if size != len(record) - _HEADER.size:
                raise ContractError("the length in a record's header is not the record's")
            answer.append((output, record[_HEADER.size :]))
        return answer

    return process


_RAW, _HEADER = struct.Struct("<qqiii"), struct.Struct("<ii")
assert _RAW.size == RAW_RECORD.itemsize
_read_letter = msgspec.json.Decoder(DeadLetter).decode
_REASONS = frozenset(Reason)


def check_letter(content: bytes, original: bytes | None) -> str:
    """The reason of a dead letter, whose content is as in a frame; raises ContractError if it breaks the contract."""
    letter = _read_letter(content[4:])
    if letter.original != original:
        raise ContractError("a dead letter has other bytes than the record")
    return _checked_reject(letter.reason, letter.message)


def _checked_reject(reason: str, message: str) -> str:
    if reason not in _REASONS or not message.strip():
        raise ContractError(f"a reject has reason {reason!r} and message {message!r}")
    message.encode()
    return f"{reason} {message[:12]}"


def _check_mapped(frame: bytes, row: bytes, measuring: ClickDecoder) -> None:
    (key_bytes,) = struct.unpack_from("<i", frame)
    try:
        click = measuring.accept(frame[4 : len(frame) - key_bytes], NOW_MS)
    except Exception as error:
        raise ContractError(f"a mapped click is rejected: {explain(frame[4:], error)}") from error
    event = measuring.pack(click)
    if event != row[28 : 28 + len(event)]:
        raise ContractError("a mapped click is another event than the record it was made of")


def _avro(schema: dict, value: dict) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def _avro_corpus() -> list[bytes]:
    plain = _AVRO_CLICK | {"value": None, "items": [], "labels": {}, "price": None, "event_id": None, "day": None}
    # Written without logical types: fastavro would want Python's own values.
    bare = json.loads(
        json.dumps(AVRO_SCHEMA), object_hook=lambda part: {k: v for k, v in part.items() if k != "logicalType"}
    )
    return [_avro(bare, _AVRO_CLICK), _avro(bare, plain)]


def _protobuf_corpus(descriptors: bytes) -> list[bytes]:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors).file:
        pool.AddSerializedFile(file.SerializeToString())
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("Click"))
    messages = [_PROTO_CLICK, {"user_id": "ada", "event_name": "purchase", "event_time": "2023-11-14T22:13:20Z"}]
    deep = b""
    for _ in range(300):
        deep = b"\x5a" + _varint(len(deep)) + deep
    return [*(json_format.ParseDict(message, kind()).SerializeToString() for message in messages), deep]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
