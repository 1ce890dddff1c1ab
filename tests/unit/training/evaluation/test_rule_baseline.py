"""The rule as a baseline: its figures, the model's at the same share acted on, and the file that it comes from."""

from functools import partialmethod
from pathlib import Path
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from sklearn.metrics import precision_score, recall_score

from tests.conftest import QUICK
from tests.support.own_features import declared
from tests.support.shop import shop_examples
from training.bundles.trainer import train_model
from training.evaluation.rule_baseline import compare_with_rule, describe_rule, measure_rule
from training.modeling.metrics import LabelledScores
from training.modeling.model_selection import scored
from training.modeling.settings import Training, TrainingError, for_logged, load_training
from training.reporting.facts import gather
from training.reporting.report import metrics_json, report_html
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.features.declaration_file import STANDARD
from udfs.rollout.rules import Rule

pytestmark = pytest.mark.usefixtures("without_plots")

CONF = Path(__file__).parents[4] / "conf"
RULE = Rule(any=("cart_adds_30m >= 1", Rule(all=("device == mobile", "checkouts_30m >= 1"))))


def compared(labels, acts, scores, weight, user=None):
    labels, acts, scores, weight = (np.asarray(values) for values in (labels, acts, scores, weight))
    user = np.arange(len(labels)) if user is None else user
    decided = LabelledScores(labels, acts.astype(float), weight, user)
    return compare_with_rule(RULE, decided, LabelledScores(labels, scores, weight, user))


def compared_roughly(*rows):
    """The comparison with intervals of a few replicates, for tests of its values."""
    with patch.object(LabelledScores, "redrawn", partialmethod(LabelledScores.redrawn, replicates=3)):
        return compared(*rows)


row = st.tuples(st.booleans(), st.booleans(), st.floats(0, 1), st.integers(1, 3))


@pytest.mark.slow
@given(st.lists(row, min_size=2, max_size=30).filter(lambda rows: any(row[0] for row in rows)))
def test_the_rules_figures_are_those_of_scikit_learn(rows):
    labels, acts, scores, weight = zip(*rows)
    found = compared_roughly(labels, acts, scores, weight)
    assert found.acted_on.value == pytest.approx(np.average(acts, weights=weight))
    assert found.recall.value == pytest.approx(recall_score(labels, acts, sample_weight=weight))
    if any(acts):
        assert found.precision.value == pytest.approx(precision_score(labels, acts, sample_weight=weight))
    else:
        assert np.isnan(found.precision.value)


@pytest.mark.slow
@given(st.permutations(range(20)), st.lists(st.booleans(), min_size=20, max_size=20), st.integers(1, 19))
def test_the_model_acts_on_its_highest_scores_as_often_as_the_rule_acts(order, labels, acted_on):
    labels = np.array(labels)
    labels[0] = True
    scores = np.array(order) / 20
    found = compared_roughly(labels, np.arange(20) < acted_on, scores, np.ones(20))
    highest = np.argsort(-scores)[:acted_on]
    assert found.model_precision.value == pytest.approx(labels[highest].mean())
    assert found.model_recall.value == pytest.approx(labels[highest].sum() / labels.sum())
    assert found.differences["recall"].value == pytest.approx(found.model_recall.value - found.recall.value)


