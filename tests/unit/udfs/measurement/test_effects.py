"""Effects hold what they promise: checked by simulation, and against closed forms."""

from collections.abc import Iterator
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import norm

from tests.support.oracles.effects import UserSums, expected_effect
from udfs.measurement.effects import (
    ALPHA,
    LEAST_USERS,
    SRM_ALPHA,
    Moments,
    always_valid_p,
    boundary,
    holm,
    measure_effect,
    sample_ratio_p,
    users_needed,
)

LOOKS = np.unique(np.geomspace(100, 3_000, 12).astype(int))


def draw(rng, users: int, uplift: float = 0.0) -> UserSums:
    """Users with few or many sessions, and a taste of their own that also showed before."""
    taste = rng.gamma(0.4, 0.25, users).clip(0, 0.9)
    sessions = 1 + rng.poisson(2, users)
    earlier = 1 + rng.poisson(4, users)
    return UserSums(
        rng.binomial(sessions, np.minimum(taste + uplift, 1)).astype(float),
        sessions.astype(float),
        rng.binomial(earlier, np.minimum(taste, 1)).astype(float),
        earlier.astype(float),
    )


def moments(arm: UserSums) -> Moments:
    """Those without history."""
    return Moments.of_users(arm.numerator, arm.denominator)


def moments_at_looks(arm: UserSums, looks: np.ndarray = LOOKS) -> Iterator[Moments]:
    """Those of the users who are there at each look, without history."""
    parts = zip(np.split(arm.numerator, looks), np.split(arm.denominator, looks))
    return accumulate(Moments.of_users(*part) for part in list(parts)[:-1])


def moments_with_history(arm: UserSums) -> Moments:
    return Moments.of_users(arm.numerator, arm.denominator, arm.earlier_numerator, arm.earlier_denominator)


def test_looking_always_keeps_the_promised_rate_of_false_alarms_and_a_fixed_interval_does_not():
    rng = np.random.default_rng(1)
    runs, alarms, naive = 2_000, 0, 0
    for _ in range(runs):
        arms = draw(rng, LOOKS[-1]), draw(rng, LOOKS[-1])
        effects = [measure_effect(*look) for look in zip(*map(moments_at_looks, arms))]
        alarms += any(not effect.low <= 0 <= effect.high for effect in effects)
        naive += any(abs(effect.difference) > 1.96 * np.sqrt(effect.variance) for effect in effects)
    assert alarms / runs <= 0.05
    assert naive / runs > 0.1


def test_looking_from_the_first_user_on_is_safe_only_because_few_tell_nothing():
    """Of a KPI that few users have, all may be alike in each arm at first: then no variance and no doubt is left."""
    rng = np.random.default_rng(6)
    runs, alarms, hasty = 200, 0, 0
    for _ in range(runs):
        arms = []
        for _arm in range(2):
            seen = (rng.random(600) < 0.1) * (1.0 + rng.poisson(2, 600))
            arms.append(UserSums(rng.binomial(seen.astype(int), 0.3).astype(float), seen, 0 * seen, 0 * seen))
        looks = zip(*(moments_at_looks(arm, np.arange(10, 600, 10)) for arm in arms))
        looks = [look for look in looks if all(arm.sums[1] > 0 for arm in look)]
        told = [measure_effect(*look).p_value <= ALPHA for look in looks]
        hasty += any(told)
        enough = [all(arm.effective_users >= LEAST_USERS for arm in look) for look in looks]
        assert any(enough)
        alarms += any(tells and reached for tells, reached in zip(told, enough))
    assert alarms / runs <= ALPHA
    assert hasty / runs > 0.2


def test_the_delta_method_gives_the_bootstrap_s_standard_error():
    rng = np.random.default_rng(2)
    arms = draw(rng, 3_000), draw(rng, 2_000, 0.03)
    differences = []
    for _ in range(1_000):
        drawn = [rng.integers(0, len(arm), len(arm)) for arm in arms]
        ratios = [arm.numerator[rows].sum() / arm.denominator[rows].sum() for arm, rows in zip(arms, drawn)]
        differences.append(ratios[1] - ratios[0])
    effect = measure_effect(moments(arms[1]), moments(arms[0]))
    assert np.sqrt(effect.variance) == pytest.approx(np.std(differences), rel=0.1)
    assert effect.difference == pytest.approx(np.mean(differences), abs=3e-4)


def test_history_narrows_intervals_without_bias():
    rng = np.random.default_rng(3)
    plain, adjusted = [], []
    for _ in range(400):
        arms = draw(rng, 1_500, 0.02), draw(rng, 1_500)
        adjusted.append(measure_effect(*map(moments_with_history, arms)))
        plain.append(measure_effect(*map(moments, arms)))
    for effects in (plain, adjusted):
        found = np.array([effect.difference for effect in effects])
        assert abs(found.mean() - 0.02) < 4 * found.std() / np.sqrt(len(found))
        assert np.mean([effect.variance for effect in effects]) == pytest.approx(found.var(), rel=0.25)
    assert np.mean([effect.variance for effect in adjusted]) < 0.9 * np.mean([effect.variance for effect in plain])


