"""The index and its correction: by hand, by SciPy, and by simulation with users who are alike to themselves."""

from functools import partial

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from tests.support.examples import examples
from tests.support.oracles.drift import feature_drift
from tests.support.sample_records import sample
from training.bundles.drift_reference import LENGTHS_MS, Sampling, reference_distributions
from training.data.dataset import arrange, read_clicks, read_profiles
from training.simulation.clickstream import Simulation, simulate
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import STANDARD
from udfs.measurement.chance import contrast_index, stability_index
from udfs.measurement.drift import (
    ABOVE,
    BELOW,
    CELLS,
    INDEX_PART,
    MAX_BINS,
    MISSING,
    NEW,
    Chance,
    Distribution,
    NewestDrift,
    Reference,
    Thresholds,
    compare,
    count_cells,
    window_drift,
)

WINDOW_MS = LENGTHS_MS[0]
HOUR_MS = 3_600_000
CLOCKS = ("local_hour", "local_weekday", "since_first_seen_s", "lifetime_events")
THRESHOLDS = Thresholds(watch=0.1, alarm=0.25, unwatched=CLOCKS)


def chance(effect: float = 1.0, degrees: float = 100.0, rhythm=0.0, alone=0.0, largest=1.0, usual=1.0) -> Chance:
    return Chance(WINDOW_MS, effect, degrees, rhythm, alone, largest, usual)


MANY = {"missing": 0.0, "rows": 10**9, "noise": 0.0, "noise_degrees": 1e9, "chance": [chance()]}


def distribution(shares, edges=None, **fields) -> Distribution:
    if "values" not in fields:
        fields = {"low": 0.0, "high": 100.0, "edges": list(range(1, len(shares))) if edges is None else edges} | fields
    return Distribution(shares=shares, **MANY | fields)


def reference_of(name: str, values, user=None, time_ms=None, weight=None) -> Distribution:
    """The distribution of a feature with these values at training, by default of a user each, at one time."""
    values = np.array(values, np.float32)
    user = np.arange(len(values)) if user is None else user
    time_ms = np.zeros(len(values), np.int64) if time_ms is None else time_ms
    sampling = Sampling(user, time_ms, np.ones(len(values)) if weight is None else weight)
    score = np.linspace(0, 1, len(values), dtype=np.float32)
    content = reference_distributions(STANDARD, [name], values[:, None], sampling, score, sampling)
    return msgspec.json.decode(content, type=Reference).features[name]


def counts_of(known: Distribution, values) -> np.ndarray:
    return count_cells(known.cells(np.array(values, np.float32))[:, None])[0]


def compared(known: Distribution, values, probability: float = 1e-6):
    return compare(known, counts_of(known, values), WINDOW_MS, probability)


def told(known: Distribution, values, length_ms: int = WINDOW_MS, **fields):
    """The record of a feature named `value` in a window with these values."""
    reference = Reference({"value": known}, known)
    counts = np.stack([counts_of(known, values)] * 2)
    return window_drift((0, length_ms), "v1", reference, counts, (0, 0), Thresholds(0.1, 0.25, **fields)).features[0]


distributions = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=10).map(lambda p: np.array(p) / sum(p))
numbers = st.floats(allow_infinity=False, width=32)


@given(st.data())
def test_the_index_is_the_sum_of_both_relative_entropies(data):
    p = data.draw(distributions)
    q = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(p), max_size=len(p))))
    q /= q.sum()
    assert stability_index(p, q) == pytest.approx(entropy(p, q) + entropy(q, p), abs=1e-12)


@examples(50)
@given(st.data())
def test_a_contrast_explains_a_part_of_the_index_and_the_best_one_all_of_it(data):
    p = data.draw(distributions)
    rest = st.lists(st.floats(0.01, 1.0), min_size=len(p), max_size=len(p))
    q, weights = np.array(data.draw(rest)), np.array(data.draw(rest))
    q /= q.sum()
    index = stability_index(p, q)
    if np.ptp(weights) > 1e-3:
        assert 0 <= contrast_index(weights, p, q) <= index + 1e-12
        assert contrast_index(1e3 - 7 * weights, p, q) == pytest.approx(contrast_index(weights, p, q), abs=1e-9)
    if np.ptp(np.log(p / q)) > 1e-3:
        assert contrast_index(np.log(p / q), p, q) == pytest.approx(index, abs=1e-12)


