"""JSON Schemas of the topics' values and of the file of features, made from the structs that declare them.

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
from udfs.features.declaration_file import KIND_PATTERN, FeatureFile

CONTRACTS = PROJECT / "docs" / "contracts"
ROLES = TopicNames.__struct_fields__
DIALECT = "https://json-schema.org/draft/2020-12/schema"

JsonSchema = dict[str, Any]

_INPUTS = {"clicks": click_schema, "mapped_clicks": mapped_click_schema, "profiles": profile_schema}

FEATURES_SCHEMA = CONTRACTS / "features.schema.json"
#: The name of a feature in a file; the windows follow later.
_NAME_PATTERN = r"^[a-z]([a-z0-9_]|\{window\})*$"


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
    return _text(contract(role))


def features_schema() -> JsonSchema:
    """The JSON Schema of a file such as conf/features.yaml, for editors. It can't check what expressions say."""
    schema = msgspec.json.schema(FeatureFile)
    properties = schema["$defs"]["FeatureFile"]["properties"]
    properties["kinds"]["propertyNames"] = {"pattern": KIND_PATTERN}
    properties["features"]["additionalProperties"]["propertyNames"] = {"pattern": _NAME_PATTERN}
    return {"$schema": DIALECT, "title": "features", "description": "A declaration of features", **schema}


def features_schema_text() -> str:
    """The content of FEATURES_SCHEMA."""
    return _text(features_schema())


def _text(schema: JsonSchema) -> str:
    return json.dumps(schema, indent=2) + "\n"


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
    FEATURES_SCHEMA.write_text(features_schema_text())
    print(f"wrote {len(ROLES) + 1} files to {CONTRACTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
