"""Mappings proposed for made-up rows, in the shapes of other products' exports."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.inspection.file_sample import sample, stem_of
from training.inspection.proposal import Proposal, propose
from udfs.mapping.adapter import ClickAdapter
from udfs.mapping.definition import REQUIRED_FIELDS, FileLayout, in_order, load_mapping, mapping_of

PROJECT = Path(__file__).parents[4]
SAMPLES = PROJECT / "tests" / "support" / "mappings"
MINUTE = 60
NOON = 1_772_366_400  # 2026-03-01 12:00 UTC, in seconds


def rows_of(**columns: list) -> list[dict]:
    """Rows of columns that have equally many values."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def shop(**columns: list) -> list[dict]:
    """Four rows of two users, with more columns or others."""
    usual = {
        "user": ["ada", "ada", "bob", "bob"],
        "event": ["view", "cart", "view", "purchase"],
        "at": ["2026-03-01T10:00:00Z", "2026-03-01T10:01:00Z", "2026-03-01T10:02:00Z", "2026-03-01T10:03:00Z"],
    }
    return rows_of(**{name: values for name, values in (usual | columns).items() if values is not None})


def clicks(proposal: Proposal, rows: list[dict]) -> list[dict | None]:
    """The clicks that a proposed mapping makes of rows."""
    adapter = ClickAdapter(mapping_of(proposal.mapping, "the proposal"))
    return [adapter.adapt(row, number) for number, row in enumerate(rows, 1)]


def doubts_about(proposal: Proposal, key: str) -> str:
    """The doubts about a key, in one text."""
    return " | ".join(doubt for doubt in proposal.doubts if doubt.startswith(f"{key}:"))


def test_a_shop_in_the_order_of_the_example():
    rows = shop(price=["1.50", "1.50", "NULL", "3"], brand=["x", "", "y", "z"], sku=["A", "A", "B", "B"])
    proposal = propose(rows, "Shop_2026 clicks")
    assert proposal.mapping == {
        "columns": {"user_id": "user", "event_name": "event", "event_time": "at", "item_id": "sku", "price": "price"},
        "values": {"event_name": {"view": "view_item", "cart": "add_to_cart"}},
        "missing": ["NULL"],
        "event_id_prefix": "shop-2026-clicks",
    }
    assert list(proposal.mapping) == ["columns", "values", "missing", "event_id_prefix"]
    assert (proposal.is_complete, proposal.unused, proposal.doubts) == (True, {"brand": "x"}, [])
    assert clicks(proposal, rows)[2] == {
        "user_id": "bob",
        "event_name": "view_item",
        "event_time": 1_772_359_320_000,
        "item_id": "B",
        "event_id": "shop-2026-clicks-000003",
    }


@pytest.mark.parametrize("name", ["rees46.csv", "retailrocket/events.csv", "otto.jsonl", "taobao/extract.csv"])
def test_datasets_are_mapped_as_by_hand(name: str):
    path = SAMPLES / name
    expected = load_mapping(PROJECT / "conf" / "mappings" / f"{name.partition('/')[0].partition('.')[0]}.yaml")
    by_hand = expected.for_file(path.name)
    proposed = mapping_of(propose(sample(path).readable, stem_of(path), sample(path).layout).mapping, name)
    assert proposed.columns == by_hand.columns
    assert (proposed.time_format, proposed.file.explode) == (by_hand.time_format, by_hand.file.explode)
    names = proposed.values["event_name"]
    assert names == {name: by_hand.values["event_name"][name] for name in names}


