"""Drift of features and scores from training: the Population Stability Index, corrected for chance.

The index of shares p now and q at training is the sum of (p - q) ln(p / q) over the bins (Siddiqi, Credit Risk
Scorecards, 2006). Without drift it is about (1/n + 1/m) times a chi-square variable with one degree of freedom less
than there are bins, for samples of n and m independent rows (Yurdakul and Naranjo, Statistical properties of the
population stability index, Journal of Risk Model Validation 14, 2020): a small sample alone makes it large.

Events are not independent: those of one user are alike, and a few users have many. So chance is measured at training,
in the form of Rao and Scott (JASA 76, 1981; Annals of Statistics 12, 1984): `design_effect` says how much larger the
index is by chance than with independent rows, `degrees_of_freedom` how it is distributed, by Satterthwaite's rule. Both
grow with the window, which has more rows of each user. `rhythm` is what the hours of the day add to that.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from scipy.special import betaincinv, chdtri

from udfs.contracts.outputs import LEVELS, DriftWindow, FeatureDrift, Level, Unwatched

REFERENCE_FILE = "reference.json"
SCORE = "score"  # its name among the features
BINS = 10  # of a number without frequent values
MAX_BINS = 24

#: Cells that rows are counted in: one for each bin, and one each for numbers below and above the range of training, for
#: codes that training never saw and numbers far from its range, and for missing values.
BELOW, ABOVE, NEW, MISSING = range(MAX_BINS, MAX_BINS + 4)
CELLS = MAX_BINS + 4

#: A number is far from the range of training if it is further away than this many times the width of the range. Even
#: the busiest user is nearer; another unit is not.
FAR = 10

#: The chance, by the approximation, that any feature of a window without drift is beyond what its level asks for.
FALSE_ALARM = 1e-5

#: Independent rows from which on a feature is judged: two in each decile. With fewer, the quantile is not to be relied
#: on (Cochran, Biometrics 10, 1954, asks for one to five; empty bins are smoothed here).
JUDGED_ROWS = 2 * BINS

#: The chance that a window has a user as large as the largest of training, or a new value of a user of usual size.
#: That it has several is as many times as improbable.
LARGE_USER = 0.005

#: The index of the most unusual hour of a rhythm, over the mean index of all: of a wave it is 2.
RHYTHM_PEAK = 3


Share = Annotated[float, Meta(ge=0, le=1)]


class Chance(msgspec.Struct, frozen=True, array_like=True):
    """What chance makes of a feature in windows of one length."""

    length_ms: Annotated[int, Meta(gt=0)]
    design_effect: Annotated[float, Meta(ge=1)]
    degrees_of_freedom: Annotated[float, Meta(ge=1)]
    rhythm: Annotated[float, Meta(ge=0)]  # the mean index of such windows at training, had they infinitely many users
    alone: Annotated[float, Meta(ge=0)]  # among very many rows n, a single user made an index of (alone / n)^2
    largest: Annotated[float, Meta(gt=0)]  # the most rows of a user
    usual: Annotated[float, Meta(ge=1)]  # the rows of the user of a row, on average over rows


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
    rows: Annotated[int, Meta(ge=1)]  # events, of which each row of training stands for one or more
    noise: Annotated[float, Meta(ge=0)]  # the index that the reference's own rows make by chance
    noise_degrees: Annotated[float, Meta(ge=1)]  # of freedom, with which training measured how much users differ
    chance: Annotated[list[Chance], Meta(min_length=1)]  # from the shortest window to the longest

    def __post_init__(self):
        if self.values is not None and not self.values:
            raise ValueError("expected a value or more, got none")
        if len(self.shares) != self.bins:
            raise ValueError(f"expected a share for each of {self.bins} bins, got {len(self.shares)}")
        lengths = [chance.length_ms for chance in self.chance]
        if lengths != sorted(set(lengths)):
            raise ValueError(f"expected chance of ever longer windows, got {lengths} ms")

    def categories(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The categories that the index compares, as counts now and shares at training.

        They are the bins, new values and missing ones.
        """
        shares = np.array(self.shares) * (1 - self.missing)
        return np.append(self.in_bins(counts), counts[NEW:]), np.append(shares, [0.0, self.missing])

    def chance_in(self, length_ms: int) -> Chance:
        """What chance makes of windows of this length: that of the measured lengths beside it, interpolated."""
        lengths, *measured = self._measured
        return Chance(length_ms, *(float(np.interp(np.log(length_ms), np.log(lengths), part)) for part in measured))

    @property
    def independent_rows(self) -> float:
        """The number of independent rows that the rows of training are worth."""
        return self.rows / self.chance[-1].design_effect

    @property
    def is_judged(self) -> bool:
        """Whether training had enough independent rows to tell drift from chance."""
        return self.independent_rows >= JUDGED_ROWS

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


