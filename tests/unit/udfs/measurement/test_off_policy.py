"""Off-policy estimates: against closed forms, and against known truth under the log of a bandit."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bandit_simulation import RATE, History, pooled, simulate, thompson
from udfs.measurement.effects import NoEffectError
from udfs.measurement.off_policy import Logged, policy_value

EFFECTS = (0.0, -0.3, 0.4)


def logged(run: History, versions: list[int]) -> Logged:
    """The sessions of these arms, with the propensities that the bandit gave them."""
    rows = run.rows
    here = np.isin(rows.arm, versions)
    propensity = run.shares[rows.stretch[here], rows.arm[here]]
    version = np.searchsorted(versions, rows.arm[here])
    return Logged(rows.user[here], version, propensity, rows.numerator[here], rows.denominator[here])


def draw(seed: int, users: int = 500) -> Logged:
    """One to three sessions of each user, of two versions."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, 4, users))
    version = rng.integers(2, size=len(user))
    return Logged(user, version, rng.choice([0.1, 0.4, 0.9], len(user)), rng.poisson(1, len(user)).astype(float),
                  rng.integers(1, 4, len(user)).astype(float))  # fmt: skip


@given(st.integers(0, 10_000))
def test_with_equal_weights_it_is_the_kpi_of_the_log(seed):
    sessions = draw(seed)
    sessions = sessions._replace(propensity=np.full(len(sessions.user), 0.3))
    found = policy_value(sessions, {"v1": 0.5, "v2": 0.5})
    assert found.value == pytest.approx(sessions.numerator.sum() / sessions.denominator.sum())
    assert found.users == 500
    assert found.low < found.value < found.high


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_shares_and_propensities_count_by_their_proportions(seed, scale):
    sessions = draw(seed)
    found = policy_value(sessions, {"v1": 0.2, "v2": 0.6})
    scaled = policy_value(sessions, {"v1": 0.2 * scale, "v2": 0.6 * scale})
    assert astuple(scaled) == pytest.approx(astuple(found))
    once_more = policy_value(Logged(*(np.concatenate([part, part]) for part in sessions)), {"v1": 0.2, "v2": 0.6})
    assert (once_more.value, once_more.variance) == pytest.approx((found.value, found.variance))  # of the same users


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log._replace(version=0 * log.version), "v2 never acted in these sessions"),
        (lambda log: log._replace(propensity=np.where(log.version == 1, np.nan, 0.5)), "sessions of v2 have no prop"),
        (lambda log: log._replace(propensity=np.where(log.version == 0, 0.004, 0.5)), "v1 had a propensity of 0.004"),
        (lambda log: log._replace(denominator=0 * log.denominator), "the denominator is 0 in every session"),
        (lambda log: log._replace(user=log.user % 20), "too few users: the sessions are worth .* at least 30 needed"),
        (lambda log: log._replace(numerator=2 * log.denominator), "all users have the same value"),
    ],
)
def test_what_the_log_does_not_tell_is_refused_with_the_reason(change, message):
    with pytest.raises(NoEffectError, match=message):
        policy_value(change(draw(1)), {"v1": 0.5, "v2": 0.5})


@pytest.mark.slow
def test_under_the_log_of_a_bandit_estimates_are_unbiased_and_their_intervals_hold():
    """The shares follow the results, users return, and the season doubles the rates: so the truth is of all days."""
    season = (1.0, 2.0, 1.0, 1.0)
    truth = RATE * np.mean(season) * (1 + np.array(EFFECTS))
    policies = [{"v0": 1.0}, {"v1": 1.0}, {"v2": 1.0}, {"v0": 0.5, "v2": 0.5}, {"v1": 0.8, "v2": 0.2}]
    rng = np.random.default_rng(7)
    errors, covered, naive = [], [], []
    for _ in range(120):
        run = simulate(rng, EFFECTS, thompson, users_a_day=4_000, season=season, pool=6_000)
        for policy in policies:
            versions = [int(name[1:]) for name in policy]
            found = policy_value(logged(run, versions), policy)
            true = np.array(list(policy.values())) @ truth[versions]
            errors.append((found.value - true) / np.sqrt(found.variance))
            covered.append(found.low <= true <= found.high)
        rows = run.rows
        naive.append(rows.numerator[rows.arm == 2].mean() / truth[2] - 1)
    errors = np.array(errors).reshape(-1, len(policies))
    assert np.abs(errors.mean(0)).max() < 0.3  # of a standard error of one run
    assert errors.std(0) == pytest.approx(np.ones(len(policies)), abs=0.2)
    assert np.mean(covered) > 0.97
    assert (np.abs(errors) < 1.96).mean() == pytest.approx(0.95, abs=0.03)
    assert abs(np.mean(naive)) > 0.02  # the plain mean of an arm that grows as the sale ends


def test_a_split_that_was_never_served_is_estimated_as_it_turns_out():
    rng = np.random.default_rng(3)
    log = logged(simulate(rng, EFFECTS, pooled, users_a_day=50_000, season=(1.0,) * 3), [0, 1, 2])
    policy = {"v0": 0.1, "v1": 0.7, "v2": 0.2}
    served = simulate(rng, EFFECTS, lambda rows, today, day: today, 50_000, (1.0,) * 3, first=tuple(policy.values()))
    found = policy_value(log, policy)
    assert found.low < served.rows.numerator.mean() < found.high
    assert found.effective_users < 0.8 * found.users