@pytest.mark.parametrize("name", ["segment.jsonl", "ga4_bigquery.json", "posthog.jsonl", "matomo.json"])
def test_products_are_mapped_nearly_as_by_hand(name: str):
    path = SAMPLES / name
    by_hand = load_mapping(PROJECT / "conf" / "mappings" / f"{name.partition('.')[0]}.yaml").for_file(name)
    proposed = mapping_of(propose(sample(path).readable, stem_of(path), sample(path).layout).mapping, name)
    assert proposed.file.explode == by_hand.file.explode
    assert proposed.time_format == by_hand.time_format
    for field in REQUIRED_FIELDS:
        assert in_order(proposed.columns[field]) == in_order(by_hand.columns[field])
    assert set(proposed.columns) <= set(by_hand.columns)
    for field in set(proposed.columns) - {"value"}:
        assert set(in_order(proposed.columns[field])) <= {*in_order(by_hand.columns[field]), "properties.url"}


def test_ga4s_export():
    rows = [
        {
            "event_date": "20260301",
            "event_timestamp": str(NOON * 1_000_000 + number),
            "event_name": name,
            "event_params": [
                {"key": "page_location", "value": {"string_value": "https://shop.example/"}},
                {"key": "ga_session_id", "value": {"int_value": "17"}},
                {"key": "engagement_time_msec", "value": {"int_value": "1200"}},
            ],
            "user_id": user,
            "user_pseudo_id": "1.2",
            "device": {"category": "mobile", "time_zone_offset_seconds": "3600"},
            "items": items,
        }
        for number, (name, user, items) in enumerate(
            [
                ("page_view", None, []),
                ("view_item", "u-7", [{"item_id": "A", "price": 2.5, "quantity": "1"}]),
                ("quiz_done", "u-7", []),
            ]
        )
    ]
    proposal = propose(rows, "events_20260301")
    columns = proposal.mapping["columns"]
    assert columns["user_id"] == ["user_id", "user_pseudo_id"]
    assert {name: columns[name] for name in columns if name != "user_id"} == {
        "anonymous_id": "user_pseudo_id",
        "event_name": "event_name",
        "event_time": "event_timestamp",
        "items": "items",
        "page_location": "event_params.page_location",
        "engagement_time_msec": "event_params.engagement_time_msec",
        "device_category": "device.category",
        "utc_offset_minutes": "device.time_zone_offset_seconds",
    }
    assert proposal.mapping["multiply"] == {"utc_offset_minutes": "1/60"}
    assert proposal.mapping["time_format"] == "epoch_us"
    assert proposal.other_events == {"quiz_done": 1}
    assert [click["user_id"] for click in clicks(proposal, rows)] == ["1.2", "u-7", "u-7"]
    assert clicks(proposal, rows)[1]["items"] == [{"item_id": "A", "price": 2.5, "quantity": 1}]
    assert clicks(proposal, rows)[1]["utc_offset_minutes"] == 60


def test_segments_calls():
    rows = [
        {"type": "track", "event": "Product Viewed", "userId": "", "anonymousId": "a", "messageId": "m1",
         "timestamp": "2026-03-01T10:00:00Z", "properties": {"product_id": "p", "price": "14.50"}},
        {"type": "page", "userId": "u", "anonymousId": "a", "messageId": "m2", "timestamp": "2026-03-01T10:01:00Z",
         "context": {"page": {"url": "https://shop.example/x"}}},
        {"type": "track", "event": "Order Completed", "userId": "u", "anonymousId": "a", "messageId": "m3",
         "timestamp": "2026-03-01T10:02:00Z", "properties": {"order_id": "o", "revenue": "1,299.00", "products": [
             {"sku": "p", "price": 14.5, "qty": 2}]}},
    ]  # fmt: skip
    proposal = propose(rows, "calls")
    columns = proposal.mapping["columns"]
    assert columns["event_name"] == ["event", "type"]
    assert columns["user_id"] == ["userId", "anonymousId"]
    assert (columns["event_id"], columns["value"]) == ("messageId", "properties.revenue")
    assert (columns["anonymous_id"], columns["transaction_id"]) == ("anonymousId", "properties.order_id")
    assert "event_id_prefix" not in proposal.mapping
    assert proposal.mapping["items"] == {"item_id": "sku", "price": "price", "quantity": "qty"}
    assert proposal.mapping["numbers"] == {"thousands": ","}
    made = clicks(proposal, rows)
    assert [click["event_name"] for click in made] == ["view_item", "page_view", "purchase"]
    assert (made[2]["value"], made[2]["items"]) == (1299.0, [{"item_id": "p", "price": 14.5, "quantity": 2}])


