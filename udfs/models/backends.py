"""Inference engines: a model's own library, ONNX Runtime, or whichever is faster for the size of a batch.

The own library of a logistic regression and of a GRU is NumPy; a blend uses XGBoost and NumPy. A call of XGBoost or
LightGBM costs more than one of ONNX Runtime and a row may cost less, depending on model and machine: so the break-even
is measured when the model is warmed up.
"""

import time
from collections.abc import Callable
from functools import cached_property
from statistics import median
from typing import Literal

import msgspec
import numpy as np
import onnxruntime
from scipy.special import expit

from udfs.config.text import one_line
from udfs.contracts.event_layout import EventLayout
from udfs.features.computer import FeatureComputer
from udfs.models import lightgbm_text, remote
from udfs.models.blend import decode_blend, weighted_mean
from udfs.models.bundle import (
    BLEND_FILE,
    ENDPOINT_FILE,
    EXPORT_FILE,
    GRU_FILE,
    LIGHTGBM_FILE,
    LOGISTIC_FILE,
    Bundle,
    BundleError,
    check_scores,
    load_booster,
)
from udfs.models.gru import decode_gru
from udfs.models.regression import Regression, decode_regression

EngineName = Literal["auto", "native", "onnx"]
#: Batch sizes at which the engines are compared.
SIZES = (1, 4, 16, 64, 256, 1024, 4096)
_REPEATS = 11
#: Rows of a GRU in a call of ONNX Runtime: what it keeps of more does not fit into a processor's caches.
BLOCK_ROWS = 64

#: Probabilities float32[n] of feature rows float32[n, k], NaN for missing.
Predict = Callable[[np.ndarray], np.ndarray]


def build_engine(bundle: Bundle, engine: EngineName, threads: int = 1) -> Predict:
    """Predictions of a bundle's model, warmed up and checked against its warm-up rows.

    A remote model raises RemoteError while it can not be reached.
    Raises BundleError when the bundle has no export for ONNX Runtime, and when a score is not the expected one.
    """
    rows = bundle.warm_up
    native = Scorer(bundle, threads).predict
    if rows is not None:
        check_scores(bundle, native(rows.features), bundle.own_tolerance)
    if engine == "native" or bundle.manifest.is_remote or engine == "auto" and (bundle.export is None or rows is None):
        return native
    if bundle.export is None or rows is None or bundle.certified_limit is None:
        raise BundleError(f"{bundle.manifest.version}: model.engine is onnx, the bundle has no certified {EXPORT_FILE}")
    try:
        exported = OnnxScorer(bundle.export, threads).predict
        scores = exported(rows.features)
    except Exception as error:  # each of the runtime's errors has a class of its own
        raise BundleError(
            f"{bundle.manifest.version}: ONNX Runtime can't use {EXPORT_FILE}: {one_line(error)}"
        ) from error
    check_scores(bundle, scores, bundle.certified_limit, EXPORT_FILE)
    if bundle.model_file == GRU_FILE:  # NumPy is slower for batches of any size
        return in_blocks(exported)
    if engine == "onnx":
        return exported
    return faster_by_size(exported, native, measure_break_even(exported, native, rows.features))


class Scorer:
    """Features and model of a bundle. The features are compiled when they are first used."""

    def __init__(self, bundle: Bundle, threads: int = 1, layout: EventLayout | None = None):
        """`layout` is that of the events, by default that of the declaration."""
        self._bundle, self._layout = bundle, layout
        self._predict = native_predict(bundle.model_file, bundle.model, threads)

    @cached_property
    def features(self) -> FeatureComputer:
        manifest = self._bundle.manifest
        return FeatureComputer(manifest.features, manifest.history_length, self._bundle.declaration, self._layout)

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """The probability of the label, float32[n], from the feature matrix float32[n, k] with NaN for missing."""
        if not len(matrix):
            return np.empty(0, np.float32)
        return self._predict(matrix)


def native_predict(model_file: str, model: bytes, threads: int = 1) -> Callable[[np.ndarray], np.ndarray]:
    """A model in its own library: probabilities float32[n] of n > 0 feature rows float32[n, k], NaN for missing.

    A remote model raises RemoteError when it returns none.
    """
    if model_file == LIGHTGBM_FILE:
        text = lightgbm_text.load_text(model)
        return lambda matrix: text.predict(matrix, num_threads=threads).astype(np.float32)
    if model_file == LOGISTIC_FILE:
        regression = Regression(decode_regression(model))
        return lambda matrix: regression.predict(matrix).astype(np.float32)
    if model_file == BLEND_FILE:
        return _blend_predict(model, threads)
    if model_file == GRU_FILE:
        gru = decode_gru(model)
        return lambda matrix: gru.predict(matrix).astype(np.float32)
    if model_file == ENDPOINT_FILE:
        return remote.RemoteScorer(msgspec.json.decode(model, type=remote.Endpoint)).predict
    booster = load_booster(model)
    booster.set_param({"nthread": threads})
    return lambda matrix: booster.inplace_predict(matrix, missing=np.nan)


def _blend_predict(model: bytes, threads: int) -> Predict:
    parts = decode_blend(model)
    booster, regression = load_booster(parts.trees), Regression(parts.regression)
    booster.set_param({"nthread": threads})

    def predict(matrix: np.ndarray) -> np.ndarray:
        margin = booster.inplace_predict(matrix, missing=np.nan, predict_type="margin")
        return expit(weighted_mean(parts.trees_weight, margin, regression.logit(matrix))).astype(np.float32)

    return predict


class OnnxScorer:
    """An ONNX model in ONNX Runtime."""

    def __init__(self, model: bytes, threads: int = 1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[-1].name

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The probability of the label, float32[n]."""
        if not len(features):
            return np.empty(0, np.float32)
        return self._session.run([self._output], {self._input: features})[0][:, 1]


def in_blocks(predict: Predict) -> Predict:
    """`predict` for BLOCK_ROWS rows at a time."""

    def predict_all(features: np.ndarray) -> np.ndarray:
        starts = range(0, len(features), BLOCK_ROWS)
        return np.concatenate([np.empty(0, np.float32), *(predict(features[at : at + BLOCK_ROWS]) for at in starts)])

    return predict_all


def faster_by_size(small: Predict, large: Predict, break_even: int) -> Predict:
    """`small` for batches of fewer than `break_even` rows, `large` for the others."""
    return lambda features: (small if len(features) < break_even else large)(features)


def measure_break_even(small: Predict, large: Predict, rows: np.ndarray) -> int:
    """The smallest of SIZES from which on `large` is faster than `small`, measured with these rows; else past the last.

    Compares medians of alternating calls at each size, so that other load on the machine affects both equally.
    """
    break_even = SIZES[-1] + 1
    for size in reversed(SIZES):
        batch = np.ascontiguousarray(np.resize(rows, (size, rows.shape[1])))
        times = [(_seconds(small, batch), _seconds(large, batch)) for _ in range(_REPEATS)]
        if median(taken for taken, _ in times) < median(taken for _, taken in times):
            break
        break_even = size
    return break_even


def _seconds(predict: Predict, batch: np.ndarray) -> float:
    started = time.perf_counter()
    predict(batch)
    return time.perf_counter() - started
