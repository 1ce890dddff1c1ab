"""Logistic regression, and its blend with XGBoost, as the model of a bundle: trained, exported, checked and served."""

import base64
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace as replaced
from functools import cache
from math import log, log1p
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace
from scipy.special import expit, logit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from tests.conftest import QUICK
from tests.unit.udfs.models.test_lightgbm import bundle_of, refusal
from training.bundles.trainer import TrainedModel, train_model
from training.bundles.writer import write_bundle
from training.modeling.blend_model import BlendModel
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting, ServedModel
from training.modeling.logistic_model import LogisticModel, fit_with_signs
from training.modeling.onnx_export import certify, edge_rows, export
from training.reporting.facts import gather
from training.reporting.report import metrics_json, report_html
from training.reporting.serving_cost import saving
from training.rollout.admission import check_bundle
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from training.train import summary
from udfs.features.declaration_file import STANDARD
from udfs.models.attributions import contributions_of
from udfs.models.backends import OnnxScorer, Scorer, build_engine, native_predict
from udfs.models.blend import decode_blend
from udfs.models.bundle import BLEND_FILE, LOGISTIC_FILE, load_bundle
from udfs.models.regression import BLOCK_ROWS, Indicator, Regression, RegressionFile, Term, decode_regression

KINDS = ("logistic", "blend")
NAMES = STANDARD.names[:5]


@pytest.fixture(scope="module")
def examples():
    return simulated_examples(simulate(Simulation(users=200, seed=4)))


def settings(kind: str):
    return replace(QUICK, model=kind, features=STANDARD.names[:14], prune=True, compare=())


@pytest.fixture(scope="module", params=KINDS)
def trained(request, examples) -> TrainedModel:
    return train_model(examples, settings(request.param), version="v1")


