"""Drift of features and scores from training: the Population Stability Index, corrected for chance.

The index of shares p now and q at training is the sum of (p - q) ln(p / q) over the bins (Siddiqi, Credit Risk
Scorecards, 2006). Without drift it is about (1/n + 1/m) times a chi-square variable with one degree of freedom less
than there are bins, for samples of n and m independent rows (Yurdakul and Naranjo, Statistical properties of the
population stability index, Journal of Risk Model Validation 14, 2020): a small sample alone makes it large.

Events are not independent: those of one user are alike, and a few users have many. So chance is measured at training,
in the form of Rao and Scott (JASA 76, 1981; Annals of Statistics 12, 1984): `design_effect` says how much larger the
index is by chance than with independent rows, `degrees_of_freedom` how it is distributed, by Satterthwaite's rule.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from scipy.special import chdtri

from udfs.contracts.outputs import LEVELS, DriftWindow, FeatureDrift, Level

REFERENCE_FILE = "reference.json"
SCORE = "score"  # its name among the features
BINS = 10

#: Cells that rows are counted in: one for each bin, one for each bin's values that training never saw, and missing.
UNSEEN, MISSING = BINS, 2 * BINS
CELLS = 2 * BINS + 1

#: The chance, by the approximation, that any feature of a window without drift is beyond what its level asks for.
FALSE_ALARM = 1e-5

#: Independent rows from which on a feature is judged: five in each decile, as Cochran (Biometrics 10, 1954) asks for.
JUDGED_ROWS = 5 * BINS


Share = Annotated[float, Meta(ge=0, le=1)]


class Distribution(msgspec.Struct, frozen=True, dict=True):
    """The distribution of a feature or score at training; a value v is in bin searchsorted(edges, v, side="right")."""

    edges: Annotated[list[float], Meta(max_length=BINS - 1)]
    shares: Annotated[list[Share], Meta(min_length=1, max_length=BINS)]  # of the known values
    missing: Share
    low: float | None  # the smallest known value; None without any
    high: float | None
    rows: Annotated[int, Meta(ge=1)]
    design_effect: Annotated[float, Meta(ge=1)]
    degrees_of_freedom: Annotated[float, Meta(ge=1)]
    noise: Annotated[float, Meta(ge=0)]  # the index that the reference's own rows make by chance
    values: list[float] | None = None  # of a code: the values seen at training

    def __post_init__(self):
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(
                f"expected one more share than edges, got {len(self.shares)} shares and {len(self.edges)} edges"
            )

    def cells(self, values: np.ndarray) -> np.ndarray:
        """The cell of each of n values float[n], NaN for missing: uint8[n]."""
        values = values.astype(np.float64)
        missing = np.isnan(values)
        if self.values is not None:
            seen = np.isin(values, self.values)
        elif self.low is None:
            seen = missing
        else:
            seen = (values >= self.low) & (values <= self.high)
        bins = np.searchsorted(self._edges, values, side="right")
        return np.where(missing, MISSING, np.where(seen, bins, bins + UNSEEN)).astype(np.uint8)

    def categories(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The categories that the index compares, as counts now and shares at training.

        They are the bins, missing values and, for a code, unseen values. A measured value outside the range of training
        is in the first or last bin: there is always a largest one, and a single busy user can exceed it.
        """
        known = len(self.shares)
        seen, unseen = counts[:known], counts[UNSEEN : UNSEEN + known]
        shares = np.array(self.shares) * (1 - self.missing)
        if self.values is None:
            return np.append(seen + unseen, counts[MISSING]), np.append(shares, self.missing)
        return np.append(seen, [unseen.sum(), counts[MISSING]]), np.append(shares, [0.0, self.missing])

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.array(self.edges)


class Reference(msgspec.Struct, frozen=True, dict=True):
    """The content of a bundle's reference.json: the features in the order of the model's columns, and the score."""

    features: Annotated[dict[str, Distribution], Meta(min_length=1)]
    score: Distribution

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """The distributions of the features, followed by that of the score."""
        return {**self.features, SCORE: self.score}

    def cells(self, features: np.ndarray, score: np.ndarray) -> np.ndarray:
        """The cells of feature rows float32[n, k] and their scores float32[n]: uint8[n, k + 1]."""
        columns = [*features.T, score]
        return np.stack([known.cells(values) for known, values in zip(self.distributions.values(), columns)], 1)


class NewestDrift:
    """The drift of the newest window as numbers for metrics: the worst of its models."""

    def __init__(self) -> None:
        self.level = 0  # as in LEVELS: 0 stable, 1 watch, 2 alarm
        self.moved = 0  # features at watch or alarm
        self._window_end = 0

    def note(self, drift: DriftWindow) -> None:
        """Record a window; windows older than the newest one are ignored."""
        if drift.window_end < self._window_end:
            return
        is_same = drift.window_end == self._window_end
        self.level = max(LEVELS.index(drift.level), self.level if is_same else 0)
        self.moved = max(len(drift.moved), self.moved if is_same else 0)
        self._window_end = drift.window_end


