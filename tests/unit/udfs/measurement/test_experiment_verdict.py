"""Verdicts: the action and its words, whatever the data are."""

from dataclasses import fields, is_dataclass
from math import isfinite
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.session_frames import drawn, experiment, frame
from training.experiments.comparison import arm_sides, cell_sums, stretch_numbers
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.design import Experiment, Stretch
from udfs.measurement.effects import Effect, Interval
from udfs.measurement.experiment import (
    KpiResult,
    Verdict,
    choose_action,
    decision_text,
    guardrail_state,
    judge,
)
from udfs.measurement.kpis import Kpi, load_kpis, terms_of

KPIS = load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml")
WIDE = {name: replace(kpi, guardrail=kpi.guardrail and 0.2) for name, kpi in KPIS.items()}
UP = Kpi(formula="f", numerator="purchases > 0", denominator="sessions", direction="up")
DOWN = replace(UP, direction="down")


def verdict_of(sessions: pd.DataFrame, kpis: dict[str, Kpi] = KPIS, design: Experiment | None = None) -> Verdict:
    design = design or experiment()
    stretch = stretch_numbers(design, sessions["started_at"].to_numpy())
    return judge(
        design, cell_sums(sessions, design, terms_of(kpis, {}), stretch, arm_sides(design, sessions)), kpis, {}
    )


def two_arms(users: int, rates: dict[str, float], seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.concat([drawn(rng, users, arm, rate) for arm, rate in rates.items()], ignore_index=True)


def numbers_in(value: object) -> list[float]:
    """All numbers in the fields of a value."""
    if is_dataclass(value):
        return [number for field in fields(value) for number in numbers_in(getattr(value, field.name))]
    if isinstance(value, dict):
        return [number for one in value.values() for number in numbers_in(one)]
    if isinstance(value, tuple | list):
        return [number for one in value for number in numbers_in(one)]
    return [value] if isinstance(value, int | float) else []


def assert_nothing_told(verdict: Verdict, reason: str) -> None:
    assert verdict.action in (ExperimentAction.NO_DATA, ExperimentAction.KEEP_RUNNING)
    for finding in verdict.findings.values():
        assert finding.effect is None
        assert reason in finding.no_data
        assert (finding.is_better, finding.is_worse) == (False, False)
        assert finding.guardrail == (None if finding.margin is None else "open")
    assert all(isfinite(number) for number in numbers_in(verdict))


# Actions


@pytest.mark.parametrize(
    ("rate", "action", "opening"),
    [
        (0.3, ExperimentAction.SHIP, "Ship challenger v2: conversion rate"),
        (0.05, ExperimentAction.STOP, "Stop challenger v2: conversion rate"),
        (0.15, ExperimentAction.KEEP_RUNNING, "Keep running: no significant difference yet."),
    ],
)
def test_a_better_arm_is_shipped_a_worse_one_stopped_and_equal_ones_kept_running(rate, action, opening):
    verdict = verdict_of(two_arms(5_000, {"champion": 0.15, "challenger": rate}), WIDE)
    assert verdict.action == action
    assert verdict.decision.startswith(opening), verdict.decision
    assert verdict.users == {"challenger": 5_000, "champion": 5_000}
    assert all(isfinite(number) for number in numbers_in(verdict))


def test_missing_users_come_before_any_effect():
    sessions = two_arms(1_000, {"champion": 0.1, "challenger": 0.4})
    kept = sessions[~sessions["user_id"].isin([f"challenger{user}" for user in range(250)])]
    verdict = verdict_of(kept, WIDE)
    assert verdict.action == ExperimentAction.FIX_FIRST
    assert verdict.decision.startswith("Fix first: sample ratio mismatch (p = ")


def test_each_stretch_has_its_own_shares():
    two = experiment(Stretch(0, 10_000, 0.1, 0.9), Stretch(10_000, None, 0.5, 0.5))
    rng = np.random.default_rng(1)
    parts = [
        drawn(rng, users, arm, 0.2, str(start), start)
        for start, arm, users in (
            (0, "challenger", 100),
            (0, "champion", 900),
            (20_000, "challenger", 500),
            (20_000, "champion", 500),
        )
    ]
    verdict = verdict_of(pd.concat(parts, ignore_index=True), WIDE, two)
    assert verdict.sample_ratio_p == 1
    assert [part[1:] for part in verdict.stretches] == [(100, 900), (500, 500)]
    assert verdict.users == {"challenger": 600, "champion": 1_400}


# Data that say nothing


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        (drawn(np.random.default_rng(1), 1, "champion", 0.5), "the treatment has no sessions"),
        (drawn(np.random.default_rng(1), 1, "challenger", 0.5), "the baseline has no sessions"),
        (frame({"user_id": arm, "arm": arm} for arm in ("champion", "challenger")), "the denominator is 0"),
    ],
)
def test_one_user_and_one_arm_say_nothing(sessions, reason):
    verdict = verdict_of(sessions)
    assert_nothing_told(verdict, reason)
    assert verdict.action == ExperimentAction.NO_DATA
    assert verdict.decision == "No data: the sessions say nothing of any KPI yet."