def test_a_model_that_scores_what_the_rule_decides_differs_from_it_in_nothing():
    rng = np.random.default_rng(1)
    labels, acts, user = rng.random(500) < 0.2, rng.random(500) < 0.3, rng.integers(0, 40, 500)
    found = compared(labels, acts, 0.1 + 0.5 * acts, np.ones(500), user)
    for gain in found.differences.values():
        assert (gain.low, gain.value, gain.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.recall.low < found.recall.value < found.recall.high
    assert found.acted_on.low < found.acted_on.value < found.acted_on.high


@pytest.mark.parametrize(("acts", "chooses"), [([False] * 4, False), ([True] * 4, False), ([True, False] * 2, True)])
def test_a_rule_that_acts_on_all_or_none_chooses_nothing(acts, chooses):
    assert compared([True, False, True, False], acts, [0.1, 0.2, 0.3, 0.4], np.ones(4)).chooses == chooses


def test_a_rule_is_told_in_a_line():
    assert describe_rule(RULE) == "cart_adds_30m >= 1 or (device == mobile and checkouts_30m >= 1)"


@pytest.mark.slow
def test_the_rule_is_measured_though_the_model_has_none_of_its_features():
    settings = replace(QUICK, features=("value", "session_duration_s"), rounds=5, rule=RULE)
    trained = train_model(shop_examples(), settings)
    found = trained.evaluation.rule
    assert 0 < found.acted_on.value < 1
    assert found.recall.value > found.acted_on.value
    facts = gather(trained)
    page = report_html(facts).decode()
    assert "<th>Rule</th>" in page
    assert page.index("<td>The rule</td>") < page.index("Comparison with the rule")
    told = msgspec.json.decode(metrics_json(facts))["rule"]
    assert msgspec.convert(told["rule"], Rule) == RULE
    assert set(told["differences"]) == {"roc_auc", "average_precision", "precision", "recall"}
    assert told["metrics"]["roc_auc"]["low"] < told["metrics"]["roc_auc"]["value"]


@pytest.mark.slow
def test_without_a_rule_the_report_tells_of_none():
    trained = train_model(shop_examples(), replace(QUICK, features=("value", "session_duration_s"), rounds=5))
    facts = gather(trained)
    assert "the rule" not in report_html(facts).decode()
    assert msgspec.json.decode(metrics_json(facts))["rule"] is None


def test_the_shipped_settings_take_the_rule_of_the_shipped_rollout():
    training = load_training(CONF / "training.yaml")
    assert training.rule == Rule(any=("cart_adds_30m >= 1", "checkouts_30m >= 1"))
    assert load_training(CONF / "training.yaml", ["rule=null"]).rule is None


def test_a_path_is_meant_from_the_settings_file_and_on_the_command_line_from_here(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "training.yaml").write_text("rule: rollout.yaml")
    (tmp_path / "mine" / "rollout.yaml").write_text("rule: {any: [value > 1]}")
    (tmp_path / "other.yaml").write_text("rule: {any: [value > 2]}")
    monkeypatch.chdir(tmp_path)
    assert load_training(Path("mine/training.yaml")).rule == Rule(any=("value > 1",))
    assert load_training(Path("mine/training.yaml"), ["rule=other.yaml"]).rule == Rule(any=("value > 2",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("champion: v1", "bad.yaml: key rule: missing"),
        ("rule: null", "bad.yaml: key rule: Expected `object`, got `null`"),
        ("rule: {any: [nose > 1]}", "bad.yaml: key rule: condition 'nose > 1': unknown feature nose"),
        ("rule: {}", "bad.yaml: key rule: expected exactly one of all and any, got neither"),
        ("rule: [", "bad.yaml: cannot be read: "),
    ],
)
def test_a_bad_rule_file_is_refused_in_one_line(tmp_path, monkeypatch, content, message):
    (tmp_path / "bad.yaml").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError) as caught:
        load_training(None, ["rule=bad.yaml"])
    assert str(caught.value).startswith(f"settings: key rule: {message}")
    assert "\n" not in str(caught.value)


def test_a_rule_file_that_is_none_is_refused():
    with pytest.raises(TrainingError, match=r"settings: key rule: nowhere.yaml: cannot be read: "):
        load_training(None, ["rule=nowhere.yaml"])
    with pytest.raises(TrainingError, match=r"settings: key rule: expected the path of a rollout file, got \{'any': "):
        load_training(None, ["rule={any: [value > 1]}"])


def test_a_rule_may_be_about_a_feature_of_the_declaration(tmp_path):
    own = declared(
        tmp_path, 'features: {own: {carts: {value: "count(kind == add_to_cart)", unit: events, doc: carts}}}'
    )
    rows = simulated_examples(simulate(Simulation(users=300, seed=1)), declaration=own)
    measured = measure_rule(Rule(all=("carts >= 1",)), own, rows, scored(rows, rows.features[:, 0].astype(float)))
    assert measured.acted_on.value == pytest.approx(np.average(rows.features[:, 0] >= 1, weights=rows.weight))


def test_a_rule_over_a_feature_that_was_not_logged_is_refused():
    with pytest.raises(
        TrainingError, match="key rule: feature cart_adds_30m is not among the 1 that were logged: --set"
    ):
        for_logged(Training(rule=RULE), STANDARD, ["value"], 64)
