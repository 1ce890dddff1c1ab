"""Export to ONNX, with a certificate that ONNX Runtime gives the same scores as the model's own library."""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from udfs.models.backends import OnnxScorer
from udfs.models.bundle import LIGHTGBM_FILE, load_booster

#: The largest difference of a probability that an export may show. float32 has a relative precision of 6e-8; the two
#: libraries add up hundreds of leaves in different orders.
LIMIT = 1e-5
OPSET = 15
_EDGE_ROWS = 2_000


class ExportError(ValueError):
    """An export whose scores differ from the model's. The message has the difference."""


@dataclass(frozen=True)
class Certificate:
    """The numbers of holdout rows and edge rows that were compared, and the largest difference of their scores."""

    rows: int
    edge_rows: int
    largest_difference: float
    limit: float


def export(model_file: str, model: bytes, features: int) -> bytes:
    """Convert a bundle's model to ONNX: input float32[n, features], outputs `label` and `probabilities`."""
    inputs = [("features", FloatTensorType([None, features]))]
    if model_file == LIGHTGBM_FILE:
        booster = lightgbm.Booster(model_str=model.decode())
        converted = convert_lightgbm(booster, initial_types=inputs, target_opset=OPSET, zipmap=False)
        # The converter says that there is one label, and ONNX Runtime warns of each batch that has more.
        converted.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    else:
        booster = load_booster(model)
        booster.feature_names = None  # the converter wants its own: f0, f1, ...
        converted = convert_xgboost(booster, initial_types=inputs, target_opset=OPSET)
    converted.graph.name = "purchase_intent"  # by default a random one: equal models are to be equal bytes
    return converted.SerializeToString()


def certify(
    predict, exported: bytes, holdout: np.ndarray, thresholds: Sequence[np.ndarray], limit: float = LIMIT, seed: int = 1
) -> Certificate:
    """Compare an export with the model on the holdout float32[n, k] and on edge rows.

    `predict` gives the model's own probabilities; `thresholds` are the values that the model splits each feature at.
    Raises ExportError when a difference is above the limit.
    """
    edges = edge_rows(holdout, thresholds, seed)
    runtime = OnnxScorer(exported)
    largest = max(
        float(np.abs(predict(rows).astype(np.float64) - runtime.predict(rows)).max(initial=0.0))
        for rows in (holdout, edges)
    )
    if not largest <= limit:
        raise ExportError(f"ONNX Runtime's scores differ from the model's by up to {largest:.2e}: at most {limit:.0e}")
    return Certificate(len(holdout), len(edges), largest, limit)


def edge_rows(rows: np.ndarray, thresholds: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Rows with missing values, and with values at, just below and just above the splits: float32[_EDGE_ROWS, k]."""
    rng = np.random.default_rng(seed)
    made = rows[rng.integers(0, len(rows), _EDGE_ROWS)].copy()
    for column, splits in enumerate(thresholds):
        if len(splits):
            at = rng.choice(splits, _EDGE_ROWS).astype(np.float32)
            side = rng.integers(-1, 2, _EDGE_ROWS)
            with np.errstate(over="ignore"):  # LightGBM parts missing values from all others by a split at the end
                value = np.where(side < 0, np.nextafter(at, np.float32(-np.inf)), at)
                value = np.where(side > 0, np.nextafter(at, np.float32(np.inf)), value)
            hit = rng.random(_EDGE_ROWS) < 0.7
            made[hit, column] = value[hit]
    made[rng.random(made.shape) < 0.1] = np.nan
    return made
