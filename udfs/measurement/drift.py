"""Drift of features and scores from training: the Population Stability Index, corrected for chance.

Without drift the index of n rows now and m rows at training is about (1/n + 1/m) times a chi-square variable with one
degree of freedom less than there are bins (Yurdakul and Naranjo, Statistical properties of the population stability
index, Journal of Risk Model Validation 14, 2020): a small sample alone makes it large.

Events are not independent: those of one user are alike, and a few users have many. So chance is measured at training,
in the form of Rao and Scott (JASA 76, 1981; Annals of Statistics 12, 1984): `design_effect` says how much larger the
index is by chance than with independent rows, `degrees_of_freedom` how it is distributed, by Satterthwaite's rule. Both
grow with the window, which has more rows of each user. `rhythm` is what the hours of the day add to that.

The index asks about all bins at once. A drift that shifts all values a little is told earlier by a contrast of the
shares, a component of the index (as of chi-square: Lancaster, Biometrika 36, 1949): the mean of a number, whose bins
have the means of training, and the share of missing values. A contrast has a single degree of freedom, and a design
effect of its own.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from udfs.contracts.outputs import LEVELS, DriftWindow, FeatureDrift, Level, Unwatched
from udfs.measurement.chance import (
    contrast_index,
    index_of_large,
    index_quantile,
    large_users,
    smoothed,
    stability_index,
)

REFERENCE_FILE = "reference.json"
SCORE = "score"  # its name among the features
BINS = 10  # of a number without frequent values
MAX_BINS = 24

#: Cells that rows are counted in: one for each bin, and one each for numbers below and above the range of training, for
#: codes that training never saw and numbers far from its range, and for missing values.
BELOW, ABOVE, NEW, MISSING = range(MAX_BINS, MAX_BINS + 4)
CELLS = MAX_BINS + 4

#: A number is far from the range of training if it is further away than this many times the width of the range. Even
#: the busiest user is nearer; many values in another unit are not.
FAR = 1

#: The chance, by the approximation, that any feature of a window without drift is beyond what its level asks for.
FALSE_ALARM = 1e-5

#: Independent rows from which on a feature is judged: two in each decile. With fewer, the quantile is not to be relied
#: on (Cochran, Biometrics 10, 1954, asks for one to five; empty bins are smoothed here).
JUDGED_ROWS = 2 * BINS

#: The part of a feature's chance of a false alarm that its index has; contrasts and new values share the rest alike.
#: (Bonferroni's inequality holds for unequal parts.) Few drifts are told by the index alone, and a small part of the
#: chance makes its quantile little larger.
INDEX_PART = 0.05

#: The index of the most unusual hour of a rhythm, over the mean index of all: of a wave it is 2.
RHYTHM_PEAK = 3


Share = Annotated[float, Meta(ge=0, le=1)]
#: No shop comes near it, and the squares of much larger numbers would be no numbers.
LARGEST = 10**15
FromZero = Annotated[float, Meta(ge=0, le=LARGEST)]
FromOne = Annotated[float, Meta(ge=1, le=LARGEST)]
Count = Annotated[int, Meta(ge=1, le=LARGEST)]


class Chance(msgspec.Struct, frozen=True, array_like=True):
    """What chance makes of a feature in windows of one length."""

    length_ms: Count
    design_effect: FromOne
    degrees_of_freedom: FromOne
    rhythm: FromZero  # the mean index of such windows at training, had they infinitely many users
    alone: FromZero  # among very many rows n, a single user made an index of (alone / n)^2
    largest: FromOne  # the most rows of a user
    usual: FromOne  # the rows of the user of a row, on average over rows


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """What chance makes of a contrast in windows of one length: as of the index, in Chance."""

    design_effect: FromOne
    rhythm: FromZero
    alone: FromZero


class Contrast(msgspec.Struct, frozen=True, dict=True):
    """What chance makes of a contrast: as of the index, in Distribution; `spreads` are for the lengths of `chance`."""

    noise: FromZero
    noise_degrees: FromOne
    spreads: list[Spread]

    @cached_property
    def measured(self) -> np.ndarray:
        """The parts of the spreads, float64[3, spreads]."""
        return np.array([msgspec.structs.astuple(spread) for spread in self.spreads]).T


class Bins(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The bins of a feature or score.

    A number v is in bin searchsorted(edges, v, side="right"). A code, or a feature that was constant at training, has a
    bin for each of `values`, and one for all of the `rare` ones.
    """

    edges: Annotated[list[float], Meta(max_length=MAX_BINS - 1)] = []
    low: float | None = None  # the smallest known value of a number; None without any
    high: float | None = None
    values: list[float] | None = None
    rare: list[float] = []
    means: list[float] = []  # of a number: the mean of the values of training in each bin

    @property
    def bins(self) -> int:
        return len(self.edges) + 1 if self.values is None else len(self.values) + bool(self.rare)

    def cells(self, values: np.ndarray) -> np.ndarray:
        """The cell of each of n values float[n], NaN for missing: uint8[n]."""
        values = values.astype(np.float64)
        cells = self._cells_of_numbers(values) if self.values is None else self._cells_of_codes(values)
        cells[np.isnan(values)] = MISSING
        return cells

    def _cells_of_numbers(self, values: np.ndarray) -> np.ndarray:
        if self.low is None:
            return np.full(len(values), NEW, np.uint8)
        cells = np.searchsorted(self._edges, values, side="right").astype(np.uint8)
        cells[values < self.low] = BELOW
        cells[values > self.high] = ABOVE
        far = FAR * (self.high - self.low)
        cells[(values < self.low - far) | (values > self.high + far)] = NEW
        return cells

    def _cells_of_codes(self, values: np.ndarray) -> np.ndarray:
        codes, bins = self._codes
        places = np.searchsorted(codes[:-1], values)
        return np.where(codes[places] == values, bins[places], np.uint8(NEW))

    def in_bins(self, counts: np.ndarray) -> np.ndarray:
        """The known values in each bin, of counts int64[CELLS]: int64[bins].

        A number outside the range of training is in the first or last bin: there is always a largest one, and a single
        busy user can exceed it. New values are in none.
        """
        bins = counts[: self.bins].copy()
        bins[0] += counts[BELOW]
        bins[-1] += counts[ABOVE]
        return bins

    def contrast_weights(self, shares: np.ndarray) -> np.ndarray:
        """The weights of the contrasts, given the shares float[bins + 1] of the bins and of missing values at training.

        Returns float64[contrasts, bins + 1]: one for missing values if some are, and one for the mean of a number.
        Missing values do not change the mean, whatever their share.
        """
        weights = []
        if 0 < shares[-1] < 1:
            weights.append(np.append(np.zeros(self.bins), 1.0))
        if self.means and np.count_nonzero(shares[:-1]) > 1:
            means = np.array(self.means)
            means = means / np.abs(means).max()  # squares of the largest and the smallest numbers are no float64
            weights.append(np.append(means - means @ shares[:-1] / shares[:-1].sum(), 0.0))
        return np.reshape(weights, (-1, self.bins + 1))

    @cached_property
    def _edges(self) -> np.ndarray:
        return np.array(self.edges)

    @cached_property
    def _codes(self) -> tuple[np.ndarray, np.ndarray]:
        """The codes seen at training, ascending, and the bin of each, uint8."""
        codes = np.array([*self.values, *self.rare])
        bins = np.minimum(np.arange(len(codes)), len(self.values)).astype(np.uint8)
        order = np.argsort(codes)
        return codes[order], bins[order]