def test_a_user_id_that_is_still_empty_comes_first():
    proposal = propose(shop(user=None, user_id=[""] * 4, domain_userid=["d", "d", "e", "e"]), "x")
    assert proposal.mapping["columns"]["user_id"] == ["user_id", "domain_userid"]
    assert "empty" in doubts_about(proposal, "columns.user_id")
    assert propose(shop(user=[""] * 4), "x").not_found.keys() == {"user_id"}


def test_a_column_may_be_the_anonymous_id_and_fill_the_gaps_of_the_user_id():
    columns = propose(shop(user=None, user_id=["", "u", "u", ""], visitor_id=["a", "a", "a", "b"]), "x").mapping[
        "columns"
    ]
    assert (columns["user_id"], columns["anonymous_id"]) == (["user_id", "visitor_id"], "visitor_id")
    columns = propose(shop(user=None, user_id=[""] * 4, visitor_id=["a", "a", "a", "b"]), "x").mapping["columns"]
    assert (columns["user_id"], columns["anonymous_id"]) == (["user_id", "visitor_id"], "visitor_id")


@pytest.mark.parametrize(
    "columns",
    [
        {"user": None, "visitor_id": ["a", "a", "a", "b"]},
        {"user": None, "visitor_id": ["a", "a", "a", "b"], "device_id": ["1", "1", "1", "2"]},  # both of visitors
        {"device_id": ["1", "1", "1", "2"]},  # never the user
    ],
)
def test_an_anonymous_id_that_is_never_the_user_is_none(columns: dict):
    proposal = propose(shop(**columns), "x")
    assert "anonymous_id" not in proposal.mapping["columns"]
    assert isinstance(proposal.mapping["columns"]["user_id"], str)


@pytest.mark.parametrize("name", ["order_id", "transactionId", "InvoiceNo", "tr_orderid"])
def test_ids_of_orders(name: str):
    rows = shop(event=["view", "checkout", "purchase", "purchase"], **{name: ["", "7", "7", "7"]})
    assert propose(rows, "x").mapping["columns"]["transaction_id"] == name
    rows = shop(event=None, **{name: ["6", "7", "7", "7"]})  # lines of orders
    assert propose(rows, "x").mapping["columns"]["transaction_id"] == name


def test_an_id_of_several_events_that_are_no_purchases_is_not_of_an_order():
    proposal = propose(shop(order_id=["7", "7", "8", "9"]), "x")
    assert "transaction_id" not in proposal.mapping["columns"]
    assert "order_id is named like this field, but '7' is in several events that are not purchases" in doubts_about(
        proposal, "columns.transaction_id"
    )
    proposal = propose(shop(order_no=["0", "0", "0", "9"]), "x")
    assert proposal.mapping["columns"]["transaction_id"] == "order_no"


def test_a_user_id_that_each_row_has_anew_is_none():
    rows = shop()[:1] * 150
    rows = [row | {"user": f"u{number}"} for number, row in enumerate(rows)]
    proposal = propose(rows, "x")
    assert proposal.not_found.keys() == {"user_id"}
    assert "each row has another value" in doubts_about(proposal, "columns.user_id")


def test_columns_without_names():
    rows = rows_of(
        column_1=["1", "1", "2"],
        column_2=["2026-03-01T10:00:00Z", "2026-03-01T10:00:01Z", "2026-03-01T10:00:02Z"],
        column_3=["pv", "cart", "buy"],
    )
    layout = FileLayout(format="csv", header=("column_1", "column_2", "column_3"))
    proposal = propose(rows, "x", layout)
    assert proposal.mapping["file"] == {"format": "csv", "header": ["column_1", "column_2", "column_3"]}
    assert proposal.mapping["columns"] == {"event_name": "column_3", "event_time": "column_2"}
    assert proposal.not_found == {"user_id": "nearest: column_1 ('1')"}
    assert "only its values" in doubts_about(proposal, "columns.event_time")