@dataclass(frozen=True)
class Thresholds:
    """The corrected index at which each level begins, and the features whose level is always stable."""

    watch: float
    alarm: float
    unwatched: Collection[str] = ()


def count_cells(cells: np.ndarray) -> np.ndarray:
    """Count the rows uint8[n, k] in each cell of each of k features: int64[k, CELLS]."""
    width = cells.shape[1]
    places = cells + np.arange(width) * CELLS
    return np.bincount(places.ravel(), minlength=width * CELLS).reshape(width, CELLS)


def stability_index(p: np.ndarray, q: np.ndarray) -> float:
    """The Population Stability Index of two distributions float[bins], which have no empty bins.

    >>> round(stability_index(np.array([0.5, 0.5]), np.array([0.6, 0.4])), 5)
    0.04055
    """
    return float(((p - q) * np.log(p / q)).sum())


@dataclass(frozen=True)
class FeatureComparison:
    """The index, its mean and upper quantile by chance, and the number of independent rows the sample is worth."""

    index: float = 0.0
    expected: float = 0.0
    quantile: float = 0.0
    independent_rows: float = 0.0

    @property
    def corrected(self) -> float:
        return max(0.0, self.index - self.expected)

    def level(self, thresholds: Thresholds) -> Level:
        """The drift level: stable unless there are enough rows and the index exceeds what chance explains."""
        is_chance = self.index <= self.quantile or self.independent_rows < JUDGED_ROWS
        if is_chance or self.corrected < thresholds.watch:
            return "stable"
        return "alarm" if self.corrected >= thresholds.alarm else "watch"


def compare(known: Distribution, counts: np.ndarray, chance: float) -> FeatureComparison:
    """Compare counts int64[CELLS], not all 0, with training; `chance` is the probability of exceeding the quantile.

    Each bin gets half an independent row on both sides, so that none is empty; bins empty on both sides are left out.
    """
    now, then = known.categories(counts)
    used = (now > 0) | (then > 0)
    bins, rows = int(used.sum()), int(counts.sum())
    if bins < 2:
        return FeatureComparison()
    independent = rows / known.design_effect
    p = _smoothed(now[used] / rows, independent)
    q = _smoothed(then[used], known.rows / known.design_effect)
    expected = (bins - 1) / independent + known.noise
    degrees = min(known.degrees_of_freedom, bins - 1)
    quantile = expected * float(chdtri(degrees, chance)) / degrees
    return FeatureComparison(stability_index(p, q), expected, quantile, independent)


def _smoothed(shares: np.ndarray, independent_rows: float) -> np.ndarray:
    return (shares * independent_rows + 0.5) / (independent_rows + len(shares) / 2)


def window_drift(
    window: tuple[int, int],
    model_version: str,
    reference: Reference,
    counts: np.ndarray,
    labels: tuple[int, int],
    thresholds: Thresholds,
) -> DriftWindow:
    """The drift record of a window [start, end) in ms.

    `counts` int64[features + 1, CELLS] are of at least one row; `labels` are the numbers of labels and of positives.
    """
    watched = [name for name in reference.distributions if name not in thresholds.unwatched]
    chance = FALSE_ALARM / max(1, len(watched))
    features = []
    for (name, known), feature_counts in zip(reference.distributions.items(), counts):
        compared = compare(known, feature_counts, chance)
        level = compared.level(thresholds) if name in watched else "stable"
        features.append(_feature_drift(name, known, feature_counts, compared.corrected, level))
    moved = sorted((feature for feature in features if feature.level != "stable"), key=lambda feature: -feature.psi)
    evaluated, positive = labels
    return DriftWindow(
        window_start=window[0],
        window_end=window[1],
        model_version=model_version,
        rows=int(counts[0].sum()),
        level=max((feature.level for feature in features), key=LEVELS.index),
        score_psi=features[-1].psi,
        label_rate=positive / evaluated if evaluated else None,
        moved=[feature.name for feature in moved],
        features=features,
    )


def _feature_drift(name: str, known: Distribution, counts: np.ndarray, psi: float, level: Level) -> FeatureDrift:
    rows = int(counts.sum())
    unseen = counts[UNSEEN:MISSING]
    in_bins = (counts[:UNSEEN] + unseen)[: len(known.shares)]
    return FeatureDrift(
        name=name,
        psi=psi,
        level=level,
        missing=int(counts[MISSING]) / rows,
        unseen=int(unseen.sum()) / rows,
        shares=(in_bins / max(1, in_bins.sum())).tolist(),
    )