@cache
def sample() -> FitRows:
    """A feature of any size, one of counts, one with a single value, one without any, and a tiny one."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(1_500, 5)).astype(np.float32)
    features[:, 0] *= 10_000
    features[:, 1] = rng.poisson(2, 1_500)
    features[:, 2], features[:, 3] = 7, np.nan
    features[:, 4] *= 1e-6
    features[rng.random(features.shape) < 0.1 * np.array([1, 0, 0, 0, 1])] = np.nan
    odds = np.nan_to_num(features[:, 0]) / 10_000 + features[:, 1] + np.isnan(features[:, 4]) + features[:, 4] * 1e6
    return FitRows(features, odds + rng.normal(size=1_500) > 3, rng.uniform(1, 5, 1_500))


def fitted(kind: str, monotone=(), **parameters) -> ServedModel:
    family = FAMILIES[kind]
    fitting = Fitting(NAMES, {**family.defaults, **parameters}, rounds=15, monotone=monotone, threads=1)
    return family.fit(sample(), fitting)


model_of = cache(fitted)


@cache
def export_of(kind: str) -> OnnxScorer:
    model = model_of(kind)
    return OnnxScorer(export(model.file, model.content(), len(NAMES)))


@cache
def scikit_learn() -> object:
    pipeline = make_pipeline(
        FunctionTransformer(lambda values: np.sign(values) * np.log1p(np.abs(values))),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=0.01, max_iter=500),
    )
    rows = sample()
    return pipeline.fit(rows.features, rows.labels, logisticregression__sample_weight=rows.weight)


def holed(rows: np.ndarray, seed: int = 2) -> np.ndarray:
    """The rows with values missing in each feature, those included that training saw none missing of."""
    return np.where(np.random.default_rng(seed).random(rows.shape) < 0.2, np.float32(np.nan), rows)


def test_the_regression_scores_as_scikit_learn_does():
    rows = np.concatenate([sample().features, holed(sample().features)])
    expected = scikit_learn().predict_proba(rows)[:, 1]
    assert model_of("logistic").predict(rows) == pytest.approx(expected, abs=2e-6)


@given(st.floats(0, 1))
def test_a_blend_is_the_weighted_mean_of_the_logits_of_its_parts(weight):
    blend = BlendModel(model_of("blend").trees, model_of("blend").regression, weight)
    rows = holed(sample().features[:50])
    of_trees, of_regression = model_of("xgboost").predict(rows), model_of("logistic").predict(rows)
    expected = expit(weight * logit(of_trees) + (1 - weight) * logit(of_regression))
    assert blend.predict(rows) == pytest.approx(expected, abs=1e-6)
    assert native_predict(BLEND_FILE, blend.content())(rows) == pytest.approx(expected, abs=1e-6)


any_rows = arrays.arrays(
    np.float32, (7, 5), elements=st.one_of(st.just(np.nan), st.floats(width=32, allow_nan=False, allow_infinity=False))
)


@pytest.mark.parametrize("kind", KINDS)
@given(any_rows, st.integers(0, 2**32 - 1))
def test_the_file_the_export_and_the_contributions_agree_with_the_model(kind, rows, seed):
    model = model_of(kind)
    rows = np.concatenate([rows, edge_rows(sample().features, model.splits(), seed)[:200]])
    scores = native_predict(model.file, model.content())(rows)
    assert scores.dtype == np.float32
    assert np.abs(scores - model.predict(rows)).max() < 1e-6
    assert np.abs(export_of(kind).predict(rows) - model.predict(rows)).max() < 1e-6
    assert expit(model.contributions(rows).sum(axis=1)) == pytest.approx(model.predict(rows), abs=1e-6)


def test_what_features_add_to_a_regression_is_its_logit():
    rows = holed(sample().features)
    model = model_of("logistic")
    assert model.contributions(rows).sum(axis=1) == pytest.approx(model.logit(rows), abs=1e-12)
    assert expit(model.logit(rows)).tobytes() == model.predict(rows).tobytes()


def test_features_add_nothing_on_average_over_the_rows_of_the_training():
    model = model_of("logistic")
    average = model.contributions(sample().features).mean(axis=0)
    assert average[:-1] == pytest.approx(np.zeros(len(NAMES)), abs=1e-5)
    assert average[-1] == model.parts.intercept


HAND_MADE = RegressionFile(
    1,
    "signed_log",
    -1.0,
    (Term("a", log(3), log(2), 2.0, 0.5, Indicator(0.25, 0.5, 0.3)), Term("b", 0.0, 1.0, 4.0, -2.0, None)),
)


def test_a_missing_value_counts_as_the_median_and_its_indicator_with_its_feature():
    rows = np.array([[8, -5], [np.nan, np.nan]], np.float32)
    expected = [
        [0.5 * (log1p(8) - log(2)) / 2 + 0.3 * (0 - 0.25) / 0.5, -2 * (-log1p(5) - 1) / 4, -1],
        [0.5 * (log(3) - log(2)) / 2 + 0.3 * (1 - 0.25) / 0.5, -2 * (0 - 1) / 4, -1],
    ]
    assert Regression(HAND_MADE).contributions(rows) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_depends_on_its_row_alone(kind):
    rows = holed(np.resize(sample().features, (BLOCK_ROWS + 300, len(NAMES))))
    predict = native_predict(model_of(kind).file, model_of(kind).content())
    scores = predict(rows).tobytes()
    assert np.concatenate([predict(row[None]) for row in rows[:40]]).tobytes() == scores[: 4 * 40]
    assert np.concatenate([predict(rows[:700]), predict(rows[700:])]).tobytes() == scores
    assert predict(np.asfortranarray(rows)).tobytes() == scores


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_a_model_is_trained_certified_reported_explained_and_served(trained, examples, tmp_path):
    write_bundle(tmp_path / "bundle", trained.manifest, trained.files)
    bundle = load_bundle(tmp_path / "bundle", 64)
    assert bundle.model_file == {"logistic": LOGISTIC_FILE, "blend": BLEND_FILE}[trained.evaluation.model]
    check_bundle(bundle)
    columns = [STANDARD.names.index(name) for name in bundle.manifest.features]
    rows = np.ascontiguousarray(examples.features[:500, columns])
    scores = Scorer(bundle).predict(rows)
    for engine in ("auto", "native", "onnx"):
        assert build_engine(bundle, engine)(rows) == pytest.approx(scores, abs=bundle.certified_limit)
    added = contributions_of(bundle)(rows)
    assert added.shape == (500, len(columns) + 1)
    assert added.sum(axis=1) == pytest.approx(logit(scores.astype(np.float64)), abs=1e-4)
    assert bundle.manifest.metrics["test_roc_auc"] > 0.6
    facts = gather(trained)
    assert b"ogistic regression" in report_html(facts)
    assert msgspec.json.decode(metrics_json(facts))["model"] == trained.evaluation.model
    assert ("trees" in summary(trained.manifest)) == (trained.evaluation.model == "blend")
    cost = saving(trained)
    assert cost is None or "µs for prediction with all features" in cost


@pytest.mark.parametrize("kind", KINDS)
def test_equal_settings_and_data_give_equal_bytes(kind):
    first, second = fitted(kind).content(), fitted(kind).content()
    assert first == second
    assert export(model_of(kind).file, first, len(NAMES)) == export(model_of(kind).file, second, len(NAMES))


WITHOUT_SCIKIT_LEARN = """
import sys
sys.modules["sklearn"] = None  # its import raises ImportError
from pathlib import Path
import numpy as np
from udfs.models.attributions import contributions_of
from udfs.models.backends import build_engine
from udfs.models.bundle import load_bundle
for directory in sys.argv[1:]:
    bundle = load_bundle(Path(directory), 64)
    print(build_engine(bundle, "native")(np.zeros((1, 5), np.float32)), contributions_of(bundle) is not None)
