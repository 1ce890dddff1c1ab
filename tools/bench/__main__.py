"""Benchmark this machine: `make bench` measures all parts, `make bench PART=latency,scale` some.

build/bench.json keeps the last figures of each part, with date and commit; a table shows all of them.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from kafka.errors import KafkaError
from rich.table import Table

from tools.bench import dashboard, inference, latency, preparation, scale, sql_jobs, throughput
from tools.bench.context import FAILURES, BenchContext, bench_context
from tools.bench.peers import comparison
from tools.bench.report import Measured, Report, ReportError, commit_of, now, read_report, write_report
from tools.console import console, note, step
from tools.paths import PROJECT
from training.data.rows import SourceError

REPORT = PROJECT / "build" / "bench.json"

#: The parts by name, in the order in which they run. Each module has `measure`, which returns its figures as plain
#: data, and `rows`, which turns them into rows of a table: measurement and result.
PARTS: dict[str, ModuleType] = {
    "throughput": throughput,
    "latency": latency,
    "inference": inference,
    "preparation": preparation,
    "measuring": sql_jobs,
    "dashboard": dashboard,
    "peers": comparison,
    "scale": scale,
}


def parts_of(text: str) -> list[str]:
    """The parts that a comma-separated text names, in the order in which they run. Raises ValueError.

    >>> parts_of("scale, latency")
    ['latency', 'scale']
    """
    named = {name for word in text.split(",") if (name := word.strip())}
    unknown = sorted(named - PARTS.keys())
    if unknown or not named:
        raise ValueError(
            f"must be one or more of {', '.join(PARTS)}, separated by commas (got {', '.join(unknown) or 'nothing'})"
        )
    return [name for name in PARTS if name in named]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.bench", description="Benchmark this machine.")
    parser.add_argument(
        "--part",
        default=",".join(PARTS),
        metavar="NAME,NAME",
        help=f"parts to run: {', '.join(PARTS)} (default: all)",
    )
    options = parser.parse_args(arguments)
    try:
        names = parts_of(options.part)
    except ValueError as error:
        print(f"bench: --part {error}", file=sys.stderr)
        return 2
    try:
        report = read_report(REPORT)
    except ReportError as error:
        note(f"{error}; it will be replaced")
        report = {}
    with bench_context("bench-") as context:
        failed = [name for name in names if not measured(name, context, report, REPORT)]
        context.keep = bool(failed)
    console.print(table(report))
    console.print(f"wrote {REPORT.relative_to(PROJECT)}")
    if failed:
        print(f"bench: failed: {', '.join(failed)}; see the logs in {context.directory}", file=sys.stderr)
    return int(bool(failed))


def measured(name: str, context: BenchContext, report: Report, file: Path) -> bool:
    """Measure a part, and put its figures into the report and into the file; returns whether that succeeded.

    An error is printed, and leaves the part's last figures unchanged.
    """
    console.rule(name)
    started = time.monotonic()
    try:
        figures = PARTS[name].measure(context)
    except (*FAILURES, SourceError, KafkaError) as error:
        print(f"bench: {name}: {error}", file=sys.stderr)
        return False
    report[name] = Measured(date=now(), commit=commit_of(PROJECT), cores=os.cpu_count(), figures=figures)
    write_report(file, report)
    step(f"{name}: {(time.monotonic() - started) / 60:.0f} min")
    return True


def table(report: Mapping[str, Measured]) -> Table:
    """The table of all parts, including those measured earlier or never."""
    results = Table("Measurement", "Result", title="Benchmark results", title_justify="left")
    for name in PARTS:
        results.add_section()
        for row in part_rows(name, report.get(name)):
            results.add_row(*row)
    return results


def part_rows(name: str, measured: Measured | None) -> list[tuple[str, str]]:
    """The rows of a part: its name with date, commit and cores, then its figures."""
    again = f"make bench PART={name}"
    if measured is None:
        return [(f"[bold]{name}[/bold]", f"not measured yet: {again}")]
    origin = f"{measured.date:%Y-%m-%d %H:%M} UTC, commit {measured.commit}, {measured.cores} cores"
    head = (f"[bold]{name}[/bold]", origin)
    try:
        return [head, *PARTS[name].rows(measured.figures)]
    except (LookupError, TypeError, ValueError, AttributeError):
        return [head, ("figures of another release", f"cannot be shown; measure again: {again}")]


if __name__ == "__main__":
    sys.exit(main())
