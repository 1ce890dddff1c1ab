"""The SQL types of a record's fields, for Flink's tables and table functions."""

import msgspec
from msgspec import inspect

_TYPES = {
    inspect.IntType: "BIGINT",
    inspect.FloatType: "DOUBLE",
    inspect.StrType: "STRING",
    inspect.BoolType: "BOOLEAN",
    inspect.BytesType: "BYTES",
}


def sql_types(record: type[msgspec.Struct]) -> dict[str, str]:
    """The SQL type of each field, in their order. Raises TypeError for a field that has none, such as a nested struct.

    A field declares a type other than the default for its Python type as `Meta(extra={"sql": ...})`.
    """
    return {field.name: _sql_type(field.type) for field in inspect.type_info(record).fields}


def _sql_type(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return (kind.extra or {}).get("sql") or _sql_type(kind.type)
    if isinstance(kind, inspect.UnionType):
        (kind,) = (member for member in kind.types if not isinstance(member, inspect.NoneType))
        return _sql_type(kind)
    if isinstance(kind, inspect.ListType):
        return f"ARRAY<{_sql_type(kind.item_type)}>"
    if type(kind) not in _TYPES:
        raise TypeError(f"{kind}: no SQL type")
    return _TYPES[type(kind)]
