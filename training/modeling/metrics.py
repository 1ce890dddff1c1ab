"""Metrics of predicted probabilities, with intervals from resampling users, as the events of a user are alike.

Intervals are percentiles of a Poisson bootstrap by user (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13; Hanley and MacGibbon, Creating non-parametric bootstrap samples using Poisson frequencies, 2006).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

REPLICATES = 200
INTERVAL = (2.5, 97.5)  # percentiles: 95 %
DECILES = 10
#: The table of thresholds has those that act on these shares of the rows. Fixed ones would miss a rare label's scores.
SHARES_ACTED_ON = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
CALIBRATION_BINS = 10
_TINY = 1e-7


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is not defined, such as an AUC without positives."""

    value: float
    low: float
    high: float

    @property
    def standard_error(self) -> float:
        """The standard error of the normal distribution with this interval."""
        return (self.high - self.low) / (2 * 1.96)

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


class LabelledScores:
    """n scored rows, sorted once to be measured repeatedly under other weights.

    labels bool[n], probability float[n], weight float[n], user int64[n].
    """

    def __init__(self, labels: np.ndarray, probability: np.ndarray, weight: np.ndarray, user: np.ndarray):
        order = np.argsort(-probability, kind="stable")
        self.labels, self.weight = labels[order], weight[order].astype(np.float64)
        self.probability = probability[order].astype(np.float64)
        self.users, self.user = np.unique(user[order], return_inverse=True)
        # Ties are one step of the curve: equal scores have no order.
        self._steps = np.append(np.flatnonzero(np.diff(self.probability)), len(order) - 1)
        self._positives, self._negatives = np.flatnonzero(self.labels), np.flatnonzero(~self.labels)
        taken = np.append(0, self._steps + 1)
        self._hits = np.searchsorted(self._positives, taken)
        self._misses = taken - self._hits
        clipped = np.clip(self.probability, _TINY, 1 - _TINY)
        self._log_losses = -np.where(self.labels, np.log(clipped), np.log1p(-clipped))
        self._squares = (self.probability - self.labels) ** 2

    def roc_auc(self, weight: np.ndarray) -> float:
        """The probability that a positive scores above a negative, ties counting half."""
        hits, misses = self.curve(weight)
        if not hits[-1] or not misses[-1]:
            return float("nan")
        area = ((hits[1:] + hits[:-1]) * (misses[1:] - misses[:-1])).sum() / 2
        return float(area / (hits[-1] * misses[-1]))

    def roc_auc_of_all(self) -> float:
        """The AUC under the rows' own weights."""
        return self.roc_auc(self.weight)

    def average_precision(self, weight: np.ndarray) -> float:
        """The sum of precision times the recall gained, over thresholds (as scikit-learn has it)."""
        hits, misses = self.curve(weight)
        if not hits[-1]:
            return float("nan")
        taken = hits + misses
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        return float(((hits[1:] - hits[:-1]) * precision[1:]).sum() / hits[-1])

    def log_loss(self, weight: np.ndarray) -> float:
        return _mean(self._log_losses, weight)

    def brier(self, weight: np.ndarray) -> float:
        """The mean squared error of the probability (Brier, Verification of forecasts, 1950)."""
        return _mean(self._squares, weight)

    def rate(self, weight: np.ndarray) -> float:
        return _mean(self.labels, weight)

    def mean_probability(self, weight: np.ndarray) -> float:
        return _mean(self.probability, weight)

    def gains(self, weight: np.ndarray) -> np.ndarray:
        """The share of all positives among the highest-scored 10 %, 20 %, ... 100 % of rows: float[DECILES]."""
        return self.recall(weight, np.arange(1, DECILES + 1) / DECILES)

    def recall(self, weight: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The share of all positives among the highest-scored shares of rows, float[shares]; ties are interpolated."""
        hits, misses = self.curve(weight)
        if not hits[-1]:
            return np.full(len(shares), np.nan)
        taken = hits + misses
        return np.interp(shares * taken[-1], taken, hits) / hits[-1]

    def curve(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight of positives and of negatives at or above each distinct score, highest first, after a zero."""
        return _sums(weight[self._positives])[self._hits], _sums(weight[self._negatives])[self._misses]

    @property
    def distinct(self) -> np.ndarray:
        """The distinct scores, highest first: those of `curve`, which has a zero before them."""
        return self.probability[self._steps]

    def redrawn(self, seed: int, replicates: int = REPLICATES):
        """The weights of each replicate: every user counts 0, 1, 2, ... times."""
        rng = np.random.default_rng(seed)
        for _ in range(replicates):
            weight = self.weight * rng.poisson(1.0, len(self.users))[self.user]
            if weight.any():
                yield weight


Measure = Callable[[LabelledScores, np.ndarray], float]

METRICS: Mapping[str, Measure] = {
    "roc_auc": LabelledScores.roc_auc,
    "average_precision": LabelledScores.average_precision,
    "log_loss": LabelledScores.log_loss,
    "brier": LabelledScores.brier,
    "positive_rate": LabelledScores.rate,
    "mean_probability": LabelledScores.mean_probability,
}
RANKING = {name: METRICS[name] for name in ("roc_auc", "average_precision")}


def estimate(scored: LabelledScores, measures: Mapping[str, Measure] = METRICS, seed: int = 1) -> dict[str, Estimate]:
    """Each measure with its interval."""
    estimates = with_intervals(
        lambda weight: [measure(scored, weight) for measure in measures.values()], scored.weight, scored.redrawn(seed)
    )
    return dict(zip(measures, estimates))


def difference(
    first: LabelledScores, second: LabelledScores, measures: Mapping[str, Measure] = RANKING, seed: int = 1
) -> dict[str, Estimate]:
    """Each measure of `first` minus that of `second`, on the same rows; paired by user."""
    estimates = with_intervals(
        lambda weights: [measure(first, weights[0]) - measure(second, weights[1]) for measure in measures.values()],
        (first.weight, second.weight),
        # The same seed draws the same users: both number them alike, from np.unique.
        zip(first.redrawn(seed), second.redrawn(seed)),
    )
    return dict(zip(measures, estimates))


def with_intervals(measure: Callable[[Any], Sequence[float]], own: Any, redrawn: Iterable) -> list[Estimate]:
    """The measures under the rows' own weights, with intervals from the weights of each replicate."""
    values = measure(own)
    draws = np.array([measure(weight) for weight in redrawn]).reshape(-1, len(values))
    return [_interval(float(value), column) for value, column in zip(values, draws.T)]


def _interval(value: float, draws: np.ndarray) -> Estimate:
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, INTERVAL)
    return Estimate(value, float(low), float(high))