def test_no_sessions_say_nothing():
    verdict = judge(experiment(), CellSums(Columns(len(terms_of(KPIS, {}))).width), KPIS, {})
    assert_nothing_told(verdict, "the treatment has no sessions")
    assert verdict.sample_ratio_p is None
    assert verdict.users == verdict.sessions == {"challenger": 0, "champion": 0}


def test_empty_sessions_say_nothing():
    rows = [{"user_id": f"{arm}{user}", "arm": arm} for arm in ("champion", "challenger") for user in range(100)]
    verdict = verdict_of(frame(rows).assign(ended_at=0))
    assert_nothing_told(verdict, "is 0 in every session")
    assert verdict.findings["conversion_rate"].no_data == "the numerator is 0 in every session"
    assert verdict.findings["click_through_rate"].no_data == "the denominator is 0 in every session, of one arm or both"


def test_equal_users_say_nothing():
    rows = [
        {"user_id": f"{arm}{user}", "arm": arm, "pages": 1, "purchases": 1, "revenue": 9.99}
        for arm, users in (("champion", 300), ("challenger", 250))
        for user in range(users)
    ]
    verdict = verdict_of(
        frame(rows), {name: KPIS[name] for name in ("conversion_rate", "revenue_per_session", "bounce_rate")}
    )
    assert_nothing_told(verdict, "all users have the same value")


def test_without_purchases_the_other_kpis_are_told():
    verdict = verdict_of(two_arms(400, {"champion": 0.0, "challenger": 0.0}))
    assert verdict.findings["conversion_rate"].no_data == "the numerator is 0 in every session"
    assert verdict.findings["bounce_rate"].effect is not None
    assert verdict.action == ExperimentAction.KEEP_RUNNING
    wanted = "Keep running: no significant difference yet. "
    assert verdict.decision == wanted + "No data for the guardrails on conversion rate, revenue per session."


def test_a_crawler_with_most_of_the_sessions_is_named_as_the_reason():
    sessions = two_arms(300, {"champion": 0.1, "challenger": 0.1})
    crawler = frame({"user_id": "crawler", "arm": "challenger", "pages": 1, "events": 1} for _ in range(60_000))
    verdict = verdict_of(pd.concat([sessions, crawler], ignore_index=True))
    told = verdict.findings["bounce_rate"]
    assert told.effect is None
    assert told.no_data == (
        "few users have most of the denominator: the treatment is worth 1 equal users, at least 30 needed"
    )
    assert told.guardrail == "open"
    assert verdict.action == ExperimentAction.NO_DATA
    assert verdict.sessions["challenger"] > 60_000


