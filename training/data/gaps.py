"""Gaps in time: stretches without any event, in which outcomes may have happened that the data does not have."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

HOUR_MS, DAY_MS, WEEK_MS = 3_600_000, 86_400_000, 604_800_000
#: Shorter stretches are nights.
SHORTEST_MS = DAY_MS
#: Of a stretch in which fewer events are usual, chance or a quiet day may be the reason that it has none.
FEWEST_EXPECTED = 50
#: Gaps as frequent as weekends, and at least as many, are those of a shop that closes.
MOST_GAPS = 3


class Gap(NamedTuple):
    """A stretch without events, between the last event before it and the first one after it."""

    last_ms: int
    first_ms: int


class Hour(NamedTuple):
    """The events of an hour."""

    events: int
    first_ms: int
    last_ms: int


def hours_of(times_ms: np.ndarray) -> dict[int, Hour]:
    """The events at n times int64[n] by hour since 1970."""
    times_ms = np.sort(times_ms)
    hours, first, counts = np.unique(times_ms // HOUR_MS, return_index=True, return_counts=True)
    last = times_ms[first + counts - 1]
    return {
        hour: Hour(*of_hour)
        for hour, *of_hour in zip(hours.tolist(), counts.tolist(), times_ms[first].tolist(), last.tolist())
    }


def add_hours(hours: dict[int, Hour], others: Mapping[int, Hour]) -> None:
    """Add the events of further hours."""
    for number, other in others.items():
        hour = hours.get(number, other._replace(events=0))
        hours[number] = Hour(
            hour.events + other.events, min(hour.first_ms, other.first_ms), max(hour.last_ms, other.last_ms)
        )


def find_gaps(hours: Mapping[int, Hour]) -> list[Gap]:
    """The gaps of data whose events are given by hour: of a day or more, in which FEWEST_EXPECTED events are usual.

    What is usual is the mean rate outside of such stretches. A shop that closes each weekend has no gaps.
    """
    ordered = [hours[number] for number in sorted(hours)]
    long = [
        Gap(before.last_ms, after.first_ms)
        for before, after in zip(ordered, ordered[1:])
        if after.first_ms - before.last_ms >= SHORTEST_MS
    ]
    covered_ms = covered(hours, long)
    if not long or not covered_ms:
        return []
    rate = sum(hour.events for hour in ordered) / covered_ms
    gaps = [gap for gap in long if rate * (gap.first_ms - gap.last_ms) >= FEWEST_EXPECTED]
    span_ms = ordered[-1].last_ms - ordered[0].first_ms
    return [] if len(gaps) >= MOST_GAPS and (len(gaps) + 1) * WEEK_MS >= span_ms else gaps


def covered(hours: Mapping[int, Hour], gaps: Sequence[Gap]) -> int:
    """The time from the first to the last event without gaps, in ms."""
    if not hours:
        return 0
    whole = hours[max(hours)].last_ms - hours[min(hours)].first_ms
    return whole - sum(gap.first_ms - gap.last_ms for gap in gaps)


def reaches_into_gap(time_ms: np.ndarray, horizon_ms: int, gaps: Sequence[Gap]) -> np.ndarray:
    """Whether the label of an event at each of n times int64[n] depends on what happened in a gap, bool[n]."""
    unknown = np.zeros(len(time_ms), bool)
    for gap in gaps:
        unknown |= (time_ms <= gap.last_ms) & (time_ms + horizon_ms > gap.last_ms)
    return unknown
