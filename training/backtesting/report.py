"""The report of a backtest: as text for a terminal, as a web page, and as JSON."""

import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl
import msgspec
import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from matplotlib.figure import Figure

from training.backtesting.earnings import Earnings, EarningsComparison
from training.backtesting.replay import Kind
from training.backtesting.schedule import ScheduledTraining
from training.modeling.metrics import Estimate

TEMPLATE = "backtest.html"
PAGE_FILE, JSON_FILE = "backtest.html", "backtest.json"
NOTES = (
    "Figures in parentheses are 95% confidence intervals from resampling users. Differences are paired: both policies "
    "see the same users.",
    "The intervals are not corrected for the number of comparisons.",
    "What an action changes is not part of a backtest: a conversion may have come without it. Only an experiment "
    "measures that.",
)


@dataclass(frozen=True)
class PolicyResult:
    """What a policy did and earned."""

    name: str
    kind: Kind
    acts_when: str
    threshold: float | None  # of its scores; None: a rule
    acted_on: float  # the share of the events that it decided to act on, before the quiet time
    earnings: Earnings
    per_day: Estimate
    alarm: str | None = None  # why its figures can't be trusted
    trainings: tuple[ScheduledTraining, ...] = ()


@dataclass(frozen=True)
class Backtest:
    """All that the report shows."""

    label: str
    from_ms: int
    to_ms: int
    known_ms: int  # the end of what is known: the earlier one of `to_ms` and the end of the data
    quiet: str
    benefit: float
    cost: float
    events: int  # with a mature label
    immature: int  # events left out, because their horizon had not passed
    positives: int
    users: int
    positive_users: int
    policies: tuple[PolicyResult, ...]
    comparisons: tuple[EarningsComparison, ...]
    warnings: tuple[str, ...] = ()

    @property
    def has_alarm(self) -> bool:
        return any(policy.alarm for policy in self.policies)


def record(result: Backtest) -> bytes:
    """The report as JSON; figures that are not defined are null."""
    return msgspec.json.format(msgspec.json.encode(asdict(result))) + b"\n"


def text(result: Backtest) -> str:
    """The report for a terminal."""
    lines = [*introduction(result), "", *_aligned(_policy_rows(result))]
    for policy in result.policies:
        if policy.alarm:
            lines += ["", f"{policy.name} {policy.alarm}"]
        if policy.trainings:
            lines += ["", f"{policy.name}:", *(f"  {training_text(training)}" for training in policy.trainings)]
    if result.comparisons:
        lines += ["", *map(comparison_text, result.comparisons)]
    return "\n".join(lines)


def introduction(result: Backtest) -> list[str]:
    """What was replayed, what was left out, and what counts."""
    rate = result.positives / result.events
    lines = [
        f"backtest from {time_text(result.from_ms)} to {time_text(result.to_ms)}: {result.events:,} events of "
        f"{result.users:,} users, {rate:.2%} positive, of {result.positive_users:,} users",
        f"positive: {result.label}",
    ]
    if result.immature:
        lines.append(
            f"{result.immature:,} further events are left out: their horizon had not passed by "
            f"{time_text(result.known_ms)}" + (", where the data ends" if result.known_ms < result.to_ms else "")
        )
    lines.append(
        f"a user is acted on at most once within {result.quiet}; an action costs {result.cost:g}, a conversion earns "
        f"{result.benefit:g}, once within the label's horizon"
    )
    return lines


def comparison_text(comparison: EarningsComparison) -> str:
    """What one policy earned more than another one, and whether that is clear."""
    pair = f"{comparison.policy} - {comparison.baseline}"
    why = f": {comparison.why}" if comparison.why else ""
    return f"{pair}: {estimate_text(comparison.difference, '+')}: {comparison.verdict}{why}"


def training_text(training: ScheduledTraining) -> str:
    """What a training of the schedule gave."""
    known = f"{time_text(training.at_ms)}: {training.events:,} events with a mature label"
    return f"{known}: {training.version}" if training.version else f"{known}: no new model: {training.why}"


def estimate_text(estimate: Estimate, sign: str = "") -> str:
    """A sum of money with its interval."""
    value = _money(estimate.value, sign)
    return f"{value} ({_money(estimate.low, sign)} to {_money(estimate.high, sign)})"


def time_text(time_ms: int) -> str:
    """A time in ms since 1970, to the minute.

    >>> time_text(1772323200000)
    '2026-03-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def precision_text(conversions: int, actions: int) -> str:
    """The share of the actions that a conversion followed."""
    return f"{conversions / actions:.1%}" if actions else "–"


def html(result: Backtest) -> bytes:
    """The report as a self-contained page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (introduction, comparison_text, training_text, estimate_text, time_text, precision_text)
    page = environment.get_template(TEMPLATE).render(
        result=result, notes=NOTES, plot=_plot(result), **{function.__name__: function for function in words}
    )
    return page.encode()


def _money(value: float, sign: str = "") -> str:
    rounded = round(value, 2) + 0.0  # no -0.00
    return f"{rounded:{sign},.2f}"


def _policy_rows(result: Backtest) -> Iterator[tuple[str, ...]]:
    yield ("policy", "acts when", "of all events", "actions", "converted", "earned", "per day")
    for policy in result.policies:
        earned = policy.earnings
        yield (
            policy.name + (" (!)" if policy.alarm else ""),
            policy.acts_when,
            f"{policy.acted_on:.2%}",
            f"{earned.actions:,}",
            f"{earned.conversions:,} ({precision_text(earned.conversions, earned.actions)})",
            estimate_text(earned.earned),
            estimate_text(policy.per_day),
        )


def _aligned(rows: Iterator[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(f"{cell:{'<' if place < 2 else '>'}{width}}" for place, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]


def _plot(result: Backtest) -> str:
    """The cumulated earnings by day, as SVG."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for policy in result.policies:
        days = policy.earnings.days
        dates = np.array([day.date for day in days], "datetime64[D]")
        values = [day.cumulated for day in days]
        style = "--" if policy.alarm else "-"
        name = f"{policy.name} (knows the future)" if policy.alarm else policy.name
        axes.plot(dates, [value.value for value in values], style, marker=".", label=name)
        axes.fill_between(dates, [value.low for value in values], [value.high for value in values], alpha=0.2)
    axes.axhline(0, linestyle=":", color="gray")
    axes.set(ylabel="Earned since the first day", title="Cumulated earnings")
    axes.legend()
    figure.autofmt_xdate()
    svg = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "purchase-intent"}):  # makes equal figures equal bytes
        figure.savefig(svg, format="svg", metadata={"Date": None})
    drawn = svg.getvalue()
    return drawn[drawn.index("<svg") :]
