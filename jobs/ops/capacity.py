"""Estimate what a load needs: slots, memory, partitions and checkpoints, from the figures of the benchmark.

    python -m jobs.ops.capacity [build/bench.json]

docs/capacity.md lists what is measured and what is assumed. Exit codes: 0, printed; 2, the report can't be used.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from udfs.config.command_line import EXIT_USAGE, PATH, Command, run

REPORT = Path("build", "bench.json")
RATES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
USERS = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class MeasuredLoad:
    """Figures of the whole job on one machine, with state in RocksDB and the broker on the same cores."""

    events_per_core: float  # per second, at full load
    bytes_per_user: float  # of a savepoint
    click_bytes: float  # of a record's key and value
    score_bytes: float


@dataclass(frozen=True)
class Assumed:
    """Assumptions of the estimate that are not measured; choose your own."""

    load: float = 0.5  # target utilization of the cores; the headroom absorbs catch-up after a failure
    slots_per_core: float = 2.0  # slots beyond the cores overlap the waiting for Python
    slot_mib: int = 1_536  # JVM and Python per slot, without state kept in memory
    hot_users: float = 0.05  # share of the users that are active at the same time; their state stays in memory
    partition_bytes: float = 5e6  # per second, in and out of a partition
    interval_s: float = 30.0  # of checkpoints


@dataclass(frozen=True)
class Sizing:
    """Resources for a rate of events per second and a number of users."""

    cores: int
    slots: int
    memory_gib: float
    partitions: int
    network_bytes_s: float  # in and out, without replication
    state_bytes: float  # a whole checkpoint, and the disk of all TaskManagers together
    checkpoint_bytes: float  # of an incremental one, at most


class ReportError(ValueError):
    """A benchmark report that can't be read; the message is one line that names the file."""


def need(rate: float, users: float, measured: MeasuredLoad, assumed: Assumed = Assumed()) -> Sizing:
    """Estimate the resources for `rate` events per second of `users` users."""
    cores = math.ceil(rate / (measured.events_per_core * assumed.load))
    slots = math.ceil(cores * assumed.slots_per_core)
    state = users * measured.bytes_per_user
    touched = min(users, rate * assumed.interval_s)
    return Sizing(
        cores=cores,
        slots=slots,
        memory_gib=slots * assumed.slot_mib * MIB / GIB + state * assumed.hot_users / GIB,
        partitions=max(slots, math.ceil(rate * measured.click_bytes / assumed.partition_bytes)),
        network_bytes_s=rate * (measured.click_bytes + measured.score_bytes),
        state_bytes=state,
        checkpoint_bytes=touched * measured.bytes_per_user,
    )


class _Figures(msgspec.Struct):
    job: dict[str, dict[str, float]]  # events per second by state backend and parallelism
    state_bytes_per_user: float
    record_bytes: dict[str, float]


class _Throughput(msgspec.Struct):
    cores: int
    figures: _Figures


class _Bench(msgspec.Struct):
    """The part of build/bench.json that is read."""

    throughput: _Throughput


def measured_of(report: bytes) -> MeasuredLoad:
    """The figures of a benchmark's report. Raises msgspec.DecodeError."""
    throughput = msgspec.json.decode(report, type=_Bench).throughput
    figures = throughput.figures
    return MeasuredLoad(
        events_per_core=max(figures.job["rocksdb"].values()) / throughput.cores,
        bytes_per_user=figures.state_bytes_per_user,
        click_bytes=figures.record_bytes["clicks"],
        score_bytes=figures.record_bytes["scores"],
    )


def tables(measured: MeasuredLoad, assumed: Assumed = Assumed()) -> Iterator[str]:
    """The tables of docs/capacity.md, in Markdown: resources by event rate, and by number of users."""
    yield "| events/s | cores | slots | partitions | memory without state | network |\n|---|---|---|---|---|---|"
    for rate in RATES:
        sizing = need(rate, 0, measured, assumed)
        yield (
            f"| {rate:,} | {sizing.cores:,} | {sizing.slots:,} | {sizing.partitions:,} | {sizing.memory_gib:,.0f} GiB "
            f"| {size(sizing.network_bytes_s)}/s |"
        )
    yield ""
    heads = " | ".join(f"checkpoint at {rate:,}/s" for rate in RATES)
    yield f"| users | state | in memory | {heads} |\n|---|---|---|{'---|' * len(RATES)}"
    for users in USERS:
        state = need(0, users, measured, assumed)
        checkpoints = " | ".join(size(need(rate, users, measured, assumed).checkpoint_bytes) for rate in RATES)
        yield f"| {users:,} | {size(state.state_bytes)} | {state.memory_gib:,.0f} GiB | {checkpoints} |"


def size(number: float) -> str:
    """Format a number of bytes.

    >>> size(1_421_000_000_000)
    '1.4 TB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:.3g} {unit}"
        number /= 1_000
    return f"{number:,.1f} TB"


def read_measured(report: Path) -> MeasuredLoad:
    """The figures of a benchmark's report file. Raises ReportError."""
    try:
        return measured_of(report.read_bytes())
    except OSError as error:
        raise ReportError(f"{report}: {error.strerror}; `make bench PART=throughput` writes it") from None
    except (msgspec.DecodeError, KeyError) as error:
        raise ReportError(f"{report}: expected a report that this release's `make bench` wrote: {error}") from None


@click.command("capacity", cls=Command, errors={ReportError: EXIT_USAGE})
@click.argument("report", type=PATH, default=REPORT, help=f"The report that `make bench` wrote, by default {REPORT}.")
def command(report: Path) -> None:
    """Estimate cores, memory and partitions for your load.

    The estimates rest on the figures of a benchmark; docs/capacity.md lists what is measured and what is assumed.

    \b
    Examples:
      intent capacity
      intent capacity build/bench.json
    """
    print(*tables(read_measured(report)), sep="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    return run(command, "python -m jobs.ops.capacity", arguments)


if __name__ == "__main__":
    sys.exit(main())
