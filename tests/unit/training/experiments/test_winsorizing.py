"""A limit of what a session counts for: it keeps what a report promises, and one order decides nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from training.experiments.comparison import Report, compare
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.effects import ALPHA
from udfs.measurement.kpis import FIELDS, LEAST_CAPPING, load_kpis

KPIS = load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml")
REVENUE = {"revenue_per_session": KPIS["revenue_per_session"]}
EXPERIMENT = Experiment(ExperimentArm("challenger"), ExperimentArm("champion"), (Stretch(0, None, 0.5, 0.5),), 0)
WHALE = 2_000_000.0


def sessions_of(rng, users: int, rates: dict[str, float], sigma: float) -> pd.DataFrame:
    """One session of each user, with orders of a lognormal value, in arms that buy at their rates."""
    arms = np.repeat(list(rates), users)
    count = len(arms)
    bought = rng.random(count) < np.repeat(list(rates.values()), users)
    columns = {
        "user_id": np.arange(count),
        "arm": arms,
        "model_version": None,
        "started_at": rng.permutation(count),
        "pages": 2 - (rng.random(count) < 0.4),
        "purchases": bought.astype(int),
        "revenue": bought * rng.lognormal(3, sigma, count),
    }
    sessions = pd.DataFrame(dict.fromkeys(FIELDS, 0) | columns)
    return sessions.assign(ended_at=sessions["started_at"] + rng.integers(1_000, 90_000, count))


def with_order(sessions: pd.DataFrame, arm: str, value: float = WHALE) -> pd.DataFrame:
    """The sessions with another one of an arm, in which a new user places an order of this value."""
    changed = {"user_id": len(sessions), "arm": arm, "purchases": 1, "revenue": value, "started_at": 0}
    return pd.concat([sessions, sessions[-1:].assign(**changed)], ignore_index=True)


def revenue(sessions: pd.DataFrame, kpis=REVENUE) -> Report:
    return compare(sessions, kpis, EXPERIMENT)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_heavy_tails_and_one_huge_order_raise_no_more_false_alarms_than_promised(arm):
    rng = np.random.default_rng(1)
    runs, alarms, ordinary = 100, 0, 0
    for _ in range(runs):
        sessions = with_order(sessions_of(rng, 1_500, {"champion": 0.4, "challenger": 0.4}, sigma=2), arm)
        looks = (revenue(sessions[sessions["started_at"] < until]) for until in (800, 1_600, 3_000))
        findings = [look.findings["revenue_per_session"] for look in looks]
        assert all(finding.cap < WHALE for finding in findings)
        alarms += any(finding.effect.p_value <= ALPHA for finding in findings)
        last = findings[-1].effect
        ordinary += abs(last.difference) > 1.96 * np.sqrt(last.variance)
    assert alarms / runs <= ALPHA
    assert ordinary / runs <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / runs)  # the variance is right, too


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_one_huge_order_does_not_hide_that_conversion_won(arm):
    rng = np.random.default_rng(2)
    sessions = sessions_of(rng, 30_000, {"champion": 0.05, "challenger": 0.0845}, sigma=np.sqrt(np.log(2)))
    sessions = with_order(sessions, arm)
    report = compare(sessions, KPIS, EXPERIMENT)
    assert report.action == ExperimentAction.SHIP, report.decision
    without = KPIS | {name: replace(kpi, winsorize=None) for name, kpi in REVENUE.items()}
    assert compare(sessions, without, EXPERIMENT).action == ExperimentAction.KEEP_RUNNING


def test_the_value_without_the_limit_is_kept_beside_the_one_with_it():
    rng = np.random.default_rng(3)
    sessions = with_order(sessions_of(rng, 1_000, {"champion": 0.2, "challenger": 0.2}, sigma=1), "challenger")
    finding = revenue(sessions).findings["revenue_per_session"]
    treated = sessions.loc[sessions["arm"] == "challenger", "revenue"]
    assert finding.uncapped.treatment == pytest.approx(treated.mean())
    assert finding.effect.treatment == pytest.approx(np.minimum(treated, finding.cap).mean())
    paid = sessions.loc[(sessions["revenue"] > 0) & (sessions["arm"] == "champion"), "revenue"]
    assert finding.cap == np.quantile(paid, 0.99, method="lower")


def test_few_orders_set_no_limit():
    rng = np.random.default_rng(4)
    sessions = sessions_of(rng, 1_000, {"champion": 0.02, "challenger": 0.02}, sigma=1)
    assert (sessions["revenue"] > 0).sum() < LEAST_CAPPING
    assert revenue(sessions).findings["revenue_per_session"].cap is None
