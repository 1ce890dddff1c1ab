"""What an experiment compares: one version against another, in stretches of constant traffic shares.

When shares change, users move between the arms, and what the season does to a KPI looks like an effect: an arm that
grows in a sale week has more of that week's sessions. Within a stretch, chance alone decides who is in which arm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from udfs.measurement.cell_sums import Columns


class ExperimentArm(NamedTuple):
    """An arm, and the version of the model that decides there; None: any version."""

    name: str
    version: str | None = None

    def has(self, name: str | None, version: str | None) -> bool:
        """Whether a session of an arm and a version belongs to it."""
        return name == self.name and self.version in (None, version)


class Stretch(NamedTuple):
    """A time in which neither arm's share of the users changed: from `start_ms` on, and before `end_ms`."""

    start_ms: int
    end_ms: int | None  # None: it goes on
    treatment_share: float
    baseline_share: float

    def covers(self, time_ms: int) -> bool:
        return self.start_ms <= time_ms and (self.end_ms is None or time_ms < self.end_ms)


@dataclass(frozen=True)
class Experiment:
    """Two arms, and the stretches in which they are compared.

    Each stretch has two cells: number 2 s for the treatment in stretch s, 2 s + 1 for the baseline.
    """

    treatment: ExperimentArm
    baseline: ExperimentArm
    stretches: tuple[Stretch, ...]
    #: When which arm a user is drawn for first made a difference: what is earlier is history. At the latest, it is when
    #: the first stretch begins; what lies between counts for nothing.
    history_until_ms: int

    @property
    def arms(self) -> tuple[ExperimentArm, ExperimentArm]:
        return self.treatment, self.baseline

    @property
    def key(self) -> str:
        """The arms and versions as text, the same for as long as the experiment runs."""
        return " vs. ".join("@".join(filter(None, arm)) for arm in self.arms)

    def stretch_at(self, time_ms: int) -> int | None:
        """The number of the stretch that covers a time, in ms since 1970; None where none does."""
        return next((number for number, stretch in enumerate(self.stretches) if stretch.covers(time_ms)), None)


class Period(NamedTuple):
    """A user's sessions of one arm and version that began under one rollout."""

    rollout_ms: int  # when the rollout came into force, ms since 1970; 0 before the first
    arm: str | None
    version: str | None


@dataclass
class PeriodSums:
    """When the first session of a period began, the number of sessions, and the sum of each term: float64[terms]."""

    first_ms: int
    sessions: int
    terms: np.ndarray


def cells_of_user(
    experiment: Experiment, periods: Mapping[Period, PeriodSums], columns: Columns
) -> dict[int, np.ndarray]:
    """A user's values by cell of an experiment, float64[columns.width] each.

    A user counts in the arm of the first session of a stretch; sessions in the other arm of that stretch are dropped,
    and counted as such.
    """
    history = np.zeros(columns.terms)
    compared: dict[int, dict[int, list[PeriodSums]]] = {}
    for period, sums in periods.items():
        if period.rollout_ms < experiment.history_until_ms:
            history += sums.terms
        number = experiment.stretch_at(period.rollout_ms)
        if number is None:
            continue
        for side, arm in enumerate(experiment.arms):
            if arm.has(period.arm, period.version):
                compared.setdefault(number, {}).setdefault(side, []).append(sums)
    cells = {}
    for number, sides in compared.items():
        # Of equally early sessions, the baseline's decides, whatever the order in which they arrived.
        side = min(sides, key=lambda side: (min(sums.first_ms for sums in sides[side]), -side))
        dropped = sum(sums.sessions for other, parts in sides.items() if other != side for sums in parts)
        kept = sides[side]
        cells[2 * number + side] = columns.row(
            sessions=sum(sums.sessions for sums in kept),
            dropped=dropped,
            now=np.sum([sums.terms for sums in kept], axis=0),
            before=history,
        )
    return cells
