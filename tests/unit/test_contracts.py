"""docs/contracts, docs/topics.md, and the tables and structs of the jobs say the same of every topic."""

import json
import re

import msgspec
import pytest
from jsonschema import Draft202012Validator

from jobs.measure_outcomes import OUTCOMES_COLUMNS, QUALITY_COLUMNS
from jobs.measure_sessions import KPIS_COLUMNS, SESSIONS_COLUMNS
from jobs.tables import FEATURE_LOG_COLUMNS, SCORES_COLUMNS
from jobs.watch_experiments import EXPERIMENTS_COLUMNS
from tests.contracts import CONTRACTS, ROLES, WRITTEN, broken, contract
from udfs.events import click_schema
from udfs.outputs import DeadLetter, FeatureVector, Score, ShadowScores
from udfs.profiles import profile_schema
from udfs.rejects import Reason

TABLES = {
    "scores": SCORES_COLUMNS,
    "feature_log": FEATURE_LOG_COLUMNS,
    "outcomes": OUTCOMES_COLUMNS,
    "model_quality": QUALITY_COLUMNS,
    "sessions": SESSIONS_COLUMNS,
    "kpis": KPIS_COLUMNS,
    "experiments": EXPERIMENTS_COLUMNS,
}
STRUCTS = {"scores": Score, "feature_log": FeatureVector, "shadow_scores": ShadowScores, "dead_letters": DeadLetter}
#: What Flink writes of a type; what may be null is in the contract only.
JSON_TYPES = {
    "STRING": "string",
    "BYTES": "string",
    "TIMESTAMP_LTZ": "string",
    "BIGINT": "integer",
    "INT": "integer",
    "DOUBLE": "number",
    "FLOAT": "number",
    "BOOLEAN": "boolean",
    "ARRAY": "array",
}
DOCUMENTED = (CONTRACTS.parent / "topics.md").read_text()


def documented_fields(role: str) -> set[str]:
    """The names in the first column of a topic's first table in docs/topics.md."""
    section = DOCUMENTED.split(f"\n## {role} ")[1].split("\n## ")[0]
    table = section.split("\n|---|")[1].split("\n\n")[0]
    return {name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_each_topic_has_a_contract_and_nothing_else_has():
    assert {path.name for path in CONTRACTS.iterdir()} == {f"{role}.schema.json" for role in ROLES}


@pytest.mark.parametrize("role", ROLES)
def test_a_contract_is_a_json_schema(role):
    Draft202012Validator.check_schema(contract(role))


@pytest.mark.parametrize("role", WRITTEN)
def test_all_fields_of_what_is_written_are_there_and_are_documented(role):
    schema = contract(role)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == set(schema["properties"]) == documented_fields(role)
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("role", TABLES)
def test_a_contract_has_the_columns_of_the_table(role):
    columns = dict(re.findall(r"(?:^|,)\s*`?(\w+)`? ([A-Z_]+)", TABLES[role], re.MULTILINE))
    properties = contract(role)["properties"]
    assert set(columns) == set(properties)
    for name, kind in columns.items():
        types = properties[name]["type"]
        assert JSON_TYPES[kind] in ([types] if isinstance(types, str) else types), name


@pytest.mark.parametrize("role", STRUCTS)
def test_a_contract_has_the_fields_of_the_struct_in_their_order(role):
    schema = msgspec.json.schema(STRUCTS[role])["$defs"][STRUCTS[role].__name__]
    published = contract(role)
    assert published["required"] == list(published["properties"]) == schema["required"] == list(schema["properties"])
    for name, field in schema["properties"].items():
        assert types_of(published["properties"][name]) == types_of(field), name


def types_of(field: dict) -> set[str]:
    """The JSON types of a field, with those of an array's items and with the encoding of bytes."""
    if "anyOf" in field:
        return set().union(*map(types_of, field["anyOf"]))
    types = {field["type"]} if isinstance(field["type"], str) else set(field["type"])
    if "items" in field:
        types |= {f"of {kind}" for kind in types_of(field["items"])}
    return types | ({field["contentEncoding"]} if "contentEncoding" in field else set())


@pytest.mark.parametrize(("role", "schema"), [("clicks", click_schema()), ("profiles", profile_schema())])
def test_contracts_of_what_is_read_are_those_of_the_decoders(role, schema):
    published = contract(role)
    del published["$schema"]
    assert published == schema, f"write {role}.schema.json anew from udfs"
    record = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    assert set(record["properties"]) == documented_fields(role)


def test_all_reasons_are_in_the_contracts():
    for role in ("dead_letters", "requeued"):
        assert contract(role)["properties"]["reason"]["enum"] == [str(reason) for reason in Reason]
    assert {*Reason} <= set(re.findall(r"`(\w+)`", DOCUMENTED))


def test_what_breaks_a_contract_is_named():
    good = {"topic": "clicks", "partition": 0, "offset": 7, "reason": "too_deep", "requeued_at": 1}
    assert broken("requeued", [json.dumps(good).encode()]) == []
    bad = good | {"offset": "7"}
    assert broken("requeued", [json.dumps(bad).encode()]) == ["requeued: $.offset: '7' is not of type 'integer'"]
