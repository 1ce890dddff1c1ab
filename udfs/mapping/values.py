"""Values of foreign rows: texts, numbers and times in the formats that a mapping declares."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import floor, isfinite
from typing import Any

import msgspec

from udfs.contracts.clicks import EARLIEST_TIME_MS, LATEST_TIME_MS

#: Units of time since 1970, and how many there are in a millisecond.
EPOCH_UNITS = {
    "epoch_s": Fraction(1, 1000),
    "epoch_ms": Fraction(1),
    "epoch_us": Fraction(1000),
    "epoch_ns": Fraction(1_000_000),
}
TIME_FORMATS = ("iso8601", *EPOCH_UNITS)
_UNIT_NAMES = {"epoch_s": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds", "epoch_ns": "nanoseconds"}
LARGEST_WHOLE = 1 << 53  # up to here a double is exact
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_CURRENCY_CODES = (  # of ISO 4217
    "AED|AFN|ALL|AMD|ANG|AOA|ARS|AUD|AWG|AZN|BAM|BBD|BDT|BGN|BHD|BIF|BMD|BND|BOB|BRL|BSD|BTN|BWP|BYN|BZD|CAD|CDF|CHF|"
    "CLP|CNY|COP|CRC|CUP|CVE|CZK|DJF|DKK|DOP|DZD|EGP|ERN|ETB|EUR|FJD|FKP|GBP|GEL|GHS|GIP|GMD|GNF|GTQ|GYD|HKD|HNL|HRK|"
    "HTG|HUF|IDR|ILS|INR|IQD|IRR|ISK|JMD|JOD|JPY|KES|KGS|KHR|KMF|KPW|KRW|KWD|KYD|KZT|LAK|LBP|LKR|LRD|LSL|LYD|MAD|MDL|"
    "MGA|MKD|MMK|MNT|MOP|MRU|MUR|MVR|MWK|MXN|MYR|MZN|NAD|NGN|NIO|NOK|NPR|NZD|OMR|PAB|PEN|PGK|PHP|PKR|PLN|PYG|QAR|RON|"
    "RSD|RUB|RWF|SAR|SBD|SCR|SDG|SEK|SGD|SHP|SLE|SOS|SRD|SSP|STN|SVC|SYP|SZL|THB|TJS|TMT|TND|TOP|TRY|TTD|TWD|TZS|UAH|"
    "UGX|USD|UYU|UZS|VES|VND|VUV|WST|XAF|XCD|XOF|XPF|YER|ZAR|ZMW"
)
_CURRENCY = rf"(?:[A-Z]{{0,2}}[$€£¥₹₩₽₺₴₪฿₫₦₱₡₲₵₸₼₾]|[Kk]r\.?|zł|Kč|Ft|lei|Fr\.|Rs\.?|Rp|RM|{_CURRENCY_CODES})"
_AMOUNT = re.compile(
    rf"(?P<sign>[+-]?)(?P<first>{_CURRENCY})\s*(?P<then_number>[+-]?[0-9.,].*)"
    rf"|(?P<number>[+-]?[0-9.,].*?)\s*(?P<then>{_CURRENCY})",
    re.DOTALL,
)
_LONGEST_AMOUNT = 64  # characters: a search in more of them takes too long


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)} is not UTF-8; if it is a file's, set file.encoding") from None


_NO_NUMBER = "not a number"


def is_missing(value: Any) -> bool:
    """Whether a value is none: null, NaN, or a text of blanks alone."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def read_kept(value: Any) -> Any:
    """A value that a click keeps as it is. Raises ValueError for one that a JSON record can't hold."""
    if isinstance(value, str):
        _check_characters(value)
        return value
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{shown(value)} has a text that is not UTF-8") from None
    except TypeError as error:
        raise ValueError(f"{shown(value)} can't be written as JSON: {error}") from None
    return value


