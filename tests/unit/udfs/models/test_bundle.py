import json
import pickle
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import xgboost

from tests.support.bundles import files_of, make_bundle
from training.bundles.writer import describe_model, write_bundle
from udfs.features.declaration_file import STANDARD
from udfs.features.schema import schema_hash
from udfs.measurement.labels import CONVERTED
from udfs.models.backends import Scorer, build_engine
from udfs.models.bundle import EXPORT_FILE, XGBOOST_FILE, BundleError, TrainingWindow, load_bundle

NAMES = STANDARD.names[:3]
WINDOW = TrainingWindow(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))


def train(features: int = 3, names=None, **parameters) -> bytes:
    rng = np.random.default_rng(1)
    matrix = rng.random((200, features), np.float32)
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0.5, feature_names=names)
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1} | parameters, data, 5)
    return bytes(booster.save_raw("ubj"))


MODEL = train(names=list(NAMES))


def manifest_of(model: bytes):
    return describe_model({XGBOOST_FILE: model}, NAMES, 64, CONVERTED, WINDOW, {"test_auc": 0.9}, version="v1")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle", manifest_of(MODEL), {XGBOOST_FILE: MODEL})
    return tmp_path / "bundle"


def edit(bundle: Path, **changes) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def replace_model(bundle: Path, model: bytes) -> None:
    (bundle / "model.ubj").write_bytes(model)
    edit(bundle, files={"model.ubj": sha256(model).hexdigest()})


def refusal(bundle: Path, history_length: int = 64) -> str:
    """The one line that refuses a bundle, without the directory it lies in."""
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle, history_length)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(bundle.parent) + "/", "")


def test_a_bundle_comes_back_as_it_was_written(tmp_path):
    manifest = manifest_of(MODEL)
    write_bundle(tmp_path / "models" / "bundle", manifest, {XGBOOST_FILE: MODEL})
    loaded = load_bundle(tmp_path / "models" / "bundle", history_length=64)
    assert (loaded.manifest, loaded.model) == (manifest, MODEL)


def test_a_model_without_a_version_is_named_by_the_end_of_its_data_and_its_hash():
    manifest = describe_model({XGBOOST_FILE: MODEL}, NAMES, 64, CONVERTED, WINDOW, {})
    assert manifest.version == f"{WINDOW.end:%Y%m%dT%H%M%SZ}-{sha256(MODEL).hexdigest()[:8]}"


def test_a_bundle_is_not_written_over(bundle):
    with pytest.raises(BundleError, match="already exists"):
        write_bundle(bundle, manifest_of(MODEL), {XGBOOST_FILE: MODEL})
    assert load_bundle(bundle, 64).model == MODEL


def test_a_bundle_that_would_be_refused_leaves_nothing_behind(tmp_path):
    with pytest.raises(BundleError, match="sha256"):
        write_bundle(tmp_path / "bundle", manifest_of(MODEL), {XGBOOST_FILE: train(max_depth=3)})
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "bundle") == "bundle: bundle directory not found; `intent train` creates one"


