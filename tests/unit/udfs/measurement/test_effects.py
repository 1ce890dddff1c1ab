"""Effects hold what they promise: checked by simulation, against an oracle, and against closed forms."""

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from tests.support.oracles.effects import COLUMNS, RATIO, Values, expected_effect, sums_of
from udfs.measurement import effects
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.effects import (
    ALPHA,
    LEAST_USERS,
    Effect,
    NoEffectError,
    always_valid_p,
    boundary,
    effective_users,
    fieller,
    holm,
    measure_effect,
)

LOOKS = 12


def rows_of(*amounts: np.ndarray) -> np.ndarray:
    """The rows of users, float64[n, width], from numerators, denominators, and both from before if there is one."""
    users = len(amounts[0])
    rows = np.zeros((users, COLUMNS.width))
    rows[:, 0] = rows[:, 2] = 1
    rows[:, 4 : 4 + len(amounts)] = np.column_stack(amounts)
    return rows


def draw(rng, users: int, times: float = 1.0) -> np.ndarray:
    """Users with few or many sessions, and a taste of their own that also showed before; one arm has it some times."""
    taste = rng.gamma(0.4, 0.25, users).clip(0, 0.3)
    sessions, earlier = 1 + rng.poisson(2, users), 1 + rng.poisson(4, users)
    return rows_of(rng.binomial(sessions, taste * times), sessions, rng.binomial(earlier, taste), earlier)


def without_history(rows: np.ndarray) -> np.ndarray:
    return np.where(np.arange(COLUMNS.width) < COLUMNS.before(0), rows, 0.0)


def linearised_variance(rows: np.ndarray) -> float:
    """The variance of an arm's value by the delta method, from this arm alone."""
    above, below = rows[:, 4], rows[:, 5]
    return np.var((above - above.sum() / below.sum() * below) / below.mean(), ddof=1) / len(rows)


def cell_sums(*arms: np.ndarray) -> CellSums:
    """The sums of cells 0, 1, ..., given the rows of each."""
    sums = CellSums(COLUMNS.width)
    for cell, rows in enumerate(arms):
        sums.add_users(cell, cell, rows, rows)
    return sums


def measured(*arms: np.ndarray, **options) -> Effect:
    return measure_effect(cell_sums(*arms), COLUMNS, RATIO, **options)


def at_looks(arms: Sequence[np.ndarray], looks: int = LOOKS) -> list[Effect]:
    """The effects at each look that has one, while the users of both arms arrive; the last look has them all."""
    found, sums = [], CellSums(COLUMNS.width)
    shares = np.geomspace(0.05, 1, looks)
    ends = [np.concatenate([[0], np.ceil(shares * len(rows)).astype(int)]) for rows in arms]
    for look in range(looks):
        for cell, (rows, end) in enumerate(zip(arms, ends)):
            new = rows[end[look] : end[look + 1]]
            sums.add_users(cell, cell, new, new)
        try:
            found.append(measure_effect(sums, COLUMNS, RATIO))
        except NoEffectError:
            continue
    return found


def is_more(hits: int, runs: int, rate: float) -> bool:
    """Whether so many hits show that their rate is above this one."""
    return binomtest(hits, runs, rate, alternative="greater").pvalue < 1e-3


# Against the papers


@st.composite
def many_users(draw_from) -> list[dict[int, Values]]:
    """Any users of 1 to 4 stretches: counts or money, in several arms and stretches, with or without history."""
    rng = np.random.default_rng(draw_from(st.integers(0, 2**32)))
    stretches = draw_from(st.integers(1, 4))
    scale = 10.0 ** draw_from(st.integers(-2, 6))
    sessions = draw_from(st.sampled_from([0.3, 1, 5]))
    spread = draw_from(st.sampled_from([0.1, 1]))
    bought, moved, stay = (draw_from(st.sampled_from(shares)) for shares in ([0.2, 1.0], [0.0, 0.3], [0.3, 0.9]))
    has_history = draw_from(st.booleans())
    users = []
    for _ in range(draw_from(st.integers(4, 60))):
        earlier = has_history * float(rng.poisson(2))
        before = (earlier * scale * rng.random(), earlier)
        cells, side = {}, int(rng.random() < 0.5)
        for stretch in range(stretches):
            side = 1 - side if rng.random() < moved else side
            if rng.random() < stay:
                count = float(rng.poisson(sessions))
                amount = count * scale * rng.lognormal(0, spread) * (rng.random() < bought)
                cells[2 * stretch + side] = Values(amount, count, *before)
        users += [cells] if cells else []
    return users


