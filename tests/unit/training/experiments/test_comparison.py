"""Reports on sessions: which sessions count, and what is told of them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from tests.support.session_frames import drawn, experiment, frame
from training.experiments.comparison import Report, compare
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.design import Stretch
from udfs.measurement.kpis import load_kpis

ALL = load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml")
KPIS = {name: replace(ALL[name], guardrail=None) for name in ("conversion_rate", "revenue_per_session")}


def sessions_of(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def two_arms(rng, users: int, challenger: float, champion: float = 0.2, **options) -> pd.DataFrame:
    return sessions_of(
        *(drawn(rng, users, arm, rate, **options) for arm, rate in (("challenger", challenger), ("champion", champion)))
    )


def conversion(report: Report) -> float:
    return report.findings["conversion_rate"].effect.difference


def test_kpis_and_money_are_those_of_an_obvious_computation():
    sessions = two_arms(np.random.default_rng(1), 300, 0.3)
    report = compare(sessions, KPIS, experiment())
    by_arm = sessions.groupby("arm")
    revenue = by_arm["revenue"].mean()
    effect = report.findings["revenue_per_session"].effect
    assert (effect.treatment, effect.baseline) == pytest.approx((revenue["challenger"], revenue["champion"]))
    brought = (revenue["challenger"] - revenue["champion"]) * by_arm.size()["challenger"]
    assert report.money[0] == pytest.approx(brought, abs=0.01)
    assert report.money[1] < report.money[0] < report.money[2]
    assert report.sessions == by_arm.size().to_dict()


# Versions


def test_a_bad_version_after_a_good_one_is_told_from_it():
    """Both had the same users, at different times."""
    rng = np.random.default_rng(2)
    good = two_arms(rng, 3_000, 0.4)
    bad = two_arms(rng, 3_000, 0.1, started_at=10_000)
    bad.loc[bad["arm"] == "challenger", "model_version"] = "v3"
    sessions = sessions_of(good, bad)
    of_good = compare(sessions, KPIS, experiment(Stretch(0, 5_000, 0.5, 0.5)))
    of_bad = compare(
        sessions, KPIS, experiment(Stretch(10_000, None, 0.5, 0.5), treatment=("challenger", "v3"), history_until_ms=0)
    )
    assert (of_good.action, of_bad.action) == (ExperimentAction.SHIP, ExperimentAction.STOP)
    assert conversion(of_good) == pytest.approx(0.2, abs=0.03)
    assert conversion(of_bad) == pytest.approx(-0.1, abs=0.03)
    assert of_good.other_sessions == of_bad.other_sessions == 0
    assert of_good.decision.startswith("Ship challenger v2: ")
    assert of_bad.decision.startswith("Stop challenger v3: ")


def test_two_challengers_at_once_are_told_apart():
    rng = np.random.default_rng(3)
    other = drawn(rng, 3_000, "challenger", 0.1, "other").assign(model_version="v3")
    sessions = sessions_of(two_arms(rng, 3_000, 0.4), other)
    thirds = Stretch(0, None, 1 / 3, 1 / 3)
    reports = [
        compare(sessions, KPIS, experiment(thirds, treatment=("challenger", version))) for version in ("v2", "v3")
    ]
    assert [report.action for report in reports] == [ExperimentAction.SHIP, ExperimentAction.STOP]
    assert [round(conversion(report), 1) for report in reports] == [0.2, -0.1]
    assert reports[0].other_sessions == len(other)
    assert reports[0].users == reports[1].users == {"challenger": 3_000, "champion": 3_000}


def test_sessions_without_a_version_are_of_no_version():
    sessions = two_arms(np.random.default_rng(4), 300, 0.2)
    sessions.loc[sessions["arm"] == "challenger", "model_version"] = None
    report = compare(sessions, KPIS, experiment())
    assert report.action == ExperimentAction.FIX_FIRST
    assert report.users == {"challenger": 0, "champion": 300}
    assert report.other_sessions == (sessions["arm"] == "challenger").sum()


# History


def test_history_narrows_the_interval_and_is_never_of_the_experiment():
    rng = np.random.default_rng(5)
    users = 1_000
    taste = rng.beta(0.5, 1.5, 2 * users)
    rows = [
        {
            "user_id": f"u{user}",
            "arm": None if is_earlier else ("challenger", "champion")[user % 2],
            "started_at": (0 if is_earlier else 1_000) + number,
            "purchases": int(rng.random() < taste[user] * (1 if is_earlier or user % 2 else 0.5)),
        }
        for user in range(2 * users)
        for is_earlier in (True, False)
        for number in range(3)
    ]
    sessions = frame(rows)
    narrow = compare(sessions, KPIS, experiment(Stretch(1_000, None, 0.5, 0.5)))
    wide = compare(sessions[sessions["started_at"] >= 1_000], KPIS, experiment(Stretch(1_000, None, 0.5, 0.5)))
    effects = [report.findings["conversion_rate"].effect for report in (narrow, wide)]
    assert effects[0].variance < 0.8 * effects[1].variance
    assert effects[0].variance_removed == pytest.approx(1 - effects[0].variance / effects[1].variance, abs=1e-9)
    assert effects[1].variance_removed == 0
    assert effects[0].difference == pytest.approx(-0.125, abs=0.03)
    # What happened while the draw made a difference, but before the first stretch, counts for nothing.
    without = compare(sessions, KPIS, experiment(Stretch(1_000, None, 0.5, 0.5), history_until_ms=0))
    assert without.findings == wide.findings


def test_history_of_treated_users_would_hide_the_effect():
    """The treatment ran before, against another champion: what users did then is no history."""
    rng = np.random.default_rng(6)
    taste = rng.beta(2, 6, 4_000)
    rows = [
        {
            "user_id": f"u{user}",
            "arm": ("challenger", "champion")[user % 2],
            "model_version": "v2" if user % 2 == 0 else "v0" if start == 0 else "v1",
            "started_at": start + number,
            "purchases": int(rng.random() < taste[user] * (1 if user % 2 else 1.5)),
        }
        for user in range(4_000)
        for start in (0, 1_000)
        for number in range(5)
    ]
    stretch = Stretch(1_000, None, 0.5, 0.5)
    right, wrong = (compare(frame(rows), KPIS, experiment(stretch, history_until_ms=until)) for until in (0, 1_000))
    assert conversion(right) == pytest.approx(0.125, abs=0.02)
    assert conversion(wrong) < 0.08


# Who counts


def test_a_user_of_two_arms_counts_in_the_first():
    sessions = two_arms(np.random.default_rng(7), 50, 0.2)
    moved = frame([{"user_id": "champion0", "arm": "challenger", "started_at": 10**9, "revenue": 1e9}])
    report = compare(sessions_of(sessions, moved), KPIS, experiment())
    assert report.users == {"challenger": 50, "champion": 50}
    assert (report.moved_users, report.dropped_sessions) == (1, 1)
    assert report.money[2] < 1e9


def test_bots_count_neither_now_nor_as_history_nor_for_caps():
    rng = np.random.default_rng(8)
    people = sessions_of(two_arms(rng, 300, 0.3, started_at=5_000), drawn(rng, 300, "champion", 0.3))
    bots = sessions_of(
        two_arms(rng, 200, 0.9, started_at=5_000, price=1e6), drawn(rng, 300, "champion", 0.9, price=1e6)
    )
    capped = KPIS | {"revenue_per_session": replace(KPIS["revenue_per_session"], winsorize=0.9)}
    design = experiment(Stretch(5_000, None, 0.5, 0.5))
    wanted = compare(people, capped, design)
    found = compare(sessions_of(people.assign(is_bot=False), bots.assign(is_bot=True)), capped, design)
    assert found.bot_sessions == (bots["started_at"] >= 5_000).sum()
    assert (found.findings, found.users, found.money) == (wanted.findings, wanted.users, wanted.money)
    assert wanted.findings["revenue_per_session"].cap == 20


def test_no_sessions_have_no_report_of_money():
    report = compare(two_arms(np.random.default_rng(9), 1, 0.2).iloc[:0], KPIS, experiment())
    assert (report.action, report.money) == (ExperimentAction.NO_DATA, None)


# Outliers


def with_orders(rng, users: int, challenger: float) -> pd.DataFrame:
    """Sessions with orders of many sizes, and one in a million in one arm or the other."""
    sessions = two_arms(rng, users, challenger)
    sessions["revenue"] *= rng.lognormal(0, 0.5, len(sessions))
    huge = rng.choice(np.flatnonzero(sessions["purchases"]))
    sessions.loc[huge, "revenue"] = 2_000_000.0
    return sessions


@pytest.mark.slow
def test_a_huge_order_hides_a_win_only_without_a_cap_and_is_no_alarm():
    capped = {"revenue_per_session": replace(KPIS["revenue_per_session"], winsorize=0.99)}
    rng = np.random.default_rng(10)
    runs, alarms, seen, seen_uncapped = 12, 0, 0, 0
    for _ in range(runs):
        same = compare(with_orders(rng, 500, 0.2), capped, experiment()).findings["revenue_per_session"]
        alarms += same.is_better or same.is_worse
        better = compare(with_orders(rng, 500, 0.4), capped, experiment()).findings["revenue_per_session"]
        assert better.cap < 200
        seen += better.is_better
        seen_uncapped += better.uncapped.p_value <= 0.05
    assert alarms == 0
    assert seen == runs
    assert seen_uncapped == 0
