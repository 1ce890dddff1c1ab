"""The index and its correction: by hand, by SciPy, and by simulation with users who are alike to themselves."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from tests.support.sample_records import sample
from training.bundles.drift_reference import CLUSTER_MS, Sampling, reference_distributions
from training.data.dataset import arrange, read_clicks, read_profiles
from training.simulation.clickstream import Simulation, simulate
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import STANDARD
from udfs.measurement.drift import (
    CELLS,
    MISSING,
    UNSEEN,
    Distribution,
    NewestDrift,
    Reference,
    Thresholds,
    compare,
    count_cells,
    stability_index,
    window_drift,
)

THRESHOLDS = Thresholds(watch=0.1, alarm=0.25, unwatched=("since_first_seen_s", "lifetime_events"))


def distribution(shares, edges=None, **fields) -> Distribution:
    fields = {"missing": 0.0, "low": 0.0, "high": 100.0, "rows": 10**9, "noise": 0.0} | fields
    fields = {"design_effect": 1.0, "degrees_of_freedom": max(1, len(shares) - 1)} | fields
    return Distribution(edges=edges or list(range(1, len(shares))), shares=shares, **fields)


def counts_of(known: Distribution, values) -> np.ndarray:
    return count_cells(known.cells(np.array(values, np.float32))[:, None])[0]


distributions = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=10).map(lambda p: np.array(p) / sum(p))


@given(st.data())
def test_the_index_is_the_sum_of_both_relative_entropies(data):
    p = data.draw(distributions)
    q = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=len(p), max_size=len(p))))
    q /= q.sum()
    assert stability_index(p, q) == pytest.approx(entropy(p, q) + entropy(q, p), abs=1e-12)


def test_of_many_rows_the_index_is_the_textbook_s():
    known = distribution([0.25, 0.25, 0.5])
    counts = np.zeros(CELLS, np.int64)
    counts[:3] = 4_000_000, 1_000_000, 5_000_000
    by_hand = (0.4 - 0.25) * np.log(0.4 / 0.25) + (0.1 - 0.25) * np.log(0.1 / 0.25)
    assert compare(known, counts, 1e-6).corrected == pytest.approx(by_hand, abs=1e-5)


def test_missing_values_and_unknown_codes_are_bins_of_their_own():
    known = distribution([1.0], edges=[], values=[0.0, 1.0], high=1.0)
    counts = counts_of(known, [0, 1] * 4_000 + [7] * 1_000 + [np.nan] * 1_000)
    assert counts[[0, UNSEEN, MISSING]].tolist() == [8_000, 1_000, 1_000]
    assert compare(known, counts, 1e-6).level(THRESHOLDS) == "alarm"


def test_a_measured_value_beyond_all_of_training_is_in_the_last_bin_and_told_as_unseen():
    known = distribution([0.5, 0.5], edges=[10.0])
    reference = Reference({"value": known}, known)
    values = np.array([1.0, 20.0, 1.0, 200.0] * 100, np.float32)
    counts = count_cells(reference.cells(values[:, None], values))
    told = window_drift((0, 1), "v1", reference, counts, (0, 0), THRESHOLDS).features[0]
    assert (told.unseen, told.missing, told.shares, told.level) == (0.25, 0.0, [0.5, 0.5], "stable")


@given(st.lists(st.floats(allow_infinity=False, width=32), min_size=1, max_size=50))
def test_every_value_is_in_one_cell_and_the_counts_add_up(values):
    known = distribution([0.2, 0.3, 0.5], edges=[0.0, 5.0], low=-3.0, high=9.0)
    counts = counts_of(known, values)
    assert counts.sum() == len(values)
    assert counts[MISSING] == sum(value != value for value in values)
    assert counts[UNSEEN:MISSING].sum() == sum(value < -3 or value > 9 for value in values)
    assert counts[[0, UNSEEN]].sum() == sum(value < 0 for value in values)


def test_with_independent_rows_the_correction_is_right_on_average_and_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(1)
    known = distribution([0.1] * 10)
    chance, size = 0.05, 500
    compared = []
    for drawn in rng.multinomial(size, known.shares, 4_000):
        counts = np.zeros(CELLS, np.int64)
        counts[:10] = drawn
        compared.append(compare(known, counts, chance))
    assert np.mean([one.index - one.expected for one in compared]) == pytest.approx(0, abs=0.03 * 9 / size)
    beyond = np.mean([one.index > one.quantile for one in compared])
    assert beyond == pytest.approx(chance, abs=3 * np.sqrt(chance / 4_000))


def test_the_design_effect_is_that_of_users_whose_rows_are_all_alike():
    rng = np.random.default_rng(2)
    users, copies = 4_000, 5
    value = np.repeat(rng.random(users), copies).astype(np.float32)
    sampling = Sampling(np.repeat(np.arange(users), copies), np.zeros(len(value), np.int64), np.ones(len(value)))
    content = reference_distributions(STANDARD, ["value"], value[:, None], sampling, value, sampling)
    known = msgspec.json.decode(content, type=Reference).features["value"]
    assert known.design_effect == pytest.approx(copies, rel=0.05)
    assert known.degrees_of_freedom == pytest.approx(9, rel=0.05)
    assert known.noise == pytest.approx(9 / users, rel=0.05)
    assert known.shares == pytest.approx([0.1] * 10, abs=1e-3)


def test_a_reference_of_downsampled_rows_is_that_of_all_of_them():
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(3_000), 20)
    value = (np.repeat(rng.normal(size=3_000), 20) + rng.normal(size=len(users))).astype(np.float32)
    always = value > 1.5
    kept = np.flatnonzero(always | (rng.random(len(users)) < 0.25))
    weight = np.where(always[kept], 1.0, 4.0)

    def reference(rows, weight):
        sampling = Sampling(users[rows], np.zeros(len(rows), np.int64), weight)
        content = reference_distributions(STANDARD, ["value"], value[rows, None], sampling, value[rows], sampling)
        return msgspec.json.decode(content, type=Reference).features["value"]

    whole, downsampled = reference(np.arange(len(users)), np.ones(len(users))), reference(kept, weight)
    assert downsampled.edges == pytest.approx(whole.edges, abs=0.05)
    assert downsampled.shares == pytest.approx(whole.shares, abs=0.01)
    assert downsampled.design_effect == pytest.approx(whole.design_effect, rel=0.1)
    assert downsampled.noise > whole.noise


class Shop:
    """Vectors of the simulated shop, by visit: what one user does in ten minutes."""

    def __init__(self, users: int, seed: int):
        stream = simulate(Simulation(users=users, hours=12, seed=seed))
        clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
        data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)))
        self.features = data.features(FeatureComputer(STANDARD.names))
        self.user, self.time_ms = data.user, data.records["time_ms"]
        slot = self.time_ms // CLUSTER_MS
        visits, visit = np.unique(np.stack([self.user, slot]), axis=1, return_inverse=True)
        self._order = np.argsort(visit.ravel(), kind="stable")
        self._bounds = np.searchsorted(visit.ravel()[self._order], np.arange(visits.shape[1] + 1))

    @property
    def score(self) -> np.ndarray:
        return 1 / (1 + np.exp(-self.features[:, STANDARD.names.index("session_events")] / 10))

    def reference(self) -> Reference:
        sampling = Sampling(self.user, self.time_ms, np.ones(len(self.user)))
        content = reference_distributions(STANDARD, STANDARD.names, self.features, sampling, self.score, sampling)
        return msgspec.json.decode(content, type=Reference)

    def window(self, visits: int, rng: np.random.Generator) -> np.ndarray:
        """The rows of some visits, whole, whenever they were: stable traffic of users like those of training."""
        chosen = rng.choice(len(self._bounds) - 1, visits, replace=False)
        return np.concatenate([self._order[self._bounds[one] : self._bounds[one + 1]] for one in chosen])


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Shop(1_500, seed=1).reference()


@pytest.fixture(scope="module")
def later() -> Shop:
    return Shop(1_500, seed=2)


def drift_of(reference: Reference, shop: Shop, cells: np.ndarray):
    return window_drift((0, CLUSTER_MS), "v1", reference, count_cells(cells), (0, 0), THRESHOLDS)


@pytest.mark.parametrize("visits", [1, 3, 10, 30, 100, 400])
def test_stable_traffic_raises_no_alarm_however_little_there_is(reference, later, visits):
    rng = np.random.default_rng(visits)
    cells = reference.cells(later.features, later.score)
    levels = [drift_of(reference, later, cells[later.window(visits, rng)]).level for _ in range(60)]
    assert set(levels) == {"stable"}


def test_without_the_correction_a_quiet_night_would_be_an_alarm(reference, later):
    rows = later.window(20, np.random.default_rng(5))
    cells = count_cells(reference.cells(later.features[rows], later.score[rows]))
    indices = [compare(known, counts, 0.5).index for known, counts in zip(reference.distributions.values(), cells)]
    assert max(indices) > THRESHOLDS.alarm


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("value", lambda value: value * 3),
        ("profile_known", np.zeros_like),
        ("since_previous_event_s", lambda value: value * 10),
        ("scroll", lambda value: value * np.nan),
        ("device", lambda value: np.where(np.arange(len(value)) % 3 == 0, 9, value)),
    ],
)
def test_a_real_shift_is_an_alarm_and_named_first(reference, later, name, change):
    shifted = later.features.copy()
    column = STANDARD.names.index(name)
    shifted[:, column] = change(shifted[:, column])
    rng = np.random.default_rng(4)
    cells = reference.cells(shifted, later.score)
    for _ in range(5):
        drift = drift_of(reference, later, cells[later.window(600, rng)])
        assert (drift.level, drift.moved) == ("alarm", [name])


def test_an_unwatched_feature_has_its_index_and_no_level(reference, later):
    column = STANDARD.names.index("lifetime_events")
    shifted = later.features.copy()
    shifted[:, column] += 1_000
    drift = drift_of(reference, later, reference.cells(shifted, later.score))
    feature = drift.features[column]
    assert (feature.name, feature.level, feature.unseen) == ("lifetime_events", "stable", 1.0)
    assert feature.psi > 1


def test_a_window_tells_of_its_labels_and_names_the_features_that_moved_most_first():
    moved, stable = distribution([0.5, 0.5], [1.0]), distribution([0.1, 0.9], [1.0])
    reference = Reference({"a": stable, "b": moved}, moved)
    counts = np.zeros((3, CELLS), np.int64)
    counts[:, :2] = [[1_000, 9_000], [9_000, 1_000], [7_500, 2_500]]
    told = window_drift((60_000, 120_000), "v1", reference, counts, (4, 1), THRESHOLDS)
    assert (told.rows, told.level, told.moved, told.label_rate) == (10_000, "alarm", ["b", "score"], 0.25)
    assert told.score_psi == told.features[2].psi == pytest.approx(0.274, abs=0.002)


def test_the_newest_window_is_as_bad_as_the_worst_of_its_models():
    newest = NewestDrift()
    seen = []
    for end, level, moved in ((1, "alarm", ["a", "b"]), (2, "watch", ["a"]), (2, "stable", []), (1, "alarm", ["a"])):
        newest.note(sample("drift", window_end=end, level=level, moved=moved))
        seen.append((newest.level, newest.moved))
    assert seen == [(2, 2), (1, 1), (1, 1), (1, 1)]