"""


@pytest.mark.slow
def test_a_worker_needs_no_scikit_learn(tmp_path):
    for kind in KINDS:
        (tmp_path / kind).mkdir()
        bundle_of(tmp_path / kind, {model_of(kind).file: model_of(kind).content()}, NAMES)
    command = [sys.executable, "-c", WITHOUT_SCIKIT_LEARN, *(str(tmp_path / kind) for kind in KINDS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[4])
    assert (done.returncode, done.stdout.count("True")) == (0, 2), done.stderr


# Monotone features


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_monotone_feature_never_moves_the_score_the_other_way(kind, sign):
    model = fitted(kind, monotone=(0, sign, 0, 0, 0), C=1.0)
    rows = np.repeat(sample().features[:50, None], 9, 1)
    rows[:, :, 1] = np.arange(-1, 8)
    steps = sign * np.diff(model.predict(rows.reshape(-1, 5)).reshape(50, 9), axis=1)
    assert (steps >= 0).all()
    assert (steps.max() > 0) == (sign > 0)  # the labels rise with it


def design(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(400, 6))
    return matrix, matrix @ rng.normal(size=6) + rng.normal(size=400) > 1, rng.uniform(0.5, 2, 400)


@given(st.integers(0, 50), st.sampled_from([0.01, 0.1, 1.0]))
def test_without_signs_the_fit_is_that_of_scikit_learn(seed, inverse_penalty):
    matrix, labels, weight = design(seed)
    expected = LogisticRegression(C=inverse_penalty, tol=1e-8, max_iter=1_000).fit(matrix, labels, sample_weight=weight)
    coefficients, intercept = fit_with_signs(matrix, labels, weight, inverse_penalty, np.zeros(6))
    assert coefficients == pytest.approx(expected.coef_[0], abs=2e-3)
    assert intercept == pytest.approx(expected.intercept_[0], abs=2e-3)


@given(st.integers(0, 50), st.lists(st.sampled_from([-1, 0, 1]), min_size=6, max_size=6))
def test_with_signs_the_fit_is_that_of_the_features_whose_coefficients_are_not_0(seed, signs):
    matrix, labels, weight = design(seed)
    coefficients, _ = fit_with_signs(matrix, labels, weight, 1.0, np.array(signs))
    assert (coefficients * signs >= 0).all()
    kept = coefficients != 0
    if kept.any():
        expected = LogisticRegression(C=1.0, tol=1e-8, max_iter=1_000).fit(
            matrix[:, kept], labels, sample_weight=weight
        )
        assert coefficients[kept] == pytest.approx(expected.coef_[0], abs=2e-3)


# Files that are refused


def changed(model: LogisticModel | BlendModel, *keys: str | int, value) -> bytes:
    """A model's file with another value at a place."""
    content = msgspec.json.decode(model.content())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return msgspec.json.encode(content)


def refused(directory: Path, model_file: str, content: bytes, names=NAMES) -> str:
    return refusal(directory, {model_file: content}, names)