def test_the_contrast_of_two_bins_is_their_index():
    p, q = np.array([0.2, 0.8]), np.array([0.7, 0.3])
    assert contrast_index(np.array([0.0, 1.0]), p, q) == pytest.approx(stability_index(p, q))


def test_of_many_rows_the_index_is_the_textbook_s():
    known = distribution([0.25, 0.25, 0.5])
    counts = np.zeros(CELLS, np.int64)
    counts[:3] = 4_000_000, 1_000_000, 5_000_000
    by_hand = (0.4 - 0.25) * np.log(0.4 / 0.25) + (0.1 - 0.25) * np.log(0.1 / 0.25)
    assert compare(known, counts, WINDOW_MS, 1e-6).corrected == pytest.approx(by_hand, abs=1e-5)


def test_missing_values_and_unknown_codes_are_bins_of_their_own():
    known = distribution([0.5, 0.5], values=[0.0, 1.0])
    values = [0, 1] * 4_000 + [7] * 1_000 + [np.nan] * 1_000
    assert counts_of(known, values)[[0, 1, NEW, MISSING]].tolist() == [4_000, 4_000, 1_000, 1_000]
    drift = told(known, values)
    assert (drift.level, drift.unseen, drift.missing) == ("alarm", 0.1, 0.1)
    assert drift.shares == pytest.approx([4 / 9, 4 / 9])


def test_values_far_from_the_range_of_training_are_new():
    known = distribution([0.5, 0.5], edges=[10.0])
    drift = told(known, [1.0] * 100 + [20.0] * 80 + [201.0] * 20)
    assert (drift.level, drift.unseen, drift.shares) == ("alarm", 0.1, [0.5, 0.4])


def test_a_few_far_values_are_beyond_what_any_large_user_does():
    known = distribution([0.5, 0.5], edges=[10.0], rows=50_000, chance=[chance(alone=600.0, largest=300.0, usual=50.0)])
    prices = [1.0, 20.0] * 450
    assert told(known, prices + [200.0] * 150).level == "stable"
    assert told(known, prices + [201.0] * 150).level == "alarm"
    assert told(known, prices + [201.0] * 100).level == "stable"  # as two users of usual size


def test_a_measured_value_beyond_all_of_training_is_in_the_last_bin_and_told_as_unseen():
    drift = told(distribution([0.5, 0.5], edges=[10.0]), [1.0, 20.0, 1.0, 200.0] * 100)
    assert (drift.unseen, drift.missing, drift.shares, drift.level) == (0.25, 0.0, [0.5, 0.5], "stable")


@given(st.lists(numbers | st.floats(-20, 25, width=32), min_size=1, max_size=50))
def test_every_value_is_in_one_cell_and_the_counts_add_up(values):
    known = distribution([0.2, 0.3, 0.5], edges=[0.0, 5.0], low=-3.0, high=9.0)
    counts = counts_of(known, values)
    assert counts.sum() == len(values)
    assert counts[MISSING] == sum(value != value for value in values)
    assert counts[BELOW] == sum(-15 <= value < -3 for value in values)
    assert counts[ABOVE] == sum(9 < value <= 21 for value in values)
    assert counts[NEW] == sum(value < -15 or value > 21 for value in values)
    assert known.in_bins(counts)[0] == sum(-15 <= value < 0 for value in values)


@examples(30)
@given(
    st.sampled_from(("value", "page_type", "country")),
    st.lists(st.one_of(st.sampled_from([0.0, 1.0, 2.0]), numbers), min_size=1, max_size=200),
    st.lists(numbers, max_size=50),
)
def test_the_bins_of_any_values_are_few_and_hold_them_all(name, values, others):
    known = reference_of(name, values)
    counts = counts_of(known, values)
    assert known.bins <= MAX_BINS
    assert counts[[BELOW, ABOVE, NEW]].sum() == 0
    assert counts[MISSING] / len(values) == pytest.approx(known.missing)
    assert known.in_bins(counts) / max(1, len(values) - counts[MISSING]) == pytest.approx(known.shares)
    assert counts_of(known, values + others).sum() == len(values) + len(others)


