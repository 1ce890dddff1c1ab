"""Rows become click records as a mapping declares it; a row that does not fit is never a click."""

from datetime import date, time
from pathlib import Path

import pytest

from udfs.mapping.adapter import ClickAdapter, RowError
from udfs.mapping.definition import load_mapping, mapping_of, same_names

MAPPINGS = Path(__file__).parents[4] / "conf" / "mappings"
AT = 1_772_355_600_000  # 2026-03-01 09:00 UTC


def adapter(**keys) -> ClickAdapter:
    columns = {"user_id": "who", "event_name": "what", "event_time": "at"} | keys.pop("columns", {})
    return ClickAdapter(mapping_of({"columns": columns, "time_format": "epoch_ms"} | keys, "m.yaml"), AT + 86_400_000)


def adapt(row: dict, number: int = 1, **keys) -> dict | None:
    return adapter(**keys).adapt({"who": "u", "what": "scroll", "at": AT} | row, number)


def test_the_example_mapping_reads_its_columns():
    row = {
        "customer": "", "visitor": " v1 ", "action": 1, "day": "01.03.2026", "clock": "10:00:00", "sku": "s",
        "unit_price": "129.950", "amount": "", "total": "12.50 €", "order": 17, "currency": "EUR",
        "basket": '[{"article": "a", "unit_price": "2,5", "amount": 3}]',
    }  # fmt: skip
    mapping = load_mapping(MAPPINGS / "example.yaml").for_file("any.csv")
    assert ClickAdapter(mapping).adapt(row, 7) == {
        "user_id": "v1",
        "anonymous_id": "v1",
        "event_name": "page_view",
        "event_time": AT,
        "item_id": "s",
        "price": 1299.5,
        "quantity": 1,
        "value": 12.5,
        "currency": "EUR",
        "transaction_id": "17",
        "items": [{"item_id": "a", "price": 2.5, "quantity": 3.0}],
        "device_category": "desktop",
        "event_id": "example-000007",
        "utc_offset_minutes": 60,
    }


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), "NULL", "(not set)", r"\N"])
def test_a_missing_value_is_left_out_or_takes_its_default(missing):
    keys = {"defaults": {"item_id": "none"}, "missing": ["NULL", "(not set)", r"\N"]}
    click = adapt({"p": missing, "i": missing}, columns={"price": "p", "item_id": "i"}, **keys)
    assert "price" not in click
    assert click["item_id"] == "none"


def test_before_the_login_the_user_is_the_anonymous_id():
    columns = {"user_id": ["customer", "visitor"], "anonymous_id": "visitor"}
    before = adapt({"visitor": "v", "customer": None}, columns=columns)
    after = adapt({"visitor": "v", "customer": 7}, columns=columns)
    assert (before["user_id"], before["anonymous_id"]) == ("v", "v")
    assert (after["user_id"], after["anonymous_id"]) == ("7", "v")


def test_an_anonymous_id_that_the_mapping_ignores_as_a_user_is_left_out():
    columns = {"anonymous_id": "visitor"}
    assert "anonymous_id" not in adapt({"visitor": "undefined"}, columns=columns, ignored_users=["undefined"])
    assert adapt({"visitor": "v"}, columns=columns, ignored_users=["undefined"])["anonymous_id"] == "v"


@pytest.mark.parametrize("text", ["NULL", "(not set)", "nan"])
def test_a_text_is_missing_only_where_the_mapping_says_so(text):
    with pytest.raises(RowError, match=r"price \(column p\): .* is not a number"):
        adapt({"p": text}, columns={"price": "p"})


@pytest.mark.parametrize("column", ["who", "what", "at"])
def test_a_row_without_a_required_value_is_unfit(column):
    with pytest.raises(RowError, match=rf"\(column {column}\) is missing"):
        adapt({column: " "})


def test_a_missing_time_takes_its_default():
    assert adapt({"at": None}, defaults={"event_time": AT})["event_time"] == AT


@pytest.mark.parametrize("value", [10**400, "9" * 400, 1e300, "1e300", 2**64])
def test_a_number_that_is_too_large_makes_the_row_unfit(value):
    with pytest.raises(RowError, match=r"engagement_time_msec \(column ms\): .*(too large|finite number)"):
        adapt({"ms": value}, columns={"engagement_time_msec": "ms"})


def test_the_first_column_with_a_value_counts():
    columns = {"user_id": ["user.id", "anonymous"]}
    row = {"who": None, "user": {"id": None}, "anonymous": "a1"}
    assert adapt(row, columns=columns)["user_id"] == "a1"
    assert adapt(row | {"user": {"id": 7}}, columns=columns)["user_id"] == "7"


def test_a_value_that_the_value_map_does_not_list_stays_as_it_is():
    values = {"event_name": {"view": "view_item", "1": "page_view"}}
    assert [adapt({"what": what}, values=values)["event_name"] for what in ("dance", "view", 1)] == [
        "dance",
        "view_item",
        "page_view",
    ]


