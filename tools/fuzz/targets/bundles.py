"""Bundles of models: damaged manifests, models, features, warm-up rows and exports.

Contract: a bundle is refused with BundleError, or it serves: it scores its warm-up rows as at training. The manifest's
hash of a damaged file is right, as if its writer had damaged it.

XGBoost can't be held to that: of damaged models, about one in fifty ends the process (SIGSEGV). So the hash of a file
with trees of XGBoost stays as it was, and shows the damage (docs/security.md, Models).
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
from udfs.models.backends import build_engine
from udfs.models.bundle import (
    BLEND_FILE,
    EXPORT_FILE,
    FEATURES_FILE,
    MANIFEST_FILE,
    WARM_UP_FILE,
    XGBOOST_FILE,
    Bundle,
    BundleError,
    TrainingWindow,
    read_bundle,
)

_NAMES = STANDARD.names[:3]
_HASHED = (XGBOOST_FILE, BLEND_FILE)
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
        if name != MANIFEST_FILE and name not in _HASHED:
            manifest = json.loads(changed[MANIFEST_FILE])
            manifest["files"][name] = sha256(content).hexdigest()
            changed[MANIFEST_FILE] = json.dumps(manifest).encode()
        bundle = read_bundle(_reading(changed), "bundle", None)
        build_engine(bundle, "native")
        if bundle.export is not None and bundle.warm_up is not None:
            build_engine(bundle, "onnx")
        return f"{kind} {name} serves"

    return Target(tuple(corpus), run, (BundleError,))


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
    matrix = np.random.default_rng(1).random((200, len(_NAMES)), np.float32)
    matrix[::9, 1] = np.nan
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
