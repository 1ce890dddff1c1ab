"""The data of the report's curves. Where rows are too poor for one, the result says why (`NoData`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from training.modeling.metrics import LabelledScores, with_intervals

GRID = 101  # points of a curve
HISTOGRAM_BINS = 40
#: Shares of the rows acted on that the threshold explorer offers; few actions are the usual case.
EXPLORED_SHARES = np.concatenate([np.geomspace(0.001, 0.1, 60), np.linspace(0.11, 1, 90)])
#: Rows in a plot of points.
SAMPLE = 1_000
_TINY = 1e-6


@dataclass(frozen=True)
class NoData:
    """The reason why something can't be drawn, as the rest of the sentence "No data: ..."."""

    why: str


@dataclass(frozen=True)
class Band:
    """A curve over x, float64[k], with the 95 % interval of each point."""

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float | None = None  # the level of a random order, if it is one


@dataclass(frozen=True)
class Histogram:
    """Shares of each class, float64[bins], by bins of the score whose edges are logits, float64[bins + 1]."""

    edges: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


@dataclass(frozen=True)
class Attributions:
    """The features with the largest mean contribution, strongest first, in a sample of n rows."""

    names: tuple[str, ...]
    mean: np.ndarray  # float64[names]: mean magnitude over all rows, in logits
    values: np.ndarray  # float[n, names], NaN where missing
    added: np.ndarray  # float[n, names], in logits


def lacks_class(labels: np.ndarray) -> NoData | None:
    """Why rows can't be ranked: they have no positive, or nothing else."""
    positives = int(labels.sum())
    if 0 < positives < len(labels):
        return None
    return NoData(f"{positives} of {len(labels)} events are positive, and both classes are needed")


def roc(scored: LabelledScores) -> Band | NoData:
    """The true positive rate by false positive rate."""
    x = np.linspace(0, 1, GRID)

    def rates(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
        return np.interp(x, misses / misses[-1], hits / hits[-1])

    return _band(scored, x, rates)


def precision_recall(scored: LabelledScores) -> Band | NoData:
    """The precision of the highest scores, by recall."""
    x = np.linspace(0, 1, GRID)[1:]

    def precisions(hits: np.ndarray, misses: np.ndarray) -> np.ndarray:
        places = np.minimum(np.searchsorted(hits, x * hits[-1] * (1 - 1e-9)), len(hits) - 1)
        return hits[places] / (hits[places] + misses[places])

    return _band(scored, x, precisions, scored.rate(scored.weight))


def _band(
    scored: LabelledScores,
    x: np.ndarray,
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray],
    chance: float | None = None,
) -> Band | NoData:
    """The curve float64[k] that `measure` makes of the weights of `LabelledScores.curve`, at each x."""
    if lacking := lacks_class(scored.labels):
        return lacking

    def measured(weight: np.ndarray) -> np.ndarray:
        hits, misses = scored.curve(weight)
        return measure(hits, misses) if hits[-1] and misses[-1] else np.full(len(x), np.nan)

    found = with_intervals(measured, scored.weight, scored.redrawn(1))
    return Band(x, *(np.array([getattr(one, name) for one in found]) for name in ("value", "low", "high")), chance)


def score_histogram(scored: LabelledScores) -> Histogram | NoData:
    """The distribution of the scores of each class."""
    if lacking := lacks_class(scored.labels):
        return lacking
    logits = logit(np.clip(scored.probability, _TINY, 1 - _TINY))
    if logits.max() - logits.min() < _TINY:
        return NoData(f"all {len(logits)} scores are equal")
    edges = np.linspace(logits.min(), logits.max(), HISTOGRAM_BINS + 1)

    def shares(chosen: np.ndarray) -> np.ndarray:
        counts, _ = np.histogram(logits[chosen], edges, weights=scored.weight[chosen])
        return counts / counts.sum()

    return Histogram(edges, shares(scored.labels), shares(~scored.labels))


def explored_thresholds(scored: LabelledScores) -> list[list[float]] | NoData:
    """Thresholds, highest first, each with the events acted on and the positives among them, per 1,000 events."""
    if lacking := lacks_class(scored.labels):
        return lacking
    hits, misses = (sums[1:] for sums in scored.curve(scored.weight))
    acted_on = hits + misses
    places = np.unique(np.searchsorted(acted_on, EXPLORED_SHARES * acted_on[-1] * (1 - 1e-9)))
    places = places[places < len(hits)]
    per_event = 1000 / acted_on[-1]
    columns = (scored.distinct[places], acted_on[places] * per_event, hits[places] * per_event)
    return [[float(f"{figure:.5g}") for figure in row] for row in zip(*columns)]


def strongest_features(
    names: Sequence[str], features: np.ndarray, added: np.ndarray, weight: np.ndarray, count: int, seed: int = 1
) -> Attributions | NoData:
    """The `count` strongest of k features, given values and contributions float[n, k] and weights float[n]."""
    mean = np.average(np.abs(added), axis=0, weights=weight)
    strongest = [place for place in np.argsort(-mean, kind="stable")[:count] if mean[place] > 0]
    if not strongest:
        return NoData("no feature changes the score")
    rows = np.arange(len(features))
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(rows, SAMPLE, replace=False, p=weight / weight.sum()))
    at = np.ix_(rows, strongest)
    return Attributions(tuple(names[place] for place in strongest), mean[strongest], features[at], added[at])