@examples(30)
@given(st.data())
def test_the_values_of_training_are_no_drift_from_it(data):
    name = data.draw(st.sampled_from(("value", "page_type", "profile_known")))
    few = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, np.nan])
    values = data.draw(st.lists(st.one_of(few, numbers), min_size=1, max_size=30)) * 20
    drift = told(reference_of(name, values), values)
    assert (drift.level, drift.psi, drift.unseen) == ("stable", 0.0, 0.0)


@pytest.mark.slow
@examples(30)
@given(st.permutations(range(10)), st.integers(0, 2**32 - 1))
def test_what_number_a_code_has_does_not_change_the_index(order, seed):
    rng = np.random.default_rng(seed)
    then, now = rng.choice(7, 2_000, p=[0.4, 0.3, 0.1, 0.1, 0.05, 0.03, 0.02]), rng.integers(0, 10, 500)
    order = np.array(order)
    index = compared(reference_of("page_type", then), now).index
    assert compared(reference_of("page_type", order[then]), order[now]).index == pytest.approx(index)


def test_a_frequent_value_has_a_bin_of_its_own_and_the_others_have_quantiles():
    values = [0.0] * 9_000 + [1.0] * 500 + list(np.linspace(2, 3, 500))
    known = reference_of("cart_adds_30m", values)
    assert known.edges[:2] == [0.5, 1.5]
    assert known.shares == pytest.approx([0.9, 0.05, 0.025, 0.025], abs=1e-3)
    twice = reference_of("cart_adds_30m", [0.0, 5.0] * 3_000 + list(np.linspace(1, 4, 4_000)))
    assert twice.shares == pytest.approx([0.3, 0.1, 0.1, 0.1, 0.1, 0.3], abs=1e-3)


def test_a_number_without_frequent_values_has_deciles():
    assert reference_of("value", np.arange(1_000)).shares == pytest.approx([0.1] * 10)


def test_rare_codes_share_a_bin():
    codes = [0] * 9_000 + [1] * 970 + [2] * 10 + [3] * 20
    known = reference_of("page_type", codes)
    assert (known.values, known.rare) == ([0.0, 1.0, 3.0], [2.0])
    many = reference_of("country", np.repeat(np.arange(40), 100))
    assert (len(many.values), len(many.rare), many.bins) == (MAX_BINS - 1, 41 - MAX_BINS, MAX_BINS)


SPARSE = [0.0] * 19_000 + [1.0] * 700 + [2.0] * 300


@pytest.mark.parametrize(
    ("name", "then", "now"),
    [
        ("cart_adds_30m", SPARSE, [9.0] * 2_000),
        ("cart_adds_30m", SPARSE, [0.0] * 1_500 + [1.0] * 500),
        ("profile_known", [0.0] * 20_000, [1.0] * 2_000),
        ("profile_known", [1.0] * 20_000, [0.0] * 2_000),
        ("saturated", [0.0] * 20_000, [0.0] * 1_800 + [1.0] * 200),
        ("marketing_consent", [np.nan] * 20_000, [1.0] * 2_000),
        ("marketing_consent", [1.0] * 20_000, [np.nan] * 2_000),
        ("page_type", [1, 2, 3, 3, 4, 5, 5, 5, 5, 5] * 2_000, [1, 2, 5, 5, 5, 5, 5, 5, 5, 5] * 200),
        ("device", [0, 1, 1, 2] * 5_000, [0, 1, 1, 4] * 500),
        ("value", list(np.linspace(5, 50, 4_000)) * 5, list(np.linspace(500, 5_000, 2_000))),
    ],
)
def test_what_once_went_unnoticed_is_an_alarm(name, then, now):
    assert told(reference_of(name, then), now).level == "alarm"