def test_all_rows_of_one_event():
    proposal = propose(shop(event=None), "shop-views")
    assert proposal.not_found == {
        "event_name": "if all rows are the same event, set constants.event_name, such as view_item"
    }


def test_long_ids_are_no_times():
    rows = shop(at=None, ean=["4006381333931", "4006381333948", "4006381333955", "4006381333962"])
    assert "event_time" in propose(rows, "x").not_found


@pytest.mark.parametrize(
    ("times", "time_format", "doubt"),
    [
        ([NOON, NOON + 1, NOON + 2, NOON + 3], "epoch_s", ""),
        ([str((NOON + n) * 1000) for n in range(4)], "epoch_ms", ""),
        ([f"2026-03-01 10:00:0{n} UTC" for n in range(4)], None, ""),
        ([f"2026-03-01 10:00:0{n}" for n in range(4)], None, "time_zone"),
        ([f"2026-03-01T10:00:0{n}+01:00" for n in range(4)], None, "local_time"),
        ([datetime(2026, 3, 1, 10, n) for n in range(4)], None, "time_zone"),
        ([f"2{n}/03/2026 10:00" for n in range(4)], "%d/%m/%Y %H:%M", "time_zone"),
        ([f"03/2{n}/2026 10:00 PM" for n in range(4)], "%m/%d/%Y %I:%M %p", "time_zone"),
        ([f"0{n}.03.2026 10:00:00" for n in range(1, 5)], "%d.%m.%Y %H:%M:%S", "time_zone"),
        ([f"Sun, 01 Mar 2026 10:00:0{n} GMT" for n in range(4)], "%a, %d %b %Y %H:%M:%S %Z", ""),
        ([f"01/Mar/2026:10:00:0{n} +0000" for n in range(4)], "%d/%b/%Y:%H:%M:%S %z", ""),
        ([f"2026030110000{n}" for n in range(4)], "%Y%m%d%H%M%S", "time_zone"),
        ([f"2026-03-0{n}" for n in range(1, 5)], None, "time_format"),
    ],
)
def test_formats_of_times(times: list, time_format: str | None, doubt: str):
    rows = shop(at=times)
    proposal = propose(rows, "x")
    assert proposal.mapping.get("time_format") == time_format
    assert [text.partition(":")[0] for text in proposal.doubts] == [doubt] * bool(doubt)
    assert all(clicks(proposal, rows))


@pytest.mark.parametrize(
    ("date", "clock", "time_format"),
    [
        ("01.03.2026", "10:0{}", "%d.%m.%Y %H:%M"),
        ("2026-03-01", "10:00:0{}", None),
        (datetime(2026, 3, 1).date(), "10:00:0{}.5", None),
        ("20260301", "10:0{}", None),
        ("03/21/2026", "10:0{} PM", "%m/%d/%Y %I:%M %p"),
    ],
)
def test_a_date_and_a_time_in_two_columns(date, clock: str, time_format: str | None):
    rows = shop(at=None, order_date=[date] * 4, order_time=[clock.format(n) for n in range(4)])
    proposal = propose(rows, "x")
    assert proposal.mapping["columns"]["event_time"] == "order_date"
    assert (proposal.mapping["time_of_day"], proposal.mapping.get("time_format")) == ("order_time", time_format)
    assert "order_time" not in proposal.unused
    assert (doubts_about(proposal, "time_format"), bool(doubts_about(proposal, "time_zone"))) == ("", True)
    made = [click["event_time"] for click in clicks(proposal, rows)]
    assert made == sorted(set(made))


