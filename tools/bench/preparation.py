"""Speed and memory of preparing examples for training, compared with a plain pandas group-by."""

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tools.bench.context import EVENTS, BenchContext
from tools.bench.rates import MIB, tree_pss
from tools.console import note, step
from training.data.preparation import Preparation, prepare
from training.data.sources import Record
from training.modeling.settings import Training
from udfs.measurement.labels import CONVERTED

COPIES = 10  # of the simulated clicks
ROWS_IN_FILE = 250_000
ARCHIVE = pa.schema(
    [
        ("payload", pa.binary()),
        ("record_time", pa.timestamp("ms")),
        ("source_partition", pa.int32()),
        ("source_offset", pa.int64()),
    ]
)
SAMPLE_SECONDS = 0.5


def measure(context: BenchContext) -> dict:
    """The figures of preparing ten times the simulated clicks."""
    records = context.records
    step(f"Preparing examples from {COPIES * EVENTS:,} archived clicks")
    directory = context.directory / "preparation"
    figures = preparation_figures(records, COPIES, directory)
    shutil.rmtree(directory)
    note(_words(figures))
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    return [(f"examples from {figures['events']:,} archived clicks", _words(figures))]


def _words(figures: dict) -> str:
    return (
        f"{figures['events_per_s']:,} events/s, {figures['seconds']} s, peak memory {figures['peak_mib']:,} MiB, "
        f"{figures['events_per_s'] / figures['pandas_events_per_s']:.2f} of the rate of pandas with 5 features"
    )


def preparation_figures(records: Sequence[Record], copies: int, directory: Path) -> dict[str, float]:
    """Events per second and peak memory of preparing an archive of `copies` copies of the records, for other users.

    pandas computes five of the features on the parsed records, once: its rate is that of the group-by.
    """
    archive = directory / "archive"
    _write_archive(records, copies, archive)
    process = multiprocessing.get_context("spawn").Process(target=_prepare, args=(archive, directory / "examples"))
    started = time.perf_counter()
    process.start()
    peak = _peak_memory(process)
    seconds = time.perf_counter() - started
    if process.exitcode:
        raise RuntimeError(f"preparing {archive} ended with exit code {process.exitcode}")
    rate, pandas_rate = copies * len(records) / seconds, _pandas_rate(records)
    return {
        "events": copies * len(records),
        "seconds": round(seconds, 1),
        "events_per_s": round(rate),
        "peak_mib": round(peak / MIB),
        "pandas_events_per_s": round(pandas_rate),
    }


def _write_archive(records: Sequence[Record], copies: int, directory: Path) -> None:
    directory.mkdir(parents=True)
    for copy in range(copies):
        for start in range(0, len(records), ROWS_IN_FILE):
            chunk = records[start : start + ROWS_IN_FILE]
            payloads = [value.replace(b'"user_id":"', b'"user_id":"%d-' % copy, 1) for _, value, _ in chunk]
            offsets = range(copy * len(records) + start, copy * len(records) + start + len(chunk))
            columns = [payloads, [time_ms for _, _, time_ms in chunk], [0] * len(chunk), offsets]
            arrays = [pa.array(column, field.type) for column, field in zip(columns, ARCHIVE)]
            pq.write_table(pa.table(arrays, ARCHIVE), directory / f"part-{copy}-{start}.parquet", compression="zstd")


def _prepare(archive: Path, out: Path) -> None:
    within_ms = Training().duplicates_within_ms
    prepare(archive, out, Preparation(CONVERTED, duplicates_within_ms=within_ms))


def _peak_memory(process: multiprocessing.Process) -> int:
    """The peak memory in bytes of the process and its children until it ends; shared memory counts once."""
    peak, root = 0, psutil.Process(process.pid)
    while process.is_alive():
        try:
            peak = max(peak, sum(tree_pss(root).values()))
        except psutil.NoSuchProcess:
            continue  # a process ended during the sample
        process.join(SAMPLE_SECONDS)
    return peak


class _Fields(msgspec.Struct):
    user_id: str
    event_name: str
    event_time: int
    value: float | None = None
    price: float | None = None


def _pandas_rate(records: Sequence[Record]) -> float:
    """Events per second of: lifetime_events, since_previous_event_s, events_30m, cart_adds_30m, value_viewed_30m."""
    read = msgspec.json.Decoder(_Fields).decode
    clicks = [read(value) for _, value, _ in records]
    frame = pd.DataFrame(
        {
            "user": [click.user_id for click in clicks],
            "time": pd.to_datetime([click.event_time for click in clicks], unit="ms"),
            "is_cart_add": [click.event_name == "add_to_cart" for click in clicks],
            "viewed": [
                (click.value or click.price or 0.0) if click.event_name == "view_item" else 0.0 for click in clicks
            ],
        }
    )
    started = time.perf_counter()
    frame = frame.sort_values(["user", "time"], kind="stable")
    by_user = frame.groupby("user", sort=False)
    frame["lifetime_events"] = by_user.cumcount() + 1
    frame["since_previous_event_s"] = by_user["time"].diff().dt.total_seconds()
    windows = frame.assign(events=np.ones(len(frame))).groupby("user", sort=False).rolling("30min", on="time")
    for name, column in (("events_30m", "events"), ("cart_adds_30m", "is_cart_add"), ("value_viewed_30m", "viewed")):
        frame[name] = windows[column].sum().to_numpy()
    return len(frame) / (time.perf_counter() - started)
