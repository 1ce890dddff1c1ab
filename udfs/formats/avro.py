"""Parsers of Avro's binary encoding, made from schemas.

Values become what JSON would have had: timestamps, of whatever unit, are whole milliseconds since 1970 (UTC or local,
as written), decimals are floats, UUIDs are texts, enums their symbols, and a union is the value that it holds. Dates
are `datetime.date`, `bytes` and `fixed` stay bytes, and values of any other logical type stay as they are written.
"""

import json
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any
from uuid import UUID

import fastavro
from fastavro import _read_py
from fastavro.read import LOGICAL_READERS

from udfs.config.text import one_line
from udfs.contracts.rejects import Reason, Reject
from udfs.formats.schema_registry import SchemaError

#: Reads the record that begins at an offset of the bytes and must end with them. Raises Reject.
Parser = Callable[[bytes, int], dict[str, Any]]

_VALUE = "value"


def _decimal(value: bytes, schema: dict) -> float:
    return float(f"{int.from_bytes(value, 'big', signed=True)}e-{schema.get('scale', 0)}")


_LOGICAL_TYPES: dict[str, Callable[[Any, dict], Any]] = {
    "long-timestamp-micros": lambda value, schema: value // 1000,
    "long-timestamp-nanos": lambda value, schema: value // 1_000_000,
    "long-local-timestamp-micros": lambda value, schema: value // 1000,
    "long-local-timestamp-nanos": lambda value, schema: value // 1_000_000,
    "bytes-decimal": _decimal,
    "fixed-decimal": _decimal,
    "fixed-uuid": lambda value, schema: str(UUID(bytes=value)),
}
_KEPT = {"int-date"}  # of those that fastavro reads itself
_PREFIX = "intent-"  # fastavro's table of logical types is global: these are entries of our own


def _register() -> None:
    for name, read in _LOGICAL_TYPES.items():
        kind, _, logical_type = name.partition("-")
        LOGICAL_READERS[f"{kind}-{_PREFIX}{logical_type}"] = lambda value, schema, _, read=read: read(value, schema)


_register()


def avro_parser(schema: str, dependencies: Iterable[str] = ()) -> Parser:
    """The parser of records of a schema, given the schemas that define types it names, in the order of their use.

    Raises SchemaError if one is not a schema.
    """
    named: dict[str, Any] = {}
    try:
        for dependency in dependencies:
            fastavro.parse_schema(_prepared(json.loads(dependency)), named)
        # The encoding of a record is that of its fields one after the other, so a record around any schema adds no byte
        # and lets a union or the name of a type be the whole schema.
        fields = [{"name": _VALUE, "type": _prepared(json.loads(schema))}]
        parsed = fastavro.parse_schema({"type": "record", "name": "IntentRecord", "fields": fields}, named)
        # Compiled code does not notice when it recurses too deeply, and ends the process.
        module = _read_py if _is_recursive(parsed, named, set(), set()) else fastavro
    except fastavro.schema.UnknownType as error:
        raise SchemaError(f"the Avro schema names a type that it does not define: {_shown(error)}") from None
    except Exception as error:  # of a schema of any shape
        raise SchemaError(f"not an Avro schema: {type(error).__name__}: {_shown(error)}") from None
    read_value = module.schemaless_reader

    def parse(payload: bytes, start: int) -> dict[str, Any]:
        source = BytesIO(payload)
        source.seek(start)
        try:
            value = read_value(source, parsed, None)[_VALUE]
        except Exception as error:  # the schema is valid, so whatever goes wrong is the record's fault
            raise _reject(error) from None
        if source.tell() != len(payload):
            surplus = len(payload) - source.tell()
            raise Reject(
                Reason.INVALID_AVRO, f"{surplus} bytes follow the end of the record: it was written with another schema"
            )
        if type(value) is not dict:
            raise Reject(Reason.NOT_AN_OBJECT, f"the schema is not of a record, but of {type(value).__name__}")
        return value

    return parse


def _shown(error: Exception) -> str:
    """An error's text, without the halves of surrogate pairs that JSON can hold."""
    return one_line(error).encode(errors="backslashreplace").decode()


def _prepared(schema: Any) -> Any:
    """A schema without defaults, which readers do not need, and with logical types that are read as described above."""
    if isinstance(schema, list):
        return [_prepared(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    prepared = {key: _prepared(value) for key, value in schema.items() if key not in ("default", "logicalType")}
    logical_type = schema.get("logicalType")
    name = f"{schema.get('type')}-{logical_type}"
    if name in _LOGICAL_TYPES:
        prepared["logicalType"] = f"{_PREFIX}{logical_type}"
    elif name in _KEPT:
        prepared["logicalType"] = logical_type
    return prepared


def _is_recursive(schema: Any, named: dict[str, Any], around: set[str], seen: set[str]) -> bool:
    """Whether a type of the parsed schema contains itself; `around` are the types that contain this one."""
    if isinstance(schema, str):
        if schema in around:
            return True
        return schema in named and schema not in seen and _is_recursive(named[schema], named, around, seen)
    if isinstance(schema, list):
        return any(_is_recursive(member, named, around, seen) for member in schema)
    name = schema.get("name")
    around = around | {name}
    parts = [
        schema.get("items", "null"),
        schema.get("values", "null"),
        *[field["type"] for field in schema.get("fields", ())],
    ]
    recursive = any(_is_recursive(part, named, around, seen) for part in parts)
    seen.add(name)
    return recursive


def _reject(error: Exception) -> Reject:
    if isinstance(error, RecursionError):
        return Reject(Reason.TOO_DEEP, "records are nested too deeply")
    if isinstance(error, EOFError):
        rule = "the record ends before its last field"
    elif isinstance(error, IndexError):
        rule = "the index of an enum's symbol or of a union's type is out of range"
    elif isinstance(error, UnicodeDecodeError):
        rule = f"a string is not UTF-8: {error.reason}"
    else:
        rule = f"{type(error).__name__}: {one_line(error)}"
    return Reject(Reason.INVALID_AVRO, f"{rule}; was it written with another schema?")