@pytest.mark.parametrize(
    ("name", "then", "now"),
    [
        ("profile_known", [0.0] * 20_000, [0.0] * 1_999 + [1.0]),
        ("cart_adds_30m", SPARSE, [0.0] * 1_900 + [1.0] * 70 + [2.0] * 30),
        ("page_type", [1, 2, 3, 4] * 5_000, [4, 3, 2, 1] * 500),
    ],
)
def test_what_chance_explains_is_none(name, then, now):
    assert told(reference_of(name, then), now).level == "stable"


def test_two_users_alone_are_no_alarm_of_a_value_that_training_never_saw():
    user = np.repeat(np.arange(2_000), 10)
    user[:6_000] = np.repeat(np.arange(20), 300)
    for name, then in (("profile_known", np.zeros(20_000)), ("device", np.arange(20_000) % 3)):
        known = reference_of(name, then, user)
        assert (known.chance[0].largest, known.chance[0].usual) == (300, pytest.approx(97))
        assert told(known, [*then[:3_800], *[9.0] * 200]).level == "stable"
        assert told(known, [*then[:2_000], *[9.0] * 2_000]).level == "alarm"


def test_a_bin_without_rows_is_an_alarm_however_small_its_share_was():
    known = reference_of("checkouts_1m", [0.0] * 9_900 + [1.0] * 100)
    assert told(known, [0.0] * 5_000).level == "alarm"
    assert told(known, [0.0] * 5_000).psi < 0.25
    assert told(known, [0.0] * 4_999 + [1.0]).level == "stable"


def test_of_a_feature_that_never_varied_all_rows_of_a_user_may_be_alike():
    known = reference_of("profile_known", np.ones(20_000), np.repeat(np.arange(2_000), 10))
    assert known.chance[0].design_effect == pytest.approx(10)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_single_user_does_not_tell_how_users_differ_and_users_who_are_alike_do():
    values = [0.0, 1.0, 2.0, 3.0] * 25
    alone = reference_of("value", values, np.zeros(100, np.int64))
    assert [in_window.design_effect for in_window in alone.chance] == [100] * 5
    assert told(alone, [0.0] * 10_000).unwatched == "training_rows"
    alike = reference_of("value", values, np.repeat(np.arange(25), 4))
    assert {(in_window.design_effect, in_window.degrees_of_freedom) for in_window in alike.chance} == {(1, 3)}
    assert told(alike, [0.0] * 100).level == "alarm"


def test_why_a_feature_is_not_watched_is_told():
    rows = partial(distribution, [0.5, 0.5], edges=[1.0])
    shifted = [0.0] * 1_000
    assert told(rows(), shifted, unwatched=("value",)).unwatched == "setting"
    assert told(rows(rows=19), shifted).unwatched == "training_rows"
    assert told(rows(chance=[chance(effect=50.1)]), shifted).unwatched == "window_rows"
    assert told(rows(chance=[chance(effect=50.0)]), shifted).unwatched is None
    assert told(rows(rows=19), shifted).level == "stable"


def test_a_longer_window_has_more_rows_of_each_user():
    known = distribution([0.5, 0.5], chance=[Chance(1_000, 2, 1, 0.1, 5, 3, 1), Chance(100_000, 8, 3, 0, 9, 5, 3)])
    between = msgspec.structs.astuple(known.chance_in(10_000))
    assert between == pytest.approx((10_000, 5.0, 2.0, 0.05, 7.0, 4.0, 2.0))
    assert known.chance_in(1) == msgspec.structs.replace(known.chance[0], length_ms=1)
    assert known.chance_in(10**9) == msgspec.structs.replace(known.chance[1], length_ms=10**9)


def test_with_independent_rows_the_correction_is_right_on_average_and_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(1)
    known = distribution([0.1] * 10)
    probability, size = 0.05, 500
    found = []
    for drawn in rng.multinomial(size, known.shares, 4_000):
        counts = np.zeros(CELLS, np.int64)
        counts[:10] = drawn
        found.append(compare(known, counts, WINDOW_MS, probability / INDEX_PART))
    assert np.mean([one.index - one.expected for one in found]) == pytest.approx(0, abs=0.03 * 9 / size)
    beyond = np.mean([one.index > one.quantile for one in found])
    assert beyond == pytest.approx(probability, abs=3 * np.sqrt(probability / 4_000))


