"""The report of a soak: a verdict for each series, the quarters of an hour, and plots."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tools.soak.series import Row, all_series, hours_of, p99_by_block, percentile
from tools.soak.slopes import Slope, block_means, slope
from tools.trials.plots import write_lines

PLOTS = {
    "rss": ("Memory", "MiB"),
    "heap": ("Heap in use", "MiB"),
    "threads": ("Threads", "threads"),
    "handles": ("File handles", "handles"),
}


def slopes_of(rows: Sequence[Row], block_hours: float, warm_up_hours: float) -> dict[str, tuple[str, Slope | None]]:
    """Unit and slope of each series, after the warm-up."""
    rows = [row for row in rows if row.at_s - rows[0].at_s >= warm_up_hours * 3600]
    if not rows:
        return {}
    hours = hours_of(rows)
    found = {"p99 latency": ("ms", slope(*p99_by_block(rows, block_hours)))}
    for name, (unit, values) in all_series(rows).items():
        found[name] = (unit, slope(*block_means(hours, values, block_hours)))
    return found


def markdown(rows: Sequence[Row], done: Mapping[str, str], block_hours: float, warm_up_hours: float) -> str:
    """`done` is what else there is to say of the run: name and value."""
    hours = float(hours_of(rows)[-1])
    slopes = slopes_of(rows, block_hours, warm_up_hours)
    verdicts = [found.verdict if found else "no data" for _, found in slopes.values()]
    tally = ", ".join(f"{verdicts.count(word)} {word}" for word in ("flat", "grows", "falls", "no data"))
    lines = [
        f"# {hours:.2f} hours",
        "",
        *(f"- {name}: {value}" for name, value in done.items()),
        "",
        f"Of {len(slopes)} series: {tally}. A series is flat when the 95% interval of its slope holds 0. The slope is "
        f"that of a regression over means of {block_hours * 60:g} minutes, after a warm-up of {warm_up_hours * 60:g} "
        "minutes. Neighbouring samples are alike; such means are nearly independent.",
        "",
        "| series | mean | slope per hour | 95% interval | verdict |",
        "|---|---|---|---|---|",
    ]
    for name, (unit, found) in slopes.items():
        if found is None:
            lines.append(f"| {name} | | | | no data |")
            continue
        lines.append(
            f"| {name} | {found.mean:,.1f} {unit} | {found.per_hour:+,.2f} | "
            f"{found.low:+,.2f} to {found.high:+,.2f} | {found.verdict} |"
        )
    lines += [
        "",
        "| from minute | scores | p50 | p99 | largest lag | state | checkpoint |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _blocks(rows, block_hours)
    lines += ["", *(f"![{title}]({field}.svg)" for field, (title, _) in PLOTS.items())]
    lines += ["![p99 latency](p99.svg)", "![State and checkpoints](state.svg)"]
    return "\n".join(lines) + "\n"


def write_plots(directory: Path, rows: Sequence[Row]) -> None:
    minutes = hours_of(rows) * 60
    series = all_series(rows)
    for field, (title, unit) in PLOTS.items():
        lines = {
            name.removesuffix(f", {field}"): (minutes, values)
            for name, (_, values) in series.items()
            if name.endswith(f", {field}")
        }
        write_lines(directory / f"{field}.svg", title, unit, lines)
    p99 = [percentile([row.latencies], 0.99) for row in rows]
    write_lines(directory / "p99.svg", "p99 latency", "ms", {"p99": (minutes, p99)})
    sizes = {name: (minutes, values) for name, (_, values) in series.items() if name.startswith("checkpoint")}
    write_lines(directory / "state.svg", "State and checkpoints", "MiB", sizes)


def _blocks(rows: Sequence[Row], block_hours: float) -> list[str]:
    """A line for each block, the last one included that is not over."""
    block = np.floor(hours_of(rows) / block_hours).astype(np.int64)
    lines = []
    for number in np.unique(block).tolist():
        inside = [rows[at] for at in np.flatnonzero(block == number)]
        latencies = [row.latencies for row in inside]
        scores = sum(sum(some.values()) for some in latencies)
        p50, p99 = (percentile(latencies, share) for share in (0.5, 0.99))
        newest = inside[-1].checkpoint
        sizes = (newest.state, newest.written) if newest else (float("nan"),) * 2
        state, written = ("no data" if np.isnan(size) else f"{size / (1 << 20):,.1f} MiB" for size in sizes)
        latency = "no data | no data" if np.isnan(p50) else f"{p50:,.0f} ms | {p99:,.0f} ms"
        lag = max(row.lag for row in inside)
        lines.append(f"| {number * block_hours * 60:g} | {scores:,} | {latency} | {lag:,} | {state} | {written} |")
    return lines
