"""How well probabilities predict labels, with intervals: users are drawn anew, as their events are much alike.

Intervals are percentiles of a Poisson bootstrap by user (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13; Hanley and MacGibbon, Creating non-parametric bootstrap samples using Poisson frequencies, 2006).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

REPLICATES = 200
INTERVAL = (2.5, 97.5)  # percentiles: 95 %
DECILES = 10
THRESHOLDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
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
        """Of the normal distribution with this interval."""
        return (self.high - self.low) / (2 * 1.96)

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


class Scored:
    """n scored rows, ready to be measured again and again under other weights.

    labels bool[n], probability float[n], weight float[n], user int64[n].
    """

    def __init__(self, labels: np.ndarray, probability: np.ndarray, weight: np.ndarray, user: np.ndarray):
        order = np.argsort(-probability, kind="stable")
        self.labels, self.weight = labels[order], weight[order].astype(np.float64)
        self.probability = probability[order].astype(np.float64)
        self.users, self.user = np.unique(user[order], return_inverse=True)
        # Ties are one step of the curve: scores that are equal can't be told apart.
        self._steps = np.append(np.flatnonzero(np.diff(self.probability)), len(order) - 1)
        clipped = np.clip(self.probability, _TINY, 1 - _TINY)
        self._log_losses = -np.where(self.labels, np.log(clipped), np.log1p(-clipped))
        self._squares = (self.probability - self.labels) ** 2

    def roc_auc(self, weight: np.ndarray) -> float:
        """The chance that a positive scores above a negative, ties counting half."""
        hits, misses = self._curve(weight)
        if not hits[-1] or not misses[-1]:
            return float("nan")
        return float(np.trapezoid(np.append(0, hits), np.append(0, misses)) / (hits[-1] * misses[-1]))

    def roc_auc_of_all(self) -> float:
        """The AUC under the rows' own weights."""
        return self.roc_auc(self.weight)

    def average_precision(self, weight: np.ndarray) -> float:
        """The sum of precision times the recall gained, over thresholds (as scikit-learn has it)."""
        hits, misses = self._curve(weight)
        if not hits[-1]:
            return float("nan")
        taken = hits + misses
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        return float((np.diff(hits, prepend=0) * precision).sum() / hits[-1])

    def log_loss(self, weight: np.ndarray) -> float:
        return float(np.average(self._log_losses, weights=weight))

    def brier(self, weight: np.ndarray) -> float:
        """The mean squared error of the probability (Brier, Verification of forecasts, 1950)."""
        return float(np.average(self._squares, weights=weight))

    def rate(self, weight: np.ndarray) -> float:
        return float(np.average(self.labels, weights=weight))

    def mean_probability(self, weight: np.ndarray) -> float:
        return float(np.average(self.probability, weights=weight))

    def gains(self, weight: np.ndarray) -> np.ndarray:
        """The share of all positives among the highest-scored 10 %, 20 %, ... 100 % of rows: float[DECILES]."""
        hits, misses = self._curve(weight)
        taken = np.append(0, hits + misses)
        wanted = np.arange(1, DECILES + 1) / DECILES * taken[-1]
        return np.interp(wanted, taken, np.append(0, hits)) / hits[-1] if hits[-1] else np.full(DECILES, np.nan)

    def _curve(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits = np.cumsum(np.where(self.labels, weight, 0.0))[self._steps]
        misses = np.cumsum(np.where(self.labels, 0.0, weight))[self._steps]
        return hits, misses

    def redrawn(self, seed: int, replicates: int = REPLICATES):
        """The weights of each replicate: every user counts 0, 1, 2, ... times."""
        rng = np.random.default_rng(seed)
        for _ in range(replicates):
            weight = self.weight * rng.poisson(1.0, len(self.users))[self.user]
            if weight.any():
                yield weight


METRICS: Mapping[str, Callable[[Scored, np.ndarray], float]] = {
    "roc_auc": Scored.roc_auc,
    "average_precision": Scored.average_precision,
    "log_loss": Scored.log_loss,
    "brier": Scored.brier,
    "positive_rate": Scored.rate,
    "mean_probability": Scored.mean_probability,
}


def estimate(
    scored: Scored, measures: Mapping[str, Callable[[Scored, np.ndarray], float]] = METRICS, seed: int = 1
) -> dict[str, Estimate]:
    """Each measure with its interval."""
    draws = [[measure(scored, weight) for measure in measures.values()] for weight in scored.redrawn(seed)]
    return {
        name: _interval(measure(scored, scored.weight), np.array([draw[column] for draw in draws]))
        for column, (name, measure) in enumerate(measures.items())
    }


def difference(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, weight: np.ndarray, user: np.ndarray, seed: int = 1
) -> dict[str, Estimate]:
    """How much better `first` is than `second` on the same rows, for AUC and average precision; paired by user."""
    one, other = Scored(labels, first, weight, user), Scored(labels, second, weight, user)
    result = {}
    for name in ("roc_auc", "average_precision"):
        measure = METRICS[name]
        # The same seed draws the same users: both number them alike, from np.unique.
        draws = [
            measure(one, mine) - measure(other, others) for mine, others in zip(one.redrawn(seed), other.redrawn(seed))
        ]
        result[name] = _interval(measure(one, one.weight) - measure(other, other.weight), np.array(draws))
    return result


def _interval(value: float, draws: np.ndarray) -> Estimate:
    defined = draws[~np.isnan(draws)]
    if not defined.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, INTERVAL)
    return Estimate(value, float(low), float(high))


