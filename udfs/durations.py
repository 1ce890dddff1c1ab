"""Durations as they are written in configuration: 500 ms, 10 s, 5 min, 12 h, 90 d."""

import re
from typing import Annotated

from msgspec import Meta

#: A number and a unit, as Flink writes them.
Duration = Annotated[str, Meta(pattern=r"^\d+ ?(ms|s|min|h|d)$")]

_UNITS_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(duration: str) -> int:
    """Milliseconds of a Duration.

    >>> duration_ms("30 min")
    1800000
    """
    number, unit = re.fullmatch(r"(\d+) ?(\w+)", duration).groups()
    return int(number) * _UNITS_MS[unit]