@pytest.mark.parametrize(
    "columns",
    [
        {"duration": ["00:05", "00:06", "00:07", "00:08"]},  # another name
        {"time": ["10:00", "", "", ""]},
        {"time": ["soon", "now", "10:00", "10:01"]},
    ],
)
def test_a_date_without_a_column_of_times_of_day(columns: dict):
    proposal = propose(shop(at=None, date=[f"2026-03-0{n}" for n in range(1, 5)], **columns), "x")
    assert proposal.mapping["columns"]["event_time"] == "date"
    assert "time_of_day" not in proposal.mapping
    assert "a day without a time of day" in doubts_about(proposal, "time_format")


def test_the_day_comes_first_where_it_may_be_the_month():
    proposal = propose(shop(at=[f"0{n}/03/2026 10:00" for n in range(1, 5)]), "x")
    assert proposal.mapping["time_format"] == "%d/%m/%Y %H:%M"
    assert "'%m/%d/%Y %H:%M'" in doubts_about(proposal, "time_format")


def test_times_of_several_formats():
    times = ["2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z", "01/03/2026"]
    proposal = propose(shop(at=times), "x")
    assert proposal.mapping["columns"]["event_time"] == "at"
    assert "only 75% of its values" in doubts_about(proposal, "columns.event_time")
    proposal = propose(shop(at=["soon", "later", "now", "2026-03-01T10:00:00Z"]), "x")
    assert proposal.not_found == {"event_time": "nearest: at ('soon')"}


@pytest.mark.parametrize(
    ("prices", "numbers", "last"),
    [
        (["1.50", "2", "1299.00", "3.25"], None, 3.25),
        ([1.5, Decimal("2.25"), 3, 4], None, 4.0),
        (["1.50", "2", "1,299.00", "3.25"], {"thousands": ","}, 3.25),
        (["$1.50", "$2", "$1,299.00", "$3.25"], {"thousands": ","}, 3.25),
        (["1,50", "2", "1299,00", "3,25"], {"decimal": ","}, 3.25),
        (["1,50", "2", "1.299,00", "3,25"], {"decimal": ",", "thousands": "."}, 3.25),
        (["1,50", "2", "1 299,00", "3,25"], {"decimal": ",", "thousands": " "}, 3.25),
    ],
)
def test_formats_of_numbers(prices: list, numbers: dict | None, last: float):
    rows = shop(price=prices)
    proposal = propose(rows, "x")
    assert (proposal.mapping.get("numbers"), proposal.doubts) == (numbers, [])
    assert clicks(proposal, rows)[3]["price"] == last


def test_amounts_with_a_currency_around_them():
    rows = shop(price=["12,50 €", "3,00 €", "1.299,00 €", "4 €"])
    proposal = propose(rows, "x")
    assert (proposal.mapping["numbers"], proposal.doubts) == ({"decimal": ",", "thousands": "."}, [])
    assert [click["price"] for click in clicks(proposal, rows)] == [12.5, 3.0, 1299.0, 4.0]
    proposal = propose(shop(price=["$1", "2 €", "3 €", "4"]), "x")
    assert "several currencies ($, €)" in doubts_about(proposal, "columns.price")


def test_one_format_of_numbers_that_suits_all_columns():
    rows = shop(price=["1,299", "2,500", "4", "5"], value=["12,50", "2", "3", "4"])  # alone: thousands
    proposal = propose(rows, "x")
    assert proposal.mapping["numbers"] == {"decimal": ","}
    assert "numbers: price: '1,299' is read as 1.299" in doubts_about(proposal, "numbers")


def test_columns_whose_numbers_are_written_differently():
    rows = shop(
        price=["12,50", "3,00", "4", "5"],
        quantity=["1", "2", "1", "2"],
        value=["1,299.00", "3.00", "4", "1.5"],
        items=[[{"sku": "A", "price": "12,50"}]] * 4,
    )
    proposal = propose(rows, "x")
    assert proposal.mapping["numbers"] == {
        "decimal": ",",
        "fields": {"value": {"decimal": ".", "thousands": ","}},
    }
    made = clicks(proposal, rows)
    assert (made[0]["price"], made[0]["value"], made[0]["items"][0]["price"]) == (12.5, 1299.0, 12.5)
    assert [click["value"] for click in made] == [1299.0, 3.0, 4.0, 1.5]


