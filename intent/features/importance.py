"""The importance of features in a bundle's model."""

from collections.abc import Sequence

import numpy as np

from udfs.models.blend import decode_blend, weighted_mean
from udfs.models.bundle import BLEND_FILE, GRU_FILE, LIGHTGBM_FILE, LOGISTIC_FILE, Bundle, load_booster
from udfs.models.lightgbm_text import load_text
from udfs.models.regression import coefficient_shares, decode_regression, shares_of


def importance_shares(bundle: Bundle) -> dict[str, float] | None:
    """The share of each feature in a model; None for a remote model, which is not here, and for a GRU.

    In trees, it is the share in the gain of all splits; in a regression, the share in the absolute coefficients of the
    standardised features. A blend has the mean of both, with the weights of its logits.
    """
    if bundle.manifest.is_remote or bundle.model_file == GRU_FILE:
        return None
    return dict(zip(bundle.manifest.features, _shares(bundle.model_file, bundle.model, bundle.manifest.features)))


def _shares(model_file: str, model: bytes, names: Sequence[str]) -> list[float]:
    if model_file == LOGISTIC_FILE:
        return coefficient_shares(decode_regression(model))
    if model_file == BLEND_FILE:
        parts = decode_blend(model)
        of_trees, of_regression = _gain_shares(parts.trees, names), coefficient_shares(parts.regression)
        return weighted_mean(parts.trees_weight, np.array(of_trees), np.array(of_regression)).tolist()
    if model_file == LIGHTGBM_FILE:
        return shares_of(load_text(model).feature_importance("gain").tolist())
    return _gain_shares(model, names)


def _gain_shares(model: bytes, names: Sequence[str]) -> list[float]:
    by_name = load_booster(model).get_score(importance_type="total_gain")  # without those of no split
    return shares_of([by_name.get(name, 0.0) for name in names])