@given(
    st.integers(0, 2**32), st.integers(1, 120), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0])
)
def test_whatever_the_sessions_a_verdict_has_no_nan(seed, users, rate, kept):
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        arm = ("champion", "challenger", "control", None)[rng.integers(4)]
        for _ in range(rng.integers(1, 3)):
            counts = {
                name: int(rng.binomial(2, rate)) for name in ("pages", "purchases", "view_promotions", "add_to_carts")
            }
            revenue = 10.0 ** rng.integers(-2, 7) * (rng.random() < kept)
            rows.append(
                {"user_id": f"u{user}", "arm": arm, "started_at": int(rng.integers(0, 40)), "revenue": revenue} | counts
            )
    design = experiment(Stretch(10, 20, 0.1, 0.9), Stretch(20, None, 0.5, 0.5))
    verdict = verdict_of(frame(rows), KPIS, design)
    assert all(isfinite(number) for number in numbers_in(verdict))
    for finding in verdict.findings.values():
        assert (finding.effect is None) == (finding.no_data is not None)
        if finding.effect is not None:
            assert finding.effect.low <= finding.effect.difference <= finding.effect.high
            assert 0 <= finding.effect.p_value <= 1
            assert 0 <= finding.effect.variance_removed <= 1


# Guardrails and words


def effect(relative: tuple[float, float, float] | None = None) -> Effect:
    return Effect(1.0, 1.0, 0.1, 0.0, 0.2, relative and Interval(*relative), 0.5, 0.01, 100, 0.0)


@pytest.mark.parametrize(
    ("relative", "kpi", "state"),
    [
        ((0.0, -0.02, 0.01), UP, "held"),
        ((0.0, -0.021, 0.01), UP, "open"),
        ((-0.05, -0.1, -0.021), UP, "broken"),
        ((-0.05, -0.1, -0.02), UP, "open"),
        ((0.0, -0.1, 0.02), DOWN, "held"),
        ((0.05, 0.021, 0.1), DOWN, "broken"),
        ((0.0, -1, 1), DOWN, "open"),
        (None, UP, "open"),
    ],
)
def test_a_guardrail_is_open_while_the_interval_has_its_margin_in_it(relative, kpi, state):
    assert guardrail_state(effect(relative), kpi, 0.02) == state


def test_without_an_effect_a_guardrail_is_open():
    assert guardrail_state(None, UP, 0.02) == "open"


BETTER, WORSE = KpiResult(UP, effect(), is_better=True), KpiResult(UP, effect(), is_worse=True)
HELD = KpiResult(UP, effect(), margin=0.02, guardrail="held")
BROKEN = KpiResult(UP, effect(), margin=0.02, guardrail="broken")
OPEN = KpiResult(UP, effect(), margin=0.02, guardrail="open")
NO_DATA = KpiResult(UP, None, "all users have the same value", margin=0.02, guardrail="open")


@pytest.mark.parametrize(
    ("ratio_p", "findings", "action", "decision"),
    [
        (0.5, {"a_b": BETTER, "c": HELD}, "ship", "Ship challenger v2: a b improved, and all guardrails hold."),
        (0.5, {"a_b": WORSE, "c": BROKEN}, "stop", "Stop challenger v2: c, a b worsened."),
        (0.5, {"a_b": BETTER, "c": WORSE}, "stop", "Stop challenger v2: c worsened."),
        (
            None,
            {"a_b": BETTER, "c": OPEN},
            "keep_running",
            "Keep running: a b improved, but guardrails are inconclusive for c.",
        ),
        (
            0.5,
            {"a": BETTER, "b": OPEN, "c": NO_DATA},
            "keep_running",
            "Keep running: a improved, but guardrails are inconclusive for b, "
            "and there is no data for the guardrails on c.",
        ),
        (
            0.5,
            {"a": BETTER, "c": NO_DATA},
            "keep_running",
            "Keep running: a improved, but there is no data for the guardrails on c.",
        ),
        (0.5, {"c": HELD}, "keep_running", "Keep running: no significant difference yet."),
        (0.5, {"c": NO_DATA}, "no_data", "No data: the sessions say nothing of any KPI yet."),
        (0.0009, {"c": NO_DATA}, "fix_first", "Fix first: sample ratio mismatch (p = 0.0009)."),
    ],
)
def test_an_action_has_its_reason_in_words(ratio_p, findings, action, decision):
    assert choose_action(ratio_p, findings) == action
    assert decision_text(ExperimentAction(action), ratio_p, findings, "challenger v2").startswith(decision)
