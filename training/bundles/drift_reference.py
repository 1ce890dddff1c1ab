"""Reference data of a bundle: distributions for drift detection, and rows to warm up and check the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import asdict
from scipy.sparse import csr_array

from training.data.examples import Examples
from udfs.features.declaration import Declaration
from udfs.features.event_codes import CODES, CODES_OF_KIND
from udfs.measurement.drift import (
    BINS,
    MAX_BINS,
    MISSING,
    Bins,
    Chance,
    Contrast,
    Distribution,
    Reference,
    Spread,
)
from udfs.models.bundle import EXPORT_LIMIT

WARM_UP_ROWS = 64
#: Lengths of windows for which chance is measured. Each is a multiple of the one before it.
LENGTHS_MS = (600_000, 3_600_000, 6 * 3_600_000, 86_400_000, 7 * 86_400_000)
#: Of larger data the effects of clusters are measured on some of the users.
CLUSTERED_ROWS = 1_000_000
#: The fewest bins of a number's values other than frequent ones, however rare: quartiles.
RARE_BINS = 4
#: Codes with a smaller share of the known values have a bin in common.
RARE_CODE = 0.002


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
        name: _distribution(features[:, column], clusters, _bins_for(declaration, name))
        for column, name in enumerate(names)
    }
    # The export, or another machine, may give a score another last digit.
    of_scores = _distribution(score.astype(np.float32), _Clusters(of_score), _score_bins)
    return msgspec.json.encode(Reference(distributions, of_scores)) + b"\n"


@dataclass(frozen=True)
class _Level:
    """The clusters of windows of one length: the rows of a user in a slot of that length."""

    join: csr_array  # float64[clusters, clusters of the level before]
    slot: np.ndarray  # int64[clusters], from 0
    rows: np.ndarray  # float64[slots], the weight of each slot


class _Clusters:
    """The clusters of rows, prepared once for all features."""

    def __init__(self, sampling: Sampling):
        self.weight = sampling.weight
        every = -(-len(sampling.user) // CLUSTERED_ROWS)
        users = np.unique(sampling.user)[::every]
        self.rows = np.flatnonzero(np.isin(sampling.user, users))
        user, time_ms = np.searchsorted(users, sampling.user[self.rows]), sampling.time_ms[self.rows]
        self.levels, weight = [], self.weight[self.rows]
        for length_ms in LENGTHS_MS:
            slot = time_ms // length_ms
            first, slot = slot.min(), slot - slot.min()
            keys, cluster = np.unique(user * (slot.max() + 1) + slot, return_inverse=True)
            user, slot = np.divmod(keys, slot.max() + 1)
            join = _joining(cluster)
            weight = join @ weight
            self.levels.append(_Level(join, slot, np.bincount(slot, weight)))
            time_ms = (first + slot) * length_ms
        self.users = _joining(user)


def _joining(group: np.ndarray) -> csr_array:
    """The matrix float64[groups, n] that adds up n parts by group."""
    return csr_array((np.ones(len(group)), (group, np.arange(len(group)))), shape=(group.max() + 1, len(group)))


def _distribution(
    values: np.ndarray, clusters: _Clusters, find_bins: Callable[[np.ndarray, np.ndarray], Bins]
) -> Distribution:
    weight = clusters.weight
    known = ~np.isnan(values)
    distinct, place = np.unique(values[known].astype(np.float64), return_inverse=True)
    of_known = np.bincount(place, weight[known], minlength=len(distinct))
    bins = find_bins(distinct, of_known / of_known.sum()) if len(distinct) else Bins()
    cells = bins.cells(values)
    category = np.where(cells == MISSING, bins.bins, cells)
    totals = np.bincount(category, weight, minlength=bins.bins + 1)
    shares = totals / totals.sum()
    chance, noise, noise_degrees = _chance(category, shares, clusters)
    return Distribution(
        **asdict(bins),
        shares=(totals[:-1] / (totals[:-1].sum() or 1)).tolist(),
        missing=float(shares[-1]),
        rows=round(weight.sum()),
        noise=noise,
        noise_degrees=noise_degrees,
        chance=chance,
        contrasts=[
            _contrast(weights[category], weights @ shares, clusters) for weights in bins.contrast_weights(shares)
        ],
    )


def _bins_for(declaration: Declaration, name: str) -> Callable[[np.ndarray, np.ndarray], Bins]:
    if declaration[name].is_event_code:
        return _event_bins
    return _code_bins if declaration.is_code(name) else _number_bins


def _event_bins(distinct: np.ndarray, shares: np.ndarray) -> Bins:
    """The same for codes of events: a bin for each kind of event, whose codes are a range."""
    kinds = distinct // CODES_OF_KIND
    edges = kinds[1:][np.diff(kinds) > 0] * CODES_OF_KIND - 0.5
    return Bins(edges=edges.tolist(), low=0.0, high=CODES - 1.0, means=_means(edges, distinct, shares))


def _number_bins(distinct: np.ndarray, shares: np.ndarray) -> Bins:
    """The bins of the distinct values float64[d] of a number, of which there is one or more, and their shares."""
    if len(distinct) == 1:
        return Bins(values=distinct.tolist())
    edges = _edges(distinct, shares)
    return Bins(
        edges=edges.tolist(),
        low=float(distinct[0]),
        high=float(distinct[-1]),
        means=_means(edges, distinct, shares),
    )


def _score_bins(distinct: np.ndarray, shares: np.ndarray) -> Bins:
    """The same for scores: the export, or another machine, may give them another last digit."""
    low, high = float(distinct[0]) - EXPORT_LIMIT, float(distinct[-1]) + EXPORT_LIMIT
    if len(distinct) == 1:
        return Bins(edges=[low, high], low=low, high=high)
    edges = _edges(distinct, shares)
    return Bins(edges=edges.tolist(), low=low, high=high, means=_means(edges, distinct, shares))


def _code_bins(distinct: np.ndarray, shares: np.ndarray) -> Bins:
    """The same for codes: each has a bin of its own, except for rare ones."""
    own = np.sort(np.argsort(-shares, kind="stable")[: MAX_BINS - 1])
    own = own[shares[own] >= RARE_CODE]
    return Bins(values=distinct[own].tolist(), rare=np.delete(distinct, own).tolist())


def _edges(distinct: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Edges between d > 1 distinct values, each halfway between two of them, so that no value is on an edge.

    A frequent value has a bin of its own. The stretches between frequent values are parted into bins of equal shares:
    deciles if no value is frequent, and never less than RARE_BINS in all.
    """
    frequent = shares >= 1 / BINS
    piece = 2 * np.cumsum(frequent) - frequent  # even: a stretch, odd: a frequent value
    of_piece = np.bincount(piece, shares)
    of_stretches = of_piece[::2].sum()
    count = np.ones(len(of_piece))
    if of_stretches:
        count[::2] = np.maximum(1, np.round(max(RARE_BINS, round(BINS * of_stretches)) * of_piece[::2] / of_stretches))
    before = np.cumsum(shares) - (np.cumsum(of_piece) - of_piece)[piece]
    group = np.floor(count[piece] * (before - shares / 2) / of_piece[piece])
    first = np.flatnonzero(np.diff(piece) | (np.diff(group) != 0)) + 1
    return (distinct[first - 1] + distinct[first]) / 2


