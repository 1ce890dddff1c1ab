"""docs/contracts, docs/topics.md and the jobs name the fields that the structs declare."""

import json
import re

import pytest
import yaml
from jsonschema import Draft202012Validator

from jobs.ops.peek.formatting import COLUMNS, USER_ROLES
from tests.support.contracts import ROLES, WRITTEN, broken, contract
from tests.support.sample_records import SAMPLES, sample, sample_fields
from tools.json_schemas import CONTRACTS, FEATURES_SCHEMA, contract_text, features_schema_text
from tools.paths import PROJECT
from udfs.contracts.outputs import RECORDS, ModelQuality, Session, to_json
from udfs.contracts.rejects import Reason
from udfs.measurement.kpis import COUNTED
from udfs.measurement.quality import MEASURES

DOCUMENTED = (CONTRACTS.parent / "topics.md").read_text()


def documented_fields(role: str) -> set[str]:
    """The names in the first column of a topic's first table in docs/topics.md."""
    section = DOCUMENTED.split(f"\n## {role} ")[1].split("\n## ")[0]
    table = section.split("\n|---|")[1].split("\n\n")[0]
    return {name for row in table.splitlines()[1:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_each_topic_and_the_file_of_features_have_a_schema_and_nothing_else_has():
    topics = {f"{role}.schema.json" for role in ROLES}
    assert {path.name for path in CONTRACTS.iterdir()} == {*topics, FEATURES_SCHEMA.name}


@pytest.mark.parametrize("role", ROLES)
def test_a_contract_is_that_of_the_struct(role):
    published = (CONTRACTS / f"{role}.schema.json").read_text()
    assert published == contract_text(role), "run `python -m tools.json_schemas`"


@pytest.mark.parametrize("role", ROLES)
def test_a_contract_is_a_json_schema(role):
    Draft202012Validator.check_schema(contract(role))


def test_each_topic_that_is_written_has_a_record():
    assert RECORDS.keys() == set(WRITTEN)
    assert {role: type(record) for role, record in SAMPLES.items()} == RECORDS


@pytest.mark.parametrize("role", WRITTEN)
def test_all_fields_of_what_is_written_are_there_and_are_documented(role):
    schema = contract(role)
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"]) == list(RECORDS[role].__struct_fields__)
    assert set(schema["properties"]) == documented_fields(role)
    assert all(field["description"] for field in schema["properties"].values())


@pytest.mark.parametrize("role", ["clicks", "profiles"])
def test_all_fields_of_what_is_read_are_documented(role):
    schema = contract(role)
    record = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    assert set(record["properties"]) == documented_fields(role)


@pytest.mark.parametrize("role", WRITTEN)
def test_what_a_struct_writes_keeps_to_the_contract(role):
    assert broken(role, [to_json(SAMPLES[role])]) == []


@pytest.mark.parametrize(
    ("role", "changes", "path"),
    [
        ("scores", {"score": 1.5}, "$.score"),
        ("scores", {"event_name": 5}, "$.event_name"),
        ("scores", {"user_id": ""}, "$.user_id"),
        ("scores", {"source_offset": None}, "$.source_offset"),
        ("scores", {"unheard": 1}, "$"),
        ("dead_letters", {"timestamp": "yesterday"}, "$.timestamp"),
        ("dead_letters", {"original": 7}, "$.original"),
        ("shadow_scores", {"shadow_versions": []}, "$.shadow_versions"),
        ("sessions", {"arm": "another"}, "$.arm"),
        ("sessions", {"events": 0}, "$.events"),
        ("experiments", {"guardrail": "bent"}, "$.guardrail"),
        ("experiments", {"decision": "Wait."}, "$.decision"),
        ("drift", {"features": []}, "$.features"),
        ("drift", {"features": [{"name": "price"}]}, "$.features[0]"),
    ],
)
def test_a_contract_refuses_what_it_does_not_describe(role, changes, path):
    lines = broken(role, [json.dumps(sample_fields(role, **changes)).encode()])
    assert lines
    assert {line.split(": ")[1] for line in lines} == {path}


def test_no_other_field_may_be_null():
    null = {(role, name) for role in WRITTEN for name in RECORDS[role].__struct_fields__ if _allows_null(role, name)}
    assert null == {
        *((role, "event_id") for role in ("scores", "feature_log", "shadow_scores", "outcomes")),
        ("dead_letters", "original"),
        *(("model_quality", name) for name in ("roc_auc", "average_precision")),
        *(("sessions", name) for name in ("arm", "model_version", "device", "top_score", "propensity")),
        ("scores", "propensity"),
        *(("kpis", name) for name in ("arm", "placement", "value")),
        *(("experiments", f"{arm}_value") for arm in ("treatment", "baseline")),
        *(("experiments", name) for name in ("difference", "low", "high", "p_value", "guardrail", "sample_ratio_p")),
        *(("experiments", f"relative_{name}") for name in ("difference", "low", "high")),
        *(("experiments", name) for name in ("treatment_version", "baseline_version", "no_data", "cap")),
        ("drift", "label_rate"),
    }


def _allows_null(role: str, name: str) -> bool:
    return not broken(role, [to_json(sample(role, **{name: None}))])


def test_all_reasons_are_documented():
    assert {*Reason} <= set(re.findall(r"`(\w+)`", DOCUMENTED))


def test_what_jobs_compute_by_name_are_fields_in_the_order_of_the_record():
    assert ModelQuality.__struct_fields__ == ("event_minute", "model_version", "arm", *MEASURES)
    assert tuple(name for name in Session.__struct_fields__ if name in COUNTED) == tuple(COUNTED)


def test_what_peek_knows_of_records_are_their_fields():
    for role, shown in COLUMNS.items():
        if role in RECORDS:
            fields = (*RECORDS[role].__struct_fields__, "place", "decoded_original", "...")
            assert {name for name, _ in shown} <= set(fields)
    users = {role for role, record in RECORDS.items() if "user_id" in record.__struct_fields__}
    assert users - {"feature_log"} == set(USER_ROLES) - {"clicks", "profiles", "dead_letters"}


def test_what_breaks_a_contract_is_named():
    good = {"topic": "clicks", "partition": 0, "offset": 7, "reason": "too_deep", "requeued_at": 1}
    assert broken("requeued", [json.dumps(good).encode()]) == []
    bad = good | {"offset": "7"}
    assert broken("requeued", [json.dumps(bad).encode()]) == ["requeued: $.offset: '7' is not of type 'integer'"]


def test_the_schema_of_features_is_that_of_the_struct():
    assert FEATURES_SCHEMA.read_text() == features_schema_text(), "run `python -m tools.json_schemas`"


@pytest.mark.parametrize(
    "file",
    [PROJECT / "udfs" / "features" / "standard.yaml", PROJECT / "conf" / "features.yaml"],
    ids=lambda path: path.name,
)
def test_the_files_of_features_keep_to_their_schema(file):
    assert broken_features(yaml.safe_load(file.read_text())) == []


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"extends": "base"}, "$.extends"),
        ({"kinds": {"quiz_completed": 99}}, "$.kinds.quiz_completed"),
        ({"kinds": {"quiz-completed": 100}}, "$.kinds"),
        ({"windows": ["1 week"]}, "$.windows[0]"),
        ({"features": {"quiz": {"Quizzes": {"value": "count()", "unit": "events", "doc": "all"}}}}, "$.features.quiz"),
        ({"features": {"quiz": {"quizzes_{window}": {"value": "count()"}}}}, "$.features.quiz.quizzes_{window}"),
        ({"feature": {}}, "$"),
    ],
)
def test_the_schema_of_features_refuses_what_the_file_must_not_have(content, path):
    assert {place.replace("['quizzes_{window}']", ".quizzes_{window}") for place in broken_features(content)} == {path}


def broken_features(content: dict) -> list[str]:
    """Where a file's content breaks the schema of features."""
    schema = json.loads(FEATURES_SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(content)]
