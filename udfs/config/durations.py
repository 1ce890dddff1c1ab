"""Durations and moments as they are written in configuration: 500 ms, 10 s, 5 min, 12 h, 90 d; 2026-05-01T08:00:00Z."""

import re
import time
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from udfs.config.text import END

#: A number and a unit, as Flink writes them. Ten digits of any unit are milliseconds that an int64 holds.
Duration = Annotated[str, Meta(pattern=rf"^\d{{1,10}} ?(ms|s|min|h|d){END}", title="duration")]

#: ISO 8601 with a time zone, or milliseconds since 1970.
Moment = Annotated[datetime, Meta(tz=True, title="time with a zone")] | Annotated[int, Meta(ge=0, title="ms")]

#: Times in ms since 1970 of the years 1973 to 5138; smaller numbers are seconds, larger ones microseconds.
TIMES_MS = range(10**11, 10**14)

_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(duration: str) -> int:
    """Milliseconds of a Duration.

    >>> duration_ms("30 min")
    1800000
    """
    number, unit = re.fullmatch(r"(\d+) ?(\w+)", duration).groups()
    return int(number) * _UNITS_MS[unit]


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def moment_ms(moment: Moment) -> int:
    """Milliseconds since 1970 of a Moment.

    >>> moment_ms(datetime.fromisoformat("1970-01-02T01:00:00+01:00"))
    86400000
    """
    return moment if isinstance(moment, int) else round(moment.timestamp() * 1000)


def read_moment(text: str) -> int:
    """Milliseconds since 1970 of a Moment as an option has it. Raises ValueError for any other text.

    >>> read_moment("1973-05-01T00:00:00Z")
    105062400000
    """
    try:
        time_ms = moment_ms(msgspec.convert(text, Moment, strict=False))
    except msgspec.ValidationError:
        raise ValueError(f"expected 2026-05-01T08:00:00Z or milliseconds since 1970, got {text}") from None
    if time_ms < TIMES_MS.start:
        raise ValueError(f"expected milliseconds since 1970, got {text}: if these are seconds, append 000")
    if time_ms >= TIMES_MS.stop:
        raise ValueError(
            f"expected milliseconds since 1970, got {text}: if these are microseconds, drop the last 3 digits"
        )
    return time_ms