def gain_table(scored: LabelledScores, seed: int = 1) -> list[dict]:
    """The cumulative share of positives and the lift over chance by decile of score, highest first."""
    rows = []
    for decile, gain in enumerate(with_intervals(scored.gains, scored.weight, scored.redrawn(seed)), 1):
        share = decile / DECILES
        rows.append(
            {"share": share, "gain": gain, "lift": Estimate(gain.value / share, gain.low / share, gain.high / share)}
        )
    return rows


def calibration_table(scored: LabelledScores, seed: int = 1, bins: int = CALIBRATION_BINS) -> list[dict]:
    """The mean probability and the observed rate of positives in bins of equally many rows."""
    edges = np.linspace(0, len(scored.labels), bins + 1).astype(int)
    parts = [slice(start, end) for start, end in zip(edges[:-1], edges[1:])]
    parts = [part for part in parts if scored.weight[part].any()]
    observed = with_intervals(
        lambda weight: [_mean(scored.labels[part], weight[part]) for part in parts],
        scored.weight,
        scored.redrawn(seed),
    )
    rows = [
        {"predicted": _mean(scored.probability[part], scored.weight[part]), "seen": rate}
        for part, rate in zip(parts, observed)
    ]
    return rows[::-1]


def thresholds_by_share(scored: LabelledScores, shares: Sequence[float] = SHARES_ACTED_ON) -> tuple[float, ...]:
    """Different thresholds, lowest first, at or above which about these shares of the rows score.

    They are rounded down to three digits, so that each acts on a row at least.
    """
    taken = np.cumsum(scored.weight)
    places = np.minimum(np.searchsorted(taken, np.array(shares) * taken[-1]), len(taken) - 1)
    return tuple(sorted({_rounded_down(value) for value in scored.probability[places].tolist()}))


def _rounded_down(value: float, digits: int = 3) -> float:
    """A number of the interval [0, 1], with at most three digits that are not leading zeros."""
    if value <= 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(value)) - digits + 1)
    rounded = float(f"{value:.{digits}g}")
    return rounded if rounded <= value else float(f"{rounded - unit:.{digits}g}")


def threshold_table(
    scored: LabelledScores, benefit: float, cost: float, thresholds: Sequence[float] | None = None, seed: int = 1
) -> list[dict]:
    """Precision, recall and value per 1,000 events of acting on every score at or above a threshold.

    `benefit` is what a positive acted on is worth, `cost` what each action takes, in the same currency. The thresholds
    are by default those of `thresholds_by_share`, and the one from which acting pays: cost / benefit.
    """
    if thresholds is None:
        pays = {cost / benefit} if benefit > 0 else set()
        thresholds = sorted({*thresholds_by_share(scored), *pays})
    thresholds = [threshold for threshold in thresholds if scored.probability[0] >= threshold]
    worth = scored.labels * benefit - cost

    def measured(weight: np.ndarray) -> list[float]:
        taken, hits, earned = (_sums(weight * each)[ends] for each in (1.0, scored.labels, worth))
        with np.errstate(invalid="ignore"):  # nothing is acted on, or nothing is positive
            figures = hits / taken, hits / (weight @ scored.labels), 1000 * earned / weight.sum()
        return np.stack(figures, axis=1).ravel().tolist()

    decisions = [scored.probability >= threshold for threshold in thresholds]
    ends = [np.count_nonzero(acts) for acts in decisions]  # the rows are sorted by score
    estimates = iter(with_intervals(measured, scored.weight, scored.redrawn(seed)))
    return [
        {
            "threshold": threshold,
            "acted_on": _mean(acts, scored.weight),
            "precision": next(estimates),
            "recall": next(estimates),
            "value": next(estimates),
        }
        for threshold, acts in zip(thresholds, decisions)
    ]


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    """The weighted mean, NaN where nothing has weight. np.average checks so much that it takes twice as long."""
    total = weight.sum()
    return float((values * weight).sum() / total) if total else float("nan")


def _sums(weight: np.ndarray) -> np.ndarray:
    """Of n weights, the sums float64[n + 1] of the first 0, 1, 2, ... n."""
    sums = np.zeros(len(weight) + 1)
    np.cumsum(weight, out=sums[1:])
    return sums