def unequal_users(rng: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and users of the rows of users, each with a habit, and a few with hundreds of times as many as others."""
    user = np.repeat(np.arange(users), np.ceil(rng.lognormal(1, 1.6, users)).astype(int))
    habit = rng.integers(0, 5, users)
    return np.where(rng.random(len(user)) < 0.3, habit[user], rng.integers(0, 5, len(user))), user


@pytest.mark.slow
def test_of_users_of_very_unequal_size_chance_is_exceeded_about_as_often_as_promised():
    rng = np.random.default_rng(8)
    probability, beyond, found = 0.01, [], []
    for _ in range(80):
        known = reference_of("page_type", *unequal_users(rng, 400))
        beyond += [compared(known, unequal_users(rng, 400)[0], probability).excess > 1 for _ in range(20)]
        values, _ = unequal_users(rng, 400)
        drifted = np.where(rng.random(len(values)) < 0.5, 4, values)
        found.append(compared(known, drifted, probability).level(THRESHOLDS) == "alarm")
    assert 0.2 * probability < np.mean(beyond) < 2.5 * probability
    assert np.mean(found) > 0.9


def test_the_mean_and_the_missing_values_tell_a_drift_that_the_index_does_not():
    rng = np.random.default_rng(4)
    value, gone = rng.normal(size=50_000), rng.random(50_000)
    known = reference_of("value", np.where(gone < 0.3, np.nan, value))
    for now in (np.where(gone < 0.3, np.nan, value + 0.14), np.where(gone < 0.37, np.nan, value)):
        found = compared(known, now[:2_000], 1e-5)
        assert found.index < found.quantile
        assert found.excess > 1


def test_chance_alone_exceeds_a_quantile_of_any_contrast_no_more_often_than_promised():
    rng = np.random.default_rng(9)
    probability, beyond = 0.05, []
    for _ in range(8):
        known = reference_of("value", *habitual_values(rng, 500))
        assert len(known.contrasts) == 2
        beyond += [compared(known, habitual_values(rng, 200)[0], probability).excess > 1 for _ in range(40)]
    assert 0.1 * probability < np.mean(beyond) < 1.5 * probability


def habitual_values(rng: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and users of the rows of users of unequal size, each with a mean and a share of missing values."""
    user = np.repeat(np.arange(users), rng.geometric(0.1, users))
    mean, share = rng.lognormal(size=users), rng.beta(1, 3, users)
    values = mean[user] * rng.lognormal(0, 0.3, len(user))
    return np.where(rng.random(len(user)) < share[user], np.nan, values), user


def test_records_are_those_of_a_slow_computation():
    rng = np.random.default_rng(10)
    seen = set()
    for name, user, size in (("value", 500, 900), ("value", 500, 9_000), ("page_type", 300, 1_000)):
        values, users = habitual_values(rng, user)
        known = reference_of(name, np.round(values) if name == "page_type" else values, users)
        for now in (values, values * 1.4, values * 3, np.where(rng.random(len(values)) < 0.3, np.nan, values)):
            now = np.resize(now, size).astype(np.float32)
            now[: size // 20] *= rng.choice([1, 1_000])
            wanted = feature_drift(
                "value", pd.Series(now), msgspec.to_builtins(known), ["value", "score"], THRESHOLDS, HOUR_MS
            )
            found = msgspec.to_builtins(told(known, now, HOUR_MS))
            assert found == {
                key: one if isinstance(one, str | None) else pytest.approx(one) for key, one in wanted.items()
            }
            seen.add((found["level"], found["psi"] > 0.1))
    assert {("stable", False), ("stable", True), ("alarm", True)} <= seen


def test_a_contrast_s_chance_is_what_users_make_of_it():
    rng = np.random.default_rng(5)
    users, rows, hours = 3_000, 4, 24
    user = np.repeat(np.arange(users), rows)
    hour = np.repeat(rng.integers(0, hours, users), rows)
    mean = rng.normal(size=users)[user] + 0.5 * np.sin(hour * 2 * np.pi / hours)
    value = np.where(rng.random(users * rows) < 0.25, np.nan, mean)
    known = reference_of("value", value, user, time_ms=hour * HOUR_MS)
    missing, of_mean = known.contrasts
    for contrast, effect in ((missing, 1.0), (of_mean, 1 + (rows - 1) * 0.75)):
        spread = known.spread_in(contrast, HOUR_MS)
        assert spread.design_effect == pytest.approx(effect, rel=0.05)
        assert contrast.noise == pytest.approx(effect / len(user), rel=0.05)
    # Of the variance of the means, what the hours make of it: by the logarithm of the shares it would be about as much.
    assert known.spread_in(of_mean, HOUR_MS).rhythm == pytest.approx(0.125 / 1.125 * 0.75, rel=0.25)
    assert known.spread_in(missing, HOUR_MS).rhythm == pytest.approx(0, abs=1e-3)


def test_a_reference_without_contrasts_is_told_by_its_index_alone():
    rng = np.random.default_rng(6)
    known = reference_of("value", rng.normal(size=20_000))
    older = msgspec.structs.replace(known, contrasts=[], means=[])
    now = rng.normal(0.22, 1, 2_000)
    assert compared(known, now).excess > 1
    assert 0 < compared(older, now).excess < compared(known, now).excess
    assert told(older, now + 3).level == "alarm"


def test_contrasts_that_do_not_fit_the_bins_are_refused():
    known = reference_of("value", np.arange(100))
    with pytest.raises(ValueError, match="expected 1 contrasts, got 2"):
        msgspec.structs.replace(known, contrasts=known.contrasts * 2)
    short = msgspec.structs.replace(known.contrasts[0], spreads=known.contrasts[0].spreads[:1])
    with pytest.raises(ValueError, match="expected spreads of a contrast for each of 5 lengths"):
        msgspec.structs.replace(known, contrasts=[short])


def test_the_design_effect_is_that_of_users_whose_rows_are_all_alike():
    rng = np.random.default_rng(2)
    users, copies = 4_000, 5
    known = reference_of("value", np.repeat(rng.random(users), copies), np.repeat(np.arange(users), copies))
    for in_window in known.chance:
        assert in_window.design_effect == pytest.approx(copies, rel=0.05)
        assert in_window.degrees_of_freedom == pytest.approx(9, rel=0.05)
        assert (in_window.rhythm, in_window.largest) == (pytest.approx(0, abs=1e-3), copies)
        assert in_window.alone == pytest.approx(3 * copies, rel=0.01)  # all of its rows in one decile
    assert known.noise == pytest.approx(9 / users, rel=0.05)
    assert known.shares == pytest.approx([0.1] * 10, abs=1e-3)


def test_the_design_effect_of_a_window_is_that_of_the_users_rows_in_it():
    rng = np.random.default_rng(6)
    user, visit = np.repeat(np.arange(2_000), 12), np.tile(np.arange(12), 2_000)
    known = reference_of("value", np.repeat(rng.random(2_000), 12), user, visit * HOUR_MS // 2)
    effects = [in_window.design_effect for in_window in known.chance]
    assert effects == pytest.approx([1, 2, 12, 12, 12], rel=0.05)


def test_the_rhythm_is_the_index_of_windows_with_very_many_users():
    rng = np.random.default_rng(7)
    hour = rng.integers(0, 24, 100_000)
    share = 0.5 + 0.2 * np.sin(hour * 2 * np.pi / 24)
    known = reference_of("value", rng.random(100_000) < share, time_ms=hour * HOUR_MS)
    in_windows = np.mean((share - 0.5) ** 2 / 0.25)
    assert known.chance_in(HOUR_MS).rhythm == pytest.approx(in_windows, rel=0.05)
    assert known.chance_in(24 * HOUR_MS).rhythm == pytest.approx(0, abs=1e-9)
    assert told(known, rng.random(100_000) < 0.7).level == "stable"  # as at its peak
    assert told(known, rng.random(100_000) < 0.95).level == "alarm"


def test_a_reference_of_downsampled_rows_is_that_of_all_of_them():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(3_000), 20)
    value = (np.repeat(rng.normal(size=3_000), 20) + rng.normal(size=len(users))).astype(np.float32)
    always = value > 1.5
    kept = np.flatnonzero(always | (rng.random(len(users)) < 0.25))
    whole = reference_of("value", value, users)
    downsampled = reference_of("value", value[kept], users[kept], weight=np.where(always[kept], 1.0, 4.0))
    assert downsampled.edges == pytest.approx(whole.edges, abs=0.05)
    assert downsampled.shares == pytest.approx(whole.shares, abs=0.01)
    assert downsampled.chance[0].design_effect == pytest.approx(whole.chance[0].design_effect, rel=0.1)
    assert downsampled.noise > whole.noise


def test_a_constant_score_with_another_last_digit_is_the_same():
    rows, time = np.arange(1_000), np.zeros(1_000, np.int64)
    sampling, score = Sampling(rows, time, np.ones(1_000)), np.full(1_000, 0.25, np.float32)
    content = reference_distributions(STANDARD, ["value"], rows[:, None].astype(np.float32), sampling, score, sampling)
    known = msgspec.json.decode(content, type=Reference).score
    assert told(known, np.nextafter(score, np.float32(1))).level == "stable"
    assert told(known, score + 0.1).level == "alarm"


class Shop:
    """Vectors of half the users of the simulated shop, when it has been open for some hours."""

    def __init__(self, stream, half: int):
        clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
        data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)))
        old = data.records["time_ms"] >= stream.arrival_ms[0] + OPENING_MS
        rows = np.flatnonzero(old & (data.user % 2 == half))
        self.features = data.features(FeatureComputer(STANDARD.names), rows)
        self.user, self.time_ms = data.user[rows], data.records["time_ms"][rows]

    @property
    def score(self) -> np.ndarray:
        return 1 / (1 + np.exp(-self.features[:, STANDARD.names.index("session_events")] / 10))

    def reference(self) -> Reference:
        sampling = Sampling(self.user, self.time_ms, np.ones(len(self.user)))
        content = reference_distributions(STANDARD, STANDARD.names, self.features, sampling, self.score, sampling)
        return msgspec.json.decode(content, type=Reference)

    def windows(self, length_ms: int) -> list[np.ndarray]:
        """The rows of each window of this length."""
        window = (self.time_ms - self.time_ms.min()) // length_ms
        return [rows for number in range(window.max() + 1) if len(rows := np.flatnonzero(window == number))]