def test_many_values_of_a_column_do_not_decide_for_another_one():
    """As pooled values would: most of these are of the format of value."""
    rows = [
        {"user": "ada", "event": "view", "at": NOON + n, "price": f"{n},5" if n < 5 else None, "value": f"{n},000.5"}
        for n in range(1, 50)
    ]
    proposal = propose(rows, "x")
    made = clicks(proposal, rows)
    assert (made[0]["price"], made[0]["value"], made[48]["value"]) == (1.5, 1000.5, 49000.5)


def test_the_price_with_two_decimal_marks_is_read_as_most_of_its_values():
    path = PROJECT.parent / "shared" / "field" / "unfit_accepted.jsonl"
    rows = shop(price=["12,99", "12.99", "1,299.00", ""])
    assert propose(rows, "x").mapping["numbers"] == {"thousands": ","}
    if path.exists():
        assert propose(sample(path).readable, "x").mapping["numbers"] == {"thousands": ","}


def test_a_mark_of_decimals_or_thousands():
    assert "'1,299' is read as 1299" in doubts_about(propose(shop(price=["1,299", "2,500", "4", "5"]), "x"), "numbers")
    assert "'1,299' is read as 1299" in doubts_about(
        propose(shop(price=["1,299 €", "2,500 €", "", ""]), "x"), "numbers"
    )
    assert "'1.299' is read as 1.299" in doubts_about(propose(shop(price=["1.299", "2.500", "4", "5"]), "x"), "numbers")


def test_numbers_that_cannot_be_read():
    proposal = propose(shop(price=["free", "2", "3", "4"]), "x")
    assert "only 75% of its values" in doubts_about(proposal, "columns.price")
    proposal = propose(shop(price=["1 pcs", "2 pcs", "3 pcs", "4"]), "x")
    assert "price" not in proposal.mapping["columns"]
    assert "'1 pcs', are no numbers" in doubts_about(proposal, "columns.price")


def test_missing_values_and_ids_of_nobody():
    rows = shop(user=["undefined", "null", "ada", "ada"], sku=["\\N", "A", "N/A", "B"], brand=["NaN", "x", "y", "z"])
    proposal = propose(rows, "x")
    assert proposal.mapping["missing"] == ["\\N", "N/A"]
    assert sorted(proposal.mapping["ignored_users"]) == ["null", "undefined"]
    assert "are left out" in doubts_about(proposal, "ignored_users")
    assert [click is None for click in clicks(proposal, rows)] == [True, True, False, False]


def test_placeholders_are_no_ids_of_events_and_devices():
    rows = shop(event_id=["undefined", "undefined", "e1", "e2"], order_id=["0", "guest", "-", "unknown"])
    proposal = propose(rows, "x")
    assert proposal.mapping["columns"]["event_id"] == "event_id"
    assert "transaction_id" not in proposal.mapping["columns"]
    assert "order_id is named like this field, but its values, such as '0', are no ids" in doubts_about(
        proposal, "columns.transaction_id"
    )
    rows = shop(user=["unknown", "u1", "u2", "u3"], anonymous_id=["unknown", "d1", "d2", "d3"])
    assert "anonymous_id" not in propose(rows, "x").mapping["columns"]


def test_a_missing_id_with_another_one_after_it():
    rows = shop(user=None, user_id=["null", "u", "u", "null"], visitor_id=["a", "a", "a", "b"])
    proposal = propose(rows, "x")
    assert (proposal.mapping["missing"], "ignored_users" in proposal.mapping) == (["null"], False)
    assert [click["user_id"] for click in clicks(proposal, rows)] == ["a", "u", "u", "b"]


def test_the_category_with_fewer_gaps_is_taken():
    rows = shop(category_code=["a", "", "", "b"], category_id=["1", "2", "3", "4"])
    assert propose(rows, "x").mapping["columns"]["item_category"] == "category_id"