def test_numbers_in_another_unit_are_multiplied_exactly():
    click = adapt(
        {"cents": 1299, "offset_s": "3600"},
        columns={"price": "cents", "utc_offset_minutes": "offset_s"},
        multiply={"price": "1/100", "utc_offset_minutes": "1/60"},
    )
    assert (click["price"], click["utc_offset_minutes"]) == (12.99, 60)


def test_milliseconds_of_another_column_are_added_to_the_time():
    keys = {"time_format": "iso8601", "add_ms": "ms"}
    assert adapt({"at": "2026-03-01", "ms": 32_400_000}, **keys)["event_time"] == AT
    with pytest.raises(RowError, match=r"event_time \(column ms\): 'x' is not a number"):
        adapt({"at": "2026-03-01", "ms": "x"}, **keys)


@pytest.mark.parametrize("zone", [{"user_time_zone": "tz"}, {"local_time": True, "time_zone": "Europe/Berlin"}])
@pytest.mark.parametrize("added_ms", [1_700_000_000_000_000, -(10**15)])
def test_a_time_beyond_all_calendars_has_no_offset(zone, added_ms):
    click = adapt({"ms": added_ms, "tz": "Europe/Berlin"}, add_ms="ms", **zone)
    assert abs(click["event_time"]) > 10**14  # which the decoder refuses
    assert "utc_offset_minutes" not in click


def test_the_time_of_day_of_another_column_follows_the_date():
    keys = {"time_format": "%d.%m.%Y %H:%M", "time_of_day": "clock"}
    assert adapt({"at": "01.03.2026", "clock": " 09:00"}, **keys)["event_time"] == AT
    iso = {"time_format": "iso8601", "time_of_day": "clock"}
    assert adapt({"at": date(2026, 3, 1), "clock": time(9)}, **iso)["event_time"] == AT
    with pytest.raises(
        RowError, match=r"event_time \(column at\): '01.03.2026 noon' is not a time like %d.%m.%Y %H:%M"
    ):
        adapt({"at": "01.03.2026", "clock": "noon"}, **keys)
    with pytest.raises(RowError, match=r"event_time \(column at\) is missing"):
        adapt({"at": "", "clock": "09:00"}, **keys)


@pytest.mark.parametrize("row", [{}, {"clock": None}, {"clock": "NULL"}])
def test_a_date_without_its_time_of_day_makes_the_row_unfit(row):
    with pytest.raises(RowError, match=r"event_time \(column clock\) is missing"):
        adapt({"at": "2026-03-01"} | row, time_format="iso8601", time_of_day="clock", missing=["NULL"])


def test_a_column_that_holds_dates_alone_is_not_absent():
    reader = adapter(time_format="iso8601", time_of_day="clock")
    reader.adapt({"who": "u", "what": "scroll", "at": "2026-03-01", "clock": "09:00"})
    assert reader.absent == []


def test_numbers_of_a_field_may_have_other_marks():
    numbers = {"decimal": ",", "fields": {"value": {"thousands": ","}, "items": {"decimal": "."}}}
    columns = {"price": "p", "quantity": "n", "value": "v", "items": "basket"}
    row = {"p": "12,50", "n": "2,0", "v": "1,299.00", "basket": [{"price": "12.50", "quantity": "2.0"}]}
    click = adapt(row, columns=columns, numbers=numbers)
    assert (click["price"], click["quantity"], click["value"]) == (12.5, 2.0, 1299.0)
    assert click["items"] == [{"price": 12.5, "quantity": 2.0}]


def test_amounts_may_have_a_currency_around_them_but_other_numbers_may_not():
    columns = {"price": "p", "value": "v", "quantity": "n", "currency": "c", "items": "basket"}
    click = adapt({"p": "$5.50", "v": "11.00 USD", "c": "EUR", "basket": [{"price": "£1"}]}, columns=columns)
    assert (click["price"], click["value"], click["currency"]) == (5.5, 11.0, "EUR")
    assert click["items"] == [{"price": 1.0}]
    with pytest.raises(RowError, match=r"quantity \(column n\): '2 EUR' is not a number"):
        adapt({"n": "2 EUR"}, columns=columns)
    with pytest.raises(RowError, match=r"price \(column p\): '\$1,299.00' is not a number; set numbers.decimal or"):
        adapt({"p": "$1,299.00"}, columns=columns)


def test_amounts_in_another_currency_are_converted_or_the_row_does_not_fit():
    columns = {"currency": "c", "price": "p", "value": "v", "items": "items"}
    row = {"p": 10, "v": 30, "items": [{"price": 10, "quantity": 3}]}
    currencies = {"shop": "EUR", "rates": {"USD": 0.5}}
    click = adapt(row | {"c": "USD"}, columns=columns, currencies=currencies)
    assert (click["price"], click["value"], click["currency"]) == (5.0, 15.0, "EUR")
    assert click["items"] == [{"price": 5.0, "quantity": 3.0}]
    assert adapt(row | {"c": "EUR"}, columns=columns, currencies=currencies)["value"] == 30
    assert adapt(row | {"c": None}, columns=columns, currencies=currencies)["value"] == 30
    assert adapt(row | {"c": "JPY"}, columns=columns)["value"] == 30
    with pytest.raises(RowError, match="currency JPY: no rate to EUR, only of EUR, USD"):
        adapt(row | {"c": "JPY"}, columns=columns, currencies=currencies)


