"""Comparison of the two arms of an experiment on sessions."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd

from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.design import Experiment
from udfs.measurement.experiment import Verdict, judge
from udfs.measurement.kpis import Kpi, Term, caps_of, term_values, terms_of

REVENUE = "revenue_per_session"


@dataclass(frozen=True)
class Report(Verdict):
    """A verdict with the incremental revenue of the treatment, and what was left out."""

    money: tuple[float, float, float] | None  # value, low, high
    #: Sessions in the experiment's time that were left out: of bots, and of models that are not compared.
    bot_sessions: int
    other_sessions: int


def compare(
    sessions: pd.DataFrame,
    kpis: Mapping[str, Kpi],
    experiment: Experiment,
    margins: Mapping[str, float] | None = None,
) -> Report:
    """Compare the arms of an experiment; `margins` as in `judge`.

    A user counts in the arm of the first session of a stretch; the sessions in the other arm of that stretch are
    dropped. Sessions of bots are left out, also as history.
    """
    is_bot = sessions["is_bot"].to_numpy(bool) if "is_bot" in sessions else np.zeros(len(sessions), bool)
    stretch = stretch_numbers(experiment, sessions["started_at"].to_numpy())
    side = arm_sides(experiment, sessions)
    people = sessions[~is_bot]
    caps = caps_of(kpis, people[people["arm"] != experiment.treatment.name])
    sums = cell_sums(people, experiment, terms_of(kpis, caps), stretch[~is_bot], side[~is_bot])
    verdict = judge(experiment, sums, kpis, caps, margins)
    money = None
    if REVENUE in verdict.findings and (effect := verdict.findings[REVENUE].effect):
        treated = verdict.sessions[experiment.treatment.name]
        money = tuple(round(value * treated, 2) for value in (effect.difference, effect.low, effect.high))
    return Report(
        **vars(verdict),
        money=money,
        bot_sessions=int((is_bot & (stretch >= 0)).sum()),
        other_sessions=int((~is_bot & (stretch >= 0) & (side < 0)).sum()),
    )


def stretch_numbers(experiment: Experiment, started_at: np.ndarray) -> np.ndarray:
    """The number of the stretch in which each of n sessions began, int64[n]; -1 where none did."""
    numbers = np.full(len(started_at), -1)
    for number, stretch in enumerate(experiment.stretches):
        within = started_at >= stretch.start_ms
        if stretch.end_ms is not None:
            within &= started_at < stretch.end_ms
        numbers[within] = number
    return numbers


def arm_sides(experiment: Experiment, sessions: pd.DataFrame) -> np.ndarray:
    """The arm of each of n sessions, int64[n]: 0 for the treatment, 1 for the baseline, -1 for any other."""
    sides = np.full(len(sessions), -1)
    for side, arm in enumerate(experiment.arms):
        belongs = (sessions["arm"] == arm.name).to_numpy()
        if arm.version is not None:
            belongs &= (sessions["model_version"] == arm.version).to_numpy()
        sides[belongs] = side
    return sides


def cell_sums(
    sessions: pd.DataFrame, experiment: Experiment, terms: tuple[Term, ...], stretch: np.ndarray, side: np.ndarray
) -> CellSums:
    """The sums of n sessions by cell, given the stretch and the arm of each, int64[n]: as `cells_of_user` has them."""
    columns = Columns(len(terms))
    users = pd.factorize(sessions["user_id"])[0]
    amounts = np.column_stack([term_values(term, sessions) for term in terms])
    count = users.max(initial=-1) + 1
    history = np.zeros((count, len(terms)))
    is_earlier = sessions["started_at"].to_numpy() < experiment.history_until_ms
    np.add.at(history, users[is_earlier], amounts[is_earlier])
    started_at = sessions["started_at"].to_numpy()
    cells: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for number in range(len(experiment.stretches)):
        here = (stretch == number) & (side >= 0)
        # Of equally early sessions, the baseline's decides, as in `cells_of_user`.
        order = np.flatnonzero(here)[np.lexsort((-side[here], started_at[here]))]
        arm_of = np.full(count, -1)
        arm_of[users[order[::-1]]] = side[order[::-1]]
        is_kept = here & (side == arm_of[users])
        dropped = np.bincount(users[here & ~is_kept], minlength=count)
        for one in (0, 1):
            in_cell = is_kept & (side == one)
            members, positions = np.unique(users[in_cell], return_inverse=True)
            rows = np.zeros((len(members), columns.width))
            now = np.zeros((len(members), len(terms)))
            np.add.at(now, positions, amounts[in_cell])
            counts = np.bincount(positions, minlength=len(members))
            fixed = [np.ones(len(members)), dropped[members] > 0, counts, dropped[members]]
            rows[:] = np.column_stack([*fixed, now, history[members]])
            cells[2 * number + one] = members, rows
    return _summed(cells, columns.width)


def _summed(cells: Mapping[int, tuple[np.ndarray, np.ndarray]], width: int) -> CellSums:
    """The sums of users, int64[n] each and sorted, and of their rows, float64[n, width], by cell."""
    sums = CellSums(width)
    for first, second in combinations_with_replacement(sorted(cells), 2):
        (users, rows), (others, other_rows) = cells[first], cells[second]
        _, here, there = np.intersect1d(users, others, assume_unique=True, return_indices=True)
        if len(here):
            sums.add_users(first, second, rows[here], other_rows[there])
    return sums
