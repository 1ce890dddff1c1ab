"""An inspection as an HTML page of its own, with plots; it works offline."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.data.sources import DAY_MS
from training.inspection.inspection import Inspection
from training.inspection.text import facts, problems
from udfs.contracts.packed_events import EVENT_KINDS

TEMPLATE = "inspection.html"
KINDS_DRAWN = 8

mpl.rcParams["svg.hashsalt"] = "purchase-intent"  # makes equal figures equal bytes


def page(found: Inspection, title: str) -> str:
    """The HTML of an inspection."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape())
    drawn = (_draw_days, _draw_kinds, _draw_hours, _draw_users) if found.summary.accepted else ()
    return environment.get_template(TEMPLATE).render(
        title=title, facts=facts(found), problems=problems(found), plots=[_plot(draw, found) for draw in drawn]
    )


def _plot(draw: Callable, found: Inspection) -> str:
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    draw(figure.subplots(), found)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _draw_days(axes, found: Inspection) -> None:
    days = np.array(sorted(found.by_day))
    counts = np.stack([found.by_day[day] for day in days.tolist()])
    dates = [datetime.fromtimestamp(day * DAY_MS / 1000, UTC) for day in days.tolist()]
    for kind in _frequent(found):
        axes.plot(dates, np.where(counts[:, kind] > 0, counts[:, kind], np.nan), marker=".", label=EVENT_KINDS[kind])
    axes.set_yscale("log")
    axes.set_title("Events per day (UTC)")
    axes.tick_params(axis="x", rotation=30)
    axes.legend(fontsize="x-small")


def _draw_kinds(axes, found: Inspection) -> None:
    frequent = _frequent(found)[::-1]
    bars = axes.barh([EVENT_KINDS[kind] for kind in frequent], found.kinds[frequent])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.margins(x=0.15)
    axes.set_title("Events by name")


def _draw_hours(axes, found: Inspection) -> None:
    axes.bar(np.arange(24), found.by_hour)
    axes.set_title("Events by local hour")
    axes.set_xlabel("hour; UTC where utc_offset_minutes is missing")


def _draw_users(axes, found: Inspection) -> None:
    counts = np.array(list(found.users.values()))
    edges = np.concatenate([[1], 2 ** np.arange(1, int(np.log2(counts.max())) + 2)])
    axes.stairs(np.histogram(counts, edges)[0], edges, fill=True)
    axes.set_xscale("log")
    axes.set_title("Users by number of events")
    axes.set_xlabel("events of a user")


def _frequent(found: Inspection) -> list[int]:
    order = np.argsort(-found.kinds, kind="stable")[:KINDS_DRAWN]
    return [int(kind) for kind in order if found.kinds[kind]]
