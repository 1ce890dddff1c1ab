"""Columns are found by name and by path."""

import pytest

from udfs.mapping.columns import ABSENT, column_reader, column_steps, structured

GA4 = {
    "event_params": [
        {"key": "ga_session_id", "value": {"string_value": None, "int_value": "7", "double_value": None}},
        {"key": "value", "value": {"double_value": 1299.0}},
        {"key": "empty", "value": {"string_value": None}},
        {"key": "plain", "value": "x"},
    ],
    "device": {"category": "mobile", "language": None},
    "items": [{"item_id": "A"}, {"item_id": "B"}],
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("device.category", "mobile"),
        ("device.language", None),
        ("device.brand", ABSENT),
        ("items[0].item_id", "A"),
        ("items[1].item_id", "B"),
        ("items[2].item_id", ABSENT),
        ("event_params.ga_session_id", "7"),
        ("event_params.value", 1299.0),
        ("event_params.empty", None),
        ("event_params.plain", "x"),
        ("event_params.page_location", ABSENT),
        ("device.category.more", ABSENT),
        ("nothing", ABSENT),
        ("nothing.at.all", ABSENT),
    ],
)
def test_a_path_leads_into_objects_lists_and_lists_of_keys(column, value):
    assert column_reader(column)(GA4) == value


def test_a_path_leads_into_texts_that_hold_json():
    row = {"context": '{"page": {"url": "/a"}, "ids": [1, 2]}', "broken": '{"page"'}
    assert column_reader("context.page.url")(row) == "/a"
    assert column_reader("context.ids[1]")(row) == 2
    assert column_reader("broken.page")(row) is ABSENT


def test_a_text_that_is_not_unicode_holds_no_json():
    assert structured('{"a": "\udcff"}') == '{"a": "\udcff"}'
    assert column_reader("a.b")({"a": '{"b": "\udcff"}'}) is ABSENT


def test_a_column_of_exactly_that_name_comes_first():
    row = {"device.category": "desktop", "device": {"category": "mobile"}}
    assert column_reader("device.category")(row) == "desktop"


@pytest.mark.parametrize("name", ["unit price", "a..b", ".a", "a.", "a[b]", "[0]", "a[0", "$set"])
def test_what_is_no_path_is_a_name(name):
    assert column_steps(name) == [name]
    assert column_reader(name)({name: 1}) == 1