@given(many_users())
def test_sums_tell_what_the_users_values_tell(users):
    wanted = expected_effect(users, boundary)
    sums = sums_of(users)
    with patch.object(effects, "LEAST_USERS", 0):
        if wanted is None:
            with pytest.raises(NoEffectError):
                measure_effect(sums, COLUMNS, RATIO)
            return
        scale = abs(wanted.treatment) + abs(wanted.baseline)
        assume(wanted.variance > 1e-6 * scale**2)  # else what differs is how both round
        found = measure_effect(sums, COLUMNS, RATIO)
    for name, value in vars(wanted).items():
        if name == "relative" and value is not None:
            assert found.relative == pytest.approx(value, rel=1e-6, abs=1e-6)
        elif name == "relative":
            assert found.relative is None
        else:
            unit = scale**2 if name == "variance" else 1 if name == "variance_removed" else scale
            assert getattr(found, name) == pytest.approx(value, rel=1e-8, abs=1e-8 * unit), name
    assert found.p_value == pytest.approx(always_valid_p(wanted.difference, wanted.variance, wanted.users), rel=1e-6)


def test_the_delta_method_gives_the_bootstrap_s_standard_error():
    rng = np.random.default_rng(2)
    arms = draw(rng, 3_000), draw(rng, 2_000, 1.3)
    ratios = []
    for rows in arms:
        drawn = rows[:, 4:6][rng.integers(0, len(rows), (500, len(rows)))].sum(1)
        ratios.append(drawn[:, 0] / drawn[:, 1])
    effect = measured(*map(without_history, arms))
    assert np.sqrt(effect.variance) == pytest.approx(np.std(ratios[0] - ratios[1]), rel=0.1)
    assert effect.difference == pytest.approx(np.mean(ratios[0] - ratios[1]), abs=1e-3)


# What intervals promise

SIZES = [(1_000, 19_000), (1_000, 1_000), (300, 300)]


