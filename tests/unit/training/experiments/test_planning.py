"""Plans by recorded sessions, and the shipped steps: a harmless challenger passes them in a shop of 100,000 users."""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from training.experiments.planning import KpiData, kpi_data, step_lines
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.effects import Ratio, measure_effect
from udfs.measurement.experiment import guardrail_state
from udfs.measurement.kpis import FIELDS, Term, caps_of, load_kpis, term_values, terms_of
from udfs.measurement.power import users_for_guardrail
from udfs.rollout.plan import Control, Rollout, Step, load_rollout

CONF = Path(__file__).parents[4] / "conf"
KPIS = load_kpis(CONF / "kpis.yaml")
SHIPPED = load_rollout(CONF / "rollout.yaml", Rollout(salt="any", champion="any"))
#: Users of the shop that the shipped margins are for, each of whom comes 1.5 times in a step.
SHOP_USERS = 100_000


def shop_sessions(users: int, seed: int = 1) -> pd.DataFrame:
    """5 % of the sessions buy, 40 % bounce, and orders vary by as much as they are worth on average."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 1 + rng.poisson(0.5, users))
    taste, patience = rng.gamma(2, 0.5, users)[user], rng.beta(4, 6, users)[user]
    count = len(user)
    bought = rng.random(count) < 0.05 * taste
    orders = rng.lognormal(4, np.sqrt(np.log(2)), count)
    nothing = dict.fromkeys(FIELDS, 0)
    counts = {"pages": 2 - (rng.random(count) < patience), "purchases": bought, "revenue": bought * orders}
    return pd.DataFrame(nothing | counts | {"user_id": user, "started_at": 0, "ended_at": 1_000}, index=range(count))


@cache
def shop() -> pd.DataFrame:
    return shop_sessions(200_000)


@cache
def data() -> dict[str, KpiData]:
    return kpi_data(shop(), KPIS)


@pytest.mark.slow
def test_a_kpi_of_recorded_sessions_is_that_of_an_obvious_computation():
    by_user = shop().assign(bought=shop()["purchases"] > 0, one=1).groupby("user_id")[["bought", "one"]].sum()
    rate = by_user["bought"].sum() / by_user["one"].sum()
    linear = by_user["bought"] - rate * by_user["one"]
    variance = linear.var() / by_user["one"].mean() ** 2
    assert data()["conversion_rate"].value == pytest.approx(rate)
    assert data()["conversion_rate"].relative_variance == pytest.approx(variance / rate**2)


def test_a_kpi_without_data_says_which_of_its_terms_is_0():
    assert data()["click_through_rate"].no_data == (
        "no data: the denominator `view_promotions` is 0 in every session, of one arm or both"
    )
    assert data()["add_to_cart_rate"].no_data == "no data: the numerator `add_to_carts > 0` is 0 in every session"


def user_rows(terms: tuple[Term, ...]) -> np.ndarray:
    """The rows of the shop's users, float64[n, width]."""
    columns = Columns(len(terms))
    sessions = shop().groupby("user_id").size().to_numpy(float)
    amounts = pd.DataFrame({number: term_values(term, shop()) for number, term in enumerate(terms)})
    now = amounts.groupby(shop()["user_id"]).sum().to_numpy()
    zeros = np.zeros_like(sessions)
    return np.column_stack([zeros + 1, zeros, sessions, zeros, now, np.zeros((len(now), columns.terms))])


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in SHIPPED.steps if step.guardrails], ids=lambda step: f"{step.share}")
def test_a_harmless_challenger_passes_a_shipped_step(step):
    rng = np.random.default_rng(4)
    caps = caps_of(KPIS, shop())
    kpis = {name: KPIS[name] for name in step.guardrails}
    terms = terms_of(kpis, {name: cap for name, cap in caps.items() if name in kpis})
    columns, rows = Columns(len(terms)), user_rows(terms)
    sizes = [round(SHOP_USERS * share) for share in (step.share, 1 - SHIPPED.control.share - step.share)]
    passed, runs = 0, 60
    for _ in range(runs):
        sums = CellSums(columns.width)
        drawn = rows[rng.integers(0, len(rows), sum(sizes))]
        for cell, arm in enumerate(np.split(drawn, sizes[:1])):
            sums.add_users(cell, cell, arm, arm)
        states = set()
        for name, kpi in kpis.items():
            ratio = Ratio(terms.index(Term(kpi.numerator, caps.get(name))), terms.index(Term(kpi.denominator)))
            states.add(guardrail_state(measure_effect(sums, columns, ratio), kpi, step.guardrails[name]))
        passed += states == {"held"}
    assert passed / runs >= 0.8


def test_the_lines_of_a_plan_name_what_each_guardrail_takes_or_lacks():
    guardrails = {"conversion_rate": 0.1, "bounce_rate": 0, "click_through_rate": 0.1, "mine": 0.1}
    steps = (Step(share=0.5, guardrails=guardrails), Step(share=0.95, guardrails={"conversion_rate": 0.1}))
    rollout = Rollout(salt="any", champion="any", control=Control(share=0.05, at_most=0.05), steps=steps)
    lines = list(step_lines(rollout, KPIS, data(), users_per_day=1_000, power=0.8))
    users = users_for_guardrail(0.1, data()["conversion_rate"].relative_variance, 0.5 / 0.95, 0.8)
    assert lines[0] == (
        f"step at 50%, conversion_rate at most 10% worse: {users:,} users of both arms, {users / 950:.1f} days"
    )
    assert lines[1].endswith("bounce_rate at most 0% worse: never held, however many users: give it a margin above 0")
    assert "click_through_rate at most 10% worse: no data: the denominator `view_promotions` is 0" in lines[2]
    assert lines[2].endswith("leave this guardrail out, or ramps will need --force")
    assert lines[3].startswith("step at 50%, mine at most 10% worse: not a KPI; expected one of click_through_rate, ")
    assert lines[4].endswith("never held, the champion has no users left to compare with")


def test_the_documented_numbers_of_users_are_those_of_such_a_shop():
    """docs/experiments.md has a table of the users that the guardrails of the shipped steps take."""
    page = (CONF.parent / "docs" / "experiments.md").read_text()
    compared = 1 - SHIPPED.control.share
    for step in SHIPPED.steps:
        for name, margin in step.guardrails.items():
            users = users_for_guardrail(
                margin, data()[name].relative_variance, step.share / compared, 0.8, KPIS[name].direction
            )
            found = re.search(rf"\| {100 * step.share:g}% \| `{name}` \| {100 * margin:g}% \| ([\d,]+) \|", page)
            assert found, (step.share, name)
            assert int(found[1].replace(",", "")) == pytest.approx(users / compared, rel=0.05)