def gain_table(scored: Scored, seed: int = 1) -> list[dict]:
    """By decile of score, highest first: the share of positives reached so far, and the lift over chance."""
    gains = scored.gains(scored.weight)
    draws = np.array([scored.gains(weight) for weight in scored.redrawn(seed)])
    rows = []
    for decile in range(DECILES):
        share = (decile + 1) / DECILES
        gain = _interval(float(gains[decile]), draws[:, decile])
        rows.append(
            {"share": share, "gain": gain, "lift": Estimate(gain.value / share, gain.low / share, gain.high / share)}
        )
    return rows


def calibration_table(scored: Scored, seed: int = 1, bins: int = CALIBRATION_BINS) -> list[dict]:
    """Bins of equally many rows: the mean probability, and the rate of positives that was seen."""
    edges = np.linspace(0, len(scored.labels), bins + 1).astype(int)
    weights = list(scored.redrawn(seed))
    rows = []
    for start, end in zip(edges[:-1], edges[1:]):
        part = slice(start, end)
        if start == end or not scored.weight[part].any():
            continue
        draws = [np.average(scored.labels[part], weights=w[part]) for w in weights if w[part].any()]
        seen = float(np.average(scored.labels[part], weights=scored.weight[part]))
        predicted = float(np.average(scored.probability[part], weights=scored.weight[part]))
        rows.append({"predicted": predicted, "seen": _interval(seen, np.array(draws))})
    return rows[::-1]


def threshold_table(scored: Scored, benefit: float, cost: float, thresholds=THRESHOLDS, seed: int = 1) -> list[dict]:
    """What acting on every score at or above a threshold brings, for each 1,000 events.

    `benefit` is what a positive acted on is worth, `cost` what each action takes, in the same currency.
    """
    weights = list(scored.redrawn(seed))
    rows = []
    for threshold in thresholds:
        acts = scored.probability >= threshold

        def value(weight, acts=acts):
            return float(1000 * np.average(acts * (scored.labels * benefit - cost), weights=weight))

        def precision(weight, acts=acts):
            return float(np.average(scored.labels[acts], weights=weight[acts])) if weight[acts].any() else float("nan")

        def recall(weight, acts=acts):
            hits = weight * scored.labels
            return float(hits[acts].sum() / hits.sum()) if hits.any() else float("nan")

        row = {"threshold": threshold, "acted_on": float(np.average(acts, weights=scored.weight))}
        for name, measure in (("precision", precision), ("recall", recall), ("value", value)):
            row[name] = _interval(measure(scored.weight), np.array([measure(weight) for weight in weights]))
        rows.append(row)
    return rows
