"""Parsers of Protobuf's binary encoding, made from .proto text or descriptors.

A message becomes a dict with the fields that are set, by their names in the .proto text. A field without presence, such
as a proto3 scalar without `optional`, counts as not set while it has its default: 0, false, "" or an enum's first
value. Integers of any width are ints, enums their names (a number that the schema does not name stays a number), bytes
stay bytes. google.protobuf.Timestamp is whole milliseconds since 1970, Duration seconds as a float, a wrapper its
value, Struct, Value and ListValue what they hold, and confluent.type.Decimal a float.
"""

import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from udfs.config.text import one_line
from udfs.contracts.rejects import Reason, Reject
from udfs.formats.schema_registry import SchemaError

#: Reads the message that begins at an offset of the bytes and ends with them. Raises Reject.
Parser = Callable[[bytes, int], dict[str, Any]]

#: The name of a schema's own file beside those that it imports.
MAIN_FILE = "intent_record.proto"
#: Files that schemas import without a reference, because producers know them too. Of the others, protoc has
#: google/protobuf, and googleapis-common-protos google/type.
_KNOWN_FILES = {
    "confluent/meta.proto": """
        syntax = "proto3"; package confluent; import "google/protobuf/descriptor.proto";
        message Meta { string doc = 1; map<string, string> params = 2; repeated string tags = 3; }
        extend google.protobuf.FileOptions { Meta file_meta = 1088; }
        extend google.protobuf.MessageOptions { Meta message_meta = 1088; }
        extend google.protobuf.FieldOptions { Meta field_meta = 1088; }
        extend google.protobuf.EnumOptions { Meta enum_meta = 1088; }
        extend google.protobuf.EnumValueOptions { Meta enum_value_meta = 1088; }
    """,
    "confluent/type/decimal.proto": """
        syntax = "proto3"; package confluent.type;
        message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }
    """,
}
_COMPILE_SECONDS = 30
_MAX_INDEXES = 32  # depth of nested message types


def compile_protos(schema: str, dependencies: Mapping[str, str] | None = None, imports: Path | None = None) -> bytes:
    """A serialized FileDescriptorSet of a schema and all that it imports, the schema's file last.

    `dependencies` are imported schemas by import path; `imports` is a directory with more. Each text is .proto or a
    FileDescriptorProto in base64. Raises SchemaError with the compiler's message.
    """
    files = {**_KNOWN_FILES, **(dependencies or {}), MAIN_FILE: schema}
    with TemporaryDirectory(prefix="intent-protos-") as directory:
        root = Path(directory).resolve()
        sources, compiled, output = root / "sources", root / "compiled.binpb", root / "output.binpb"
        descriptors = FileDescriptorSet()
        for name, text in files.items():
            descriptor = _descriptor(text)
            if descriptor is None:
                _write(sources, name, text)
            else:
                descriptor.name = name
                descriptors.file.append(descriptor)
        compiled.write_bytes(descriptors.SerializeToString())
        given = [f"--descriptor_set_in={compiled}"] if descriptors.file else []
        directories = [sources, *([imports.resolve()] if imports else []), *_installed_protos()]
        options = [
            *[f"-I{directory}" for directory in directories],
            *given,
            "--include_imports",
            f"--descriptor_set_out={output}",
        ]
        _run([sys.executable, "-m", "grpc_tools.protoc", *options, MAIN_FILE], root)
        return output.read_bytes()


class ProtobufSchema:
    """The message types of a serialized FileDescriptorSet, in which imports precede the files that import them.

    Raises SchemaError if the set is invalid or incomplete.
    """

    def __init__(self, descriptors: bytes):
        self._pool = DescriptorPool()
        try:
            files = FileDescriptorSet.FromString(descriptors).file
            for file in files:
                self._pool.AddSerializedFile(file.SerializeToString())
            self._main = self._pool.FindFileByName(files[-1].name)
        except (DecodeError, TypeError, KeyError, IndexError) as error:
            raise SchemaError(
                f"not a complete set of Protobuf descriptors ({one_line(error)}); create it with protoc "
                "--include_imports --descriptor_set_out=FILE"
            ) from None
        self._rows = _RowReader()
        self._by_position: dict[bytes, Parser] = {}

    def parser(self, message: str = "") -> Parser:
        """The parser of a message type, given by its full name; by default the first one of the last file.

        Raises SchemaError if there is none.
        """
        if not message:
            return self._parser(self._at_position([0]))
        try:
            return self._parser(self._pool.FindMessageTypeByName(message))
        except KeyError:
            known = ", ".join(sorted(kind.full_name for kind in self._main.message_types_by_name.values()))
            raise SchemaError(f"the Protobuf schema has no message {message}, but {known}") from None

    def framed(self, payload: bytes, start: int) -> dict[str, Any]:
        """Read a message after the position of its type in the file, as Confluent's framing has it. Raises Reject."""
        if payload[start : start + 1] == b"\0":  # short for the first message type
            end = start + 1
            position = b"\0"
        else:
            end = _end_of_position(payload, start)
            position = payload[start:end]
        parse = self._by_position.get(position)
        if parse is None:
            try:
                parse = self._parser(self._at_position(_indexes(position)))
            except SchemaError as error:
                raise Reject(Reason.INVALID_PROTOBUF, str(error)) from None
            self._by_position[position] = parse
        return parse(payload, end)

    def _at_position(self, indexes: list[int]) -> Descriptor:
        names, types = [self._main.package] * bool(self._main.package), _file_of(self._main).message_type
        for index in indexes:
            if not 0 <= index < len(types):
                raise SchemaError(f"the Protobuf schema has no message at position {indexes}")
            names.append(types[index].name)
            types = types[index].nested_type
        return self._pool.FindMessageTypeByName(".".join(names))

    def _parser(self, descriptor: Descriptor) -> Parser:
        if descriptor.full_name in _WELL_KNOWN:
            raise SchemaError(f"{descriptor.full_name} is a single value, not a record")
        decode, read = message_factory.GetMessageClass(descriptor).FromString, self._rows.row

        def parse(payload: bytes, start: int) -> dict[str, Any]:
            try:
                return read(decode(payload[start:]))
            except Exception as error:  # the schema is valid, so whatever goes wrong is the record's fault
                raise Reject(
                    Reason.INVALID_PROTOBUF, f"not a message {descriptor.full_name}: {one_line(error)}"
                ) from None

        return parse


