"""The choice of family and teacher_share, and pruning: by cross-validation that no user judges twice."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from training.evaluation.rivals import fit_rival
from training.modeling import model_selection, pipeline, settings
from training.modeling.choice import TEACHER_SHARES, choose, simplest_within_one_standard_error
from training.modeling.families import CANDIDATES, FAMILIES
from training.modeling.family import Fitting, columns_for
from training.modeling.logistic_model import LogisticFamily
from training.modeling.metrics import LabelledScores
from training.modeling.model_selection import (
    CrossValidated,
    TrainingRows,
    cross_validate,
    permutation_importance,
    prune,
)
from training.modeling.pipeline import select
from training.modeling.settings import Training, TrainingError, load_training
from udfs.features.declaration_file import STANDARD

SETTINGS = Training(model="auto", rounds=15, folds=3, prune=False, threads=1, features=("cart_adds_30m", "value"))
BOTH = [FAMILIES["logistic"], FAMILIES["xgboost"]]


def rows(features: np.ndarray, labels: np.ndarray, users: int = 150) -> TrainingRows:
    user = np.arange(len(labels)) % users
    return TrainingRows(features.astype(np.float32), labels, np.ones(len(labels)), user, user % 3, balance=0.0)


def noise_with(signal, n: int = 3_000, features: int = 2) -> TrainingRows:
    """Rows whose label is `signal` of their features, with noise."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(n, features))
    return rows(values, signal(values) + rng.logistic(size=n) > 0)


def linear(values: np.ndarray) -> np.ndarray:
    return 1.5 * values[:, 0]


def crossed(values: np.ndarray) -> np.ndarray:
    """No linear model sees this."""
    return 3 * np.sign(values[:, 0] * values[:, 1])


@pytest.mark.parametrize(("signal", "family"), [(linear, "logistic"), (crossed, "xgboost")])
def test_trees_are_chosen_only_where_they_find_more_than_the_regression(signal, family):
    lines = []
    selection = select(noise_with(signal), SETTINGS.names, SETTINGS, lines.append, BOTH)
    assert selection.family.name == family
    choice = selection.choice
    assert [one.family for one in choice.candidates] == ["logistic", "xgboost"]
    assert choice.chosen.family == family
    assert choice.chosen.within_one_standard_error
    assert max(one.behind.value for one in choice.candidates) == 0
    assert choice.cost.models == 3 + 3 * len(TEACHER_SHARES)
    assert any(line.startswith(f"chose {family}, the simplest within one standard error") for line in lines)


@pytest.mark.slow
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 5))
def test_the_simplest_of_equals_is_chosen_and_never_one_clearly_behind(qualities, seed):
    rng = np.random.default_rng(seed)
    labels, user = rng.random(400) < 0.3, np.arange(400) % 80
    noise = rng.random(400)
    measured = [LabelledScores(labels, quality * 0.5 * labels + noise, np.ones(400), user) for quality in qualities]
    place, behind = simplest_within_one_standard_error(measured)
    assert behind[place].value >= -behind[place].standard_error
    assert all(gap.value < -gap.standard_error for gap in behind[:place])
    assert qualities.index(qualities[place]) == place


def test_the_teacher_share_is_the_one_that_ranks_best_unless_the_settings_name_one():
    data, fitting = noise_with(crossed), Fitting(SETTINGS.names, {}, 15, threads=1)
    free = choose([FAMILIES["xgboost"]], data, fitting, {}, 0, print)
    tried = {one.teacher_share: one.auc for one in free.choice.chosen.teacher_shares}
    assert tuple(tried) == TEACHER_SHARES
    assert free.fitting.parameters["teacher_share"] == max(tried, key=tried.get) < 0.9
    named = choose([FAMILIES["xgboost"]], data, fitting, {"teacher_share": 0.9}, 0, print)
    assert named.fitting.parameters["teacher_share"] == 0.9
    assert named.choice.chosen.teacher_shares == ()
    assert named.choice.cost.models == 3 + 3  # trees and their teachers


@pytest.mark.slow
def test_candidates_are_fitted_together_as_each_would_be_alone(monkeypatch):
    fitted = []
    for name in ("logistic", "xgboost"):
        kind = type(FAMILIES[name])
        monkeypatch.setattr(
            kind, "_fit", lambda self, *given, fit=kind._fit: fitted.append(self.name) or fit(self, *given)
        )
    data, fitting = noise_with(crossed), Fitting(SETTINGS.names, {}, 15, threads=1)
    together = choose([FAMILIES[name] for name in CANDIDATES], data, fitting, {}, 0, print)
    assert Counter(fitted) == {"logistic": 3, "xgboost": 3 * len(TEACHER_SHARES)}
    assert together.choice.cost.models == len(fitted)
    for one in together.choice.candidates:
        alone = choose([FAMILIES[one.family]], data, fitting, {}, 0, print).choice.chosen
        assert (one.auc, one.teacher_shares) == (alone.auc, alone.teacher_shares)


def test_each_family_takes_the_parameters_that_it_has():
    data, fitting = noise_with(linear), Fitting(SETTINGS.names, {}, 5, threads=1)
    chosen = choose(BOTH, data, fitting, {"C": 0.5, "teacher_share": 0.0, "max_depth": 2}, 0, print)
    assert chosen.fitting.parameters == {"C": 0.5}


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("xgboost", "{max_depth: 2, max_bin: 16, reg_lambda: 3}"), ("lightgbm", "{num_leaves: 4}")],
)
def test_whole_numbers_of_the_settings_are_integers_to_the_library(kind, parameters):
    written = load_training(None, [f"model={kind}", "compare=[]", f"parameters={parameters}"]).parameters
    family, data = FAMILIES[kind], noise_with(linear)
    model = family.fit(data.fit_rows(), Fitting(SETTINGS.names, {**family.defaults, **written}, 2, threads=1))
    assert len(np.unique(model.predict(data.features))) > 1


