"""Contributions of features to a score, on the logit of the probability.

Those of trees and of a regression are Shapley values. Those of a GRU are what each event changed when it was read.

Lundberg and others, From local explanations to global understanding with explainable AI for trees, 2020.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from udfs.models.blend import decode_blend, weighted_mean
from udfs.models.bundle import BLEND_FILE, GRU_FILE, LIGHTGBM_FILE, LOGISTIC_FILE, Bundle, load_booster
from udfs.models.gru import decode_gru
from udfs.models.lean_xgboost import xgboost
from udfs.models.lightgbm_text import load_text
from udfs.models.regression import Regression, decode_regression

if TYPE_CHECKING:
    import lightgbm

#: From features float32[n, k] to their contributions, float[n, k + 1], the base last.
Contributions = Callable[[np.ndarray], np.ndarray]


def xgboost_contributions(booster: xgboost.Booster, features: np.ndarray) -> np.ndarray:
    matrix = xgboost.DMatrix(features, feature_names=booster.feature_names, missing=np.nan)
    return booster.predict(matrix, pred_contribs=True)


def lightgbm_contributions(booster: "lightgbm.Booster", features: np.ndarray, threads: int) -> np.ndarray:
    return booster.predict(features, num_threads=threads, pred_contrib=True)


def contributions_of(bundle: Bundle) -> Contributions | None:
    """The function that computes the contributions of a bundle's model; None for a remote model."""
    if bundle.manifest.is_remote:
        return None
    if bundle.model_file == LIGHTGBM_FILE:
        text = load_text(bundle.model)
        return lambda features: lightgbm_contributions(text, features, 1)
    if bundle.model_file == LOGISTIC_FILE:
        return Regression(decode_regression(bundle.model)).contributions
    if bundle.model_file == GRU_FILE:
        return decode_gru(bundle.model).contributions
    if bundle.model_file == BLEND_FILE:
        return _blend_contributions(bundle.model)
    return _trees_contributions(bundle.model)


def _trees_contributions(model: bytes) -> Contributions:
    booster = load_booster(model)
    booster.set_param({"nthread": 1})
    return lambda features: xgboost_contributions(booster, features)


def _blend_contributions(model: bytes) -> Contributions:
    parts = decode_blend(model)
    of_trees, of_regression = _trees_contributions(parts.trees), Regression(parts.regression).contributions
    return lambda features: weighted_mean(parts.trees_weight, of_trees(features), of_regression(features))


def strongest(names: Sequence[str], added: np.ndarray, count: int) -> list[tuple[str, float]]:
    """The `count` features with the largest contributions by magnitude, given those of k features, float[k]."""
    order = np.argsort(-np.abs(added), kind="stable")[:count]
    return [(names[at], float(added[at])) for at in order]