@pytest.mark.parametrize("sequential", [False, True])
def test_so_many_users_as_planned_show_the_effect_as_often_as_planned(sequential):
    effect, deviation, share = 0.1, 1.0, 0.3
    users = users_needed(effect, deviation**2, share, 0.8, sequential=sequential)
    rng = np.random.default_rng(4)
    shown, runs = 0, 1_000
    for _ in range(runs):
        treatment = rng.normal(effect, deviation, round(users * share))
        baseline = rng.normal(0, deviation, users - len(treatment))
        arms = [Moments.of_users(values + 5, np.ones(len(values))) for values in (treatment, baseline)]
        found = measure_effect(*arms, tuned_for=users)
        critical = boundary(users, tuned_for=users) if sequential else norm.ppf(0.975)
        shown += abs(found.difference) > critical * np.sqrt(found.variance)
    assert shown / runs == pytest.approx(0.8, abs=0.04)


def test_a_plan_for_one_look_is_the_textbook_s():
    # Kohavi et al.: about 16 variance / effect^2 in each arm for 80 % power.
    assert users_needed(0.05, 1.0, sequential=False) / 2 == pytest.approx(16 / 0.05**2, rel=0.02)


def test_the_p_value_is_where_the_interval_ends():
    assert always_valid_p(boundary(700) * 0.1, 0.01, 700) == pytest.approx(0.05)


def test_a_sample_ratio_mismatch_shows_and_chance_does_not():
    rng = np.random.default_rng(5)
    shares = {"champion": 0.9, "challenger": 0.1}
    p_values = []
    for _ in range(1_000):
        challenger = int(rng.binomial(10_000, 0.1))
        p_values.append(sample_ratio_p({"champion": 10_000 - challenger, "challenger": challenger}, shares))
    assert np.mean(np.array(p_values) < SRM_ALPHA) <= 0.005
    assert sample_ratio_p({"champion": 9_000, "challenger": 850}, shares) < SRM_ALPHA


def test_an_arm_without_a_share_is_named():
    with pytest.raises(ValueError, match=r"the share of arm challenger must be above 0 \(got None\)"):
        sample_ratio_p({"champion": 10, "challenger": 1}, {"champion": 0.9})


def test_holm_stops_at_the_first_that_stands():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.03}) == {"a"}


def test_an_arm_without_users_or_denominator_is_refused():
    some, nobody = Moments.of_users(np.ones(3), np.ones(3)), Moments.of_users(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="baseline has 1 users"):
        measure_effect(some, nobody)
    with pytest.raises(ValueError, match="treatment: the denominator is 0"):
        measure_effect(Moments.of_users(np.zeros(3), np.zeros(3)), some)


@st.composite
def user_sums(draw_from) -> UserSums:
    """Any users: counts or money, with or without sessions, with or without history."""
    users = draw_from(st.integers(2, 30))
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    scale = 10.0 ** draw_from(st.integers(-2, 6))
    sessions = rng.poisson(draw_from(st.sampled_from([0.3, 1, 5])), users).astype(float)
    earlier = draw_from(st.booleans()) * (1.0 + rng.poisson(1, users))
    sizes = rng.lognormal(0, draw_from(st.sampled_from([0.1, 1, 2])), users) * scale
    bought = rng.random(users) < draw_from(st.sampled_from([0.1, 1.0]))
    return UserSums(sessions * sizes * bought, sessions, earlier * sizes * rng.random(users), earlier)


@given(user_sums(), user_sums())
def test_moments_tell_what_the_users_values_tell(treatment, baseline):
    assume(all(arm.denominator.sum() > 0 for arm in (treatment, baseline)))
    wanted = expected_effect(treatment, baseline)
    scale = abs(wanted.treatment) + abs(wanted.baseline)
    assume(wanted.variance > 1e-6 * scale**2)  # else what differs is how both round
    found = measure_effect(moments_with_history(treatment), moments_with_history(baseline))
    for name, value in vars(wanted).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-9 * scale), name


@given(user_sums(), st.integers(0, 30))
def test_moments_of_parts_add_up_to_those_of_the_whole(arm, cut):
    values = np.array([arm.numerator, arm.denominator, arm.earlier_numerator, arm.earlier_denominator])
    added, whole = Moments.of_users(*values[:, :cut]) + Moments.of_users(*values[:, cut:]), Moments.of_users(*values)
    assert added.users == whole.users
    np.testing.assert_allclose(added.sums, whole.sums, rtol=1e-12)
    np.testing.assert_allclose(added.products, whole.products, rtol=1e-12)


def test_users_without_a_denominator_do_not_count_among_those_that_tell():
    seen = np.array([1.0] * 40 + [0.0] * 60)
    assert Moments.of_users(seen / 2, seen).effective_users == pytest.approx(40)
    assert Moments.of_users(seen * 0, seen * 0).effective_users == 0


def test_rounding_is_no_variance():
    each_alike = Moments.of_users(np.full(1_000, 0.3), np.full(1_000, 3.0))
    assert measure_effect(each_alike, each_alike).variance == 0
