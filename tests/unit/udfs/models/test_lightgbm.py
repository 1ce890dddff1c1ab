"""LightGBM as the model of a bundle: trained, exported without a difference in any split, checked and served."""

from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from msgspec.structs import replace

from tests.conftest import QUICK
from tests.support.shop import SOME, shop_examples
from training.bundles.trainer import TrainedModel, train_model
from training.bundles.writer import write_bundle
from training.modeling.family import FitRows, Fitting
from training.modeling.lightgbm_model import LightGBMFamily, LightGBMModel, exact_in_float32, float32_threshold
from training.modeling.onnx_export import ExportError, certify, edge_rows, export
from training.reporting.facts import gather
from training.reporting.report import metrics_json, report_html
from training.reporting.serving_cost import saving
from training.rollout.admission import check_bundle
from udfs.features.declaration_file import STANDARD
from udfs.features.schema import schema_hash
from udfs.measurement.labels import CONVERTED
from udfs.models.backends import OnnxScorer, Scorer, build_engine
from udfs.models.bundle import LIGHTGBM_FILE, XGBOOST_FILE, Bundle, BundleError, WarmUp, check_scores, load_bundle
from udfs.models.lightgbm_text import check_text, load_text
from udfs.models.xgboost_ubjson import DEEPEST_TREE

NAMES = STANDARD.names[:3]
SETTINGS = replace(QUICK, model="lightgbm", features=SOME, prune=True, compare=("logistic",))
TINY = np.float32(1e-35)


@pytest.fixture(scope="module")
def examples():
    return shop_examples()


@pytest.fixture(scope="module")
def trained(examples) -> TrainedModel:
    return train_model(examples, SETTINGS, version="v1")


