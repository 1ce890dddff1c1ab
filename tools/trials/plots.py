"""Lines over time, as SVG files beside a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from training.reporting.figures import svg

WIDTH, HEIGHT = 7.0, 2.6


def write_lines(
    file: Path,
    title: str,
    unit: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Write a plot of lines, each with its minutes and values, and with spans of minutes in grey."""

    def draw(axes: Axes) -> None:
        for name, (start, end) in (spans or {}).items():
            axes.axvspan(start, end, color="#8a8a8a", alpha=0.2, lw=0, label=name)
        for name, (minutes, values) in lines.items():
            axes.plot(minutes, values, lw=1, label=name)
        axes.set_xlabel("minutes")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        if len(lines) + len(spans or {}) > 1:
            axes.legend(fontsize=7, ncols=2)

    file.write_text(svg(draw, title, WIDTH, HEIGHT))