class _RowReader:
    """Turns messages into dicts, and remembers per field how."""

    def __init__(self):
        self._fields: dict[FieldDescriptor, tuple[str, Callable[[Any], Any] | None]] = {}

    def reader(self, descriptor: Descriptor) -> Callable[[Message], Any]:
        """The function that reads messages of a type."""
        return _WELL_KNOWN.get(descriptor.full_name, self.row)

    def row(self, message: Message) -> dict[str, Any]:
        row = {}
        for field, value in message.ListFields():
            name, convert = self._fields.get(field) or self._add(field)
            row[name] = value if convert is None else convert(value)
        return row

    def _add(self, field: FieldDescriptor) -> tuple[str, Callable[[Any], Any] | None]:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            convert = self._map_converter(kind)
        elif field.label == FieldDescriptor.LABEL_REPEATED:
            item = self._converter(field)
            convert = list if item is None else lambda values: [item(value) for value in values]
        else:
            convert = self._converter(field)
        added = self._fields[field] = (field.full_name if field.is_extension else field.name, convert)
        return added

    def _map_converter(self, entry: Descriptor) -> Callable[[Any], dict[str, Any]]:
        convert = self._converter(entry.fields_by_name["value"])
        key = _key_text if entry.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING else str
        if convert is None:
            return lambda values: {key(name): value for name, value in values.items()}
        return lambda values: {key(name): convert(value) for name, value in values.items()}

    def _converter(self, field: FieldDescriptor) -> Callable[[Any], Any] | None:
        """The function that converts one value of a field, None if it stays as it is."""
        if field.message_type is not None:
            return self.reader(field.message_type)
        if field.enum_type is not None:
            names = {value.number: value.name for value in reversed(field.enum_type.values)}  # of aliases, the first
            return lambda number: names.get(number, number)
        return None


def _key_text(key: Any) -> str:
    """The key of a map, as Protobuf's JSON has it."""
    return str(key).lower() if isinstance(key, bool) else str(key)


def _decimal(message: Message) -> float:
    return float(f"{int.from_bytes(message.value, 'big', signed=True)}e{-message.scale}")


def _wrapped(message: Message) -> Any:
    return message.value


_WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
_WELL_KNOWN: dict[str, Callable[[Message], Any]] = {
    "google.protobuf.Timestamp": lambda message: message.seconds * 1000 + message.nanos // 1_000_000,
    "google.protobuf.Duration": lambda message: message.seconds + message.nanos / 1e9,
    "google.protobuf.Struct": json_format.MessageToDict,
    "google.protobuf.Value": json_format.MessageToDict,
    "google.protobuf.ListValue": json_format.MessageToDict,
    "confluent.type.Decimal": _decimal,
    **{f"google.protobuf.{name}Value": _wrapped for name in _WRAPPERS},
}


def _file_of(file: Any) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def _descriptor(text: str) -> FileDescriptorProto | None:
    """The descriptor that a registry's schema holds in base64, None where it is .proto text."""
    try:
        descriptor = FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (ValueError, DecodeError):
        return None
    return descriptor if descriptor.message_type or descriptor.enum_type else None


def _installed_protos() -> list[Path]:
    spec = find_spec("google.type")
    return [Path(directory).parents[1] for directory in spec.submodule_search_locations] if spec else []


def _write(directory: Path, name: str, text: str) -> None:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory):  # the name is the registry's
        raise SchemaError(f"the Protobuf schema imports {name!r}, which is outside of its directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _run(command: list[str], directory: Path) -> None:
    result = subprocess.run(
        command,
        check=False,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMPILE_SECONDS,
    )
    if result.returncode == 0:
        return
    problems = [line for line in result.stderr.splitlines() if re.match(r"\S+\.proto:(?!.* warning: )", line)]
    if problems:
        raise SchemaError(f"not a Protobuf schema: {' '.join(problems)[:500]}")
    # There is no compiler, or no memory for it: the schema may be right.
    raise RuntimeError(f"protoc failed: {one_line(result.stderr)[-500:]}; is grpcio-tools installed?")


def _end_of_position(payload: bytes, start: int) -> int:
    """Where the varints of a message type's position end: their count, then as many indexes."""
    count, end = _varint(payload, start)
    if not 0 < count <= _MAX_INDEXES:
        raise Reject(Reason.INVALID_PROTOBUF, f"the position of the message type has {count} indexes")
    for _ in range(count):
        _, end = _varint(payload, end)
    return end


def _indexes(position: bytes) -> list[int]:
    count, end = _varint(position, 0)
    if count == 0:
        return [0]
    indexes = []
    for _ in range(count):
        index, end = _varint(position, end)
        indexes.append(index)
    return indexes


def _varint(payload: bytes, start: int) -> tuple[int, int]:
    """A zigzag varint and where it ends."""
    value = 0
    for shift, byte in enumerate(payload[start : start + 5]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), start + shift + 1
    raise Reject(Reason.INVALID_PROTOBUF, "the position of the message type after the schema's id is cut off")
