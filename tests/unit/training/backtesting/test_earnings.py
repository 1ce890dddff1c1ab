"""Sums of money, their intervals and differences."""

import numpy as np
import pytest

from training.backtesting.earnings import Earnings, EarningsComparison, Prices, compare, evaluate
from training.backtesting.ledger import ActionLedger

DAYS = np.arange(20_000, 20_003)
PRICES = Prices(benefit=1.0, cost=0.1)


def earnings(ledger: ActionLedger, policies: int = 2, prices: Prices = PRICES) -> list[Earnings]:
    return evaluate(ledger, policies, [], DAYS, prices)[0]


def compared(ledger: ActionLedger) -> EarningsComparison:
    _, [difference] = evaluate(ledger, 2, [(0, 1)], DAYS, PRICES)
    return compare(("a", "b"), difference)


def ledger(users: int, rates: tuple[float, float], seed: int = 1) -> ActionLedger:
    """Two policies that act on each user each day, whose actions convert at their rates."""
    rng = np.random.default_rng(seed)
    policy, user, day = (grid.ravel() for grid in np.meshgrid([0, 1], np.arange(users), DAYS, indexing="ij"))
    conversions = (rng.random(len(user)) < np.array(rates)[policy]).astype(np.int64)
    return ActionLedger(policy, user, day, np.ones(len(user), np.int64), conversions)


def test_days_add_up_to_the_total():
    one = ledger(200, (0.3, 0.1))
    for policy, found in enumerate(earnings(one, prices=Prices(2.0, 0.5))):
        mine = one.policy == policy
        conversions = one.conversions[mine].sum()
        assert (found.actions, found.conversions, found.users) == (600, conversions, 200)
        assert found.earned.value == pytest.approx(2.0 * conversions - 0.5 * 600)
        assert [day.date for day in found.days] == ["2024-10-04", "2024-10-05", "2024-10-06"]
        assert sum(day.earned.value for day in found.days) == pytest.approx(found.earned.value)
        assert found.days[-1].cumulated.value == pytest.approx(found.earned.value)
        assert found.days[-1].cumulated.low == pytest.approx(found.earned.low)
        assert found.earned.low < found.earned.value < found.earned.high


def test_the_interval_is_as_wide_as_users_differ():
    """The same users three days in a row: three times the money and three times the interval, not sqrt(3) of it."""
    rng = np.random.default_rng(2)
    conversions = (rng.random(500) < 0.3).astype(np.int64)
    alike = ActionLedger(
        np.zeros(1500, np.int64),
        np.repeat(np.arange(500), 3),
        np.tile(DAYS, 500),
        np.ones(1500, np.int64),
        np.repeat(conversions, 3),
    )
    [found] = earnings(alike, 1, Prices(1.0, 0.0))
    day = found.days[0].earned
    assert found.earned.high - found.earned.low == pytest.approx(3 * (day.high - day.low))
    assert day.high - day.low == pytest.approx(2 * 1.96 * np.sqrt(conversions.sum()), rel=0.2)


@pytest.mark.parametrize(
    ("rates", "verdict"),
    [((0.5, 0.1), "earns more"), ((0.1, 0.5), "earns less"), ((0.3, 0.3), "no clear difference")],
)
def test_a_clear_difference_is_told(rates, verdict):
    one = ledger(200, rates)
    comparison = compared(one)
    totals = [found.earned.value for found in earnings(one)]
    assert comparison.verdict == verdict
    assert comparison.difference.value == pytest.approx(totals[0] - totals[1])


def test_equal_policies_do_not_differ_at_all():
    one = ledger(100, (0.3, 0.3))
    twin = ActionLedger(one.policy, one.user, one.day, one.actions, np.tile(one.conversions[one.policy == 0], 2))
    difference = compared(twin).difference
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_few_users_give_no_verdict():
    comparison = compared(ledger(29, (1.0, 0.0)))
    assert (comparison.verdict, comparison.users) == ("no data", 29)
    assert comparison.why == "the two acted on 29 users, and an interval needs 30"


def test_a_difference_on_few_users_is_not_clear():
    """Both convert nobody, but for 29 users of the one."""
    one = ledger(200, (0.0, 0.0))
    lucky = (one.policy == 0) & (one.user < 29)
    ahead = ActionLedger(one.policy, one.user, one.day, one.actions, lucky.astype(np.int64))
    comparison = compared(ahead)
    assert comparison.difference.low > 0
    assert (comparison.verdict, comparison.why) == ("no clear difference", "the two differ on 29 users of 200")


def test_a_ledger_without_actions_has_earned_nothing():
    found = earnings(ActionLedger.joined([]))
    assert [(one.actions, one.earned.value, one.earned.low) for one in found] == [(0, 0, 0), (0, 0, 0)]
    assert compared(ActionLedger.joined([])).verdict == "no data"