NO_REGRESSION = "logistic.json: not a logistic regression: "
NO_BLEND = "blend.json: not a blend: "
NO_TREES = "blend.json: key trees: not an XGBoost model that can serve: "
TERM = ("features", 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Input data was truncated"),
        (b"\xff", "JSON is malformed"),
        (model_of("logistic").content()[:-50], "Input data was truncated"),
        (changed(model_of("logistic"), "format", value=2), "Invalid enum value 2 - at `$.format`"),
        (changed(model_of("logistic"), "transform", value="log"), "Invalid enum value 'log' - at `$.transform`"),
        (changed(model_of("logistic"), "intercept", value=None), "Expected `float`, got `null` - at `$.intercept`"),
        (changed(model_of("logistic"), "features", value=[]), "Expected `array` of length >= 1 - at `$.features`"),
        (changed(model_of("logistic"), *TERM, "scale", value=0), "Expected `float` > 0.0 - at `$.features[0].scale`"),
        (
            changed(model_of("logistic"), *TERM, "scale", value=1e-320),
            f"the weights of feature {NAMES[0]} are too larg",
        ),
        (
            changed(model_of("logistic"), *TERM, "coefficient", value=1e308),
            f"the weights of feature {NAMES[0]} are too l",
        ),
        (changed(model_of("logistic"), *TERM, "bias", value=0), "Object contains unknown field `bias`"),
    ],
)
def test_a_file_that_is_no_regression_is_refused(tmp_path, content, message):
    assert refused(tmp_path, LOGISTIC_FILE, content).startswith(NO_REGRESSION + message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (model_of("blend").content()[:-50], NO_BLEND + "Input data was truncated"),
        (
            changed(model_of("blend"), "trees_weight", value=1.5),
            NO_BLEND + "Expected `float` <= 1.0 - at `$.trees_weig",
        ),
        (changed(model_of("blend"), "trees", value="?"), NO_BLEND + "Invalid base64 encoded string - at `$.trees`"),
        (changed(model_of("blend"), "trees", value=""), f"{NO_TREES}the file is empty"),
        (
            changed(model_of("blend"), "trees", value=base64.b64encode(b"no model").decode()),
            f"{NO_TREES}byte 0: expected a value, got b'n'",
        ),
        (
            changed(model_of("blend"), "regression", *TERM, "scale", value=1e-320),
            NO_BLEND + f"the weights of feature {NAMES[0]} are too large: a logit would not be finite",
        ),
        (
            changed(model_of("blend"), "regression", *TERM, "name", value="nose"),
            f"blend.json: key regression: feature 0 of the model is 'nose', the manifest has '{NAMES[0]}' there",
        ),
    ],
)
def test_a_file_that_is_no_blend_is_refused(tmp_path, content, message):
    assert refused(tmp_path, BLEND_FILE, content).startswith(message)


@pytest.mark.parametrize(("kind", "key"), [("logistic", ""), ("blend", " key regression:")])
def test_a_model_of_other_features_is_refused(tmp_path, kind, key):
    model = model_of(kind)
    assert refused(tmp_path, model.file, model.content(), NAMES[:4]) == (
        f"{model.file}:{key} the model has 5 features, the manifest names 4"
    )
    assert refused(tmp_path, model.file, model.content(), NAMES[::-1]) == (
        f"{model.file}:{key} feature 0 of the model is '{NAMES[0]}', the manifest has '{NAMES[4]}' there"
    )


def test_the_trees_of_a_blend_have_the_features_of_its_regression(tmp_path):
    model = model_of("blend")
    other = FAMILIES["xgboost"].fit(
        replaced(sample(), features=sample().features[:, :4]),
        Fitting(NAMES[:4], FAMILIES["xgboost"].defaults, rounds=2, threads=1),
    )
    content = BlendModel(other, model.regression, 0.5).content()
    assert refused(tmp_path, BLEND_FILE, content) == (
        "blend.json: key trees: the model has 4 features, the manifest names 5"
    )


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_a_damaged_file_is_refused_or_a_model(kind, data):
    content = model_of(kind).content()
    at = data.draw(st.integers(0, content.index(b'"trees": ') if kind == "blend" else len(content)))
    damaged = content[:at] + data.draw(st.binary(max_size=3)) + content[at + data.draw(st.integers(0, 30)) :]
    with suppress(ValueError):
        file = decode_regression(damaged) if kind == "logistic" else decode_blend(damaged).regression
        assert Regression(file).predict(np.zeros((1, len(file.names)), np.float32)).shape == (1,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_rows_without_information_is_certified(kind):
    rows = np.zeros((50, 5), np.float32)
    rows[:, 1] = np.nan
    family = FAMILIES[kind]
    fitting = Fitting(NAMES, family.defaults, rounds=3, threads=1)
    model = family.fit(FitRows(rows, np.arange(50) < 5, np.ones(50)), fitting)
    assert model.predict(rows[:1]) == pytest.approx([0.1], abs=0.01)
    certify(model.predict, export(model.file, model.content(), 5), rows, model.splits())
