"""Values of foreign rows are read in the format that a mapping declares, and in no other."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from math import isfinite
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.mapping.values import (
    EPOCH_UNITS,
    AmountReader,
    NumberReader,
    TimeReader,
    currency_and_number,
    is_missing,
    read_text,
    unit_that_fits,
)

LATEST_MS = 1_800_000_000_000  # 2027-01-15
BERLIN = "Europe/Berlin"


def time_ms(value, time_format: str = "iso8601", zone: str = "UTC") -> int:
    return TimeReader(time_format, ZoneInfo(zone), LATEST_MS)(value)[0]


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("time_format", "value"),
    [
        ("iso8601", "2024-02-29T12:00:00.250Z"),
        ("iso8601", "2024-02-29T12:00:00.250999999Z"),
        ("iso8601", "2024-02-29 20:00:00.250+08:00"),
        ("iso8601", "2024-02-29T12:00:00.250"),
        ("iso8601", " 2024-02-29 12:00:00.250 UTC "),
        ("%d.%m.%Y %H:%M:%S.%f", "29.02.2024 12:00:00.250"),
        ("%Y-%m-%d %H:%M:%S.%f %z", "2024-02-29 13:00:00.250 +0100"),
        ("epoch_s", "1709208000.25"),
        ("epoch_s", 1709208000.25),
        ("epoch_s", Decimal("1709208000.25")),
        ("epoch_ms", "1709208000250"),
        ("epoch_ms", 1709208000250.0),
        ("epoch_ms", "1.70920800025e12"),
        ("epoch_us", "1709208000250999"),
        ("epoch_us", 1709208000250999),
        ("epoch_ns", "1709208000250999999"),
        ("iso8601", datetime(2024, 2, 29, 12, 0, 0, 250_000)),
        ("epoch_ms", datetime(2024, 2, 29, 12, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_the_format_says_and_are_utc_without_an_offset(time_format, value):
    assert time_ms(value, time_format) == 1_709_208_000_250


def test_a_date_is_its_midnight():
    assert time_ms("2026-03-01") == time_ms("20260301") == time_ms(date(2026, 3, 1)) == utc(2026, 3, 1)
    assert time_ms("2026-03-01", zone=BERLIN) == utc(2026, 2, 28, 23)


@pytest.mark.parametrize(
    ("text", "expected", "offset"),
    [
        ("2026-03-01T10:00:00", utc(2026, 3, 1, 9), 60),
        ("2026-07-01T10:00:00", utc(2026, 7, 1, 8), 120),
        ("2026-03-29T02:30:00", utc(2026, 3, 29, 1, 30), 60),  # skipped: with the offset before the gap
        ("2026-10-25T02:30:00", utc(2026, 10, 25, 0, 30), 120),  # twice: the first
        ("2026-07-01T10:00:00Z", utc(2026, 7, 1, 10), 0),  # an offset of its own
        ("2026-07-01T10:00:00+05:45", utc(2026, 7, 1, 4, 15), 345),
    ],
)
def test_naive_times_are_of_the_zone_with_its_daylight_saving(text, expected, offset):
    assert TimeReader("iso8601", ZoneInfo(BERLIN), LATEST_MS)(text) == (expected, offset)


@pytest.mark.parametrize(
    ("time_format", "value", "reason"),
    [
        ("iso8601", "01/03/2026 10:00", "'01/03/2026 10:00' is not a time in ISO 8601; set time_format to its pattern"),
        ("iso8601", "yesterday", "is not a time in ISO 8601"),
        ("iso8601", "2026-02-30T10:00:00Z", "is not a time in ISO 8601"),
        ("iso8601", "2026-03-01T10:00:00 Europe/Berlin", "is not a time in ISO 8601"),
        ("iso8601", "1772355600", "it looks like seconds: set time_format: epoch_s"),
        ("iso8601", 1772355600000, "it looks like milliseconds: set time_format: epoch_ms"),
        ("%Y-%m-%d", "29.02.2024", "is not a time like %Y-%m-%d"),
        ("epoch_s", "2024-02-29", "'2024-02-29' is not a number"),
        ("epoch_ms", "inf", "is not a number"),
        ("epoch_ms", 1772355600, "1772355600 is before 2000; it looks like seconds: set time_format: epoch_s"),
        ("epoch_s", 1772355600000, "is more than a day in the future; it looks like milliseconds"),
        ("epoch_ms", "1772355600123456", "it looks like microseconds: set time_format: epoch_us"),
        ("epoch_ms", "1772355600123456789", "it looks like nanoseconds: set time_format: epoch_ns"),
        ("epoch_ms", True, "True is not a number"),
        ("epoch_ms", 0, "0 is before 2000"),
        ("iso8601", "2098-01-01T00:00:00Z", "is more than a day in the future"),
        ("iso8601", "1999-12-31T23:59:59Z", "is before 2000"),
    ],
)
def test_another_time_is_refused_with_the_unit_that_fits(time_format, value, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        time_ms(value, time_format)


@given(st.sampled_from(sorted(EPOCH_UNITS)), st.integers(946_684_800_000, LATEST_MS))
def test_the_unit_of_a_time_is_found_and_read_exactly(unit, expected):
    number = int(expected * EPOCH_UNITS[unit])
    assert unit_that_fits(number) == unit
    in_unit = expected if EPOCH_UNITS[unit] >= 1 else expected // 1000 * 1000
    assert time_ms(number, unit) == time_ms(str(number), unit) == in_unit


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1299.00", 1299.0), (" 12.5 ", 12.5), ("1e3", 1000.0), ("-5.00", -5.0), ("+.5", 0.5), (7, 7.0), (7.5, 7.5),
        (Decimal("7.25"), 7.25),
    ],
)  # fmt: skip
def test_numbers(text, number):
    assert NumberReader()(text) == number


@pytest.mark.parametrize(
    "value",
    ["1,299.00", "1.299,00", "$1299.00", "1299.00 EUR", "1_299", "NaN", "inf", "a lot", "", "0x10", "1e999", "１２",
     True, [1], {}, float("inf")],
)  # fmt: skip
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="is not a (finite )?number"):
        NumberReader()(value)


def test_advice_names_the_separator_that_is_not_declared():
    with pytest.raises(ValueError, match="set numbers.decimal or numbers.thousands if ',' is one"):
        NumberReader()("1,299.00")


@pytest.mark.parametrize(
    ("reader", "text", "number"),
    [
        (NumberReader(thousands=","), "1,299.00", 1299.0),
        (NumberReader(thousands=","), "1,234,567", 1_234_567.0),
        (NumberReader(thousands=","), "999", 999.0),
        (NumberReader(decimal=",", thousands="."), "1.299,00", 1299.0),
        (NumberReader(decimal=","), "12,99", 12.99),
        (NumberReader(decimal=",", thousands=" "), "1 299,5", 1299.5),
    ],
)
def test_separators_are_those_of_the_mapping(reader, text, number):
    assert reader(text) == number


@pytest.mark.parametrize(
    ("reader", "text"),
    [
        (NumberReader(thousands=","), "12,99"),  # not a group of three
        (NumberReader(thousands=","), "1299,000"),
        (NumberReader(thousands=","), ",999"),
        (NumberReader(decimal=","), "12.99"),
        (NumberReader(decimal=",", thousands="."), "12.99"),
        (NumberReader(decimal=",", thousands="."), "1,299.00"),
    ],
)
def test_a_separator_out_of_place_is_no_number(reader, text):
    with pytest.raises(ValueError, match="is not a number"):
        reader(text)


@pytest.mark.parametrize(
    ("text", "reader", "number"),
    [
        ("$1,299.00", AmountReader(thousands=","), 1299.0),
        ("12,50 €", AmountReader(","), 12.5),
        ("12,50\u00a0€", AmountReader(","), 12.5),
        ("USD 5", AmountReader(), 5.0),
        ("5USD", AmountReader(), 5.0),
        ("1 299,00 kr", AmountReader(",", " "), 1299.0),
        ("Kr. 5", AmountReader(), 5.0),
        ("R$5", AmountReader(), 5.0),
        ("US$ 5", AmountReader(), 5.0),
        ("zł5", AmountReader(), 5.0),
        ("£.50", AmountReader(), 0.5),
        ("-$5.00", AmountReader(), -5.0),
        ("$-5.00", AmountReader(), -5.0),
        ("1e3 EUR", AmountReader(), 1000.0),
        (" 5 ", AmountReader(), 5.0),
        (5, AmountReader(), 5.0),
    ],
)
def test_amounts_are_read_with_the_currency_around_them(text, reader, number):
    assert reader(text) == number


@pytest.mark.parametrize(
    "text",
    ["$5 USD", "5 € €", "-$-5", "5 pcs", "PCS 5", "5 Taler", "$", "EUR", "", "5 ¢", "1,299.00 $", "eur 5", "٥ €"],
)
def test_what_is_no_amount_is_refused_with_the_whole_text(text):
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a number")):
        AmountReader()(text)


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["$", "€", "US$", "kr", "CHF", "PLN", "zł"]),
    st.sampled_from(["", " ", "\u00a0"]),
    st.booleans(),
)
def test_an_amount_is_the_number_in_it(cents, currency, space, comes_first):
    number = f"{cents / 100:.2f}"
    text = f"{currency}{space}{number}" if comes_first else f"{number}{space}{currency}"
    assert AmountReader()(text) == cents / 100
    assert currency_and_number(text) == (currency, number)


def test_a_long_text_is_refused_at_once():
    with pytest.raises(ValueError, match="is not a number"):
        AmountReader()("1" + " " * 100_000 + "x")


@given(st.text(max_size=20))
def test_any_text_is_an_amount_or_refused(text):
    with suppress(ValueError):
        assert isfinite(AmountReader()(text))


@given(st.integers(-(10**9), 10**9), st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'")]))
def test_what_is_written_with_separators_reads_back(cents, marks):
    decimal, thousands = marks
    text = f"{cents / 100:,.2f}".translate(str.maketrans({".": decimal, ",": thousands}))
    assert NumberReader(decimal, thousands)(text) == cents / 100


@pytest.mark.parametrize("value", ["2", 2, 2.0, "2.0", " 2 "])
def test_whole_numbers_are_read_from_texts_and_floats(value):
    number = NumberReader().whole(value)
    assert (number, type(number)) == (2, int)


def test_a_fraction_is_no_whole_number():
    with pytest.raises(ValueError, match="'2.5' is not a whole number"):
        NumberReader().whole("2.5")


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (7.0, "7"), (7.5, "7.5"), (Decimal("7.50"), "7.50"), (b"7", "7"), (" u1 ", "u1")],
)
def test_identifiers_become_texts_without_blanks_around(value, text):
    assert read_text(value) == text


@pytest.mark.parametrize("value", [["a"], {"a": 1}, str])
def test_a_list_or_an_object_is_no_text(value):
    with pytest.raises(ValueError, match="is not a text"):
        read_text(value)


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_what_is_missing(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", [0, "NaN", False, "0"])
def test_what_is_not_missing(value):
    assert not is_missing(value)
