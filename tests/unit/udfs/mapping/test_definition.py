"""Mapping files are checked as a whole before a row is read."""

from pathlib import Path

import pytest

from udfs.mapping.definition import CLICK_FIELDS, MappingError, load_mapping, same_names

MAPPINGS = Path(__file__).parents[4] / "conf" / "mappings"
REQUIRED = "columns: {user_id: who, event_name: what, event_time: at}\n"


def mapping_file(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_mappings_are_valid(path):
    assert load_mapping(path).by_pattern


def test_the_fields_of_a_click_have_plain_types():
    assert CLICK_FIELDS["user_id"] is str
    assert CLICK_FIELDS["event_time"] is int
    assert CLICK_FIELDS["price"] is float
    assert "items" not in CLICK_FIELDS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REQUIRED + "colums: {}", "key colums: unknown key"),
        (
            REQUIRED + "values: {event_name: {1: view_item}}",
            "key values: each name in it must be a text",
        ),
        ("columns: {user_id: who, event_name: what}", "key columns.event_time: missing"),
        ("columns: {user: who}", "key columns.user: not a field of a click; expected one of user_id, event_name"),
        (REQUIRED + "constants: {user_id: u1}", "key constants.user_id: is also under columns"),
        (
            REQUIRED + "constants: {utc_offset_minutes: 9000}",
            "key constants.utc_offset_minutes: 9000: Expected `int` <=",
        ),
        (REQUIRED + "defaults: {price: 1}", "key defaults.price: has no column"),
        (REQUIRED + "values: {item_id: {a: b}}", "key values.item_id: has no column"),
        (REQUIRED + "multiply: {price: 1/100}", "key multiply.price: has no column"),
        (REQUIRED + "multiply: {event_time: 1000}", "key multiply.event_time: is a time; set time_format to its unit"),
        (
            "columns: {user_id: a, event_name: b, event_time: c, price: p}\nmultiply: {price: a/b}",
            "key multiply.price: 'a/b': expected a number or a fraction",
        ),
        (REQUIRED + "multiply: {user_id: 2}", "key multiply.user_id: is a text"),
        (REQUIRED + "items: {item_id: a}", "key items: has no column; add columns.items"),
        (
            REQUIRED + "time_format: iso",
            "key time_format: 'iso': expected iso8601, epoch_s, epoch_ms, epoch_us, epoch_ns or",
        ),
        (REQUIRED + "time_zone: Berlin", "key time_zone: 'Berlin': expected a name such as Europe/Berlin"),
        (REQUIRED + "time_zone: ''", "key time_zone: '': expected a name"),
        (REQUIRED + "file: {encoding: utf-9}", "key file.encoding: 'utf-9': expected a name such as latin-1"),
        (REQUIRED + "file: {format: xls}", "key file.format"),
        (REQUIRED + "file: {delimiter: ';;'}", "key file.delimiter"),
        (REQUIRED + "numbers: {decimal: ',', thousands: ','}", "key numbers: ',' is both decimal and thousands"),
        (REQUIRED + "numbers: {fields: {price: {}}}", "key numbers.fields.price: has no column; add columns.price"),
        (REQUIRED + "numbers: {fields: {user_id: {}}}", "key numbers.fields.user_id: is not a number"),
        (
            "columns: {user_id: a, event_name: b, event_time: c, price: p}\nnumbers: {fields: {price: {thousands: .}}}",
            "key numbers.fields.price: '.' is both decimal and thousands",
        ),
        (
            REQUIRED + "time_format: epoch_s\ntime_of_day: clock",
            "key time_of_day: follows a date, but epoch_s is a number; set time_format to a pattern",
        ),
        (
            "columns: {user_id: a, event_name: b}\nconstants: {event_time: 1772355600000}\ntime_of_day: clock",
            "key time_of_day: follows a date; add columns.event_time",
        ),
        (REQUIRED + "constants: {event_id: e}\nevent_id_prefix: x", "key event_id_prefix: event_id is mapped as well"),
        (
            REQUIRED + "constants: {utc_offset_minutes: 0}\nlocal_time: true",
            "key local_time: the user's offset is mapped otherwise",
        ),
        (REQUIRED + "files: {}", "key files: expected file names"),
        (
            "columns: {event_name: what, event_time: at}\nfiles: {'a*': {}}",
            "key files.a*: key columns.user_id: missing",
        ),
        (REQUIRED + "columns: {user_id: other}", "columns is given twice"),
        ("columns: [", "cannot be read"),
        ("", "expected keys such as columns"),
    ],
)
def test_a_wrong_mapping_file_is_refused_in_one_line_that_names_the_file_and_the_key(tmp_path, text, message):
    path = mapping_file(tmp_path, text)
    with pytest.raises(MappingError) as refusal:
        load_mapping(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_mapping_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MappingError, match=r"gone\.yaml: cannot be read"):
        load_mapping(tmp_path / "gone.yaml")


def test_files_of_a_directory_differ_in_what_their_pattern_says(tmp_path):
    text = (
        REQUIRED
        + "file: {delimiter: ;}\nfiles: {'*clicks*': {constants: {event_id: c}}, '*buys*': {columns: {value: v}}}"
    )
    mappings = load_mapping(mapping_file(tmp_path, text))
    clicks, buys = mappings.for_file("shop-clicks.csv"), mappings.for_file("buys.csv")
    assert (clicks.constants, clicks.file.delimiter, set(clicks.columns)) == (
        {"event_id": "c"}, ";", {"user_id", "event_name", "event_time"},
    )  # fmt: skip
    assert buys.columns["value"] == "v"
    assert mappings.for_file("README.txt") is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (REQUIRED + "files: {a: {}, b: {}}", "files"),
        (REQUIRED + "file: {explode: events}", "file.explode"),
        (REQUIRED + "event_id_prefix: x", "event_id_prefix"),
    ],
)
def test_what_only_files_have_is_refused_for_a_topic(tmp_path, text, key):
    with pytest.raises(MappingError, match=rf"m\.yaml: key {key}: is for files"):
        load_mapping(mapping_file(tmp_path, text)).for_topic()


def test_without_a_mapping_file_the_required_columns_must_be_there():
    with pytest.raises(MappingError, match="f.csv: no column event_time, only user_id, event_name"):
        same_names(["user_id", "event_name"], "f.csv")
