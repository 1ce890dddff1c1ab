"""So many users are enough, and not many more than enough, by the rules of the report: shown by simulation."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.effects import ALPHA, LEAST_USERS, Effect, Ratio, boundary, holm, measure_effect
from udfs.measurement.experiment import guardrail_state
from udfs.measurement.kpis import Kpi
from udfs.measurement.power import users_for_guardrail, users_needed

RUNS = 250
#: Half of the width that chance gives a share of 0.8 in so many runs, at 3 standard errors.
CHANCE = 3 * np.sqrt(0.8 * 0.2 / RUNS)
SHARES = st.floats(0.01, 0.99)
POWERS = st.floats(0.05, 0.99)


def rows_of(rng, users: int, rates: list[float]) -> np.ndarray:
    """Rows of users with some sessions, each of which has what each KPI counts at its rate."""
    sessions = 1 + rng.poisson(0.5, users)
    counts = [rng.binomial(sessions, rate) for rate in rates]
    columns = Columns(1 + len(rates))
    fixed = [np.ones(users), np.zeros(users), sessions, np.zeros(users)]
    return np.column_stack([*fixed, sessions, *counts, np.zeros((users, columns.terms))]).astype(float)


def effect_between(treatment: np.ndarray, baseline: np.ndarray, kpi: int = 0) -> Effect:
    """On a KPI, of users' rows float64[n, width]."""
    sums = CellSums(treatment.shape[1])
    sums.add_users(0, 0, treatment, treatment)
    sums.add_users(1, 1, baseline, baseline)
    return measure_effect(sums, Columns((treatment.shape[1] - 4) // 2), Ratio(1 + kpi, 0))


def relative_variance(rate: float) -> float:
    """Of one user with 1.5 sessions on average."""
    return (1 - rate) / rate / 1.5


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "share"), [(0.3, 0.5), (0.4, 0.2), (-0.3, 0.5)])
def test_a_planned_effect_is_significant_by_the_rule_of_the_report_as_often_as_promised(effect, share):
    rng = np.random.default_rng(1)
    rates = [0.2, 0.4, 0.1]
    users = users_needed(effect, relative_variance(rates[0]), share, 0.8, len(rates))
    found = 0
    for _ in range(RUNS):
        treatment = rows_of(rng, round(users * share), [rates[0] * (1 + effect), *rates[1:]])
        baseline = rows_of(rng, users - len(treatment), rates)
        found += 0 in holm({kpi: effect_between(treatment, baseline, kpi).p_value for kpi in range(len(rates))})
    assert 0.8 - CHANCE <= found / RUNS <= 0.92


@pytest.mark.parametrize(
    ("rate", "margin", "share", "direction"),
    [(0.2, 0.3, 0.5, "up"), (0.4, 0.15, 0.2, "down"), (0.2, 0.5, 0.05, "up"), (0.2, 0.9, 0.9, "up")],
)
def test_the_guardrail_of_a_harmless_challenger_holds_as_often_as_promised(rate, margin, share, direction):
    rng = np.random.default_rng(2)
    users = users_for_guardrail(margin, relative_variance(rate), share, 0.8, direction)
    kpi = Kpi(formula="f", numerator="purchases > 0", denominator="sessions", direction=direction)
    held = 0
    for _ in range(RUNS):
        arms = (rows_of(rng, count, [rate]) for count in (round(users * share), users - round(users * share)))
        held += guardrail_state(effect_between(*arms), kpi, margin) == "held"
    assert 0.8 - CHANCE <= held / RUNS <= 0.92


def test_a_plan_by_an_ordinary_interval_promises_too_much():
    """What a look at the end would take has less power by the report's interval, which holds at every look."""
    variance = relative_variance(0.05)
    fixed = (NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) ** 2 * 4 * variance / 0.1**2
    assert users_needed(0.1, variance, 0.5, 0.8, 1) > 1.5 * fixed


@given(st.floats(0.01, 2), st.floats(0.1, 100), SHARES, POWERS, st.integers(1, 20))
def test_so_many_users_are_enough_and_one_less_is_not(effect, variance, share, power, kpis):
    users = users_needed(effect, variance, share, power, kpis)

    def reserve(users: int) -> float:
        error = np.sqrt(variance * ((1 + effect) / share + 1 / (1 - share)) / users)
        return effect / error - boundary(users, ALPHA / kpis)

    needed = NormalDist().inv_cdf(power)
    assert reserve(users) >= needed - 1e-9
    assert users * min(share, 1 - share) < LEAST_USERS + 1 or reserve(users - 1) < needed + 1e-9


@given(st.floats(0.01, 0.5), st.floats(0.1, 100), SHARES, POWERS)
def test_wider_margins_and_less_power_take_fewer_users_and_more_is_tolerated_of_a_kpi_that_is_to_go_up(
    margin, variance, share, power
):
    users = users_for_guardrail(margin, variance, share, power)
    assert users_for_guardrail(1.5 * margin, variance, share, power) <= users
    assert users_for_guardrail(margin, variance, share, power / 2) <= users
    assert users <= users_for_guardrail(margin, variance, share, power, "down")


@given(st.floats(0.5, 2), st.floats(1e-4, 0.1), SHARES)
def test_no_plan_is_for_fewer_users_than_a_report_takes(effect, variance, share):
    assert users_needed(effect, variance, share, 0.5, 1) * min(share, 1 - share) >= LEAST_USERS - 1e-6