def hard_rows(seed: int = 1) -> FitRows:
    """Values around 0, repeated ones, missing ones, and a feature that is never missing."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(2_000, 3)).astype(np.float32)
    features[:, 1] = np.round(features[:, 1])
    features[::7, 2] = np.nan
    odds = features[:, 0] + features[:, 1] + np.nan_to_num(features[:, 2], nan=1.0)
    return FitRows(features, odds + rng.normal(size=2_000) > 0, np.ones(2_000))


@cache
def as_trained() -> lightgbm.Booster:
    """A model that splits beside 0, and where a value is missing."""
    sample = hard_rows()
    data = lightgbm.Dataset(sample.features, sample.labels, feature_name=list(NAMES))
    return lightgbm.train({"objective": "binary", "num_leaves": 16, "num_threads": 1, "verbosity": -1}, data, 30)


@cache
def rounded_model() -> LightGBMModel:
    return LightGBMModel(exact_in_float32(as_trained()), threads=1)


def goes_left(value: np.float32, threshold: float) -> bool:
    """What LightGBM does at a split (NumericalDecision of its tree.h; its predictor skips values near 0)."""
    return (0.0 if abs(value) <= TINY else float(value)) <= threshold


float32 = st.floats(width=32, allow_nan=False)


@given(st.one_of(st.floats(allow_nan=False), float32, st.sampled_from([1e-35, -1e-35, 0.0, 1e300, -1e300])), float32)
def test_a_rounded_threshold_parts_all_float32_values_as_it_did(threshold, value):
    rounded = float32_threshold(threshold)
    with np.errstate(over="ignore"):
        near = [np.nextafter(rounded, np.float32(side)) for side in (-np.inf, np.inf)]
        nearest = np.float32(threshold)
    for one in (np.float32(value), rounded, *near, nearest, TINY, -TINY, np.float32(0)):
        if np.isfinite(one):
            assert goes_left(one, threshold) == goes_left(one, float(rounded)) == bool(one <= rounded)


@pytest.mark.slow
@given(
    arrays.arrays(np.float32, (20, 3), elements=st.one_of(st.just(np.nan), st.floats(-4, 4, width=32))),
    st.integers(0, 2**32 - 1),
)
def test_a_model_with_rounded_thresholds_and_its_export_score_as_the_one_that_was_trained(rows, seed):
    rows = np.concatenate([rows, edge_rows(hard_rows().features, rounded_model().splits(), seed)])
    expected = as_trained().predict(rows, num_threads=1)
    assert (rounded_model().predict(rows) == expected).all()
    assert np.abs(rounded_export().predict(rows) - expected).max() < 1e-6


def test_the_thresholds_in_the_file_are_float32():
    table = load_text(rounded_model().content()).trees_to_dataframe()
    thresholds = table["threshold"].dropna().to_numpy(float)
    assert (thresholds.astype(np.float32) == thresholds).all()
    assert len(np.unique(thresholds)) > 20


@cache
def rounded_export() -> OnnxScorer:
    return OnnxScorer(export(LIGHTGBM_FILE, rounded_model().content(), 3))


def test_the_certificate_refuses_an_export_of_thresholds_as_they_were_trained():
    trained = LightGBMModel(as_trained(), threads=1)
    with pytest.raises(ExportError):
        certify(trained.predict, export(LIGHTGBM_FILE, trained.content(), 3), hard_rows().features, trained.splits())


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_a_lightgbm_model_is_trained_certified_reported_and_served(trained, examples, tmp_path):
    write_bundle(tmp_path / "bundle", trained.manifest, trained.files)
    bundle = load_bundle(tmp_path / "bundle", 64)
    assert bundle.model_file == LIGHTGBM_FILE
    check_bundle(bundle)
    columns = [STANDARD.names.index(name) for name in bundle.manifest.features]
    rows = np.ascontiguousarray(examples.features[:500, columns])
    scores = Scorer(bundle).predict(rows)
    assert (scores.dtype, scores.shape) == (np.float32, (500,))
    for engine in ("auto", "native", "onnx"):
        assert build_engine(bundle, engine)(rows) == pytest.approx(scores, abs=bundle.certified_limit)
    assert np.concatenate([Scorer(bundle).predict(row[None]) for row in rows[:20]]).tobytes() == scores[:20].tobytes()
    assert bundle.manifest.metrics["test_roc_auc"] > 0.75
    facts = gather(trained)
    assert b"LightGBM" in report_html(facts)
    assert msgspec.json.decode(metrics_json(facts))["model"] == "lightgbm"
    assert "µs for prediction with all features" in saving(trained)


@pytest.mark.slow
def test_equal_settings_and_data_give_equal_lightgbm_files(examples, trained):
    assert train_model(examples, SETTINGS, version="v1").files == trained.files


@pytest.mark.slow
def test_a_monotone_feature_never_lowers_the_score_of_lightgbm(examples):
    names = ("cart_adds_30m", "session_duration_s", "since_cart_add_s", "value")
    settings = replace(QUICK, model="lightgbm", features=names, monotone={"cart_adds_30m": "up"})
    found = train_model(examples, settings)
    rows = np.repeat(examples.features[:100, [STANDARD.names.index(name) for name in names]][:, None], 6, 1)
    rows[:, :, 0] = np.arange(6)
    scores = Scorer(Bundle(found.manifest, found.model)).predict(rows.reshape(-1, len(names))).reshape(100, 6)
    assert (np.diff(scores, axis=1) >= 0).all()
    assert scores.max() > scores.min()


# Bundles that are refused

MODEL = rounded_model().content()


def bundle_of(directory: Path, files: dict[str, bytes], names=NAMES) -> Path:
    """Files with a manifest that fits them, so that only the model itself can be wrong."""
    window = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}
    manifest = {
        "format": 2, "version": "v1", "created_at": "2026-01-02T00:00:00Z", "features": names, "history_length": 64,
        "feature_schema_hash": schema_hash(STANDARD, names, 64), "label": CONVERTED,
        "training_window": window, "metrics": {},
        "files": {name: sha256(content).hexdigest() for name, content in files.items()},
    }  # fmt: skip
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return directory


def refusal(directory: Path, files: dict[str, bytes], names=NAMES) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle_of(directory, files, names), 64)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{directory}/", "")


def swapped(text: bytes, old: str, new: str) -> bytes:
    assert old.encode() in text
    return text.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"", "the file is empty"),
        (b"\xff", "'utf-8' codec can't decode"),
        (b"not a model", "the line 'end of trees' is missing"),
        (MODEL[:-100][: MODEL.index(b"end of trees") - 40], "the line 'end of trees' is missing"),
        (swapped(MODEL, "version=v4", "version=v9"), "version is 'v9', expected 'v4'"),
        (swapped(MODEL, "label_index=0\n", ""), "expected 'tree' and the lines version, num_class"),
        (swapped(MODEL, "num_cat=0", "num_cat=1"), "tree 0: expected leaves, no categories and no linear leaves"),
        (swapped(MODEL, "is_linear=0", "is_linear=1"), "tree 0: expected leaves, no categories and no linear leaves"),
        (swapped(MODEL, "left_child=1 ", "left_child=9 "), "tree 0: left_child and right_child do not form a tree"),
        (swapped(MODEL, "left_child=1 ", "left_child=0 "), "tree 0: left_child and right_child do not form a tree"),
        (swapped(MODEL, "internal_count=2000", "internal_count=2001"), "tree 0: internal_count is not the sum of the "),
        (swapped(MODEL, "leaf_count=296", "leaf_count=000"), "tree 0: internal_count is not the sum of the rows of b"),
        (swapped(MODEL, "Tree=3", "Tree=4"), "tree 3: expected 'Tree=3' and the lines"),
        (swapped(MODEL, "shrinkage=1", "shrinkage=10"), "tree_sizes does not match the 30 trees"),
    ],
)
def test_a_file_that_is_no_lightgbm_model_is_refused_and_ends_nothing(tmp_path, model, message):
    assert refusal(tmp_path, {LIGHTGBM_FILE: model}).startswith(f"model.txt: not a LightGBM model: {message}")


def chain(levels: int) -> bytes:
    """A model of one tree, whose right children have all the splits."""
    columns = dict.fromkeys(("split_gain", "threshold", "internal_value", "internal_weight"), "1")
    nodes = {key: " ".join([value] * levels) for key, value in columns.items()}
    nodes["internal_count"] = " ".join(map(str, range(levels + 1, 1, -1)))  # the leaves below
    nodes |= {"split_feature": " ".join(["0"] * levels), "decision_type": " ".join(["2"] * levels)}
    nodes["left_child"] = " ".join(str(-1 - node) for node in range(levels))
    nodes["right_child"] = " ".join(str(node) for node in [*range(1, levels), -1 - levels])
    leaves = {key: " ".join(["1"] * (levels + 1)) for key in ("leaf_value", "leaf_weight", "leaf_count")}
    fields = {"num_leaves": levels + 1, "num_cat": 0, **nodes, **leaves, "is_linear": 0, "shrinkage": 1}
    tree = "Tree=0\n" + "".join(f"{key}={value}\n" for key, value in fields.items()) + "\n\n"
    head = MODEL.decode().partition("tree_sizes=")[0]
    return f"{head}tree_sizes={len(tree)}\n\n{tree}end of trees\n".encode()


def test_a_tree_that_is_too_deep_to_explain_is_refused():
    check_text(chain(DEEPEST_TREE))
    assert load_text(chain(DEEPEST_TREE)).predict(np.ones((1, 3)), pred_contrib=True).shape == (1, 4)
    with pytest.raises(ValueError, match=r"^tree 0: more than 1,000 levels deep$"):
        check_text(chain(DEEPEST_TREE + 1))


@given(st.data())
def test_a_damaged_text_is_refused_or_a_model(data):
    at = data.draw(st.integers(0, MODEL.index(b"end of trees")))
    cut = data.draw(st.integers(0, 30))
    damaged = MODEL[:at] + data.draw(st.binary(max_size=3)) + MODEL[at + cut :]
    with suppress(ValueError, lightgbm.basic.LightGBMError):
        names, _ = check_text(damaged)
        scores = load_text(damaged).predict(np.zeros((1, len(names))), num_threads=1)
        assert scores.shape == (1,)


def test_a_lightgbm_model_of_other_features_or_of_no_probability_is_refused(tmp_path):
    def refused(model: bytes, names=NAMES) -> str:
        return refusal(tmp_path, {LIGHTGBM_FILE: model}, names)

    assert refused(MODEL, STANDARD.names[:4]) == "model.txt: the model has 3 features, the manifest names 4"
    expected = f"model.txt: feature 0 of the model is '{NAMES[0]}', the manifest has '{NAMES[2]}' there"
    assert refused(MODEL, NAMES[::-1]) == expected
    for objective in ("regression", "cross_entropy", "binary sigmoid:2"):
        message = f"model.txt: the model's objective is '{objective}', expected 'binary sigmoid:1'"
        assert refused(swapped(MODEL, "objective=binary sigmoid:1", f"objective={objective}")) == message


def test_a_bundle_has_one_model(tmp_path):
    message = refusal(tmp_path, {LIGHTGBM_FILE: MODEL, XGBOOST_FILE: b"x"})
    assert message == (
        "manifest.json: files must list one of model.ubj, model.txt, logistic.json, blend.json, gru.json, "
        "endpoint.json, got ['model.txt', 'model.ubj']"
    )


def test_a_model_without_a_split_is_served(tmp_path):
    nothing = FitRows(np.zeros((50, 3), np.float32), np.arange(50) < 5, np.ones(50))
    model = LightGBMFamily().fit(nothing, Fitting(NAMES, LightGBMFamily.defaults, rounds=3, threads=1))
    bundle = load_bundle(bundle_of(tmp_path, {LIGHTGBM_FILE: model.content()}), 64)
    assert Scorer(bundle).predict(np.zeros((2, 3), np.float32)) == pytest.approx([0.1, 0.1])


@pytest.mark.slow
def test_messages_name_the_file_of_the_model(trained):
    bundle = Bundle(trained.manifest, trained.model, warm_up=WarmUp(np.zeros((1, 1), np.float32), np.zeros(1)))
    with pytest.raises(BundleError, match=r"v1: model.txt scores row 0 of warm_up.json"):
        check_scores(bundle, np.ones(1, np.float32), 1e-6)
