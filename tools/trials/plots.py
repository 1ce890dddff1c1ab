"""Lines over time, as SVG files beside a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from training.reporting.figures import GREY, svg

WIDTH, HEIGHT, LEFT = 8.0, 3.0, 0.85
COLOURS = 3  # of figures.svg, before they repeat
DASHES = ("-", "--", ":", "-.")


def write_lines(
    file: Path,
    title: str,
    unit: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    spans: Mapping[str, tuple[float, float]] | None = None,
) -> None:
    """Write a plot of lines, each with its minutes and values, and with spans in grey, the first one darkest."""

    def draw(axes: Axes) -> None:
        for number, (name, (start, end)) in enumerate((spans or {}).items()):
            axes.axvspan(start, end, color=GREY, alpha=0.3 / (1 + number), lw=0, label=name)
        for number, (name, (minutes, values)) in enumerate(lines.items()):
            axes.plot(minutes, values, DASHES[number // COLOURS % len(DASHES)], lw=1, label=name)
        axes.set_xlabel("minutes")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        if len(lines) + len(spans or {}) > 1:
            axes.legend(fontsize=7, ncols=2)

    file.write_text(svg(draw, title, WIDTH, HEIGHT, LEFT))
