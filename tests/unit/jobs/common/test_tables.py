"""The columns of Flink's tables follow from the records."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from jobs.common.tables import columns
from tests.support.contracts import contract
from udfs.contracts.outputs import RECORDS, DriftWindow, FeatureVector, ShadowScores
from udfs.contracts.sql_types import sql_types

#: What Flink writes as JSON of an SQL type.
JSON_TYPES = {
    "STRING": "string",
    "BYTES": "string",
    "BIGINT": "integer",
    "INT": "integer",
    "DOUBLE": "number",
    "FLOAT": "number",
    "BOOLEAN": "boolean",
    "ARRAY<STRING>": "array",
    "ARRAY<DOUBLE>": "array",
}


def test_a_table_has_the_fields_of_the_record_and_what_it_adds():
    names_and_types = [line.strip(" ,") for line in columns(FeatureVector, "`day` STRING").splitlines() if line.strip()]
    assert names_and_types == [
        "`user_id` STRING",
        "`event_id` STRING",
        "`event_time` BIGINT",
        "`score` FLOAT",
        "`model_version` STRING",
        "`feature_schema_hash` STRING",
        "`features` BYTES",
        "`source_partition` INT",
        "`source_offset` BIGINT",
        "`day` STRING",
    ]


def test_types_follow_from_those_of_python_unless_the_field_names_its_own():
    class Record(msgspec.Struct):
        text: Annotated[str, Meta(min_length=1)] | None
        flag: bool
        number: Annotated[float, Meta(description="a number")] = 0.0
        at: Annotated[int, Meta(extra={"sql": "TIMESTAMP_LTZ(3)"})] | None = None

    assert sql_types(Record) == {"text": "STRING", "flag": "BOOLEAN", "number": "DOUBLE", "at": "TIMESTAMP_LTZ(3)"}
    assert sql_types(ShadowScores)["shadow_versions"] == "ARRAY<STRING>"


def test_a_field_without_an_sql_type_is_refused():
    with pytest.raises(TypeError, match="no SQL type"):
        sql_types(DriftWindow)


@pytest.mark.parametrize("role", [role for role in RECORDS if role != "drift"])
def test_flink_writes_a_column_as_the_contract_says(role):
    properties = contract(role)["properties"]
    for name, kind in sql_types(RECORDS[role]).items():
        types = properties[name]["type"]
        assert JSON_TYPES[kind] in ([types] if isinstance(types, str) else types), name
