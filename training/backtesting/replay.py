"""Replay of prepared events under policies: bucket by bucket, so that memory holds the features of one block."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from training.backtesting.ledger import ScoredEvents
from training.data.examples import BLOCK_ROWS, LOGINS_FILE, first_of_connected, saved_field

#: Scores float32[n] of feature rows float32[n, k].
Predict = Callable[[np.ndarray], np.ndarray]
Kind = Literal["model", "rule", "retrained"]


@dataclass(frozen=True)
class ReplayWindow:
    """The time that is replayed, by event times in ms since 1970."""

    from_ms: int
    to_ms: int  # excluded
    known_ms: int  # the end of what is known: the earlier one of `to_ms` and the end of the data
    horizon_ms: int  # of the label

    @property
    def last_ms(self) -> int:
        """The last time at which an event can have a mature label."""
        return min(self.to_ms - 1, self.known_ms - self.horizon_ms)

    def rows(self, time_ms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of n events in the stretch whose labels are mature, int64[mature], and of the others."""
        inside = (time_ms >= self.from_ms) & (time_ms < self.to_ms)
        mature = time_ms <= self.last_ms
        return np.flatnonzero(inside & mature), np.flatnonzero(inside & ~mature)


@dataclass(frozen=True)
class Tenure:
    """A time from which on a model or a rule decides, and the features that it takes."""

    from_ms: int
    names: tuple[str, ...]
    predict: Predict | None  # None: nothing decides


@dataclass(frozen=True)
class DecisionPolicy:
    """What decides: one model or rule all the time, or a retrained model after the other."""

    name: str
    kind: Kind
    tenures: tuple[Tenure, ...]  # in order of time

    def scores(self, names: Sequence[str], features: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
        """Scores float32[n] of rows float32[n, names]; NaN where nothing decides."""
        column = {name: number for number, name in enumerate(names)}
        scores = np.full(len(time_ms), np.nan, np.float32)
        number = np.searchsorted([tenure.from_ms for tenure in self.tenures], time_ms, side="right") - 1
        for position, tenure in enumerate(self.tenures):
            rows = np.flatnonzero(number == position)
            if tenure.predict is not None and len(rows):
                matrix = features[np.ix_(rows, [column[name] for name in tenure.names])]
                scores[rows] = tenure.predict(np.ascontiguousarray(matrix))
        return scores


@dataclass(frozen=True)
class Replayed:
    """All scored events by bucket, whose users have codes that differ, and counts of them."""

    buckets: list[ScoredEvents]
    immature: int  # events left out, because their horizon had not passed
    positives: int
    users: int
    positive_users: int
    person: np.ndarray | None  # int64[codes]: a code for ids that logins connect; None: each id is a person

    @property
    def events(self) -> int:
        return sum(len(bucket.user) for bucket in self.buckets)

    def scores(self, policy: str) -> np.ndarray:
        """The scores of a policy, float32[events]."""
        return np.concatenate([bucket.scores[policy] for bucket in self.buckets])

    def by_person(self) -> list[ScoredEvents]:
        """The events by person instead of by id, whose ids may lie in several buckets."""
        if self.person is None:
            return self.buckets
        user = self.person[np.concatenate([bucket.user for bucket in self.buckets])]
        time_ms = np.concatenate([bucket.time_ms for bucket in self.buckets])
        positive = np.concatenate([bucket.positive for bucket in self.buckets])
        order = np.lexsort((time_ms, user))
        scores = {policy: self.scores(policy)[order] for policy in self.buckets[0].scores}
        return [ScoredEvents(user[order], time_ms[order], positive[order], scores)]


def replay(
    directories: Sequence[Path],
    window: ReplayWindow,
    policies: Sequence[DecisionPolicy],
    progress: Callable[[int, int, int], None] = lambda *_: None,
) -> Replayed:
    """Score the events of a stretch in the directories of `prepare`, whose features include those of the policies.

    `progress` is called with the buckets done, the buckets in total, and the events so far.
    """
    buckets, immature, codes, seen = [], 0, 0, 0
    for done, directory in enumerate(directories, 1):
        scored, left_out = _score(directory, window, policies, codes)
        codes += len(saved_field(directory, "user_ids"))
        buckets.append(scored)
        immature += left_out
        seen += len(scored.user)
        progress(done, len(directories), seen)
    person = _people(directories)
    users, positive_users = (
        sum(len(codes) for codes in _distinct(buckets, person, positives_only)) for positives_only in (False, True)
    )
    positives = sum(int(bucket.positive.sum()) for bucket in buckets)
    return Replayed(buckets, immature, positives, users, positive_users, person)


def time_span(directories: Sequence[Path]) -> tuple[int, int] | None:
    """The times of the first and the last prepared event, in ms; None without events."""
    times = [saved_field(directory, "time_ms") for directory in directories]
    return (min(int(part.min()) for part in times), max(int(part.max()) for part in times)) if times else None


def _score(
    directory: Path, window: ReplayWindow, policies: Sequence[DecisionPolicy], first_code: int
) -> tuple[ScoredEvents, int]:
    """The scored events of a bucket, and the number of those left out."""
    names = saved_field(directory, "names").tolist()
    features, time_ms = saved_field(directory, "features"), saved_field(directory, "time_ms")
    rows, left_out = window.rows(time_ms)
    scores = {policy.name: np.empty(len(rows), np.float32) for policy in policies}
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        matrix, times = features[block], time_ms[block]
        for policy in policies:
            scores[policy.name][start : start + len(block)] = policy.scores(names, matrix, times)
    user = saved_field(directory, "user")[rows] + first_code
    return ScoredEvents(user, time_ms[rows], saved_field(directory, "labels")[rows], scores), len(left_out)


def _people(directories: Sequence[Path]) -> np.ndarray | None:
    """The person behind each code of a user, where logins were followed."""
    logins = directories[0].parent / LOGINS_FILE if directories else None
    if logins is None or not logins.exists():
        return None
    ids = np.concatenate([saved_field(directory, "user_ids") for directory in directories])
    return first_of_connected(ids, np.load(logins))


def _distinct(buckets: Sequence[ScoredEvents], person: np.ndarray | None, positives_only: bool) -> Iterator[np.ndarray]:
    """The distinct users, in parts that have no user in common."""
    users = [np.unique(bucket.user[bucket.positive] if positives_only else bucket.user) for bucket in buckets]
    if person is None:
        yield from users
    elif users:
        yield np.unique(person[np.concatenate(users)])
