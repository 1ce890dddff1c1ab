"""Figures as SVG for pages that work offline, in light and dark, on wide and narrow screens."""

import io
import re
from collections.abc import Callable

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colours that can be read on white and on black.
BLUE, ORANGE, GREEN, GREY = "#3b82c4", "#e07b28", "#3a9d5d", "#8a8a8a"
_INK = "#010203"  # becomes the colour of the page's text
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "purchase-intent",  # makes equal figures equal bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN]),
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
#: Inches around the axes; `left` is for the texts of the y axis.
_BOTTOM, _TOP, _RIGHT = 0.5, 0.1, 0.15
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_GROUP_ID = re.compile(r'<g id="[^"]*">')  # the same in each figure, and nothing refers to it


def svg(draw: Callable[[Axes], None], title: str, width: float = 4.2, height: float = 2.9, left: float = 0.65) -> str:
    """What `draw` draws on axes, as an SVG element; sizes in inches. `title` is for those who can't see it."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes(
            (left / width, _BOTTOM / height, 1 - (left + _RIGHT) / width, 1 - (_BOTTOM + _TOP) / height)
        )
        draw(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True, dpi=144)
    text = file.getvalue()
    text = _GROUP_ID.sub("<g>", _METADATA.sub("", text[text.index("<svg") :]))
    return text.replace(_INK, "currentColor").replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