def _means(edges: np.ndarray, distinct: np.ndarray, shares: np.ndarray) -> list[float]:
    """The mean of the values in each bin."""
    place = np.searchsorted(edges, distinct, side="right")
    return (np.bincount(place, shares * distinct) / np.bincount(place, shares)).tolist()


def _chance(category: np.ndarray, shares: np.ndarray, clusters: _Clusters) -> tuple[list[Chance], float, float]:
    """What chance makes of samples of such events, by the window; the null expectation of these rows' index; and the
    degrees of freedom of what users tell of it.
    """
    category, weight = category[clusters.rows], clusters.weight[clusters.rows]
    used = np.flatnonzero(shares)
    shares, category = shares[used], np.searchsorted(used, category)
    counts = csr_array((weight, (np.arange(len(category)), category)), shape=(len(category), len(used)))
    # A row that stands for others stands for other users' too, so its surplus is no cluster (Horvitz-Thompson).
    surplus = np.bincount(category, weight**2 - weight, minlength=len(used))
    measured = []
    for length_ms, level in zip(LENGTHS_MS, clusters.levels):
        counts = level.join @ counts
        totals = counts.sum(1)
        usual = max(1.0, float(((totals**2).sum() - surplus.sum()) / weight.sum()))
        # Neither a constant nor a single user shows how much users differ: the most they can, as if all rows of each
        # were alike.
        is_shown = len(used) > 1 and clusters.users.shape[0] > 1
        effect, degrees = _design_effect(counts, surplus, shares) if is_shown else (usual, 1.0)
        distance = _distance(counts, shares)
        in_slots = (_joining(level.slot) @ counts).toarray()
        together = (in_slots**2) @ (1 / shares) - level.rows**2
        rhythm, alone = _rhythm(together, distance, level), float(distance.max()) ** 0.5
        measured.append(Chance(length_ms, effect, degrees, rhythm, alone, float(totals.max()), usual))
    counts = clusters.users @ counts
    # A category that all rows have leaves a rounding error, which may be below 0.
    noise = max(0.0, np.trace(_scatter(counts, shares) / shares) / weight.sum() / clusters.weight.sum())
    distance = _distance(counts, shares)
    return measured, float(noise), _degrees_of(distance if distance.any() else counts.sum(1) ** 2)


