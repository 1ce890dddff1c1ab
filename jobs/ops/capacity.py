"""What a load takes: slots, memory, partitions and checkpoints, reckoned from what the benchmark measured.

    python -m jobs.ops.capacity [build/bench.json]

docs/capacity.md says what is measured and what is assumed. Exit code: 0 printed; 2 the file can't be used.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

RATES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
USERS = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Measured:
    """What a machine did with the whole job, state in RocksDB, broker on the same cores."""

    events_per_core: float  # a second, at full load
    bytes_per_user: float  # of a savepoint
    click_bytes: float  # of a record's key and value
    score_bytes: float


@dataclass(frozen=True)
class Assumed:
    """What the reckoning takes for granted, for want of a measurement; choose your own."""

    load: float = 0.5  # share of the cores that a steady load may take: the rest catches up after a failure
    slots_per_core: float = 2.0  # slots beyond the cores overlap the waiting for Python
    slot_mib: int = 1_536  # JVM and Python of a slot, without the state that it keeps in memory
    hot_users: float = 0.05  # share of the users that are active at a time: their state stays in memory
    partition_bytes: float = 5e6  # a second, in and out of a partition
    interval_s: float = 30.0  # of checkpoints


@dataclass(frozen=True)
class Need:
    """What a rate of events a second and a number of users take."""

    cores: int
    slots: int
    memory_gib: float
    partitions: int
    network_bytes_s: float  # in and out, without replication
    state_bytes: float  # a whole checkpoint, and the disk of all TaskManagers together
    checkpoint_bytes: float  # of an incremental one, at most


def need(rate: float, users: float, measured: Measured, assumed: Assumed = Assumed()) -> Need:
    """Reckon what `rate` events a second of `users` users take."""
    cores = math.ceil(rate / (measured.events_per_core * assumed.load))
    slots = math.ceil(cores * assumed.slots_per_core)
    state = users * measured.bytes_per_user
    touched = min(users, rate * assumed.interval_s)
    return Need(
        cores=cores,
        slots=slots,
        memory_gib=slots * assumed.slot_mib * MIB / GIB + state * assumed.hot_users / GIB,
        partitions=max(slots, math.ceil(rate * measured.click_bytes / assumed.partition_bytes)),
        network_bytes_s=rate * (measured.click_bytes + measured.score_bytes),
        state_bytes=state,
        checkpoint_bytes=touched * measured.bytes_per_user,
    )


class _Figures(msgspec.Struct):
    job: dict[str, dict[str, float]]  # events a second by state backend and parallelism
    state_bytes_per_user: float
    record_bytes: dict[str, float]


class _Throughput(msgspec.Struct):
    cores: int
    figures: _Figures


class _Bench(msgspec.Struct):
    """What is read of build/bench.json."""

    throughput: _Throughput


def measured_of(report: bytes) -> Measured:
    """The figures of a benchmark's report. Raises msgspec.DecodeError."""
    throughput = msgspec.json.decode(report, type=_Bench).throughput
    figures = throughput.figures
    return Measured(
        events_per_core=max(figures.job["rocksdb"].values()) / throughput.cores,
        bytes_per_user=figures.state_bytes_per_user,
        click_bytes=figures.record_bytes["clicks"],
        score_bytes=figures.record_bytes["scores"],
    )


def tables(measured: Measured, assumed: Assumed = Assumed()) -> Iterator[str]:
    """The tables of docs/capacity.md, in Markdown: what the rate decides, what the users decide."""
    yield "| events/s | cores | slots | partitions | memory without state | network |\n|---|---|---|---|---|---|"
    for rate in RATES:
        found = need(rate, 0, measured, assumed)
        yield (
            f"| {rate:,} | {found.cores:,} | {found.slots:,} | {found.partitions:,} | {found.memory_gib:,.0f} GiB "
            f"| {size(found.network_bytes_s)}/s |"
        )
    yield ""
    heads = " | ".join(f"checkpoint at {rate:,}/s" for rate in RATES)
    yield f"| users | state | in memory | {heads} |\n|---|---|---|{'---|' * len(RATES)}"
    for users in USERS:
        state = need(0, users, measured, assumed)
        checkpoints = " | ".join(size(need(rate, users, measured, assumed).checkpoint_bytes) for rate in RATES)
        yield f"| {users:,} | {size(state.state_bytes)} | {state.memory_gib:,.0f} GiB | {checkpoints} |"


def size(number: float) -> str:
    """Bytes in words.

    >>> size(1_421_000_000_000)
    '1.4 TB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1_000:
            return f"{number:.3g} {unit}"
        number /= 1_000
    return f"{number:,.1f} TB"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="jobs.ops.capacity", description="Reckon what loads take.")
    parser.add_argument("report", nargs="?", type=Path, default=Path("build/bench.json"), help="of `make bench`")
    report = parser.parse_args(arguments).report
    try:
        measured = measured_of(report.read_bytes())
    except OSError as error:
        print(f"capacity: {report}: {error.strerror}; `make bench PART=throughput` writes it", file=sys.stderr)
        return 2
    except (msgspec.DecodeError, KeyError) as error:
        print(f"capacity: {report}: not a report of this release's `make bench`: {error}", file=sys.stderr)
        return 2
    print(*tables(measured), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
