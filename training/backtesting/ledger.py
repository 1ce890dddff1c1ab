"""From decisions to a ledger of actions: how often each policy acted on each user on each day, and what came of it.

A policy is a model, a rule, or whatever else decides. Decisions are made event by event, and the events of a session
are much alike, so two limits keep them from counting many times:

- A user is acted on at most once within a quiet time.
- A conversion counts once: after an action that was followed by the outcome, further actions on the user earn nothing
  until the horizon of the label has passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DAY_MS = 86_400_000


@dataclass(frozen=True)
class ScoredEvents:
    """n events whose labels are mature, by user and, within a user, in order of arrival."""

    user: np.ndarray  # int64[n], codes in ascending order
    time_ms: np.ndarray  # int64[n]
    positive: np.ndarray  # bool[n]
    scores: Mapping[str, np.ndarray]  # float32[n] by policy; NaN where none of its models served


@dataclass(frozen=True)
class ActionLedger:
    """k entries, each of one policy, user and day with at least one action."""

    policy: np.ndarray  # int64[k], index into the policies
    user: np.ndarray  # int64[k], codes
    day: np.ndarray  # int64[k], days since 1970 in UTC
    actions: np.ndarray  # int64[k]
    conversions: np.ndarray  # int64[k]: actions that were followed by an outcome which no earlier action counts

    @classmethod
    def joined(cls, parts: Sequence["ActionLedger"]) -> "ActionLedger":
        """All entries of several ledgers, of which each has other users or policies."""
        names = ("policy", "user", "day", "actions", "conversions")
        empty = np.empty(0, np.int64)
        return cls(*(np.concatenate([empty, *(getattr(part, name) for part in parts)]) for name in names))


def ledger_of(scored: ScoredEvents, thresholds: Sequence[float], quiet_ms: int, horizon_ms: int) -> ActionLedger:
    """The ledger of all policies, given their thresholds in the order of `scored.scores`."""
    parts = []
    for policy, (scores, threshold) in enumerate(zip(scored.scores.values(), thresholds, strict=True)):
        rows = np.flatnonzero(scores >= threshold)
        rows = rows[spaced(scored.user[rows], scored.time_ms[rows], quiet_ms)]
        user, time_ms = scored.user[rows], scored.time_ms[rows]
        converted = np.zeros(len(rows), bool)
        hits = np.flatnonzero(scored.positive[rows])
        converted[hits] = spaced(user[hits], time_ms[hits], horizon_ms)
        parts.append(_by_user_and_day(policy, user, time_ms // DAY_MS, converted))
    return ActionLedger.joined(parts)


def spaced(user: np.ndarray, time_ms: np.ndarray, gap_ms: int) -> np.ndarray:
    """Which of n events come first of their user, or at least a gap after the last one chosen; bool[n].

    Events are by user, user int64[n] ascending, and then in order of arrival; time_ms int64[n]. An event dated before
    the last one chosen lies within its gap.
    """
    chosen = np.zeros(len(user), bool)
    if not len(user):
        return chosen
    first = np.flatnonzero(np.diff(user, prepend=user[0] - 1))
    group = np.cumsum(np.diff(user, prepend=user[0] - 1) != 0) - 1
    # One axis of time for all users, each far behind the one before, so that one search finds the next event of all.
    since = time_ms - time_ms.min()
    axis = np.maximum.accumulate(group * (int(since.max()) + gap_ms + 1) + since)
    following = np.maximum(np.searchsorted(axis, axis + gap_ms), np.arange(1, len(user) + 1))
    at, ends = first, np.append(first[1:], len(user))
    while len(at):
        chosen[at] = True
        at = following[at]
        goes_on = at < ends
        at, ends = at[goes_on], ends[goes_on]
    return chosen


def _by_user_and_day(policy: int, user: np.ndarray, day: np.ndarray, converted: np.ndarray) -> ActionLedger:
    """The entries of a policy's n actions."""
    if not len(user):
        return ActionLedger.joined([])
    start = day.min()
    width = int(day.max() - start) + 1
    key, entry, actions = np.unique(user * width + day - start, return_inverse=True, return_counts=True)
    conversions = np.bincount(entry, converted, len(key)).astype(np.int64)
    return ActionLedger(np.full(len(key), policy, np.int64), key // width, key % width + start, actions, conversions)
