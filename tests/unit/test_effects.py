"""Effects hold what they promise: checked by simulation, and against closed forms."""

import numpy as np
import pytest
from scipy.stats import norm

from training.effects import (
    SRM_ALPHA,
    UserSums,
    always_valid_p,
    boundary,
    holm,
    measure_effect,
    sample_ratio_p,
    users_needed,
)

LOOKS = np.unique(np.geomspace(100, 3_000, 12).astype(int))


def draw(rng, users: int, uplift: float = 0.0, history: bool = False) -> UserSums:
    """Users with few or many sessions, and a taste of their own that also showed before."""
    taste = rng.gamma(0.4, 0.25, users).clip(0, 0.9)
    sessions = 1 + rng.poisson(2, users)
    earlier = 1 + rng.poisson(4, users)
    return UserSums(
        rng.binomial(sessions, np.minimum(taste + uplift, 1)).astype(float),
        sessions.astype(float),
        rng.binomial(earlier, np.minimum(taste, 1)).astype(float) if history else None,
        earlier.astype(float) if history else None,
    )


def first(arm: UserSums, users: int) -> UserSums:
    return UserSums(arm.numerator[:users], arm.denominator[:users])


def test_looking_always_keeps_the_promised_rate_of_false_alarms_and_a_fixed_interval_does_not():
    rng = np.random.default_rng(1)
    runs, alarms, naive = 2_000, 0, 0
    for _ in range(runs):
        arms = draw(rng, LOOKS[-1]), draw(rng, LOOKS[-1])
        effects = [measure_effect(*(first(arm, users) for arm in arms)) for users in LOOKS]
        alarms += any(not effect.low <= 0 <= effect.high for effect in effects)
        naive += any(abs(effect.difference) > 1.96 * np.sqrt(effect.variance) for effect in effects)
    assert alarms / runs <= 0.05
    assert naive / runs > 0.1


def test_the_delta_method_gives_the_bootstrap_s_standard_error():
    rng = np.random.default_rng(2)
    arms = draw(rng, 3_000), draw(rng, 2_000, 0.03)
    differences = []
    for _ in range(1_000):
        drawn = [rng.integers(0, len(arm), len(arm)) for arm in arms]
        ratios = [arm.numerator[rows].sum() / arm.denominator[rows].sum() for arm, rows in zip(arms, drawn)]
        differences.append(ratios[1] - ratios[0])
    effect = measure_effect(arms[1], arms[0])
    assert np.sqrt(effect.variance) == pytest.approx(np.std(differences), rel=0.1)
    assert effect.difference == pytest.approx(np.mean(differences), abs=3e-4)


def test_history_narrows_intervals_without_bias():
    rng = np.random.default_rng(3)
    plain, adjusted = [], []
    for _ in range(400):
        treatment, baseline = draw(rng, 1_500, 0.02, history=True), draw(rng, 1_500, history=True)
        adjusted.append(measure_effect(treatment, baseline))
        plain.append(measure_effect(first(treatment, 1_500), first(baseline, 1_500)))
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
        sums = [UserSums(values + 5, np.ones(len(values))) for values in (treatment, baseline)]
        found = measure_effect(*sums, tuned_for=users)
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


def test_holm_stops_at_the_first_that_stands():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.03}) == {"a"}


def test_an_arm_without_users_or_denominator_is_refused():
    some, nobody = UserSums(np.ones(3), np.ones(3)), UserSums(np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="baseline has 1 users"):
        measure_effect(some, nobody)
    with pytest.raises(ValueError, match="treatment: the denominator is 0"):
        measure_effect(UserSums(np.zeros(3), np.zeros(3)), some)
