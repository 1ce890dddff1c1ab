"""Bots: users with more events than a person has, or faster ones.

Each limit is a number of events within less than a time. Users are judged by the times of their events. Of a session
only its number of events and its time span are kept: it is a bot's if these alone prove that a limit is reached.
"""

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from udfs.config.durations import Duration, duration_ms

HOUR_MS = 3_600_000

AtLeastTwo = Annotated[int, Meta(ge=2)]


class Limit(NamedTuple):
    """A user with so many events within less than this time is a bot."""

    events: int
    within_ms: int
    words: str


class Bots(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The limits that no person reaches, described under `bots` in conf/base.yaml."""

    events_per_hour: AtLeastTwo | None = 2_000
    paced_events: AtLeastTwo = 100
    min_gap: Duration | None = "200 ms"

    @property
    def limits(self) -> tuple[Limit, ...]:
        """The limits that are set."""
        found = []
        if self.events_per_hour is not None:
            words = f"{self.events_per_hour:,} events in an hour"
            found.append(Limit(self.events_per_hour, HOUR_MS, words))
        if self.min_gap is not None:
            words = f"{self.paced_events:,} events less than {self.min_gap} apart on average"
            found.append(Limit(self.paced_events, (self.paced_events - 1) * duration_ms(self.min_gap), words))
        return tuple(found)


def users_by_limit(bots: Bots, user: np.ndarray, time_ms: np.ndarray) -> dict[str, np.ndarray]:
    """The users who reach each limit, by the limit in words: int64[k], ascending.

    Takes the user int64[n] and the time int64[n], in milliseconds, of n events in any order.
    """
    order = np.lexsort((time_ms, user))
    user, time_ms = user[order], time_ms[order]
    return {limit.words: _users(limit, user, time_ms) for limit in bots.limits}


def _users(limit: Limit, user: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    """The users who reach the limit, given events by user and time."""
    last = slice(limit.events - 1, None)
    first = slice(0, max(0, len(user) - limit.events + 1))
    reached = (user[last] == user[first]) & (time_ms[last] - time_ms[first] < limit.within_ms)
    return np.unique(user[first][reached])


def sql_is_bot(bots: Bots) -> str:
    """Whether a session is a bot's, as SQL over its `events`, `started_at` and `ended_at`.

    The n - 1 gaps of a session hold those of (n - 1) / (k - 1) groups of k events, one after the other, rounded down.
    If the session is shorter than so many times the limit's time, one of these groups is shorter than this time.

    >>> sql_is_bot(Bots(min_gap=None))
    '((ended_at - started_at) < 3600000 * ((events - 1) / 1999))'
    """
    reached = (
        f"((ended_at - started_at) < {limit.within_ms} * ((events - 1) / {limit.events - 1}))" for limit in bots.limits
    )
    return " OR ".join(reached) or "FALSE"
