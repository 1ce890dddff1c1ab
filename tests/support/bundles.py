"""Bundles that may serve, made in a moment."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import xgboost

from training.bundles.drift_reference import warm_up_rows
from training.bundles.writer import describe_model, write_bundle
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting
from training.modeling.onnx_export import export
from udfs.features.declaration_file import STANDARD
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import EXPORT_FILE, EXPORT_LIMIT, WARM_UP_FILE, XGBOOST_FILE, Manifest, TrainingWindow

NAMES = STANDARD.names[:3]
WINDOW = TrainingWindow(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC))
CERTIFICATE = {"rows": 200.0, "edge_rows": 2000.0, "largest_difference": 1e-7, "limit": EXPORT_LIMIT}


@cache
def files_of(seed: int, names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    """Model, export and warm-up rows."""
    matrix = np.random.default_rng(seed).random((200, len(names)), np.float32)
    matrix[::9, 1] = np.nan
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0.5, feature_names=list(names))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 2, "nthread": 1, "seed": seed}, data, 5)
    model = bytes(booster.save_raw("ubj"))
    warm_up = warm_up_rows(names, matrix, booster.predict(data), seed)
    return {XGBOOST_FILE: model, EXPORT_FILE: export(XGBOOST_FILE, model, len(names)), WARM_UP_FILE: warm_up}


@cache
def files_of_kind(kind: str, names: tuple[str, ...] = NAMES) -> dict[str, bytes]:
    """Model, export and warm-up rows of a model family."""
    matrix = np.random.default_rng(1).random((200, len(names)), np.float32)
    matrix[::9, 1] = np.nan
    family = FAMILIES[kind]
    fitting = Fitting(names, family.defaults, rounds=5, threads=1)
    model = family.fit(FitRows(matrix, matrix[:, 0] > 0.5, np.ones(200)), fitting)
    warm_up = warm_up_rows(names, matrix, model.predict(matrix), 1)
    content = model.content()
    return {model.file: content, EXPORT_FILE: export(model.file, content, len(names)), WARM_UP_FILE: warm_up}


def manifest_of(version: str, files: dict[str, bytes], auc: float = 0.8, names=NAMES, **fields) -> Manifest:
    metrics = {"test_roc_auc": auc, "test_roc_auc_low": auc - 0.02, "test_roc_auc_high": auc + 0.02}
    fields = {"history_length": 64, "label": CONVERTED, "metrics": metrics, "export": CERTIFICATE} | fields
    return describe_model(files, names, training_window=WINDOW, version=version, **fields)


def make_bundle(
    directory: Path, version: str, auc: float = 0.8, changes: dict | None = None, names=NAMES, **fields
) -> Path:
    """A bundle in directory/version; `changes` are files by name, None leaves one out; `fields` are the manifest's."""
    files = {name: content for name, content in (files_of(1, names) | (changes or {})).items() if content is not None}
    write_bundle(directory / version, manifest_of(version, files, auc, names, **fields), files)
    return directory / version
