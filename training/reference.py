"""What a bundle tells of normal: distributions to see drift by, and rows to warm up and check a model with."""

from collections.abc import Sequence

import msgspec
import numpy as np

BINS = 10
WARM_UP_ROWS = 64


def reference_distributions(names: Sequence[str], features: np.ndarray, probability: np.ndarray) -> bytes:
    """JSON: of each feature, and of the score, bin edges at the deciles of training, and the share of rows in each.

    A value v is in bin searchsorted(edges, v, side="right"): there is one bin more than edges. `missing` is a share.
    """
    columns = {name: features[:, column] for column, name in enumerate(names)}
    distributions = {name: _distribution(values) for name, values in columns.items()}
    return msgspec.json.encode({"features": distributions, "score": _distribution(probability)}) + b"\n"


def _distribution(values: np.ndarray) -> dict:
    known = values[~np.isnan(values)].astype(np.float64)
    edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if known.size else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return {
        "edges": edges.tolist(),
        "shares": (counts / max(1, len(known))).tolist(),
        "missing": 1 - len(known) / len(values),
    }


def warm_up_rows(names: Sequence[str], features: np.ndarray, probability: np.ndarray, seed: int) -> bytes:
    """JSON: some rows with the scores that the model has to give them; null is a missing value."""
    size = min(WARM_UP_ROWS, len(features))
    rows = np.sort(np.random.default_rng(seed).choice(len(features), size, replace=False))
    values = [[None if value != value else value for value in row] for row in features[rows].tolist()]
    return msgspec.json.encode({"features": list(names), "rows": values, "scores": probability[rows].tolist()}) + b"\n"
