"""Each ready mapping reads a small file in its format, with the gaps and oddities that such files have.

The files of tests/support/mappings are made up; `NAME.expected.jsonl` has the clicks, in order of files and rows. Event
ids by row number are in it without the part for the file.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from training.data.intake import Intake
from training.data.rows import find_files
from training.data.sources import file_records
from udfs.contracts.clicks import Click, read_click
from udfs.contracts.packed_events import DEVICES, EVENT_KINDS
from udfs.mapping.definition import ClickMapping, MappingFile, load_mapping

PROJECT = Path(__file__).parents[4]
MAPPINGS = PROJECT / "conf" / "mappings"
FIXTURES = PROJECT / "tests" / "support" / "mappings"
#: Rows of the files that are left out, and rows that fit no click.
NO_CLICKS = {
    "diginetica": (0, 1),  # no date
    "ga4_bigquery": (1, 1),  # session_start; no consent
    "matomo": (2, 0),  # a goal and an abandoned cart
    "otto": (0, 0),
    "posthog": (2, 1),  # $identify and $feature_flag_called; no time
    "rees46": (0, 1),  # a price that is no number
    "retailrocket": (0, 1),  # no visitor
    "segment": (1, 1),  # identify; an order from the server without a user
    "snowplow": (1, 1),  # transaction_item; a line that was cut off
    "taobao": (0, 1),  # a time before 1970
    "yoochoose": (0, 1),  # second 61
}
READY = sorted(path.stem for path in MAPPINGS.glob("*.yaml") if path.stem != "example")


def fixture_files(name: str) -> list[Path]:
    """The files of a mapping's format: a single one, or all in its directory."""
    (data,) = (path for path in FIXTURES.glob(f"{name}*") if not path.name.endswith(".expected.jsonl"))
    return find_files(data)


def clicks_of(path: Path, mappings: MappingFile, intake: Intake | None = None) -> list[bytes]:
    """The clicks of a file, as records whose event ids don't depend on where the file is."""
    with path.open("rb") as file:
        records = list(file_records(file, mappings, 0, intake))
    return [re.sub(rb'-[0-9a-f]{8}(?=-\d{6}")', b"", click) for _, click, time_ms in records if time_ms is not None]


def read(name: str) -> tuple[list[bytes], Intake]:
    """The clicks of a mapping's files, as records, and what became of the rows."""
    mappings, intake, clicks = load_mapping(MAPPINGS / f"{name}.yaml"), Intake(), []
    for path in fixture_files(name):
        if mappings.for_file(path.name) is not None:
            clicks += clicks_of(path, mappings, intake)
    return clicks, intake


def with_integers(values: dict) -> dict:
    """An object of BigQuery's JSON, which writes integers as texts, with the types of its Parquet."""
    texts = {"string_value", "event_date", "item_id", "stream_id", "transaction_id"}
    return {
        name: int(value) if isinstance(value, str) and value.lstrip("-").isdigit() and name not in texts else value
        for name, value in values.items()
    }


def mappings_of(file: MappingFile) -> Iterator[ClickMapping]:
    return (mapping for _, mapping in file.by_pattern)


@pytest.mark.parametrize("name", READY)
def test_the_rows_of_its_format_become_clicks(name):
    clicks, _ = read(name)
    expected = (FIXTURES / f"{name}.expected.jsonl").read_text().splitlines()
    assert [json.loads(click) for click in clicks] == [json.loads(line) for line in expected]


@pytest.mark.parametrize("name", READY)
def test_the_other_rows_are_left_out_or_do_not_fit(name):
    _, intake = read(name)
    assert (intake.ignored.total(), intake.unfit) == NO_CLICKS[name], intake.problems()


@pytest.mark.parametrize("name", READY)
def test_its_clicks_keep_the_contract(name):
    assert all(isinstance(read_click(click), Click) for click in read(name)[0])


@pytest.mark.parametrize("name", READY)
def test_what_values_mean_is_known_to_the_features(name):
    for mapping in mappings_of(load_mapping(MAPPINGS / f"{name}.yaml")):
        names = {*mapping.values.get("event_name", {}).values(), mapping.constants.get("event_name", "other")}
        assert names <= set(EVENT_KINDS)
        assert set(mapping.values.get("device_category", {}).values()) <= set(DEVICES)


def test_an_export_of_ga4_in_parquet_gives_the_same_clicks_as_one_in_json(tmp_path):
    rows = [
        json.loads(line, object_hook=with_integers)
        for line in (FIXTURES / "ga4_bigquery.json").read_text().splitlines()
    ]
    columns = {name: [row.get(name) for row in rows] for name in {name: None for row in rows for name in row}}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "events.parquet")
    clicks = clicks_of(tmp_path / "events.parquet", load_mapping(MAPPINGS / "ga4_bigquery.yaml"))
    assert clicks == read("ga4_bigquery")[0]


@pytest.mark.parametrize("name", ["ga4_bigquery", "matomo", "posthog", "segment", "snowplow"])
def test_users_log_in_and_purchases_have_an_order(name):
    clicks = [read_click(click) for click in read(name)[0]]
    anonymous = {click.anonymous_id for click in clicks if click.user_id == click.anonymous_id}
    known = {click.anonymous_id for click in clicks if click.anonymous_id not in (None, click.user_id)}
    assert anonymous
    assert known
    assert name == "matomo" or anonymous & known  # a visit of Matomo's has one user
    assert all(click.transaction_id for click in clicks if click.event_name == "purchase")


@pytest.mark.parametrize("name", ["posthog", "segment"])
def test_formats_of_live_topics_need_nothing_that_only_files_have(name):
    assert load_mapping(MAPPINGS / f"{name}.yaml").for_topic().columns


def test_snowplow_names_the_columns_in_their_order():
    (mapping,) = mappings_of(load_mapping(MAPPINGS / "snowplow.yaml"))
    header = mapping.file.header
    assert len(header) == 131
    assert [header[n] for n in (0, 52, 58, 100, 130)] == [
        "app_id", "contexts", "unstruct_event", "os_timezone", "true_tstamp",
    ]  # fmt: skip
