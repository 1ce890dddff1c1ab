"""The contracts of the topics: a JSON Schema of each topic's values, made from the struct that declares its records.

python -m tools.json_schemas     # writes docs/contracts
"""

import json
import sys
from inspect import cleandoc
from pathlib import Path
from typing import Any

import msgspec

from jobs.common.settings import TopicNames
from tools.paths import PROJECT
from udfs.contracts.clicks import click_schema, mapped_click_schema
from udfs.contracts.outputs import RECORDS
from udfs.contracts.profiles import profile_schema

CONTRACTS = PROJECT / "docs" / "contracts"
ROLES = TopicNames.__struct_fields__
DIALECT = "https://json-schema.org/draft/2020-12/schema"

JsonSchema = dict[str, Any]

_INPUTS = {"clicks": click_schema, "mapped_clicks": mapped_click_schema, "profiles": profile_schema}


def contract(role: str) -> JsonSchema:
    """The JSON Schema of the values of a topic, by the topic's role in the settings."""
    if role in _INPUTS:
        return {"$schema": DIALECT, **_INPUTS[role]()}
    record = RECORDS[role]
    schema = msgspec.json.schema(record)
    summary = cleandoc(record.__doc__).partition("\n\n")[0]
    return {"$schema": DIALECT, "title": role, "description": summary, **_inlined(schema, schema["$defs"])}


def contract_path(role: str) -> Path:
    return CONTRACTS / f"{role}.schema.json"


def contract_text(role: str) -> str:
    """The content of a contract's file."""
    return json.dumps(contract(role), indent=2) + "\n"


def _inlined(schema: JsonSchema, definitions: dict[str, JsonSchema]) -> JsonSchema:
    """Inline the references of a schema of msgspec's, and replace `anyOf` with null by a list of types."""
    if "$ref" in schema:
        return _closed_object(definitions[schema["$ref"].rpartition("/")[2]]["properties"], definitions)
    if "anyOf" in schema:
        (value,) = (option for option in schema["anyOf"] if option != {"type": "null"})
        return _nullable(_inlined(value, definitions))
    first = {name: schema[name] for name in ("type", "description") if name in schema}
    items = {"items": _inlined(schema["items"], definitions)} if "items" in schema else {}
    return first | schema | items


def _closed_object(properties: dict[str, JsonSchema], definitions: dict[str, JsonSchema]) -> JsonSchema:
    """A schema that requires all fields and allows no others: the jobs also write fields that have a default."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": {name: _inlined(field, definitions) for name, field in properties.items()},
    }


def _nullable(schema: JsonSchema) -> JsonSchema:
    nullable = schema | {"type": [schema["type"], "null"]}
    return nullable | {"enum": [*schema["enum"], None]} if "enum" in schema else nullable


def main() -> int:
    for role in ROLES:
        contract_path(role).write_text(contract_text(role))
    print(f"wrote {len(ROLES)} files to {CONTRACTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