@pytest.mark.parametrize("change", [-0.3, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("sizes", [pytest.param(SIZES[0], marks=pytest.mark.slow), *SIZES[1:]])
def test_all_intervals_of_an_experiment_have_the_true_effect_at_once(sizes, change):
    rng = np.random.default_rng([*sizes, round(10 * change) + 10])
    runs, missed, missed_last = 25, 0, 0
    for _ in range(runs):
        treatment, baseline = draw(rng, sizes[0], 1 + change), draw(rng, sizes[1])
        told = [effect.relative for effect in at_looks((treatment, baseline))]
        misses = [not relative.low <= change <= relative.high for relative in told if relative]
        missed += any(misses)
        missed_last += told[-1] is not None and misses[-1]
    assert not is_more(missed, runs, ALPHA)
    assert not is_more(missed_last, runs, ALPHA)


@pytest.mark.slow
def test_an_interval_that_takes_the_baseline_for_known_misses_more():
    rng = np.random.default_rng(8)
    runs, change, known, fair = 120, 2.0, 0, 0
    for _ in range(runs):
        arms = [without_history(rows) for rows in (draw(rng, 19_000, 1 + change), draw(rng, 1_000))]
        effect = measured(*arms)
        error = np.sqrt(sum(linearised_variance(rows) for rows in arms))
        known += abs(effect.difference - change * effect.baseline) > boundary(effect.users) * error
        fair += not effect.relative.low <= change <= effect.relative.high
    assert is_more(known, runs, ALPHA)
    assert not is_more(fair, runs, ALPHA)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", SIZES)
def test_of_one_look_the_interval_would_be_as_wide_as_the_textbook_s(sizes):
    rng = np.random.default_rng(sizes)
    runs, misses = 150, 0
    alpha = always_valid_p(norm.ppf(0.975), 1, sum(sizes))
    for _ in range(runs):
        effect = measured(*map(without_history, (draw(rng, sizes[0], 1.3), draw(rng, sizes[1]))), alpha=alpha)
        misses += not effect.relative.low <= 0.3 <= effect.relative.high
    assert binomtest(misses, runs, ALPHA).pvalue > 1e-3


@pytest.mark.slow
def test_looking_always_keeps_the_promised_rate_of_false_alarms_and_a_fixed_interval_does_not():
    rng = np.random.default_rng(1)
    runs, alarms, naive = 100, 0, 0
    for _ in range(runs):
        found = at_looks((draw(rng, 3_000), draw(rng, 3_000)))
        alarms += any(not effect.low <= 0 <= effect.high for effect in found)
        naive += any(abs(effect.difference) > 1.96 * np.sqrt(effect.variance) for effect in found)
    assert not is_more(alarms, runs, ALPHA)
    assert is_more(naive, runs, ALPHA)


def binary_sums(users: Sequence[int], bought: Sequence[int]) -> CellSums:
    """The sums of users with a session each, in which some buy."""
    sums = CellSums(COLUMNS.width)
    for cell, (count, buyers) in enumerate(zip(users, bought)):
        rows = rows_of(np.array([1.0, 0.0]), np.ones(2))
        sums.add_users(cell, cell, rows, rows * np.array([[buyers], [count - buyers]]))
    return sums


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.98])
def test_a_small_arm_that_has_none_of_the_rare_users_yet_is_no_alarm(rate):
    """Its own variance would be 0 then, and its difference certain."""
    rng = np.random.default_rng(round(100 * rate))
    runs, share, alarms, hasty = 60, 0.01, 0, 0
    looks = np.geomspace(LEAST_USERS / share, 2_000 / share, LOOKS).astype(int)
    for _ in range(runs):
        new = rng.binomial(np.diff(looks, prepend=0), share)
        arms = [np.cumsum(new), looks - np.cumsum(new)]
        bought = [np.cumsum(rng.binomial(np.diff(arm, prepend=0), rate)) for arm in arms]
        told = hastily_told = False
        for users, buyers in zip(np.transpose(arms), np.transpose(bought)):
            if min(users) < LEAST_USERS or not any(buyers) or all(users == buyers):
                continue
            value = buyers / users
            own = sum(value * (1 - value) / (users - 1))
            hastily_told |= abs(value[0] - value[1]) > boundary(sum(users)) * np.sqrt(own)
            told |= measure_effect(binary_sums(users, buyers), COLUMNS, RATIO).p_value <= ALPHA
        alarms, hasty = alarms + told, hasty + hastily_told
    assert not is_more(alarms, runs, ALPHA)
    assert is_more(hasty, runs, ALPHA)