def test_a_column_is_used_once_unless_it_fills_gaps():
    rows = shop(event=["", "", "view", "cart"], type=["page", "page", "track", "track"])
    columns = propose(rows, "x").mapping["columns"]
    assert columns["event_name"] == ["event", "type"]
    rows = shop(product_id=["A", "", "B", "C"], sku=["1", "2", "3", "4"])  # another kind of id
    assert propose(rows, "x").mapping["columns"]["item_id"] in ("product_id", "sku")


def test_devices_pages_and_units():
    rows = shop(
        device=["Desktop", "Smartphone", "iPad", "fridge"],
        page_type=["PDP", "cart", "Home", "home"],
        engagement_time_seconds=[1, 2, 3, 4],
        percent_scrolled=[0.25, 0.5, 1, 0],
        utc_offset_hours=[1, 2, 1, 2],
    )
    proposal = propose(rows, "x")
    assert proposal.mapping["values"]["device_category"] == {"Smartphone": "mobile", "iPad": "tablet"}
    assert proposal.mapping["values"]["page_type"] == {"PDP": "product"}
    assert "'fridge' counts as unknown" in doubts_about(proposal, "values.device_category")
    click = clicks(proposal, rows)[1]
    assert (click["engagement_time_msec"], click["percent_scrolled"], click["utc_offset_minutes"]) == (2_000, 50, 120)


def test_the_doubts_of_sessions_and_of_events():
    proposal = propose(shop(user=None, session_id=["1", "1", "2", "2"], event=["view", "view", "view", "quiz"]), "x")
    assert "a session stands for a user" in doubts_about(proposal, "columns.user_id")
    assert "no event in these rows is a purchase" in doubts_about(proposal, "values.event_name")
    assert proposal.other_events == {"quiz": 1}


def test_snowplows_columns_have_a_mapping():
    header = tuple(f"column_{number}" for number in range(1, 132))
    proposal = propose([dict.fromkeys(header, "x")], "x", FileLayout(header=header))
    assert any("conf/mappings/snowplow.yaml" in doubt for doubt in proposal.doubts)


NAMES = st.sampled_from(
    ["user_id", "userId", "anonymousId", "session", "event", "event_name", "type", "timestamp", "event_time", "date",
     "price", "amount", "revenue", "quantity", "items", "products", "sku", "category", "url", "page", "device",
     "timezone_offset", "currency", "order_id", "uuid", "id", "properties", "a.b", "x[0]", "column_1"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["view", "purchase", "u1", "NULL", "0", "undefined", "2026-03-01T10:00:00Z", "01/02/2026", "1,5"]),
    st.integers(NOON - 1000, NOON).map(str),
    st.datetimes(),
    st.dates(),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=3),
        st.lists(st.fixed_dictionaries({"key": NAMES, "value": inner}), max_size=2),
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(NAMES | st.text(max_size=6), VALUES, max_size=6), max_size=6)


@pytest.mark.slow
@given(ROWS, st.text(max_size=10))
def test_any_rows_give_a_mapping_that_is_accepted_or_lacks_required_fields(rows: list[dict], stem: str):
    check(propose(rows, stem))


@pytest.mark.slow
@given(st.data())
def test_so_do_rows_with_the_same_columns(data):
    kinds = data.draw(st.dictionaries(NAMES, st.sampled_from([SCALARS, VALUES]), min_size=3, max_size=8))
    rows = data.draw(st.lists(st.fixed_dictionaries(kinds), min_size=1, max_size=5))
    check(propose(rows, "x"))


def check(proposal: Proposal):
    given_fields = set(proposal.mapping["columns"])
    assert set(REQUIRED_FIELDS) - given_fields == set(proposal.not_found)
    constants = dict.fromkeys(proposal.not_found, "view_item")
    if "event_time" in constants:
        constants["event_time"] = NOON * 1000
    mapping_of(proposal.mapping | ({"constants": constants} if constants else {}), "the proposal")
    assert all("\n" not in doubt for doubt in proposal.doubts)