OPENING_MS = 6 * HOUR_MS


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=2_400, hours=30, seed=1))


@pytest.fixture(scope="module")
def reference(stream) -> Reference:
    return Shop(stream, 0).reference()


@pytest.fixture(scope="module")
def others(stream) -> Shop:
    return Shop(stream, 1)


def drift_of(reference: Reference, length_ms: int, cells: np.ndarray, thresholds: Thresholds = THRESHOLDS):
    return window_drift((0, length_ms), "v1", reference, count_cells(cells), (0, 0), thresholds)


@pytest.mark.slow
@pytest.mark.parametrize(("length_ms", "windows"), [(WINDOW_MS, 144), (HOUR_MS, 24), (24 * HOUR_MS, 1)])
def test_an_unchanged_shop_raises_no_alarm_however_long_the_window(reference, others, length_ms, windows):
    cells = reference.cells(others.features, others.score)
    drifts = [drift_of(reference, length_ms, cells[rows]) for rows in others.windows(length_ms)]
    assert len(drifts) == windows
    assert [drift.moved for drift in drifts if drift.level != "stable"] == []


@pytest.mark.slow
def test_in_an_unchanged_shop_chance_is_exceeded_no_more_often_than_promised(reference, others, monkeypatch):
    monkeypatch.setattr("udfs.measurement.drift.FALSE_ALARM", 0.2)
    at_all = Thresholds(1e-9, 1e-9, CLOCKS)
    cells = reference.cells(others.features, others.score)
    windows = [(length_ms, rows) for length_ms in (HOUR_MS, 3 * HOUR_MS) for rows in others.windows(length_ms)]
    beyond = [drift_of(reference, length_ms, cells[rows], at_all).level != "stable" for length_ms, rows in windows]
    assert np.mean(beyond) < 0.3