@pytest.mark.parametrize("size", [2_000, 40_000])
def test_an_arm_that_never_buys_is_told_when_enough_should_have(size):
    of_treatment = measure_effect(binary_sums((2_000, size), (0, 300 * size // 2_000)), COLUMNS, RATIO)
    assert of_treatment.high < 0
    assert of_treatment.relative.value == -1
    assert of_treatment.relative.low < -1 < of_treatment.relative.high < 0
    of_baseline = measure_effect(binary_sums((size, 2_000), (300 * size // 2_000, 0)), COLUMNS, RATIO)
    assert of_baseline.low > 0
    assert of_baseline.relative is None
    assert (of_baseline.low, of_baseline.p_value) == pytest.approx((-of_treatment.high, of_treatment.p_value))


def test_an_interval_holds_while_the_share_is_ramped_although_users_tell_more_then():
    rng = np.random.default_rng(11)
    runs, users, told = 4_000, 10_000, np.zeros(4_000, bool)
    shares = np.repeat([0.01, 0.05, 0.25, 0.5], 20)
    information = np.cumsum(shares * (1 - shares) * users / 20)
    steps = rng.normal(size=(runs, len(shares))) * np.sqrt(np.diff(information, prepend=0))
    z = steps.cumsum(1) / np.sqrt(information)
    for look in range(len(shares)):
        told |= np.abs(z[:, look]) > boundary((look + 1) * users / 20)
    assert not is_more(int(told.sum()), runs, ALPHA)


# Stretches


def sale_weeks(rng, fresh: int = 1_000, returning: int = 1_000) -> tuple[CellSums, CellSums]:
    """Users of a ramp from 10 % to 50 % into a week of double rates, with the stretches and without them.

    There is no effect. Some come in both weeks, and move from the baseline to the treatment.
    """
    places = rng.random((2, fresh)), rng.random(returning)
    tastes = rng.gamma(2, 0.05, (2, fresh)).clip(0, 0.5), rng.gamma(2, 0.05, returning).clip(0, 0.5)
    sums, merged = CellSums(COLUMNS.width), CellSums(COLUMNS.width)
    again, treated_again = [], []
    for week, share in enumerate((0.1, 0.5)):
        taste = np.concatenate([tastes[0][week], tastes[1]]) * (1 + week)
        sessions = 1 + rng.poisson(1, len(taste))
        rows = rows_of(rng.binomial(sessions, taste), sessions)
        is_treated = np.concatenate([places[0][week], places[1]]) < share
        for side, here in enumerate((is_treated, ~is_treated)):
            sums.add_users(2 * week + side, 2 * week + side, rows[here], rows[here])
            merged.add_users(side, side, rows[here], rows[here])
        again.append(rows[fresh:])
        treated_again.append(is_treated[fresh:])
    for side in (0, 1):
        for other in (0, 1):
            both = (treated_again[0] == (side == 0)) & (treated_again[1] == (other == 0))
            sums.add_users(side, 2 + other, again[0][both], again[1][both])
    return sums, merged


@pytest.mark.slow
def test_a_ramp_into_a_sale_week_is_no_effect():
    rng = np.random.default_rng(9)
    runs = 500
    drawn = [sale_weeks(rng) for _ in range(runs)]
    found = [measure_effect(sums, COLUMNS, RATIO) for sums, _ in drawn]
    differences = np.array([effect.difference for effect in found])
    assert abs(differences.mean()) < 3.5 * differences.std() / np.sqrt(runs)
    assert np.mean([effect.variance for effect in found]) == pytest.approx(differences.var(), rel=0.15)
    assert not is_more(sum(effect.p_value <= ALPHA for effect in found), runs, ALPHA)
    merged = [measure_effect(sums, COLUMNS, RATIO) for _, sums in drawn[:50]]
    assert np.mean([effect.p_value <= ALPHA for effect in merged]) > 0.9
    assert np.mean([effect.relative.value for effect in merged]) > 0.2


def test_a_stretch_without_one_of_the_arms_counts_for_nothing():
    rng = np.random.default_rng(10)
    arms = [draw(rng, 500) for _ in range(2)]
    alone = draw(rng, 5_000, 2)
    nobody = np.zeros((0, COLUMNS.width))
    assert vars(measured(*arms, alone, nobody)) == vars(measured(*arms))
    with pytest.raises(NoEffectError, match="too few users: the treatment"):
        measured(without_history(arms[0])[:10], arms[1], alone, nobody)


# History


@pytest.mark.slow
def test_history_narrows_intervals_without_bias():
    rng = np.random.default_rng(3)
    runs, plain, adjusted = 250, [], []
    for _ in range(runs):
        arms = draw(rng, 1_500, 1.2), draw(rng, 1_500)
        adjusted.append(measured(*arms))
        plain.append(measured(*map(without_history, arms)))
    many = draw(rng, 1_000_000)
    truth = 0.2 * many[:, 4].sum() / many[:, 5].sum()
    spread = {}
    for name, found in (("plain", plain), ("adjusted", adjusted)):
        differences = np.array([effect.difference for effect in found])
        spread[name] = differences.var()
        assert abs(differences.mean() - truth) < 3.5 * differences.std() / np.sqrt(runs)
        assert np.mean([effect.variance for effect in found]) == pytest.approx(spread[name], rel=0.25)
    removed = np.mean([effect.variance_removed for effect in adjusted])
    assert removed > 0.1
    assert 1 - spread["adjusted"] / spread["plain"] == pytest.approx(removed, abs=0.1)
    assert all(effect.variance_removed == 0 for effect in plain)


#: A KPI's two terms, and the score.
WITH_SCORES = Columns(3)


def draw_with_scores(rng, users: int, times: float = 1.0) -> np.ndarray:
    """Users who buy so rarely that their purchases hardly tell who will buy again, and whose scores tell it."""
    intent = rng.beta(0.5, 10, users)
    sessions, earlier = 1 + rng.poisson(2, users), rng.poisson(4, users)
    scores = earlier * np.clip(intent + rng.normal(0, 0.03, users), 0, 1)
    bought, bought_earlier = rng.binomial(sessions, intent * times), rng.binomial(earlier, intent / 10)
    fixed = [np.ones(users), np.zeros(users), sessions, np.zeros(users)]
    return np.column_stack([*fixed, bought, sessions, np.zeros(users), bought_earlier, earlier, scores])


def measured_with_scores(*arms: np.ndarray, columns: Columns = WITH_SCORES) -> Effect:
    sums = CellSums(columns.width)
    for cell, rows in enumerate(arms):
        sums.add_users(cell, cell, rows, rows)
    return measure_effect(sums, columns, RATIO)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1_500, 1_500), (300, 3_000)])
def test_scores_from_before_narrow_intervals_without_bias(sizes):
    rng = np.random.default_rng(4)
    runs, found, own = 300, [], []
    for _ in range(runs):
        arms = draw_with_scores(rng, sizes[0], 1.2), draw_with_scores(rng, sizes[1])
        found.append(measured_with_scores(*arms))
        with patch.object(effects, "USERS_PER_COVARIATE", 10**9):
            own.append(measured_with_scores(*arms))
    many = draw_with_scores(rng, 1_000_000)
    truth = 0.2 * many[:, 4].sum() / many[:, 5].sum()
    differences = np.array([effect.difference for effect in found])
    assert abs(differences.mean() - truth) < 3.5 * differences.std() / np.sqrt(runs)
    assert np.mean([effect.variance for effect in found]) == pytest.approx(differences.var(), rel=0.25)
    removed, removed_by_own = (np.mean([effect.variance_removed for effect in which]) for which in (found, own))
    assert removed_by_own < 0.06 < 0.12 < removed
    assert differences.var() < 0.95 * np.var([effect.difference for effect in own])


def test_covariates_explain_what_they_do_in_a_regression_on_the_users():
    rng = np.random.default_rng(5)
    arms = [draw_with_scores(rng, 2_000, times) for times in (1.3, 1.0)]
    values, before = [], []
    for rows in arms:
        bought, sessions = rows[:, 4], rows[:, 5]
        values.append((bought - bought.sum() / sessions.sum() * sessions) / sessions.mean())
        before.append(rows[:, 7:] - rows[:, 7:].mean(0))
    slopes = np.linalg.lstsq(np.vstack(before), np.concatenate(values), rcond=None)[0]
    effect = measured_with_scores(*arms)
    shift = arms[0][:, 7:].mean(0) - arms[1][:, 7:].mean(0)
    assert effect.difference == pytest.approx(effect.treatment - effect.baseline - slopes @ shift, rel=1e-3)
    left = [np.var(one - other @ slopes, ddof=1) for one, other in zip(values, before)]
    # Each arm varies at least as both together do.
    assert effect.variance == pytest.approx(sum(max(one, np.mean(left)) for one in left) / 2_000, rel=1e-3)


def test_covariates_that_say_the_same_or_nothing_change_nothing():
    rng = np.random.default_rng(6)
    arms = [draw_with_scores(rng, 2_000) for _ in range(2)]
    wide = Columns(5)
    rows = [
        np.column_stack([arm[:, :7], np.zeros((2_000, 2)), arm[:, 7:], 3 * arm[:, 9], np.ones(2_000)]) for arm in arms
    ]
    plain, repeated = measured_with_scores(*arms), measured_with_scores(*rows, columns=wide)
    assert repeated.difference == pytest.approx(plain.difference, rel=1e-6)
    assert repeated.variance == pytest.approx(plain.variance, rel=1e-6)


def test_history_that_explains_everything_is_left_out():
    """As if nobody differed by chance, or one of the columns had been copied from the other."""
    rng = np.random.default_rng(8)
    arms = [draw_with_scores(rng, 1_000) for _ in range(2)]
    for rows in arms:
        rows[:, 5], rows[:, 8] = 1, 1
        rows[:, 9] = 2 * rows[:, 4]
    effect, plain = measured_with_scores(*arms), measured_with_scores(*(rows * (np.arange(10) < 7) for rows in arms))
    assert effect == plain
    assert plain.variance > 0


@pytest.mark.slow
def test_many_covariates_without_meaning_raise_no_more_false_alarms():
    rng = np.random.default_rng(7)
    columns, runs = Columns(20), 300
    alarms = 0
    for _ in range(runs):
        arms = []
        for _ in range(2):
            rows = np.zeros((1_000, columns.width))
            rows[:, :3] = 1, 0, 1
            rows[:, 4], rows[:, 5] = rng.random(1_000) < 0.1, 1
            rows[:, 24:] = rng.lognormal(0, 1, (1_000, 20))
            arms.append(rows)
        # As narrow as intervals of one look, of which 5% leave out the truth.
        effect = measured_with_scores(*arms, columns=columns)
        alarms += abs(effect.difference) > 1.96 * np.sqrt(effect.variance)
    assert not is_more(alarms, runs, 0.05)


# Numerics


@pytest.mark.parametrize("value", [9.99, 0.1, 0.1 + 0.2, 1 / 3, 1e9 + 0.1])
@pytest.mark.parametrize("sizes", [(1_000, 1_000), (777, 3_001)])
def test_users_that_are_all_alike_have_no_effect(value, sizes):
    arms = [rows_of(np.full(users, value), np.ones(users)) for users in sizes]
    for pair in (arms, arms[::-1]):
        with pytest.raises(NoEffectError, match="all users have the same value"):
            measured(*pair)


def summed_one_by_one(rows: np.ndarray, cell: int, sums: CellSums) -> None:
    """The rows' products, added up in order, so that rounding errors are as large as they get."""
    products = [
        [np.cumsum(rows[:, one] * rows[:, other])[-1] for one in range(rows.shape[1])] for other in range(rows.shape[1])
    ]
    sums.add_users(cell, cell, np.eye(rows.shape[1]), np.array(products))


@pytest.mark.parametrize("value", [9.99, 0.1, 0.3, 1 / 3])
def test_the_rounding_errors_of_many_users_are_no_effect(value):
    """For 0.1, what rounding leaves of the variance is below 0."""
    sums = CellSums(COLUMNS.width)
    for cell, users in enumerate((100_000, 100_000)):
        summed_one_by_one(rows_of(np.full(users, value), np.ones(users)), cell, sums)
    try:
        effect = measure_effect(sums, COLUMNS, RATIO)
    except NoEffectError:
        return
    assert (effect.difference, effect.p_value) == (0, 1)
    assert effect.high < 1e-6 * value


@pytest.mark.parametrize("digits", [3, 5, 7, 9])
def test_a_tiny_spread_of_large_values_is_no_effect(digits):
    rng = np.random.default_rng(digits)
    arms = [rows_of(1e9 * (1 + rng.normal(size=users) * 10.0**-digits), np.ones(users)) for users in (3_000, 9_000)]
    for pair in (arms, arms[::-1]):
        try:
            assert measured(*pair).p_value > ALPHA
        except NoEffectError:
            assert digits > 5


@given(st.integers(0, 2**32), st.integers(30, 300), st.integers(30, 300), st.booleans())
def test_swapped_arms_mirror_the_difference(seed, users, others, has_history):
    rng = np.random.default_rng(seed)
    arms = [draw(rng, count, times) for count, times in ((users, 1.5), (others, 1.0))]
    arms = arms if has_history else list(map(without_history, arms))
    try:
        one, other = measured(*arms), measured(*arms[::-1])
    except NoEffectError:
        assume(False)
    expected = (-one.difference, -one.high, -one.low, one.p_value, one.variance, one.variance_removed, one.users)
    found = (
        other.difference,
        other.low,
        other.high,
        other.p_value,
        other.variance,
        other.variance_removed,
        other.users,
    )
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


# Data that say nothing


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ([rows_of(np.ones(0), np.ones(0))] * 2, "the denominator is 0 in every session"),
        ([rows_of(np.ones(1), np.ones(1))] * 2, "the denominator is 0 in every session, of one arm or both"),
        ([rows_of(np.ones(50), np.ones(50)), rows_of(np.zeros(50), np.zeros(50))], "the denominator is 0"),
        ([rows_of(np.zeros(50), np.ones(50))] * 2, "the numerator is 0 in every session"),
        (
            [rows_of(np.ones(50), np.ones(50)), rows_of(np.ones(20), np.ones(20))],
            "too few users: the baseline is worth 20",
        ),
        (
            [rows_of(np.ones(500), np.append(np.ones(499), 60_000)), rows_of(np.ones(500), np.ones(500))],
            "few users have most of the denominator: the treatment is worth 1 equal users, at least 30 needed",
        ),
    ],
)
def test_data_without_an_effect_have_a_reason(arms, reason):
    with pytest.raises(NoEffectError, match=reason):
        measured(*arms)


def test_users_without_a_denominator_do_not_count_among_those_that_tell():
    rows = rows_of(np.ones(100), np.array([1.0] * 40 + [0.0] * 60))
    sums = cell_sums(rows, rows)
    assert effective_users(sums, COLUMNS.now(1), [0]) == pytest.approx(40)
    assert effective_users(sums, COLUMNS.before(1), [0]) == 0


# Boundaries, p-values, Holm


@given(st.floats(-10, 10), st.floats(1e-3, 10), st.integers(2, 10**7), st.floats(1e-6, 0.5), st.integers(100, 10**6))
def test_the_p_value_is_at_most_alpha_exactly_where_the_interval_leaves_out_0(
    difference, error, users, alpha, tuned_for
):
    distance = abs(difference) / error - boundary(users, alpha, tuned_for)
    assume(abs(distance) > 1e-9)
    assert (always_valid_p(difference, error**2, users, tuned_for) <= alpha) == (distance > 0)


def test_the_p_value_is_where_the_interval_ends():
    assert always_valid_p(boundary(700) * 0.1, 0.01, 700) == pytest.approx(ALPHA)


@given(
    st.floats(-5, 5), st.floats(0.1, 5), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(-0.99, 0.99), st.floats(1, 4)
)
def test_the_relative_interval_leaves_out_0_where_the_difference_s_does(
    difference, base, error, base_error, r, critical
):
    relative = fieller(difference, base, error**2, r * error * base_error, base_error**2, critical)
    room = base**2 - critical**2 * base_error**2
    assume(abs(room) > 1e-6 * base**2)
    assert (relative is None) == (room < 0)
    distance = abs(difference) - critical * error
    assume(relative is not None and abs(distance) > 1e-6)
    assert (relative.low <= 0 <= relative.high) == (distance < 0)
    assert relative.low <= relative.value <= relative.high


def test_holm_stops_at_the_first_that_stands():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.03, "c": 0.03}) == {"a"}


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6), st.floats(0.001, 0.2))
def test_holm_is_the_closure_of_bonferroni(p_values, alpha):
    """A hypothesis is rejected if Bonferroni rejects each set of hypotheses that it is in; the worst set is sought."""
    rejected = {
        name
        for name, own in p_values.items()
        if all(
            min(p for p in p_values.values() if p >= worst or p == own)
            <= alpha / sum(p >= worst for p in p_values.values())
            for worst in p_values.values()
            if worst <= own
        )
    }
    assert holm(p_values, alpha) == rejected
