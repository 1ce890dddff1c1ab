"""Foreign rows become click records."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from training.data.mapping import (
    ClickMapping,
    MappingError,
    RowError,
    check_columns,
    click_adapter,
    load_mapping,
    same_names,
)

MAPPINGS = Path(__file__).parents[4] / "conf" / "mappings"
REQUIRED = "columns: {user_id: who, event_name: what, event_time: at}\n"


def mapping_file(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def adapt(row: dict, number: int = 1, **keys) -> dict:
    columns = {"user_id": "who", "event_name": "what", "event_time": "at"} | keys.pop("columns", {})
    keys = {"time_format": "epoch_ms"} | keys
    return click_adapter(ClickMapping(columns=columns, **keys))({"who": "u", "what": "scroll", "at": 1} | row, number)


def test_a_taobao_row_becomes_a_click():
    row = {
        "event_time": "2017-11-30T16:00:17Z",
        "user_id": "77",
        "event_type": "favorite",
        "item_id": "5",
        "category_id": "6",
    }
    assert click_adapter(load_mapping(MAPPINGS / "taobao.yaml"))(row, 123) == {
        "event_id": "taobao-000123",
        "user_id": "77",
        "event_name": "add_to_wishlist",
        "event_time": 1_512_057_617_000,
        "item_id": "5",
        "item_category": "6",
        "utc_offset_minutes": 480,
    }


def test_a_rees46_row_becomes_a_click():
    row = {
        "event_time": "2019-10-01 00:00:01 UTC",
        "event_type": "cart",
        "product_id": "8",
        "category_id": "9",
        "category_code": "",
        "brand": "acme",
        "price": "35.79",
        "user_id": "77",
        "user_session": "s",
    }
    assert click_adapter(load_mapping(MAPPINGS / "rees46.yaml"))(row, 1) == {
        "event_id": "rees46-000001",
        "user_id": "77",
        "event_name": "add_to_cart",
        "event_time": 1_569_888_001_000,
        "item_id": "8",
        "item_category": "9",
        "price": 35.79,
    }


def test_the_example_mapping_is_valid():
    row = {"customer": "c", "action": 1, "at": "1511539217.5", "sku": "s", "unit_price": "2", "amount": ""}
    click = click_adapter(load_mapping(MAPPINGS / "example.yaml"))(row, 7)
    assert (click["event_name"], click["event_time"]) == ("page_view", 1_511_539_217_500)
    assert (click["price"], click["quantity"], click["utc_offset_minutes"]) == (2.0, 1, 60)


@pytest.mark.parametrize(
    ("time_format", "value"),
    [
        ("iso8601", "2024-02-29T12:00:00.250Z"),
        ("iso8601", "2024-02-29 20:00:00.250+08:00"),
        ("iso8601", "2024-02-29T12:00:00.250"),
        ("iso8601", "2024-02-29 12:00:00.250 UTC"),
        ("%d.%m.%Y %H:%M:%S.%f", "29.02.2024 12:00:00.250"),
        ("%Y-%m-%d %H:%M:%S.%f %z", "2024-02-29 13:00:00.250 +0100"),
        ("epoch_s", "1709208000.25"),
        ("epoch_s", 1709208000.25),
        ("epoch_ms", "1709208000250"),
        ("epoch_ms", 1709208000250.0),
        ("iso8601", datetime(2024, 2, 29, 12, 0, 0, 250_000)),
        ("epoch_ms", datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_the_format_says_and_are_utc_without_an_offset(time_format, value):
    assert adapt({"at": value}, time_format=time_format)["event_time"] == 1_709_208_000_250


@pytest.mark.parametrize(
    ("time_format", "value"),
    [
        ("iso8601", "yesterday"),
        ("iso8601", 1709208000),
        ("%Y-%m-%d", "29.02.2024"),
        ("epoch_s", "2024-02-29"),
        ("epoch_ms", "1.5"),
        ("epoch_ms", "inf"),
    ],
)
def test_a_time_in_another_format_makes_the_row_unfit(time_format, value):
    with pytest.raises(RowError, match=rf"^event_time \(column at\): {value!r} is not a "):
        adapt({"at": value}, time_format=time_format)


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_missing_value_is_left_out_or_takes_its_default(missing):
    columns = {"price": "p", "item_id": "i"}
    click = adapt({"p": missing, "i": missing}, columns=columns, defaults={"item_id": "none"})
    assert "price" not in click
    assert click["item_id"] == "none"


@pytest.mark.parametrize("column", ["who", "what", "at"])
def test_a_row_without_a_required_value_is_unfit(column):
    with pytest.raises(RowError, match=rf"\(column {column}\) is missing"):
        adapt({column: ""})


def test_a_value_that_the_value_map_does_not_list_stays_as_it_is():
    assert adapt({"what": "dance"}, values={"event_name": {"view": "view_item"}})["event_name"] == "dance"


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (7.0, "7"), (7.5, "7.5"), (Decimal("7.50"), "7.50"), (b"7", "7")]
)
def test_identifiers_become_texts(value, text):
    assert adapt({"who": value})["user_id"] == text


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True.__class__])
def test_a_list_or_an_object_is_no_identifier(value):
    with pytest.raises(RowError, match=r"user_id \(column who\): a \w+ is not a text"):
        adapt({"who": value})


@pytest.mark.parametrize("value", ["a lot", "1,5", "nan", "1e999", [1]])
def test_what_is_not_a_finite_number_makes_the_row_unfit(value):
    with pytest.raises(RowError, match=r"price \(column p\): .* is not a (finite )?number"):
        adapt({"p": value}, columns={"price": "p"})


@pytest.mark.parametrize("value", ["2", 2, 2.0, "2.0"])
def test_whole_numbers_are_read_from_texts_and_floats(value):
    quantity = adapt({"n": value}, columns={"quantity": "n"})["quantity"]
    assert (quantity, type(quantity)) == (2, int)


def test_a_fraction_is_no_quantity():
    with pytest.raises(RowError, match=r"quantity \(column n\): '2.5' is not a whole number"):
        adapt({"n": "2.5"}, columns={"quantity": "n"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REQUIRED + "colums: {}", "unknown field `colums`"),
        (REQUIRED + "values: {event_name: {1: view_item}}", "Expected `str`, got `int` - at `key"),
        ("columns: {user_id: who, event_name: what}", "key columns.event_time: missing"),
        ("columns: {user: who}", "key columns.user: not a field of a click; expected one of user_id, event_name"),
        ("columns: {items: list}", "key columns.items: not a field of a click"),
        (REQUIRED + "constants: {user_id: u1}", "key constants.user_id: is also under columns"),
        (
            REQUIRED + "constants: {utc_offset_minutes: 9000}",
            "key constants.utc_offset_minutes: 9000: Expected `int` <=",
        ),
        (REQUIRED + "defaults: {price: 1}", "key defaults.price: has no column"),
        (REQUIRED + "values: {item_id: {a: b}}", "key values.item_id: has no column"),
        (
            REQUIRED + "time_format: iso",
            "key time_format: 'iso': expected iso8601, epoch_s, epoch_ms or a strptime pattern",
        ),
        (REQUIRED + "constants: {event_id: e}\nevent_id_prefix: x", "key event_id_prefix: event_id is mapped as well"),
        ("columns: [", "not YAML"),
        ("", "Expected `object`, got `null`"),
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


def test_a_column_that_the_file_does_not_have_is_named(tmp_path):
    mapping = load_mapping(mapping_file(tmp_path, REQUIRED))
    with pytest.raises(
        MappingError, match=r"^m\.yaml: key columns\.event_time: no column at in f\.csv, only who, what$"
    ):
        check_columns(mapping, ["who", "what"], "m.yaml", "f.csv")


def test_columns_that_are_named_like_fields_need_no_mapping_file():
    mapping = same_names(["event_time", "user_id", "event_name", "price", "remark"], "f.csv")
    row = {"event_time": "5", "user_id": "u", "event_name": "scroll", "price": "1.5", "remark": "x"}
    click = {"event_time": 5, "user_id": "u", "event_name": "scroll", "price": 1.5}
    assert click_adapter(mapping)(row, 1) == click


def test_without_a_mapping_file_the_required_columns_must_be_there():
    with pytest.raises(MappingError, match="f.csv: no column event_time, only user_id, event_name"):
        same_names(["user_id", "event_name"], "f.csv")