def _distance(counts: csr_array, shares: np.ndarray) -> np.ndarray:
    """The index of each cluster alone, float64[clusters], times the square of its rows; at least 0."""
    return np.maximum(0, counts.power(2) @ (1 / shares) - counts.sum(1) ** 2)


def _degrees_of(parts: np.ndarray) -> float:
    """The degrees of freedom of a variance that is the sum of independent parts float64[n], by Satterthwaite's rule."""
    return float(max(1.0, 2 * parts.sum() ** 2 / (parts**2).sum()))


def _design_effect(counts: csr_array, surplus: np.ndarray, shares: np.ndarray) -> tuple[float, float]:
    """Design effect and degrees of freedom of clusters with these weights float64[clusters, categories]."""
    deviations = np.eye(len(shares)) - shares
    scatter = _scatter(counts, shares) - deviations.T @ (surplus[:, None] * deviations)
    scaled = scatter / np.sqrt(np.outer(shares, shares)) / counts.sum()
    trace, bins = np.trace(scaled), len(shares) - 1
    # Clusters that are all alike differ less than independent rows, which have a degree for each bin but one.
    degrees = trace**2 / (scaled**2).sum() if trace > 0 else bins
    return max(1.0, float(trace / bins)), float(np.clip(degrees, 1, bins))


def _scatter(counts: csr_array, shares: np.ndarray) -> np.ndarray:
    """The sum over clusters of z z', where z[b] is a cluster's weight in category b minus its expected weight."""
    totals = counts.sum(1)
    crossed = np.outer(counts.T @ totals, shares)
    return (counts.T @ counts).toarray() - crossed - crossed.T + (totals**2).sum() * np.outer(shares, shares)


def _rhythm(together: np.ndarray, alone: np.ndarray, level: _Level) -> float:
    """The mean index of the slots of clusters, beyond what their clusters make of it by chance; by rows, at least 0.

    `together` float64[slots] is the index of each slot, and `alone` float64[clusters] that of a slot with nothing but
    that cluster, both times the square of the rows.
    """
    rows = level.rows
    # All slots together are the training data, from which they can't differ: less the fewer slots there are.
    excess = together - np.bincount(level.slot, alone) * (1 - rows / rows.sum())
    return max(0.0, float((excess[rows > 0] / rows[rows > 0]).sum() / rows.sum()))


def _contrast(of_row: np.ndarray, mean: float, clusters: _Clusters) -> Contrast:
    """What chance makes of a contrast, given the weight of each row's category float64[n] in it, and their mean.

    The index of the contrast is the square of the sum of the rows' deviations, over their variance and the square of
    the number of rows.
    """
    deviation, weight = of_row - mean, clusters.weight
    deviation = (deviation / np.sqrt(weight @ deviation**2 / weight.sum()))[clusters.rows]
    weight = weight[clusters.rows]
    sums, surplus = weight * deviation, (weight**2 - weight) @ deviation**2
    spreads = []
    for level in clusters.levels:
        sums = level.join @ sums
        effect = float((sums @ sums - surplus) / weight.sum())
        rhythm = _rhythm(np.bincount(level.slot, sums) ** 2, sums**2, level)
        spreads.append(Spread(max(1.0, effect), rhythm, float(np.abs(sums).max())))
    of_users = (clusters.users @ sums) ** 2
    noise = float(of_users.sum() / weight.sum() / clusters.weight.sum())
    return Contrast(noise, _degrees_of(of_users) if of_users.any() else 1.0, spreads)


def warm_up_rows(names: Sequence[str], features: np.ndarray, probability: np.ndarray, seed: int) -> bytes:
    """JSON of some rows and the scores that the model must reproduce; null is a missing value."""
    size = min(WARM_UP_ROWS, len(features))
    rows = np.sort(np.random.default_rng(seed).choice(len(features), size, replace=False))
    values = [[None if value != value else value for value in row] for row in features[rows].tolist()]
    return msgspec.json.encode({"features": list(names), "rows": values, "scores": probability[rows].tolist()}) + b"\n"
