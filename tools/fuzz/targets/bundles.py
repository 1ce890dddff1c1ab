"""Bundles of models: damaged manifests, models, features, warm-up rows and exports.

Contract: a bundle is refused with BundleError, or it serves: it scores its warm-up rows as at training. The manifest's
hash of a damaged file is right, as if its writer had damaged it. Trees are refused with ValueError, or XGBoost loads,
scores and explains with them.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
import numpy as np

from tools.fuzz.target import Target
from training.bundles.drift_reference import warm_up_rows
from training.bundles.writer import describe_model
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting
from training.modeling.onnx_export import LIMIT, export
from udfs.features.declaration_file import STANDARD, to_json
from udfs.measurement.labels import CONVERTED
from udfs.models.attributions import xgboost_contributions
from udfs.models.backends import build_engine
from udfs.models.bundle import (
    EXPORT_FILE,
    FEATURES_FILE,
    MANIFEST_FILE,
    WARM_UP_FILE,
    XGBOOST_FILE,
    Bundle,
    BundleError,
    TrainingWindow,
    load_booster,
    read_bundle,
)
from udfs.models.lean_xgboost import xgboost
from udfs.models.xgboost_ubjson import OBJECTIVE, check_model

_NAMES = STANDARD.names[:3]
_KINDS = ("xgboost", "lightgbm", "logistic", "blend")


def bundles() -> Target:
    """A bundle with one file changed: its kind of model and the file's name in the first line, the content behind."""
    files = {kind: _files(kind) for kind in _KINDS}
    corpus = [f"{kind} {name}\n".encode() + content for kind, named in files.items() for name, content in named.items()]

    def run(data: bytes) -> str:
        head, _, content = data.partition(b"\n")
        kind, _, name = head.decode(errors="replace").partition(" ")
        if kind not in files or name not in files[kind]:
            return "no such file"
        changed = files[kind] | {name: content}
        if name != MANIFEST_FILE:
            manifest = json.loads(changed[MANIFEST_FILE])
            manifest["files"][name] = sha256(content).hexdigest()
            changed[MANIFEST_FILE] = json.dumps(manifest).encode()
        bundle = read_bundle(_reading(changed), "bundle", None)
        build_engine(bundle, "native")
        if bundle.export is not None and bundle.warm_up is not None:
            build_engine(bundle, "onnx")
        return f"{kind} {name} serves"

    return Target(tuple(corpus), run, (BundleError,))


def trees() -> Target:
    """A model of XGBoost without the rest of its bundle, so that many inputs take little time."""
    matrix = _matrix()
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0.5)
    corpus = [_files("xgboost")[XGBOOST_FILE]]
    for rounds, depth in ((1, 2), (3, 4), (12, 6), (40, 1)):
        parameters = {"objective": OBJECTIVE, "max_depth": depth, "nthread": 1}
        corpus.append(bytes(xgboost.train(parameters, data, rounds).save_raw("ubj")))

    def run(content: bytes) -> str:
        check_model(content)
        booster = load_booster(content)
        booster.set_param({"nthread": 1})
        booster.inplace_predict(matrix[:20], missing=np.nan)
        xgboost_contributions(booster, matrix[:20])
        return "serves"

    return Target(tuple(corpus), run, (ValueError,))


def small_bundle(kind: str = "logistic") -> Bundle:
    """An undamaged bundle of a kind of model."""
    return read_bundle(_reading(_files(kind)), "bundle", None)


def _reading(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    return read


def _files(kind: str) -> dict[str, bytes]:
    """The files of a small bundle."""
    matrix = _matrix()
    family = FAMILIES[kind]
    fitting = Fitting(_NAMES, family.defaults, rounds=5, threads=1)
    model = family.fit(FitRows(matrix, matrix[:, 0] > 0.5, np.ones(200)), fitting)
    content = model.content()
    files = {
        model.file: content,
        EXPORT_FILE: export(model.file, content, len(_NAMES)),
        WARM_UP_FILE: warm_up_rows(_NAMES, matrix, model.predict(matrix), 1),
        FEATURES_FILE: to_json(STANDARD),
    }
    day = datetime(2026, 1, 1, tzinfo=UTC)
    manifest = describe_model(
        files, _NAMES, 64, CONVERTED, TrainingWindow(day, day), {"test_roc_auc": 0.8}, "v1", export={"limit": LIMIT}
    )
    return files | {MANIFEST_FILE: msgspec.json.encode(manifest)}


def _matrix() -> np.ndarray:
    matrix = np.random.default_rng(1).random((200, len(_NAMES)), np.float32)
    matrix[::9, 1] = np.nan
    return matrix