def stability_index(p: np.ndarray, q: np.ndarray) -> float:
    """The Population Stability Index of two distributions float[bins], which have no empty bins.

    >>> round(stability_index(np.array([0.5, 0.5]), np.array([0.6, 0.4])), 5)
    0.04055
    """
    return float(((p - q) * np.log(p / q)).sum())


@dataclass(frozen=True)
class FeatureComparison:
    """The index, its mean and upper quantile by chance, and the number of independent rows the sample is worth; and
    whether a bin is empty that training had rows in, too many for chance; and whether there are too many far numbers.
    """

    index: float = 0.0
    expected: float = 0.0
    quantile: float = 0.0
    independent_rows: float = 0.0
    is_gone: bool = False
    far: float = 0.0  # the index of far numbers alone, over its quantile

    @property
    def excess(self) -> float:
        """What is above 1 is beyond chance."""
        return max(self.index / self.quantile if self.quantile else 0.0, self.far)

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

    `probability` is that of exceeding the quantile. Each bin gets half an independent row on both sides, so that none
    is empty; bins empty on both sides are left out.
    """
    now, then = known.categories(counts)
    used = (now > 0) | (then > 0)
    now, then, rows = now[used], then[used], int(counts.sum())
    chance = known.chance_in(length_ms)
    independent = rows / chance.design_effect
    freedom = len(now) - 1
    if not freedom:
        return FeatureComparison(independent_rows=independent)
    p, q = _smoothed(now / rows, independent), _smoothed(then, known.independent_rows)
    noise = freedom / independent + known.noise
    expected = noise + chance.rhythm
    # Patnaik (Biometrika 36, 1949): a chi-square variable that is off centre is about one that is not, with the same
    # mean and variance. Off centre by the rhythm: the hours differ in truth.
    degrees = min(chance.degrees_of_freedom, freedom) * expected**2 / (noise**2 + 2 * noise * chance.rhythm)
    of_many = expected * float(chdtri(degrees, probability)) / degrees
    # The variance itself is measured on some users, of whom a few may be most of it: F instead of chi-square.
    measured = expected * _f_quantile(degrees, known.noise_degrees, probability)
    # These quantiles are those of shares of many users. A few large ones can do more, in the window and at training,
    # among others as they are on average.
    users = float(np.log(probability) / np.log(LARGE_USER))
    share = users * (chance.largest / rows + known.chance[-1].largest / known.rows)
    large = _index_of_large(share, 1 / (1 + (chance.alone / chance.largest) ** 2))
    if (then == 0).any():
        large = max(large, _index_of_large(users * chance.usual / rows, float(q[then == 0].sum())))
    # What is uncertain about the variance is what they do: no more than add to many others in the same direction.
    quantile = max(min(measured, (of_many**0.5 + large**0.5) ** 2), (expected**0.5 + large**0.5) ** 2)
    # Without a bin of share q the index is about q, as in the most unusual hour of a rhythm.
    gone = (now == 0) & (then * independent > -np.log(probability)) & (then > RHYTHM_PEAK * chance.rhythm)
    far = _far(known, int(counts[NEW]) / rows, independent, probability)
    return FeatureComparison(stability_index(p, q), expected, quantile, independent, bool(gone.any()), far)


def _far(known: Distribution, share: float, independent: float, probability: float) -> float:
    """The index of far numbers and all others, over its quantile."""
    if not share or known.low is None:
        return 0.0
    p, q = _smoothed(np.array([share, 1 - share]), independent), _smoothed(np.array([0.0, 1]), known.independent_rows)
    return stability_index(p, q) * independent / float(chdtri(1, probability))


def _index_of_large(share: float, at_training: float) -> float:
    """The index when large users with a share of the rows all have one value, which had a given share at training."""
    if share >= 1:
        return np.inf
    more = share * (1 - at_training)
    return more * float(np.log((at_training + more) / (at_training * (1 - share))))


def _f_quantile(degrees: float, of_variance: float, probability: float) -> float:
    """What a variable with the F distribution exceeds with a probability, however small: `fdtri` takes its complement.

    >>> round(_f_quantile(3, 20, 0.05), 3)
    3.098
    """
    rest = float(betaincinv(of_variance / 2, degrees / 2, probability))
    return of_variance * (1 - rest) / (degrees * rest) if rest else np.inf


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
