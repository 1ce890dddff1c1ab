"""Comparison of two arms of an experiment on sessions.

The unit is the user. A user who was in more than one arm counts in the first.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from udfs.measurement.effects import Moments
from udfs.measurement.experiment import ArmStatistics, Verdict, judge
from udfs.measurement.kpis import Kpi, values

REVENUE = "revenue_per_session"


@dataclass(frozen=True)
class Report(Verdict):
    """A verdict with the number of sessions per arm and the incremental revenue of the treatment."""

    sessions: dict[str, int]
    money: tuple[float, float, float] | None  # value, low, high


def compare(
    sessions: pd.DataFrame,
    kpis: dict[str, Kpi],
    treatment: str,
    baseline: str,
    start_ms: int | None = None,
    shares: dict[str, float] | None = None,
) -> Report:
    """Compare a treatment with a baseline, both names of arms.

    Sessions that began before `start_ms` are the users' history. `shares` are the shares of users that the arms should
    have, to be checked. Raises ValueError when an arm has too few users.
    """
    is_earlier = sessions["started_at"] < (start_ms or 0)
    current = sessions[~is_earlier & sessions["arm"].isin([treatment, baseline])].sort_values(["started_at", "arm"])
    arm_of = current.groupby("user_id")["arm"].first()
    current = current[current["arm"] == current["user_id"].map(arm_of)]
    counts = {arm: int((current["arm"] == arm).sum()) for arm in (treatment, baseline)}
    arms = []
    for name in (treatment, baseline):
        users = arm_of.index[arm_of == name]
        if len(users) < 2:
            raise ValueError(
                f"arm {name} has {len(users)} users (at least 2 required); arms in the sessions: {_arms(sessions)}"
            )
        moments = {kpi: kpi_moments(kpis[kpi], current, sessions[is_earlier], users) for kpi in kpis}
        arms.append(ArmStatistics(name, len(users), moments))
    verdict = judge(*arms, kpis, shares)
    money = None
    if REVENUE in verdict.findings:
        effect = verdict.findings[REVENUE].effect
        money = tuple(round(value * counts[treatment], 2) for value in (effect.difference, effect.low, effect.high))
    return Report(**vars(verdict), sessions=counts, money=money)


def _arms(sessions: pd.DataFrame) -> str:
    return ", ".join(sorted(sessions["arm"].dropna().unique())) or "none"


def kpi_moments(kpi: Kpi, current: pd.DataFrame, earlier: pd.DataFrame, users: pd.Index) -> Moments:
    """The moments of a KPI over users, from their sessions in the experiment and before it."""

    def sums(term: str, sessions: pd.DataFrame) -> np.ndarray:
        return values(term, sessions).groupby(sessions["user_id"]).sum().reindex(users, fill_value=0.0).to_numpy(float)

    terms = (kpi.numerator, kpi.denominator)
    return Moments.of_users(*(sums(term, sessions) for sessions in (current, earlier) for term in terms))
