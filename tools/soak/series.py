"""What is recorded during a soak, and the series in it."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tools.trials.sampling import JvmReading, Reading

MIB = 1 << 20
#: Latencies are counted by their logarithm, so that those of any stretch of time can be added: to 2% exact.
STEP = np.log(1.02)


class Checkpoint(msgspec.Struct, frozen=True):
    """The newest checkpoint; sizes in bytes."""

    state: int
    written: int
    ms: int


class Row(msgspec.Struct, frozen=True):
    """The system at a moment, in seconds since 1970, and the scores since the last one."""

    at_s: float
    processes: dict[str, Reading]
    checkpoint: Checkpoint | None
    lag: int
    latencies: dict[int, int]  # numbers of scores by bin
    jvms: dict[str, JvmReading] = {}


#: Of each field of a reading: where in a row it is, its unit, and how much of it makes one unit.
FIELDS = {
    "rss": ("processes", "MiB", MIB),
    "threads": ("processes", "threads", 1),
    "handles": ("processes", "handles", 1),
    "heap": ("jvms", "MiB", MIB),
    "metaspace": ("jvms", "MiB", MIB),
    "direct": ("jvms", "MiB", MIB),
}


def binned(latency_ms: np.ndarray) -> dict[int, int]:
    """The number of latencies in each bin."""
    bins = np.round(np.log(np.maximum(latency_ms, 1.0)) / STEP).astype(np.int64)
    return dict(Counter(bins.tolist()))


def percentile(latencies: Sequence[Mapping[int, int]], share: float) -> float:
    """A percentile in ms of binned latencies; NaN without any."""
    counts = Counter()
    for some in latencies:
        counts.update(some)
    if not counts:
        return float("nan")
    bins = sorted(counts)
    reached = np.cumsum([counts[number] for number in bins])
    return float(np.exp(bins[int(np.searchsorted(reached, share * reached[-1]))] * STEP))


def hours_of(rows: Sequence[Row]) -> np.ndarray:
    return np.array([(row.at_s - rows[0].at_s) / 3600 for row in rows])


def p99_by_block(rows: Sequence[Row], block_hours: float) -> tuple[np.ndarray, np.ndarray]:
    """The middles of the full blocks in hours, and the p99 in ms of all scores in each of them."""
    block = np.floor(hours_of(rows) / block_hours).astype(np.int64)
    full = range(int(hours_of(rows)[-1] / block_hours + 1e-9))
    p99 = [percentile([rows[at].latencies for at in np.flatnonzero(block == number)], 0.99) for number in full]
    return (np.array(full) + 0.5) * block_hours, np.array(p99)


def all_series(rows: Sequence[Row]) -> dict[str, tuple[str, np.ndarray]]:
    """Unit and values, float64[n], of each series but the latency; NaN where there is no value."""
    nan = float("nan")
    series = {}
    for field, (source, unit, scale) in FIELDS.items():
        for name in sorted({name for row in rows for name in getattr(row, source)}):
            readings = [getattr(row, source).get(name) for row in rows]
            values = np.array([nan if reading is None else getattr(reading, field) for reading in readings], float)
            series[f"{name}, {field}"] = (unit, values / scale)
    for field in ("state", "written"):
        sizes = [nan if row.checkpoint is None else getattr(row.checkpoint, field) / MIB for row in rows]
        series[f"checkpoint, {field}"] = ("MiB", np.array(sizes))
    return series | {"lag": ("clicks", np.array([row.lag for row in rows], float))}