def test_the_offset_of_a_time_becomes_the_users_offset():
    keys = {"time_format": "iso8601", "time_zone": "Europe/Berlin", "local_time": True}
    assert adapt({"at": "2026-03-01T10:00:00"}, **keys)["utc_offset_minutes"] == 60
    assert adapt({"at": "2026-03-01T04:00:00-05:00"}, **keys)["utc_offset_minutes"] == -300
    assert adapt({}, time_zone="Europe/Berlin", local_time=True)["utc_offset_minutes"] == 60


@pytest.mark.parametrize(("zone", "offset"), [("America/New_York", -300), ("Nowhere", None), ("", None), (None, None)])
def test_the_users_zone_gives_the_users_offset(zone, offset):
    assert adapt({"tz": zone}, user_time_zone="tz").get("utc_offset_minutes") == offset


@pytest.mark.parametrize("at", [AT // 1000, AT * 1000, AT + 2 * 86_400_000, 0])
def test_a_time_in_another_unit_or_in_the_future_makes_the_row_unfit(at):
    with pytest.raises(RowError, match=rf"^event_time \(column at\): {at} is "):
        adapt({"at": at})


class TestItems:
    COLUMNS = {"items": "basket"}
    FIELDS = {"item_id": "sku", "price": "p", "quantity": "n"}

    def items(self, basket):
        click = adapt({"basket": basket}, columns=self.COLUMNS, items=self.FIELDS)
        return click.get("items")

    def test_entries_are_mapped(self):
        entries = [{"sku": 5, "p": "2.5", "n": "2"}, {"sku": "b"}]
        expected = [{"item_id": "5", "price": 2.5, "quantity": 2.0}, {"item_id": "b"}]
        assert self.items(entries) == expected
        assert self.items('[{"sku": 5, "p": "2.5", "n": "2"}, {"sku": "b"}]') == expected

    @pytest.mark.parametrize("basket", [None, "", []])
    def test_none_are_none(self, basket):
        assert self.items(basket) is None

    def test_an_entry_that_is_null_is_none(self):
        assert self.items([None, {"sku": "a"}, None]) == [{"item_id": "a"}]

    def test_one_object_is_a_list_of_one(self):
        assert self.items({"sku": "a"}) == [{"item_id": "a"}]

    def test_only_the_first_entry_must_be_readable(self):
        assert self.items([{"sku": "a"}, {"sku": "b", "p": "free"}]) == [{"item_id": "a"}, {"item_id": "b"}]
        with pytest.raises(RowError, match=r"items\[0\].price \(column basket, p\): 'free' is not a number"):
            self.items([{"sku": "a", "p": "free"}])

    @pytest.mark.parametrize("basket", ["a, b", 7, [1], '{"a'])
    def test_what_is_no_list_of_objects_is_unfit(self, basket):
        with pytest.raises(RowError, match=r"items \(column basket\): .* is not a list of objects"):
            self.items(basket)


def test_users_and_events_that_the_mapping_ignores_are_left_out_and_counted():
    reader = adapter(ignored_users=["undefined", "-1"], ignored_events=["ping"])
    row = {"who": "u", "what": "scroll", "at": AT}
    assert reader.adapt(row | {"who": "undefined"}) is None
    assert reader.adapt(row | {"who": -1}) is None
    assert reader.adapt(row | {"what": "ping"}) is None
    assert reader.adapt(row)["user_id"] == "u"
    assert reader.ignored == {("who", "undefined"): 1, ("who", "-1"): 1, ("what", "ping"): 1}


def test_rows_without_a_user_can_be_left_out():
    reader = adapter(ignored_users=[""])
    assert reader.adapt({"who": None, "what": "scroll", "at": AT}) is None
    assert reader.ignored == {("who", ""): 1}


def test_an_ignored_event_needs_no_user():
    assert adapt({"who": None, "what": "ping"}, ignored_events=["ping"]) is None


def test_columns_that_were_in_no_row_are_known():
    reader = adapter(columns={"price": "p", "item_id": ["sku", "article"], "value": "a.b"})
    reader.adapt({"who": "u", "what": "scroll", "at": AT, "article": "x", "a": {"b": None}})
    assert reader.absent == ["p"]


def test_columns_that_are_named_like_fields_need_no_mapping_file():
    mapping = same_names(["event_time", "user_id", "event_name", "price", "remark"], "f.csv").for_file("f.csv")
    row = {"event_time": str(AT), "user_id": "u", "event_name": "scroll", "price": "1.5", "remark": "x"}
    click = {"event_time": AT, "user_id": "u", "event_name": "scroll", "price": 1.5}
    assert ClickAdapter(mapping).adapt(row, 1) == click