def read_text(value: Any) -> str:
    """A text without the blanks around it. Raises ValueError for what has no text, such as an object."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        if not value.isascii():
            _check_characters(value)
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # Parquet keeps a column of integers with gaps as floats
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{shown(value)} is not a text")


@dataclass(frozen=True)
class NumberReader:
    """Reads numbers that are written with a decimal mark and, between groups of three digits, a thousands separator."""

    decimal: str = "."
    thousands: str | None = None

    def __call__(self, value: Any) -> float:
        """Raises ValueError for what is not a finite number."""
        if isinstance(value, str):
            text = self._plain(self._bare(value.strip()))
            if not _NUMBER.fullmatch(text):
                raise ValueError(f"{shown(value)} is not a number{self._advice(value)}")
            number = float(text)
        elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            number = float(value)
        else:
            raise ValueError(f"{shown(value)} is not a number")
        if not isfinite(number):
            raise ValueError(f"{shown(value)} is not a finite number")
        return number

    def whole(self, value: Any) -> int:
        """A whole number of at most LARGEST_WHOLE, so exactly. Raises ValueError."""
        number = self(value)
        if not number.is_integer():
            raise ValueError(f"{shown(value)} is not a whole number")
        if abs(number) > LARGEST_WHOLE:
            raise ValueError(f"{shown(value)} is too large")
        return int(number)

    def floor(self, value: Any) -> int:
        """A number of at most LARGEST_WHOLE without its fraction. Raises ValueError."""
        return self.whole(floor(self(value)))

    def _bare(self, text: str) -> str:
        """The number in a text."""
        return text

    def _plain(self, text: str) -> str:
        """The text as Python writes numbers; _NO_NUMBER where its separators are out of place."""
        whole, mark, rest = text.partition(self.decimal)
        if self.thousands and self.thousands in whole:
            first, *groups = whole.split(self.thousands)
            if not (re.fullmatch(r"[+-]?\d{1,3}", first) and all(re.fullmatch(r"\d{3}", group) for group in groups)):
                return _NO_NUMBER
            whole = first + "".join(groups)
        elif self.decimal != "." and "." in text:
            return _NO_NUMBER  # a point that is neither of the two marks
        return f"{whole}.{rest}" if mark else whole

    def _advice(self, text: str) -> str:
        marks = [mark for mark in ",." if mark in text and mark not in (self.decimal, self.thousands)]
        return f"; set numbers.decimal or numbers.thousands if {marks[0]!r} is one" if marks else ""


class AmountReader(NumberReader):
    """Reads also numbers with one sign or code of a currency before or behind them: `$5`, `12.50 EUR`."""

    def _bare(self, text: str) -> str:
        return text if text[:1].isdigit() and text[-1:].isdigit() else currency_and_number(text)[1]


def currency_and_number(text: str) -> tuple[str | None, str]:
    """The sign or code of a currency around a number, and the text without it; None and the text if there is none.

    >>> currency_and_number("-$5.00"), currency_and_number("12,50 EUR"), currency_and_number("5 pcs")
    (('$', '-5.00'), ('EUR', '12,50'), (None, '5 pcs'))
    """
    amount = _AMOUNT.fullmatch(text) if len(text) <= _LONGEST_AMOUNT else None
    if amount is None:
        return None, text
    return amount["first"] or amount["then"], amount["number"] or f"{amount['sign']}{amount['then_number']}"


@dataclass(frozen=True)
class TimeReader:
    """Reads times of one format: one of TIME_FORMATS, or a pattern of strptime.

    Times without an offset are of `zone`: a local time that occurs twice is the first, one that a clock skips is read
    with the offset before the gap (PEP 495). Times before 2000 or after `latest_ms` are refused.
    """

    time_format: str
    zone: tzinfo
    latest_ms: int

    def __call__(self, value: Any) -> tuple[int, int | None]:
        """Milliseconds since 1970-01-01 UTC, and the minutes of the time's offset if it has one. Raises ValueError."""
        if isinstance(value, date):
            time_ms, offset = self._of_date(value)
        elif self.time_format in EPOCH_UNITS:
            return self._in_range(_epoch_ms(value, EPOCH_UNITS[self.time_format]), value), None
        else:
            time_ms, offset = self._of_date(self._parse(value))
        return self._in_range(time_ms, value), offset

    def _parse(self, value: Any) -> datetime:
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is not a time {self._in_words()}{_hint(value)}")
        text = value.strip()
        try:
            if self.time_format != "iso8601":
                return datetime.strptime(text, self.time_format)
            return datetime.fromisoformat(f"{text.removesuffix(' UTC')}+00:00" if text.endswith(" UTC") else text)
        except ValueError:
            advice = _hint(value) or ("; set time_format to its pattern" if self.time_format == "iso8601" else "")
            raise ValueError(f"{shown(value)} is not a time {self._in_words()}{advice}") from None

    def _of_date(self, value: date) -> tuple[int, int | None]:
        time = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
        time = time if time.tzinfo else time.replace(tzinfo=self.zone)
        offset = time.utcoffset() // timedelta(minutes=1)
        return (time - _EPOCH) // timedelta(milliseconds=1), offset

    def _in_range(self, time_ms: int, value: Any) -> int:
        if EARLIEST_TIME_MS <= time_ms <= self.latest_ms:
            return time_ms
        side = "before 2000" if time_ms < EARLIEST_TIME_MS else "more than a day in the future"
        raise ValueError(f"{shown(value)} is {side}{_hint(value)}")

    def _in_words(self) -> str:
        return "in ISO 8601" if self.time_format == "iso8601" else f"like {self.time_format}"


def unit_that_fits(number: float) -> str | None:
    """The unit in which a number is a time from 2000 to 2100, as a mapping's time_format; None if there is none.

    >>> unit_that_fits(1772355600)
    'epoch_s'
    """
    for name, per_ms in EPOCH_UNITS.items():
        if EARLIEST_TIME_MS <= number / per_ms <= LATEST_TIME_MS:
            return name
    return None


def multiplied(read: Callable[[Any], float], factor: Fraction) -> Callable[[Any], float]:
    """A reader of numbers in another unit."""
    return lambda value: float(Fraction(read(value)) * factor)


def _epoch_ms(value: Any, per_ms: Fraction) -> int:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value)  # exactly: a double has no room for nanoseconds
    if not isinstance(value, int) or isinstance(value, bool):
        number = NumberReader()(value)
        return int(number * per_ms.denominator / per_ms.numerator)
    return value * per_ms.denominator // per_ms.numerator


def _hint(value: Any) -> str:
    try:
        number = NumberReader()(value)
    except (ValueError, OverflowError):
        return ""
    unit = unit_that_fits(number)
    return f"; it looks like {_UNIT_NAMES[unit]}: set time_format: {unit}" if unit else ""


def shown(value: Any) -> str:
    """A value of any size, short enough for a message."""
    text = value if isinstance(value, str) else repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(text) if isinstance(value, str) else text