@pytest.mark.slow
def test_without_the_correction_a_quiet_night_would_be_an_alarm(reference, others):
    quiet = min(others.windows(WINDOW_MS), key=len)
    counts = count_cells(reference.cells(others.features[quiet], others.score[quiet]))
    indices = [
        compare(known, part, WINDOW_MS, 0.5).index
        for (name, known), part in zip(reference.distributions.items(), counts)
        if name not in CLOCKS
    ]
    assert max(indices) > THRESHOLDS.alarm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change", "hours"),
    [
        ("value", lambda value: value * 3, 3),
        ("profile_known", np.zeros_like, 3),
        ("since_previous_event_s", lambda value: value * 10, 3),
        ("scroll", lambda value: value * np.nan, 3),
        ("device", lambda value: np.where(np.arange(len(value)) % 3 == 0, 9, value), 3),
        ("cart_adds_30m", lambda value: np.full_like(value, 9), 3),
        ("purchases_24h", lambda value: value + 1, 3),
        ("page_type", lambda value: np.where(np.isin(value, PAID), SHOWN, value), 24),
    ],
)
def test_a_real_shift_is_an_alarm_and_named_first(reference, others, name, change, hours):
    shifted = others.features.copy()
    column = STANDARD.names.index(name)
    shifted[:, column] = change(shifted[:, column])
    cells = reference.cells(shifted, others.score)
    for rows in others.windows(hours * HOUR_MS)[:5][-3:]:
        drift = drift_of(reference, hours * HOUR_MS, cells[rows])
        assert (drift.level, drift.moved) == ("alarm", [name])


