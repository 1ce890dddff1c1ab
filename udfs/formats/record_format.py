"""A topic's format, and the function that reads its records into dicts.

Three formats: `json`, `avro` and `protobuf`. With a schema registry, records have Confluent's framing: a zero byte, the
schema's id in 4 bytes, big-endian, for Protobuf the position of the message type, then the content. Without one, a
record is only content, and Avro and Protobuf need a schema that all records share.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from udfs.config.text import one_line
from udfs.contracts.lenient import read_object
from udfs.contracts.rejects import Reason, Reject, explain
from udfs.formats.avro import avro_parser
from udfs.formats.protobuf import ProtobufSchema, compile_protos
from udfs.formats.schema_registry import RegistryOptions, Schema, SchemaError, SchemaRegistry

Name = Literal["json", "avro", "protobuf"]
#: Reads a record's bytes. Raises Reject for a record that can't be read, RegistryError if the registry can't be asked.
Reader = Callable[[bytes | None], dict[str, Any]]

#: Reads the content that begins at an offset of a record's bytes. Raises Reject.
_Parser = Callable[[bytes, int], dict[str, Any]]

HEADER_BYTES = 5
#: After how many seconds a schema that the registry lacked is asked for again, and how many such are remembered.
ASK_AGAIN_S, UNUSABLE_KEPT = 10.0, 1000


class FormatError(ValueError):
    """Settings of a format that can't be used; the message is one line with the key and the remedy."""


class RecordFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How a record's bytes become a dict. It can be pickled, and holds the schema itself, not the path of a file.

    `schema` is the Avro schema of unframed records, `descriptors` their Protobuf schema as a FileDescriptorSet and
    `message` the full name of their message type, by default the first of the file.
    """

    name: Name = "json"
    registry: RegistryOptions | None = None
    schema: str = ""
    descriptors: bytes = b""
    message: str = ""

    @property
    def is_framed(self) -> bool:
        return self.registry is not None


def record_format(
    name: Name = "json", registry: RegistryOptions | None = None, schema: Path | None = None, message: str = ""
) -> RecordFormat:
    """The format that settings name, checked; `schema` is an .avsc file, a .proto file or a set of descriptors.

    Raises FormatError.
    """
    if schema is not None and (name == "json" or registry is not None):
        cause = "decode.format is json" if name == "json" else "schema_registry has the schemas"
        raise FormatError(f"key decode.schema: {cause}; leave out decode.schema")
    if schema is None and name != "json" and registry is None:
        raise FormatError(
            f"key decode.format: {name} needs a schema; set schema_registry.url if producers use a registry, "
            "otherwise decode.schema to the file of the schema"
        )
    if message and (name != "protobuf" or registry is not None):
        raise FormatError("key decode.message: only for decode.format: protobuf with decode.schema; leave it out")
    if schema is None:
        return RecordFormat(name=name, registry=registry)
    try:
        described = _described(name, schema, message)
        _unframed_parser(described)
    except (OSError, UnicodeDecodeError, SchemaError) as error:
        raise FormatError(f"key decode.schema: {schema}: {one_line(error)}") from None
    return described


def reader(
    record_format: RecordFormat,
    registry: SchemaRegistry | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Reader:
    """The function that reads records of a format; `registry` takes the place of the one that the format names."""
    if record_format.name == "json":
        return (lambda payload: read_json(unframed(payload))) if record_format.is_framed else read_json
    if record_format.is_framed:
        return _FramedReader(record_format, registry or SchemaRegistry(record_format.registry), clock)
    parse = _unframed_parser(record_format)

    def read(payload: bytes | None) -> dict[str, Any]:
        if not payload:
            raise _empty()
        return parse(payload, 0)

    return read


def read_json(payload: bytes | None) -> dict[str, Any]:
    """The object that a record is in JSON. Raises Reject."""
    try:
        return read_object(payload)
    except Exception as error:  # explain() raises again what a record can't cause
        raise explain(payload, error) from None


def unframed(payload: bytes | None) -> bytes:
    """A record's content after the magic byte and the schema's id. Raises Reject if it has none."""
    if not payload:
        raise _empty()
    if payload[0]:
        raise Reject(
            Reason.INVALID_FRAME,
            f"the record begins with 0x{payload[0]:02x}, expected the magic byte 0x00; was it written without the "
            "schema registry?",
        )
    if len(payload) < HEADER_BYTES:
        raise Reject(
            Reason.INVALID_FRAME, f"{len(payload)} bytes: expected the magic byte and the schema's id, 5 bytes"
        )
    return payload[HEADER_BYTES:]


class _FramedReader:
    """Reads framed records; asks the registry once for each schema id."""

    def __init__(self, record_format: RecordFormat, registry: SchemaRegistry, clock: Callable[[], float]):
        self._name, self._registry, self._clock = record_format.name, registry, clock
        self._parsers: dict[bytes, _Parser] = {}  # by the 4 bytes of the schema's id
        self._unusable: dict[bytes, tuple[float, str]] = {}  # with the time to ask again

    def __call__(self, payload: bytes | None) -> dict[str, Any]:
        parse = self._parsers.get(payload[1:HEADER_BYTES]) if payload else None
        if parse is None or payload[0]:
            unframed(payload)
            parse = self._load(payload[1:HEADER_BYTES])
        return parse(payload, HEADER_BYTES)

    def _load(self, key: bytes) -> _Parser:
        ask_again, problem = self._unusable.get(key, (0.0, ""))
        if self._clock() >= ask_again:
            try:
                parser = self._parsers[key] = self._parser(int.from_bytes(key))
            except SchemaError as error:
                problem = str(error)
                if len(self._unusable) >= UNUSABLE_KEPT:
                    self._unusable.clear()
                self._unusable[key] = (self._clock() + ASK_AGAIN_S, problem)
            else:
                self._unusable.pop(key, None)
                return parser
        raise Reject(
            Reason.UNKNOWN_SCHEMA,
            f"schema id {int.from_bytes(key)}: {problem}; register the schema, then send the dead letters back with "
            "`intent requeue`",
        )

    def _parser(self, schema_id: int) -> _Parser:
        schema = self._registry.schema(schema_id)
        if schema.schema_type != self._name.upper():
            raise SchemaError(f"it is of type {schema.schema_type}, but decode.format is {self._name}")
        return _framed_parser(schema, self._registry.dependencies(schema))


def _framed_parser(schema: Schema, dependencies: dict[str, str]) -> _Parser:
    if schema.schema_type == "AVRO":
        return avro_parser(schema.schema, dependencies.values())
    return ProtobufSchema(compile_protos(schema.schema, dependencies)).framed


def _unframed_parser(record_format: RecordFormat) -> _Parser:
    if record_format.name == "avro":
        return avro_parser(record_format.schema)
    return ProtobufSchema(record_format.descriptors).parser(record_format.message)


def _described(name: Name, path: Path, message: str) -> RecordFormat:
    if name == "avro":
        return RecordFormat(name=name, schema=path.read_text(encoding="utf-8"))
    if path.suffix == ".proto":
        descriptors = compile_protos(path.read_text(encoding="utf-8"), imports=path.parent)
    else:
        descriptors = path.read_bytes()
    return RecordFormat(name=name, descriptors=descriptors, message=message)


def _empty() -> Reject:
    return Reject(Reason.EMPTY_RECORD, "the record has no bytes")