class Distribution(Bins, frozen=True, kw_only=True, dict=True):
    """The distribution of a feature or score at training."""

    shares: Annotated[list[Share], Meta(min_length=1, max_length=MAX_BINS)]  # of the known values, in each bin
    missing: Share
    rows: Count  # events, of which each row of training stands for one or more
    noise: FromZero  # the index that the reference's own rows make by chance
    noise_degrees: FromOne  # of freedom, with which training measured how much users differ
    chance: Annotated[list[Chance], Meta(min_length=1)]  # from the shortest window to the longest
    contrasts: list[Contrast] = []  # by weights; none in the references of earlier releases

    def __post_init__(self):
        if (self.low is None) != (self.high is None):
            raise ValueError(f"expected both of low and high or neither, got {self.low} and {self.high}")
        if self.values is not None and not self.values:
            raise ValueError("expected a value or more, got none")
        if len(self.shares) != self.bins:
            raise ValueError(f"expected a share for each of {self.bins} bins, got {len(self.shares)}")
        if self.means and (len(self.means) != self.bins or not (np.diff(self.means) > 0).all()):
            raise ValueError(f"expected ever larger means of {self.bins} bins, got {self.means}")
        lengths = [chance.length_ms for chance in self.chance]
        if lengths != sorted(set(lengths)):
            raise ValueError(f"expected chance of ever longer windows, got {lengths} ms")
        if self.contrasts and len(self.contrasts) != len(self.weights):
            raise ValueError(f"expected {len(self.weights)} contrasts, got {len(self.contrasts)}")
        if any(len(contrast.spreads) != len(lengths) for contrast in self.contrasts):
            raise ValueError(f"expected spreads of a contrast for each of {len(lengths)} lengths")

    def categories(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The categories that are compared, as counts now and shares at training.

        They are the bins, missing values and new ones.
        """
        return np.append(self.in_bins(counts), counts[[MISSING, NEW]]), np.append(self._shares, 0.0)

    @cached_property
    def weights(self) -> np.ndarray:
        """The weights of the contrasts float64[contrasts, categories]; new values have none."""
        return np.pad(self.contrast_weights(self._shares), ((0, 0), (0, 1)))

    def chance_in(self, length_ms: int) -> Chance:
        """What chance makes of windows of this length: that of the measured lengths beside it, interpolated."""
        lengths, *measured = self._measured
        return Chance(length_ms, *(float(np.interp(np.log(length_ms), np.log(lengths), part)) for part in measured))

    def spread_in(self, contrast: Contrast, length_ms: int) -> Spread:
        """What chance makes of one of the contrasts in windows of this length, interpolated likewise."""
        lengths = np.log(self._measured[0])
        return Spread(*(float(np.interp(np.log(length_ms), lengths, part)) for part in contrast.measured))

    @property
    def independent_rows(self) -> float:
        """The number of independent rows that the rows of training are worth."""
        return self.rows / self.chance[-1].design_effect

    @property
    def is_judged(self) -> bool:
        """Whether training had enough independent rows to tell drift from chance."""
        return self.independent_rows >= JUDGED_ROWS

    @cached_property
    def _shares(self) -> np.ndarray:
        """The shares at training, float64[bins + 1], of the bins and of missing values."""
        return np.append(np.array(self.shares) * (1 - self.missing), self.missing)

    @cached_property
    def _measured(self) -> np.ndarray:
        return np.array([msgspec.structs.astuple(chance) for chance in self.chance]).T


class Reference(msgspec.Struct, frozen=True, dict=True):
    """The content of a bundle's reference.json: the features in the order of the model's columns, and the score."""

    features: Annotated[dict[str, Distribution], Meta(min_length=1)]
    score: Distribution

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """The distributions of the features, followed by that of the score."""
        return {**self.features, SCORE: self.score}

    @property
    def unjudged(self) -> list[str]:
        """The features, and the score, for which training had too few independent rows."""
        return [name for name, known in self.distributions.items() if not known.is_judged]

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


@dataclass(frozen=True)
class FeatureComparison:
    """The index, its mean and upper quantile by chance, and the number of independent rows the sample is worth; and
    whether a bin is empty that training had rows in, too many for chance.
    """

    index: float = 0.0
    expected: float = 0.0
    quantile: float = 0.0
    independent_rows: float = 0.0
    is_gone: bool = False
    beyond: float = 0.0  # the index of a contrast over its quantile, or new values over their most: the largest

    @property
    def excess(self) -> float:
        """What is above 1 is beyond chance."""
        return max(self.index / self.quantile if self.quantile else 0.0, self.beyond)

    @property
    def corrected(self) -> float:
        return max(0.0, self.index - self.expected)

    def level(self, thresholds: Thresholds) -> Level:
        """The drift level: stable unless the index exceeds what chance explains."""
        if self.excess <= 1:
            return "stable"
        if self.is_gone or self.corrected >= thresholds.alarm:
            return "alarm"
        return "watch" if self.corrected >= thresholds.watch else "stable"


def compare(known: Distribution, counts: np.ndarray, length_ms: int, probability: float) -> FeatureComparison:
    """Compare counts int64[CELLS], not all 0, of a window of this length with training.

    `probability` is that of exceeding any of the quantiles. Each bin gets half an independent row on both sides, so
    that none is empty; bins empty on both sides are left out.
    """
    now, then = known.categories(counts)
    used = (now > 0) | (then > 0)
    rows, freedom = int(counts.sum()), np.count_nonzero(used) - 1
    chance = known.chance_in(length_ms)
    independent = rows / chance.design_effect
    if not freedom:
        return FeatureComparison(independent_rows=independent)
    of_others = (1 - INDEX_PART) * probability / (1 + len(known.contrasts))
    # Rows of what training never saw, over those that new users of usual size bring by chance.
    beyond = [now[then == 0].sum() / (large_users(of_others) * chance.usual)]
    for contrast, weights in zip(known.contrasts, known.weights):
        spread = known.spread_in(contrast, length_ms)
        beyond.append(_beyond_of_contrast(known, contrast, spread, weights[used], now[used], then[used], of_others))
    now, then = now[used], then[used]
    p, q = smoothed(now / rows, independent), smoothed(then, known.independent_rows)
    noise = freedom / independent + known.noise
    # Without a bin of share q the index is about q, as in the most unusual hour of a rhythm.
    gone = (now == 0) & (then * independent > -np.log(probability)) & (then > RHYTHM_PEAK * chance.rhythm)
    # That a bin is gone is improbable enough: the index confirms it.
    of_index = probability if gone.any() else INDEX_PART * probability
    users = large_users(of_index)
    share = users * (chance.largest / rows + known.chance[-1].largest / known.rows)
    large = index_of_large(share, 1 / (1 + (chance.alone / chance.largest) ** 2))
    if (then == 0).any():
        large = max(large, index_of_large(users * chance.usual / rows, float(q[then == 0].sum())))
    degrees = min(chance.degrees_of_freedom, freedom)
    quantile = index_quantile(noise, chance.rhythm, degrees, known.noise_degrees, large, of_index)
    return FeatureComparison(
        stability_index(p, q), noise + chance.rhythm, quantile, independent, bool(gone.any()), float(max(beyond))
    )


def _beyond_of_contrast(
    known: Distribution,
    contrast: Contrast,
    spread: Spread,
    weights: np.ndarray,
    now: np.ndarray,
    then: np.ndarray,
    probability: float,
) -> float:
    """The index of a contrast over its quantile, for weights, counts and shares at training of the same categories."""
    rows, at_training = int(now.sum()), contrast.spreads[-1]
    independent = rows / spread.design_effect
    p, q = smoothed(now / rows, independent), smoothed(then, known.rows / at_training.design_effect)
    large = (large_users(probability) * (spread.alone / rows + at_training.alone / known.rows)) ** 2
    noise = 1 / independent + contrast.noise
    quantile = index_quantile(noise, spread.rhythm, 1.0, contrast.noise_degrees, large, probability)
    return contrast_index(weights, p, q) / quantile


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
    probability = FALSE_ALARM / max(1, len(watched))
    features = []
    for (name, known), feature_counts in zip(reference.distributions.items(), counts):
        compared = compare(known, feature_counts, window[1] - window[0], probability)
        features.append(_feature_drift(name, known, feature_counts, compared, thresholds))
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


def _feature_drift(
    name: str, known: Distribution, counts: np.ndarray, compared: FeatureComparison, thresholds: Thresholds
) -> FeatureDrift:
    rows = int(counts.sum())
    present = rows - int(counts[MISSING])
    unwatched = _unwatched(name, known, compared, thresholds)
    return FeatureDrift(
        name=name,
        psi=compared.corrected,
        level="stable" if unwatched else compared.level(thresholds),
        unwatched=unwatched,
        missing=int(counts[MISSING]) / rows,
        unseen=int(counts[BELOW : NEW + 1].sum()) / rows,
        shares=(known.in_bins(counts) / max(1, present)).tolist(),
    )


def _unwatched(name: str, known: Distribution, compared: FeatureComparison, thresholds: Thresholds) -> Unwatched | None:
    """Why a feature has no level in a window; None for one that has."""
    if name in thresholds.unwatched:
        return "setting"
    if not known.is_judged:
        return "training_rows"
    return "window_rows" if compared.independent_rows < JUDGED_ROWS else None
