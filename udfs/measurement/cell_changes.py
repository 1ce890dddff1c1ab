"""The sums of experiments kept up to date, session by session: the state of a user, and what a session changes.

What a session changes in the cells of a user is all that the sums over all users need. So they are those that
`cells_of_user` and `CellSums.add` give for all sessions at once, in whatever order these arrive.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import NamedTuple

import msgspec
import numpy as np

from udfs.measurement.cell_sums import USER, CellSums, Columns
from udfs.measurement.design import Experiment, Period, PeriodSums, cells_of_user

#: A user's rows by cell of an experiment, float64[columns.width] each.
Cells = dict[int, np.ndarray]
Periods = dict[Period, PeriodSums]

#: Of what a job keeps of users and of experiments. Raise it with every change: the job then refuses older savepoints.
STATE_FORMAT = 1

_FLOATS = np.dtype("<f8")
_PERIODS = msgspec.msgpack.Decoder(list[tuple[int, str | None, str | None, int, int, bytes]])
_CHANGE = msgspec.msgpack.Decoder(tuple[dict[int, bytes], dict[int, bytes]])


@dataclass(frozen=True)
class KnownExperiments:
    """The experiments that sessions may belong to."""

    experiments: tuple[Experiment, ...]
    apart_ms: tuple[int, ...] = ()  # when the history of an experiment may end that is not known yet

    @cached_property
    def boundaries_ms(self) -> list[int]:
        """The times, in order, at which a rollout began or ended a stretch or a history."""
        times = {*self.apart_ms, *(one.history_until_ms for one in self.experiments)}
        times |= {stretch.start_ms for one in self.experiments for stretch in one.stretches}
        times |= {stretch.end_ms for one in self.experiments for stretch in one.stretches} - {None}
        return sorted(times)

    def rollout_ms(self, time_ms: int) -> int:
        """The newest of these times at a time, in ms since 1970; 0 before the first."""
        number = bisect_right(self.boundaries_ms, time_ms)
        return self.boundaries_ms[number - 1] if number else 0

    def find(self, key: str) -> Experiment | None:
        """The experiment with a key."""
        return next((one for one in self.experiments if one.key == key), None)


class CountedSession(NamedTuple):
    """What counts of a session: `terms` are its contributions, float64[terms]."""

    arm: str | None
    version: str | None
    started_ms: int
    terms: np.ndarray


class Change(NamedTuple):
    """A user's cells in the experiment with a key, before a session and after it."""

    key: str
    before: Cells
    after: Cells


def count_session(periods: Periods, known: KnownExperiments, session: CountedSession, columns: Columns) -> list[Change]:
    """Count a session in its user's periods; returns what it changes in each experiment."""
    period = Period(known.rollout_ms(session.started_ms), session.arm, session.version)
    concerned = [experiment for experiment in known.experiments if _may_change(experiment, period)]
    before = [cells_of_user(experiment, periods, columns) for experiment in concerned]
    sums = periods.get(period)
    periods[period] = (
        PeriodSums(session.started_ms, 1, session.terms)
        if sums is None
        else PeriodSums(min(sums.first_ms, session.started_ms), sums.sessions + 1, sums.terms + session.terms)
    )
    after = [cells_of_user(experiment, periods, columns) for experiment in concerned]
    return [Change(experiment.key, *cells) for experiment, *cells in zip(concerned, before, after) if any(cells)]


def apply_change(sums: CellSums, before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> None:
    """Replace a user's rows by cell in the sums over all users."""
    sums.add(before, -1)
    sums.add(after)
    for pair in combinations_with_replacement(sorted(before), 2):
        if sums.products[pair][USER, USER] == 0:  # what is left of the other products is rounding errors
            del sums.products[pair]


def encode_periods(periods: Periods) -> bytes:
    """A user's periods as MessagePack, the state of a job, of STATE_FORMAT."""
    return msgspec.msgpack.encode(
        [(*period, sums.first_ms, sums.sessions, _to_bytes(sums.terms)) for period, sums in periods.items()]
    )


def decode_periods(content: bytes | None) -> Periods:
    """The periods of a user, none without content."""
    rows: Sequence = () if content is None else _PERIODS.decode(content)
    return {
        Period(*period): PeriodSums(first_ms, sessions, _from_bytes(terms))
        for *period, first_ms, sessions, terms in rows
    }


def encode_change(change: Change) -> bytes:
    """The cells of a change as MessagePack."""
    return msgspec.msgpack.encode(
        [{cell: _to_bytes(row) for cell, row in cells.items()} for cells in (change.before, change.after)]
    )


def decode_change(content: bytes) -> tuple[Cells, Cells]:
    """The cells before a change and after it."""
    before, after = _CHANGE.decode(content)
    return tuple({cell: _from_bytes(row) for cell, row in cells.items()} for cells in (before, after))


def _may_change(experiment: Experiment, period: Period) -> bool:
    """Whether sessions of a period may count in the cells of an experiment, as history or in an arm."""
    if period.rollout_ms < experiment.history_until_ms:
        return True
    in_stretch = experiment.stretch_at(period.rollout_ms) is not None
    return in_stretch and any(arm.has(period.arm, period.version) for arm in experiment.arms)


def _to_bytes(values: np.ndarray) -> bytes:
    return values.astype(_FLOATS, copy=False).tobytes()


def _from_bytes(content: bytes) -> np.ndarray:
    return np.frombuffer(content, _FLOATS)