def test_a_missing_manifest_is_refused(bundle):
    (bundle / "manifest.json").unlink()
    assert refusal(bundle) == "bundle/manifest.json: cannot be read: No such file or directory"


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"{}", b'{"a":' * 20_000])
def test_a_manifest_that_is_none_is_refused(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    assert refusal(bundle).startswith("bundle/manifest.json: not a valid manifest: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3, "new_in_3": 1}, "format is 3, this code reads 2: train again or use matching code"),
        ({"extra": 1}, "not a valid manifest: Object contains unknown field `extra`"),
        ({"history_length": 0}, "not a valid manifest: Expected `int` >= 1 - at `$.history_length`"),
        ({"created_at": None}, "not a valid manifest: Expected `datetime`, got `null` - at `$.created_at`"),
        ({"features": []}, "not a valid manifest: Expected `array` of length >= 1 - at `$.features`"),
        ({"features": ["nose"]}, "unknown feature 'nose'; `intent features list` lists all features"),
        ({"features": [NAMES[0], NAMES[0]]}, f"feature '{NAMES[0]}' is listed twice; list it once"),
        (
            {"files": {}},
            "files must list one of model.ubj, model.txt, logistic.json, blend.json, gru.json, endpoint.json, got []",
        ),
        ({"files": {"../model.ubj": "0" * 64}}, "files must be plain names in the bundle, got '../model.ubj'"),
        ({"files": {"model\0": "0" * 64}}, r"files must be plain names in the bundle, got 'model\x00'"),
        ({"files": {"model\n.ubj": "0" * 64}}, r"files must be plain names in the bundle, got 'model\n.ubj'"),
        (
            {"version": "v1\n"},
            r"not a valid manifest: Expected `str` matching regex '^[A-Za-z0-9._-]{1,64}$(?!\\n)' - at `$.version`",
        ),
        (
            {"files": {"model.ubj": "0" * 64 + "\n"}},
            r"not a valid manifest: Expected `str` matching regex '^[0-9a-f]{64}$(?!\\n)' - at `$.files[...]`",
        ),
        (
            {"label": {"horizon": "30 min"}},
            "key label: expected exactly one of events, engagement_s and page_views, got none",
        ),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_by_rule_and_value(bundle, changes, message):
    edit(bundle, **changes)
    assert refusal(bundle) == f"bundle/manifest.json: {message}"


def test_a_bundle_of_format_1_is_read_with_the_label_that_its_sentence_describes(bundle):
    now = load_bundle(bundle, 64).manifest
    edit(bundle, format=1, label="purchase by the same user within 30 min after the event")
    assert load_bundle(bundle, 64).manifest == now


def test_a_bundle_of_format_1_whose_sentence_describes_no_label_is_refused(bundle):
    edit(bundle, format=1, label="bought")
    assert refusal(bundle) == ("bundle/manifest.json: this release cannot read the label 'bought': train again")


def test_a_missing_file_is_refused(bundle):
    (bundle / "model.ubj").unlink()
    assert refusal(bundle) == "bundle/model.ubj: cannot be read: No such file or directory"


def test_a_changed_file_is_refused(bundle):
    (bundle / "model.ubj").write_bytes(MODEL + b" ")
    changed, listed = sha256(MODEL + b" ").hexdigest(), sha256(MODEL).hexdigest()
    assert refusal(bundle) == f"bundle/model.ubj: sha256 is {changed}, the manifest says {listed}: the file was changed"


def test_another_history_length_than_the_jobs_is_refused(bundle):
    assert refusal(bundle, history_length=32) == (
        "bundle/manifest.json: history_length is 64, the job keeps 32: set the job's to match or train again"
    )


def test_features_that_have_changed_their_meaning_are_refused(bundle):
    edit(bundle, feature_schema_hash="0" * 64)
    assert refusal(bundle) == (
        f"bundle/manifest.json: feature_schema_hash is {'0' * 64}, this code computes "
        f"{schema_hash(STANDARD, NAMES, 64)}: "
        "the meaning of a feature has changed, train again"
    )


@pytest.mark.parametrize(
    "content", [b"", b"not a model", MODEL[:-100], MODEL.replace(NAMES[0].encode(), b"\xff" * len(NAMES[0]))]
)
def test_a_file_that_is_no_model_is_refused(bundle, content):
    replace_model(bundle, content)
    assert refusal(bundle).startswith("bundle/model.ubj: not an XGBoost model that can serve: ")


def test_a_model_of_another_number_of_features_is_refused(bundle):
    replace_model(bundle, train(features=4))
    assert refusal(bundle) == "bundle/model.ubj: the model has 4 features, the manifest names 3"


def test_a_model_with_its_features_in_another_order_is_refused(bundle):
    replace_model(bundle, train(names=list(reversed(NAMES))))
    assert refusal(bundle) == (
        f"bundle/model.ubj: feature 0 of the model is '{NAMES[2]}', the manifest has '{NAMES[0]}' there"
    )


@pytest.mark.parametrize(
    "parameters", [{"objective": "multi:softprob", "num_class": 2}, {"objective": "reg:squarederror"}]
)
def test_a_model_that_gives_no_probability_is_refused(bundle, parameters):
    replace_model(bundle, train(**parameters))
    assert refusal(bundle) == (
        "bundle/model.ubj: not an XGBoost model that can serve: "
        f"objective.name must be 'binary:logistic' (got '{parameters['objective']}')"
    )


def test_an_export_that_onnx_runtime_cannot_use_is_refused(tmp_path):
    export = files_of(1)[EXPORT_FILE][:-100]
    bundle = load_bundle(make_bundle(tmp_path, "v1", changes={EXPORT_FILE: export}), 64)
    with pytest.raises(BundleError, match="^v1: ONNX Runtime can't use model.onnx: .+$"):
        build_engine(bundle, "onnx")


def test_a_pickled_bundle_scores_alike(bundle):
    loaded = load_bundle(bundle, 64)
    matrix = np.random.default_rng(2).random((50, 3), np.float32)
    there = Scorer(pickle.loads(pickle.dumps(loaded)))
    assert there.predict(matrix).tobytes() == Scorer(loaded).predict(matrix).tobytes()


def test_scores_are_probabilities_that_depend_on_the_row_alone(bundle):
    scorer = Scorer(load_bundle(bundle, 64))
    matrix = np.random.default_rng(2).random((50, 3), np.float32)
    matrix[::7, 1] = np.nan
    scores = scorer.predict(matrix)
    assert (scores.dtype, scores.shape) == (np.float32, (50,))
    assert 0 < scores.min() < scores.max() < 1
    assert np.concatenate([scorer.predict(matrix[row : row + 1]) for row in range(50)]).tobytes() == scores.tobytes()


def test_a_missing_value_takes_the_branch_that_training_chose(bundle):
    matrix = np.array([[0.1, np.nan, 0.5], [np.nan, np.nan, np.nan]], np.float32)
    booster = xgboost.Booster(model_file=bundle / "model.ubj")
    expected = booster.predict(xgboost.DMatrix(matrix, missing=np.nan, feature_names=list(NAMES)))
    assert Scorer(load_bundle(bundle, 64)).predict(matrix).tobytes() == expected.tobytes()


def test_no_rows_have_no_scores(bundle):
    assert Scorer(load_bundle(bundle, 64)).predict(np.empty((0, 3), np.float32)).shape == (0,)


def test_a_scorer_computes_the_features_of_its_manifest(bundle):
    scorer = Scorer(load_bundle(bundle, 64))
    assert (scorer.features.names, scorer.features.history_length) == (NAMES, 64)
