"""Reference data of a bundle: distributions for drift detection, and rows to warm up and check the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace
from scipy.sparse import csr_array

from training.data.examples import Examples
from training.modeling.onnx_export import LIMIT
from udfs.features.declaration import Declaration
from udfs.measurement.drift import BINS, Distribution, Reference

WARM_UP_ROWS = 64
#: Events of a user in a slot of this length count as one cluster: the length of the window of jobs.watch_drift.
CLUSTER_MS = 600_000
#: Of larger data the effects of clusters are measured on some of the users.
CLUSTERED_ROWS = 1_000_000


@dataclass(frozen=True)
class Sampling:
    """User int64[n], time_ms int64[n] and weight float[n] (the number of events each stands for) of n rows."""

    user: np.ndarray
    time_ms: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, examples: Examples, rows: np.ndarray | slice = slice(None)) -> "Sampling":
        return cls(examples.user[rows], examples.time_ms[rows], examples.weight[rows].astype(np.float64))


def reference_distributions(
    declaration: Declaration,
    names: Sequence[str],
    features: np.ndarray,
    of_features: Sampling,
    score: np.ndarray,
    of_score: Sampling,
) -> bytes:
    """JSON of a udfs.measurement.drift.Reference for declared features float32[n, names], and scores float[m] of other
    rows.

    The scores are of rows that the model was not fitted to, because the model overfits those it was fitted to.
    """
    clusters = _Clusters(of_features)
    distributions = {
        name: _distribution(features[:, column], clusters, declaration.is_code(name))
        for column, name in enumerate(names)
    }
    of_scores = _distribution(score.astype(np.float32), _Clusters(of_score), False)
    # The export, or another machine, may give the highest of these scores a digit higher.
    of_scores = replace(of_scores, low=of_scores.low - LIMIT, high=of_scores.high + LIMIT)
    return msgspec.json.encode(Reference(distributions, of_scores)) + b"\n"


class _Clusters:
    """The clusters of rows, prepared once for all features."""

    def __init__(self, sampling: Sampling):
        self.weight = sampling.weight
        every = -(-len(sampling.user) // CLUSTERED_ROWS)
        users = np.unique(sampling.user)[::every]
        self.rows = np.flatnonzero(np.isin(sampling.user, users))
        user = np.searchsorted(users, sampling.user[self.rows])
        slot = sampling.time_ms[self.rows] // CLUSTER_MS
        slot -= slot.min()
        self.user = user
        self.visit = np.unique(user * (slot.max() + 1) + slot, return_inverse=True)[1]


def _distribution(values: np.ndarray, clusters: _Clusters, code: bool) -> Distribution:
    weight = clusters.weight
    values = values.astype(np.float64)
    is_known = ~np.isnan(values)
    known, known_weight = values[is_known], weight[is_known]
    edges = _edges(known, known_weight)
    category = np.where(is_known, np.searchsorted(edges, values, side="right"), len(edges) + 1)
    totals = np.bincount(category, weight, minlength=len(edges) + 2)
    known_total = totals[:-1].sum()
    effect, degrees, noise = _design_effect(category, totals / totals.sum(), clusters)
    return Distribution(
        edges=edges.tolist(),
        shares=(totals[:-1] / (known_total or 1)).tolist(),
        missing=float(totals[-1] / totals.sum()),
        low=float(known.min()) if known.size else None,
        high=float(known.max()) if known.size else None,
        rows=len(values),
        design_effect=effect,
        degrees_of_freedom=degrees,
        noise=noise,
        values=np.unique(known).tolist() if code else None,
    )


def _edges(known: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The deciles, each moved halfway to the next smaller value, so that no value is on an edge."""
    distinct = np.unique(known)
    if len(distinct) < 2:
        return np.empty(0)
    deciles = np.quantile(known, np.arange(1, BINS) / BINS, weights=weight, method="inverted_cdf")
    places = np.unique(np.searchsorted(distinct, deciles))
    places = places[places > 0]
    return (distinct[places - 1] + distinct[places]) / 2


def _design_effect(category: np.ndarray, shares: np.ndarray, clusters: _Clusters) -> tuple[float, float, float]:
    """Design effect and degrees of freedom of a sample of such events, and the null expectation of these rows' index.

    See udfs.measurement.drift. With a single category, the design effect is that of a value that each user keeps.
    """
    category, weight = category[clusters.rows], clusters.weight[clusters.rows]
    total = weight.sum()
    used = np.flatnonzero(shares)
    if len(used) < 2:
        return max(1.0, float((np.bincount(clusters.visit, weight) ** 2).sum() / total)), 1.0, 0.0
    shares, category = shares[used], np.searchsorted(used, category)
    # A row that stands for others stands for other users' too, so its surplus is no cluster (Horvitz-Thompson).
    surplus = np.bincount(category, weight**2 - weight, minlength=len(used))
    deviations = np.eye(len(used)) - shares
    scatter = _scatter(category, weight, clusters.visit, shares) - deviations.T @ (surplus[:, None] * deviations)
    scaled = scatter / np.sqrt(np.outer(shares, shares)) / total
    trace, bins = np.trace(scaled), len(used) - 1
    degrees = trace**2 / (scaled**2).sum()
    noise = np.trace(_scatter(category, weight, clusters.user, shares) / shares) / total / clusters.weight.sum()
    return max(1.0, float(trace / bins)), float(np.clip(degrees, 1, bins)), float(noise)


def _scatter(category: np.ndarray, weight: np.ndarray, cluster: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The sum over clusters of z z', where z[b] is a cluster's weight in category b minus its expected weight."""
    counts = csr_array((weight, (cluster, category)), shape=(cluster.max() + 1, len(shares)))
    totals = counts.sum(1)
    crossed = np.outer(counts.T @ totals, shares)
    return (counts.T @ counts).toarray() - crossed - crossed.T + (totals**2).sum() * np.outer(shares, shares)


def warm_up_rows(names: Sequence[str], features: np.ndarray, probability: np.ndarray, seed: int) -> bytes:
    """JSON of some rows and the scores that the model must reproduce; null is a missing value."""
    size = min(WARM_UP_ROWS, len(features))
    rows = np.sort(np.random.default_rng(seed).choice(len(features), size, replace=False))
    values = [[None if value != value else value for value in row] for row in features[rows].tolist()]
    return msgspec.json.encode({"features": list(names), "rows": values, "scores": probability[rows].tolist()}) + b"\n"
