"""The report's plots: from data of curves to figures. What has no data is a sentence instead of a figure."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, PercentFormatter
from scipy.special import expit

from training.evaluation.learning_curve import LearningCurve
from training.modeling.metrics import Estimate
from training.reporting.curves import Attributions, Band, Histogram, NoData
from training.reporting.figures import BLUE, GREY, ORANGE, svg
from training.reporting.recommendation_text import NAMES
from training.reporting.segments import Segment

_LOW_TO_HIGH = LinearSegmentedColormap.from_list("low to high", ["#2f74c0", "#a05fb4", "#e0483e"])
_WIDE_RANGE = 100  # values above it are drawn on a logarithmic axis
_LONG_NAME = 28


def plot(title: str, data: Any, draw: Callable[[Axes, Any], None], note: str = "", **size: float) -> str:
    """A figure with its caption, as HTML; of NoData, the sentence that says why there is none."""
    if isinstance(data, NoData):
        return f'<p class="no-data"><strong>{escape(title)}.</strong> No data: {escape(data.why)}.</p>'
    picture = svg(lambda axes: draw(axes, data), escape(title), **size)
    return f"<figure><figcaption><strong>{escape(title)}.</strong> {escape(note)}</figcaption>{picture}</figure>"


def draw_bands(axes: Axes, bands: Sequence[tuple[str, Band]]) -> None:
    """Curves with their intervals, by name."""
    for name, band in bands:
        axes.plot(band.x, band.value, label=name)
        axes.fill_between(band.x, band.low, band.high, alpha=0.2, linewidth=0)
    if len(bands) > 1:
        axes.legend()


def draw_roc(axes: Axes, bands: Sequence[tuple[str, Band]]) -> None:
    draw_bands(axes, bands)
    axes.plot([0, 1], [0, 1], linestyle=":", color=GREY)
    axes.set(xlabel="False positive rate", ylabel="True positive rate (recall)", xlim=(0, 1), ylim=(0, 1.02))


def draw_precision_recall(axes: Axes, bands: Sequence[tuple[str, Band]]) -> None:
    draw_bands(axes, bands)
    axes.axhline(bands[0][1].chance, linestyle=":", color=GREY)
    axes.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, None))


def draw_gain(axes: Axes, gains: Sequence[dict]) -> None:
    _deciles(axes, [0, *(row["share"] for row in gains)], [Estimate(0, 0, 0), *(row["gain"] for row in gains)])
    axes.plot([0, 1], [0, 1], linestyle=":", color=GREY)
    axes.set(xlabel="Events acted on", ylabel="Positives reached")
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))


def draw_lift(axes: Axes, gains: Sequence[dict]) -> None:
    _deciles(axes, [row["share"] for row in gains], [row["lift"] for row in gains])
    axes.axhline(1, linestyle=":", color=GREY)
    axes.set(xlabel="Events acted on", ylabel="Lift", ylim=(0, None))


def _deciles(axes: Axes, shares: Sequence[float], figures: Sequence[Estimate]) -> None:
    axes.plot(shares, [one.value for one in figures], marker="o", markersize=3)
    axes.fill_between(shares, [one.low for one in figures], [one.high for one in figures], alpha=0.2, linewidth=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))


def draw_calibration(axes: Axes, rows: Sequence[dict]) -> None:
    predicted = [row["predicted"] for row in rows]
    _with_intervals(axes, predicted, [row["seen"] for row in rows], BLUE)
    top = max([*predicted, *(row["seen"].high for row in rows)])
    axes.plot([0, top], [0, top], linestyle=":", color=GREY)
    axes.set(xlabel="Mean score", ylabel="Observed positive rate")


def draw_scores(axes: Axes, found: Histogram) -> None:
    for name, shares, color in (("negative", found.negatives, GREY), ("positive", found.positives, ORANGE)):
        axes.stairs(shares, found.edges, fill=True, alpha=0.45, color=color, label=name)
    ticks = np.linspace(found.edges[0], found.edges[-1], 6)
    axes.set_xticks(ticks, [f"{expit(tick):.2g}" for tick in ticks])
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.set(xlabel="Score (scale of the logit)", ylabel="Share of the class")
    axes.legend()


def draw_learning(axes: Axes, curve: LearningCurve) -> None:
    for number, (model, points) in enumerate(curve.points.items()):
        color = (BLUE, ORANGE)[number]
        rows = [point.rows * (1 + 0.02 * number) for point in points]  # intervals beside each other
        name = NAMES.get(model, model)
        _with_intervals(axes, rows, [point.held_out for point in points], color, f"{name}, held-out users")
        axes.plot(rows, [point.seen for point in points], "--", color=color, label=f"{name}, training users")
    axes.set(xlabel="Training events", ylabel="AUC", xlim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.legend(fontsize=7)


def draw_periods(axes: Axes, periods: Sequence[Segment]) -> None:
    known = [(place, period) for place, period in enumerate(periods) if period.metrics]
    places = [place for place, _ in known]
    _with_intervals(axes, places, [period.metrics["roc_auc"] for _, period in known], BLUE)
    axes.set_xticks(range(len(periods)), [period.name[5:] for period in periods], rotation=45, fontsize=7)
    axes.set(ylabel="AUC", xlim=(-0.5, len(periods) - 0.5))


def _with_intervals(axes: Axes, x: Sequence[float], figures: Sequence[Estimate], color: str, name: str = "") -> None:
    values = np.array([one.value for one in figures])
    reach = np.array([(one.value - one.low, one.high - one.value) for one in figures]).reshape(-1, 2).T
    # An interval that is not defined leaves its point; a mean may lie outside percentiles by a rounding error.
    axes.errorbar(
        x, values, np.maximum(np.nan_to_num(reach), 0), marker="o", markersize=3, capsize=2, color=color, label=name
    )


def draw_importance(axes: Axes, importance: Sequence[tuple[str, float]]) -> None:
    axes.barh([_short(name) for name, _ in importance[::-1]], [drop for _, drop in importance[::-1]], color=BLUE)
    axes.tick_params(axis="y", labelsize=7)
    axes.set(xlabel="AUC drop when shuffled")


def draw_beeswarm(axes: Axes, found: Attributions) -> None:
    """A point for each row and feature: its contribution, and by colour where its value ranks among all."""
    for place, added, values in zip(range(len(found.names))[::-1], found.added.T, found.values.T):
        heights, ranks, is_known = place + spread(added), value_ranks(values), ~np.isnan(values)
        axes.scatter(added[~is_known], heights[~is_known], s=3, c=GREY, linewidths=0, rasterized=True)
        axes.scatter(
            added[is_known],
            heights[is_known],
            s=3,
            c=ranks[is_known],
            cmap=_LOW_TO_HIGH,
            vmin=0,
            vmax=1,
            linewidths=0,
            rasterized=True,
        )
    axes.axvline(0, linestyle=":", color=GREY)
    axes.set_yticks(range(len(found.names)), [_short(name) for name in found.names[::-1]], fontsize=8)
    axes.set(xlabel="Contribution to the logit", ylim=(-0.6, len(found.names) - 0.4))


def spread(values: np.ndarray, bins: int = 80) -> np.ndarray:
    """Heights float64[n], within 0.4 of 0, at which points at the values float[n] hide each other least."""
    low, high = values.min(), values.max()
    bin_of = np.zeros(len(values), int) if low == high else ((values - low) / (high - low) * bins).astype(int)
    order = np.argsort(bin_of, kind="stable")
    _, first, counts = np.unique(bin_of[order], return_index=True, return_counts=True)
    number = np.arange(len(values)) - np.repeat(first, counts)  # within the bin: 0, 1, 2, ... go to 0, 1, -1, 2, ...
    heights = np.empty(len(values))
    heights[order] = (number + 1) // 2 * np.where(number % 2, 1, -1)
    return heights * 0.8 / max(counts.max(), 20)


def value_ranks(values: np.ndarray) -> np.ndarray:
    """The share of known values below each, halving ties: float64[n] from 0 to 1; NaN where a value is missing."""
    known = np.sort(values[~np.isnan(values)])
    ends = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
    return np.where(np.isnan(values), np.nan, ends / (2 * max(len(known), 1)))


def draw_dependence(axes: Axes, points: tuple[str, np.ndarray, np.ndarray]) -> None:
    """The contribution of one feature by its value; missing values are a line at their mean contribution."""
    name, values, added = points
    is_known = ~np.isnan(values)
    axes.scatter(values[is_known], added[is_known], s=5, c=BLUE, alpha=0.5, linewidths=0, rasterized=True)
    axes.axhline(0, linestyle=":", color=GREY)
    if not is_known.all():
        share = 1 - is_known.mean()
        axes.axhline(added[~is_known].mean(), color=ORANGE, label=f"missing ({share:.0%})")
        axes.legend()
    if is_known.any() and np.abs(values[is_known]).max() > _WIDE_RANGE:
        axes.set_xscale("symlog")
        if values[is_known].min() >= 0:
            axes.set_xlim(left=-0.2)  # below it there would be as much room as above
    axes.set(xlabel=_short(name), ylabel="Contribution")


def _short(name: str) -> str:
    return name if len(name) <= _LONG_NAME else name[: _LONG_NAME - 1] + "…"
