"""The report of an overload: Markdown, and plots beside it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tools.overload.figures import NO_ANSWER, Figures, Plan, Sample, drained, overload_span, p99_by_window
from tools.trials.plots import write_lines

MIB = 1 << 20
TRENDS = {
    "grows": "clicks arrive faster than the job scores them",
    "holds": "as many clicks are answered as arrive, with a backlog",
    "shrinks": "the job is catching up",
    NO_ANSWER: "(no answer)",
}


def markdown(plan: Plan, figures: Figures, problems: Sequence[str], records: int) -> str:
    hot = f", {plan.hot:.0%} of them of one user" if plan.hot else ""
    lines = [
        f"# {figures.sent_rate / plan.capacity:.1f} times the capacity for {plan.overload_s / 60:g} minutes",
        "",
        f"The capacity is {plan.capacity:,.0f} clicks per second. The normal rate, before and after the overload, is "
        f"{plan.normal:,.0f}. During the overload {figures.sent_rate:,.0f} per second came{hot}.",
        "",
        *(
            ["**What is wrong:**", "", *(f"- {problem}" for problem in problems)]
            if problems
            else [f"Each of {records:,} clicks has exactly one score, with the value of an offline run."]
        ),
        "",
        "| | |",
        "|---|---|",
        f"| scored during the overload | {figures.scored_rate:,.0f} per second |",
        f"| largest lag | {figures.largest_lag:,} clicks |",
        f"| lag drained after | {_seconds(figures.drain_s)} |",
        f"| rate meanwhile | {_rate(figures.drain_rate, plan.capacity)} |",
        f"| p99 within the budget again, after that | {_seconds(figures.recovered_s)} |",
        f"| p99 before, largest, after | {_ms(figures.p99_before_ms)}, {_ms(figures.p99_largest_ms)}, "
        f"{_ms(figures.p99_after_ms)} |",
        *(
            f'| the dashboard: "{TRENDS[trend]}" | from {first:.0f} s to {last:.0f} s after the overload began |'
            for trend, (first, last) in figures.notices.items()
        ),
        "",
        "| memory (RSS) in MiB | before | largest | at the end |",
        "|---|---|---|---|",
    ]
    for name, largest in sorted(figures.rss_largest.items()):
        before, after = figures.rss_before.get(name, 0), figures.rss_after.get(name, 0)
        lines.append(f"| {name} | {before / MIB:,.0f} | {largest / MIB:,.0f} | {after / MIB:,.0f} |")
    lines += ["", "![Lag in clicks](lag.svg)", "", "![p99 latency in seconds](p99.svg)", "", "![Memory](memory.svg)"]
    return "\n".join(lines) + "\n"


def write_plots(
    directory: Path, samples: Sequence[Sample], plan: Plan, sent_ms: np.ndarray, received_ms: np.ndarray
) -> None:
    began, ended = overload_span(samples, plan)
    start_s = samples[0].at_s
    minutes = [(sample.at_s - start_s) / 60 for sample in samples]
    end = minutes[-1 if ended is None else ended]
    spans = {"overload": (minutes[began], end)}
    empty = drained(samples, plan)
    if empty is not None:
        spans["drain"] = (end, minutes[empty])
    write_lines(directory / "lag.svg", "Lag", "clicks", {"lag": (minutes, [sample.lag for sample in samples])}, spans)
    ends_s, p99 = p99_by_window(received_ms - sent_ms, received_ms / 1000)
    shown = ends_s >= start_s
    in_minutes = (ends_s[shown] - start_s) / 60
    write_lines(directory / "p99.svg", "p99 latency", "s", {"p99": (in_minutes, p99[shown] / 1000)}, spans)
    memory = {
        name: (minutes, [sample.rss.get(name, 0) / MIB for sample in samples]) for name in sorted(samples[-1].rss)
    }
    write_lines(directory / "memory.svg", "Memory", "MiB", memory, spans)


def _seconds(value: float | None) -> str:
    return "not within the run" if value is None else f"{value:.0f} s"


def _ms(value: float | None) -> str:
    return "no data" if value is None or np.isnan(value) else f"{value:,.0f} ms"


def _rate(value: float | None, capacity: float) -> str:
    return "no data" if value is None else f"{value:,.0f} per second, {value / capacity:.2f} of the capacity"