PAGES = STANDARD.vocabulary("page_type")
PAID, SHOWN = [PAGES["cart"], PAGES["checkout"]], PAGES["product"]


@pytest.mark.slow
def test_an_unwatched_feature_has_its_index_and_no_level(reference, others):
    column = STANDARD.names.index("lifetime_events")
    shifted = others.features.copy()
    shifted[:, column] += 1_000
    drift = drift_of(reference, 24 * HOUR_MS, reference.cells(shifted, others.score))
    feature = drift.features[column]
    assert (feature.name, feature.level, feature.unwatched) == ("lifetime_events", "stable", "setting")
    assert (feature.unseen, feature.psi > 1) == (1.0, True)


def test_a_window_tells_of_its_labels_and_names_the_features_that_moved_most_first():
    moved, stable = distribution([0.5, 0.5], [1.0]), distribution([0.1, 0.9], [1.0])
    reference = Reference({"a": stable, "b": moved}, moved)
    counts = np.zeros((3, CELLS), np.int64)
    counts[:, :2] = [[1_000, 9_000], [9_000, 1_000], [7_500, 2_500]]
    drift = window_drift((60_000, 120_000), "v1", reference, counts, (4, 1), THRESHOLDS)
    assert (drift.rows, drift.level, drift.moved, drift.label_rate) == (10_000, "alarm", ["b", "score"], 0.25)
    assert drift.score_psi == drift.features[2].psi == pytest.approx(0.274, abs=0.002)


def test_the_newest_window_is_as_bad_as_the_worst_of_its_models():
    newest = NewestDrift()
    seen = []
    for end, level, moved in ((1, "alarm", ["a", "b"]), (2, "watch", ["a"]), (2, "stable", []), (1, "alarm", ["a"])):
        newest.note(sample("drift", window_end=end, level=level, moved=moved))
        seen.append((newest.level, newest.moved))
    assert seen == [(2, 2), (1, 1), (1, 1), (1, 1)]