def test_a_family_takes_no_feature_that_is_only_a_champions():
    declared = Training(sequence=True, history_length=3).declared
    names = ("value", "event_code_0", "retired@2")
    assert columns_for(FAMILIES["logistic"], names, STANDARD) == [0]
    assert columns_for(FAMILIES["gru"], names, declared) == [1]


def test_each_parameter_has_a_rule():
    assert {name for family in FAMILIES.values() for name in family.defaults} <= settings._BOUNDS.keys()


@pytest.mark.parametrize("name", ["num_leaves", "hidden"])
def test_a_parameter_that_no_candidate_has_is_refused(name):
    with pytest.raises(TrainingError, match=f"key parameters: unknown parameter {name}; expected one of C, max_depth"):
        load_training(None, [f"parameters={{{name}: 16}}"])


def test_auto_has_several_candidates_and_another_model_is_the_only_one():
    assert tuple(family.name for family in SETTINGS.candidates) == CANDIDATES
    assert [family.name for family in replace(SETTINGS, model="lightgbm").candidates] == ["lightgbm"]


class OfCodes(LogisticFamily):
    """What stands for a sequence model where there is no PyTorch."""

    name = "gru"
    reads_events = True


@pytest.mark.parametrize(("informative", "family"), [(0, "logistic"), (3, "gru")])
def test_a_sequence_model_is_chosen_among_the_others_and_has_the_codes_of_events_alone(informative, family):
    settings = replace(SETTINGS, sequence=True, history_length=3, compare=())
    codes = ("event_code_2", "event_code_1", "event_code_0")
    assert settings.names == ("cart_adds_30m", "value", *codes)
    assert [one.name for one in settings.candidates] == [*CANDIDATES, "gru"]
    data = noise_with(lambda values: 1.5 * values[:, informative], features=5)
    selection = select(data, settings.names, settings, print, [FAMILIES["logistic"], OfCodes()])
    assert selection.family.name == family
    expected = {"logistic": ("cart_adds_30m", "value"), "gru": codes}
    assert {name: model.names for name, model in selection.tried.items()} == expected
    assert tuple(selection.names) == tuple(selection.fitting.names) == expected[family]
    assert selection.columns == [settings.names.index(name) for name in expected[family]]
    assert len(selection.importance) == selection.data.features.shape[1] == len(selection.columns)
    assert [one.family for one in selection.choice.candidates] == ["logistic", "gru"]


def test_a_sequence_model_is_compared_with_by_its_own_features(monkeypatch):
    settings = replace(SETTINGS, sequence=True, history_length=3)
    data = noise_with(linear, features=5)
    monkeypatch.setitem(FAMILIES, "gru", OfCodes())
    for name, columns in (("logistic", slice(0, 2)), ("gru", slice(2, 5))):
        rival = fit_rival(name, data, settings.names, settings)
        other = np.full_like(data.features, 7)
        other[:, columns] = data.features[:, columns]
        assert np.array_equal(rival.predict(other), rival.predict(data.features))
        assert rival.rounds == 0


def test_features_that_are_all_codes_of_events_leave_nothing_to_the_others():
    settings = replace(SETTINGS, sequence=True, history_length=3, features=("event_code_0",))
    with pytest.raises(TrainingError, match="key features: they have none that logistic takes"):
        select(noise_with(linear, features=3), settings.names, settings, print, [FAMILIES["logistic"], OfCodes()])


def test_of_large_data_the_choice_is_made_on_whole_users(monkeypatch):
    monkeypatch.setattr(pipeline, "CHOICE_ROWS", 1_000)
    data = noise_with(linear)
    selection = select(data, SETTINGS.names, SETTINGS, print, BOTH)
    assert 600 < selection.choice.rows < 1_400
    assert selection.choice.rows % 20 == 0  # of the 20 rows that each user has
    assert len(selection.crossed.probability) == len(data.labels)


def test_the_users_that_judge_a_number_of_features_did_not_rank_them(monkeypatch):
    """Of noise alone, features that were ranked by the users that judge them look good; others don't."""
    rng = np.random.default_rng(5)
    n, k = 1_500, 80
    data = rows(rng.normal(size=(n, k)), rng.random(n) < 0.3)
    fitting = Fitting([f"f{column}" for column in range(k)], FAMILIES["logistic"].defaults)
    whole = cross_validate(FAMILIES["logistic"], data, fitting)
    importance = permutation_importance(data, whole, 1)
    monkeypatch.setattr(model_selection, "PRUNED_SIZES", (8,))
    *_, steps = prune(FAMILIES["logistic"], data, fitting, whole, importance, print)
    honest = steps[-1]
    columns = [np.argsort(-importance)[:8].tolist()] * 3
    optimistic = cross_validate(FAMILIES["logistic"], data, fitting, columns)
    of_eight, of_all = honest.auc.value, next(step.auc.value for step in steps if step.features == k)
    assert auc(data, whole) + of_eight - of_all < 0.53 < auc(data, optimistic)  # both minus the better of the two


def auc(data: TrainingRows, crossed: CrossValidated) -> float:
    return LabelledScores(data.labels, crossed.probability, data.weight, data.user).roc_auc_of_all()
