"""Preparation of examples on disk from raw records, for data larger than memory, in passes on all cores.

1. Scatter: each worker reads parts of the data, decodes the records as the job does, and writes the events by bucket, a
   hash of the user: so all events of a user are in one bucket. Where logins are followed, it also writes those of each
   device; from them a second step makes what logins add to users.
2. Where features look at what other users did, events are counted: see training/data/population.py.
3. Build: each worker takes a bucket into memory, orders it by arrival, labels it and computes the features, or takes
   them from an archived feature_log.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data.archive import Arrived, Batch, Part, find_parts, read_part
from training.data.arrival_order import arrivals, read_twice
from training.data.calendar import calendar_names
from training.data.dataset import Clicks, Outcomes, ProfileUpdates, arrange, read_profile_batch
from training.data.decoded import decoded_batches
from training.data.examples import Examples, make_examples, save_examples, save_logins
from training.data.feature_log import LOG_ROWS, FeatureLog, find_log_parts, logged_examples, read_log_part
from training.data.gaps import Gap, reaches_into_gap
from training.data.logins import DEVICE_ROWS, LOGIN_ROWS, NO_LOGINS, connected_ids, login_rows
from training.data.partitioning import Spill, coded, gather, unpack
from training.data.population import count_bucket, counted_buckets, gather_filled, sweep
from training.data.rows import SourceError
from training.data.summary import (
    UNKNOWN_MS,
    Summary,
    bots_in_words,
    find_bots,
    in_words,
    names_in_words,
    skew,
    why_none_is_scored,
)
from udfs.config.durations import now_ms
from udfs.contracts.clicks import DecodedClicks
from udfs.contracts.packed_events import without_ids
from udfs.contracts.profiles import PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.mapping.definition import MappingFile
from udfs.measurement.bots import Bots
from udfs.measurement.labels import Label
from udfs.population.tables import Table

BUCKET_EVENTS = 200_000
NEVER_MS = 2**62  # an end of the data by which every horizon has passed

EVENT_ROWS = pa.schema(
    [
        ("user_id", pa.string()),
        ("packed", pa.binary()),
        ("arrival_ms", pa.int64()),
        ("partition", pa.int64()),
        ("offset", pa.int64()),
    ]
)
UPDATE_ROWS = pa.schema(
    [("user_id", pa.string()), ("packed", pa.binary(PROFILE.itemsize)), ("arrival_ms", pa.int64())]
)  # fmt: skip


class PrepareError(ValueError):
    """Data that no examples can be made from. The message is one line with a remedy."""


@dataclass(frozen=True)
class Preparation:
    """The settings of the preparation. Raises ValueError when a value is out of range."""

    label: Label
    declaration: Declaration = STANDARD
    features: Sequence[str] | None = None  # names of the declaration; None: all
    history_length: int = 64
    duplicates_within_ms: int = 0  # as in the job; 0: each event counts
    follow_logins: bool = False
    bots: Bots | None = None  # users who reach these limits are left out; None: nobody is
    workers: int = 2  # processes; a single one is the caller's
    bucket_events: int = BUCKET_EVENTS
    log: FeatureLog | None = None  # source of the features; None: they are computed
    arrived: Arrived | None = None  # the clicks of an archive to read; profiles are read from their beginning
    rows_from_ms: int = 0  # earlier events are history only
    keep_immature: bool = False  # rows whose horizon had not passed when the data ended become examples too

    def __post_init__(self):
        for name in ("workers", "bucket_events", "history_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 (got {getattr(self, name)})")

    @property
    def needs_population(self) -> bool:
        """Whether what other users did is to be counted; the rows of a feature log have it already."""
        return self.log is None and bool(self.declaration.layout.population_columns)


#: Called with the name of the step, the parts done, the parts in total, and the events so far.
Progress = Callable[[str, int, int, int], None]

#: Runs tasks and yields their results in order; the first error cancels the remaining ones.
RunAll = Callable[[list[Callable]], Iterator]


def prepare(
    clicks: Path,
    out: Path,
    preparation: Preparation,
    profiles: Path | None = None,
    mappings: MappingFile | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[list[Path], Summary]:
    """Make examples of recorded clicks. Returns directories for `load_examples`, and counts of the data.

    `mappings` make clicks of the rows of files.

    Raises SourceError for data that can't be read, PrepareError for data without a usable event.
    """
    arrived, log = preparation.arrived, preparation.log
    profiles_arrived = None if arrived is None else arrived._replace(first_ms=0)
    parts = find_parts(clicks, mappings, arrived)
    if arrived is not None and (others := [part.path for part in parts if not part.is_archive]):
        raise SourceError(f"{others[0]}: not an archive: when its records arrived is not known")
    # Of profiles in other files, each event sees those that are dated before it.
    profile_parts = [] if profiles is None else find_parts(profiles, arrived=profiles_arrived)
    log_parts = [] if log is None else _log_parts(log, parts)
    spill = out / "spill"
    spill.mkdir(parents=True)
    buckets = max(1, _estimated_events(parts) // preparation.bucket_events)
    summary = Summary(calendar_features=_calendar_features(preparation))
    with _workers(preparation.workers) as run_all:
        tasks = [partial(_scatter, part, n, buckets, spill, preparation) for n, part in enumerate(parts)]
        tasks += [partial(_scatter_profiles, part, n, buckets, spill) for n, part in enumerate(profile_parts)]
        tasks += [partial(_scatter_log, part, n, buckets, spill, log) for n, part in enumerate(log_parts)]
        summary = _read(run_all, tasks, summary, progress)
        if summary.accepted and preparation.needs_population:
            for _ in _count_population(run_all, buckets, spill, preparation, progress, summary.read):
                pass
        if preparation.follow_logins:
            followed = [partial(_follow_logins, n, buckets, spill, preparation) for n in range(buckets)]
            logins: set[tuple[str, str]] = set()
            for done, found in enumerate(run_all(followed), 1):
                logins |= found
                progress("followed the logins of", done, buckets, summary.read)
            save_logins(logins, out)
        if not summary.accepted:
            raise PrepareError(_nothing_accepted(clicks, summary))
        if log is not None and not summary.logged["rows"]:
            raise PrepareError(
                f"{log.path}: no row with the feature_schema_hash {log.schema_hash} of the logging bundle: rows have "
                f"{in_words(summary.other_schemas)}"
            )
        end_ms = NEVER_MS if preparation.keep_immature else summary.data_end_ms
        tasks = [partial(_build, n, spill, out, preparation, end_ms, summary.gaps) for n in range(buckets)]
        for done, part_summary in enumerate(run_all(tasks), 1):
            summary += part_summary
            progress("computed", done, buckets, summary.examples)
    shutil.rmtree(spill)
    if log is not None and not summary.logged["matched"]:
        raise PrepareError(
            f"{log.path}: none of its {summary.logged['rows']} rows is of a click in {clicks}, by user, time, partition"
            " and offset: give the clicks that the logging job read"
        )
    if preparation.keep_immature:  # the caller knows which rows it needs
        return _directories(out, buckets), summary
    if not summary.examples and summary.bot_events:
        raise PrepareError(f"{clicks}: no event to train on: {summary.bot_events} {bots_in_words(summary)}")
    if not summary.examples and (why := why_none_is_scored(preparation.label, summary.names)):
        raise PrepareError(f"{clicks}: no event to train on: {why}")
    if not summary.examples:
        minutes = (summary.last_ms - summary.first_ms) / 60_000
        raise PrepareError(
            f"{clicks}: no event to train on: the clicks span {minutes:.0f} minutes, and a label is known only "
            f"{preparation.label.horizon} after its event: use more data or a shorter horizon"
        )
    return _directories(out, buckets), summary


def make_tables(
    clicks: Path,
    spill: Path,
    preparation: Preparation,
    keep_ms: int,
    publish: Callable[[Table], None],
    mappings: MappingFile | None = None,
    progress: Progress = lambda *_: None,
) -> Summary:
    """Make the tables of what the population did, as far as the clicks are complete; publish those of the last time.

    `spill` is a new directory for what does not fit into memory. Raises SourceError and PrepareError, as `prepare`
    does.
    """
    parts = find_parts(clicks, mappings)
    spill.mkdir(parents=True)
    buckets = max(1, _estimated_events(parts) // preparation.bucket_events)
    with _workers(preparation.workers) as run_all:
        tasks = [partial(_scatter, part, n, buckets, spill, preparation) for n, part in enumerate(parts)]
        summary = _read(run_all, tasks, Summary(), progress)
        if not summary.accepted:
            raise PrepareError(_nothing_accepted(clicks, summary))
        # The hour of the newest click may not be over. In files, a clock that was ahead may date it in the future.
        last_ms = summary.last_ms if summary.last_arrival_ms == UNKNOWN_MS else summary.last_arrival_ms
        until_ms = min(last_ms, now_ms())
        for table in _count_population(run_all, buckets, spill, preparation, progress, summary.read, until_ms):
            if table.boundary_ms >= until_ms - keep_ms:
                publish(table)
    return summary


def _read(run_all: RunAll, tasks: list[Callable[[], Summary]], summary: Summary, progress: Progress) -> Summary:
    for done, part_summary in enumerate(run_all(tasks), 1):
        summary += part_summary
        progress("read", done, len(tasks), summary.read)
    return summary


def _count_population(
    run_all: RunAll,
    buckets: int,
    spill: Path,
    preparation: Preparation,
    progress: Progress,
    events: int,
    until_ms: int | None = None,
) -> Iterator[Table]:
    """Find out what the events of all buckets see of other users; yields the tables on the way, see `sweep`."""
    layout = preparation.declaration.layout
    kinds = {"events": EVENT_ROWS} | ({"devices": DEVICE_ROWS} if preparation.follow_logins else {})
    tasks = [
        partial(count_bucket, spill, kind, bucket, schema, layout)
        for kind, schema in kinds.items()
        for bucket in range(buckets)
    ]
    for done, _ in enumerate(run_all(tasks), 1):
        progress("counted", done, len(tasks), events)
    yield from sweep(counted_buckets(spill, list(kinds), buckets), layout, until_ms)


def _directories(out: Path, buckets: int) -> list[Path]:
    return [directory for n in range(buckets) if (directory := _bucket_directory(out, n)).exists()]


def _calendar_features(preparation: Preparation) -> tuple[str, ...]:
    """The features that are computed from the hour or the weekday of events."""
    chosen = preparation.features if preparation.log is None else preparation.log.names
    declared = preparation.declaration.features
    return calendar_names([feature for feature in declared if chosen is None or feature.name in chosen])


def _nothing_accepted(clicks: Path, summary: Summary) -> str:
    problems = [line.strip() for line in summary.intake.problems()]
    if summary.rejections:
        problems.append(f"{in_words(summary.rejected)} ({'; '.join(summary.rejections)})")
    return f"{clicks}: no click accepted of {summary.read} records: {'; '.join(problems) or 'the data is empty'}"


def refuse_without_positives(clicks: Path, label: Label, summary: Summary) -> None:
    """Raise PrepareError when no example is positive, with the reason: no such event, or another name for it."""
    if summary.positives:
        return
    missing = [name for name in label.events or () if not summary.names[name]]
    unknown = summary.unknown_names
    if not missing or label.absent:
        raise PrepareError(
            f"{clicks}: none of {summary.examples} examples is positive ({label}): choose a longer horizon, use data "
            "of more time, or another label"
        )
    names = f"; names that count as `other`: {names_in_words(unknown)}" if unknown else ""
    raise PrepareError(
        f"{clicks}: no {' or '.join(missing)} among {summary.accepted} accepted events, so no example is positive "
        f"({label}): map what the data calls it under values.event_name, or choose another label{names}"
    )


@contextmanager
def _workers(count: int) -> Iterator[RunAll]:
    """Run tasks in `count` processes; a single worker is this process, as starting another takes seconds."""
    if count == 1:
        yield lambda tasks: (task() for task in tasks)
        return
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        yield partial(_run_all, pool)


def _run_all(pool: ProcessPoolExecutor, tasks: list[Callable]) -> Iterator:
    futures = [pool.submit(task) for task in tasks]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


def _estimated_events(parts: list[Part]) -> int:
    """An estimate to size buckets by: a compressed click takes at least about 20 bytes."""
    return sum(path.stat().st_size for path in {part.path for part in parts}) // 20


def _bucket_directory(out: Path, bucket: int) -> Path:
    return out / f"{bucket:05d}"


def _scatter(part: Part, number: int, buckets: int, spill: Path, preparation: Preparation) -> Summary:
    """Decode a part into files with one Arrow batch per bucket."""
    summary = Summary()
    with (
        Spill(spill / f"events-{number:06d}", buckets, EVENT_ROWS) as files,
        Spill(spill / f"devices-{number:06d}", buckets, DEVICE_ROWS) as devices,
    ):
        for batch, clicks, rows in decoded_batches(part, summary, preparation.declaration.layout):
            _add_events(files, [clicks.user_ids], part, batch, clicks, rows)
            if preparation.follow_logins:
                visitors = [None if click is None else click.visitor for click in clicks.clicks]
                rows = [row for row in rows if visitors[row] is not None]
                _add_events(devices, [visitors, clicks.user_ids], part, batch, clicks, rows)
    return summary


def _add_events(
    files: Spill, ids: Sequence[list], part: Part, batch: Batch, clicks: DecodedClicks, rows: list[int]
) -> None:
    """Add the events in these rows, each with its ids."""
    files.add(
        *([column[row] for row in rows] for column in (*ids, clicks.events)),
        batch.arrival_ms[rows] if part.is_archive else np.full(len(rows), UNKNOWN_MS),
        batch.partition[rows],
        batch.offset[rows],
    )


def _follow_logins(bucket: int, buckets: int, spill: Path, preparation: Preparation) -> set[tuple[str, str]]:
    """Write what the logins on a bucket's devices add to users; returns the pairs of ids that they connect."""
    layout = preparation.declaration.layout
    devices = gather_filled(spill, "devices", bucket, DEVICE_ROWS, layout)
    rows = login_rows(devices, preparation.history_length, preparation.duplicates_within_ms, layout.dtype)
    with Spill(spill / f"logins-{bucket:06d}", buckets, LOGIN_ROWS) as files:
        if rows.num_rows:
            files.add(rows.column("user_id").to_pylist(), *(column.combine_chunks() for column in rows.columns[1:]))
    return connected_ids(devices)


def _log_parts(log: FeatureLog, parts: list[Part]) -> list[Part]:
    for part in parts:
        if not part.is_archive:
            raise PrepareError(
                f"{part.path}: not an archive: --feature-log needs the clicks' source_partition and source_offset"
            )
    return find_log_parts(log.path)


def _scatter_log(part: Part, number: int, buckets: int, spill: Path, log: FeatureLog) -> Summary:
    summary = Summary()
    with Spill(spill / f"log-{number:06d}", buckets, LOG_ROWS) as files:
        for batch, other_schemas in read_log_part(part, log):
            summary.logged["rows"] += batch.num_rows
            summary.other_schemas += other_schemas
            if batch.num_rows:
                files.add(batch.column("user_id").to_pylist(), *batch.columns[1:])
    return summary


def _scatter_profiles(part: Part, number: int, buckets: int, spill: Path) -> Summary:
    summary = Summary()
    with Spill(spill / f"profiles-{number:06d}", buckets, UPDATE_ROWS) as files:
        for batch in read_part(part):
            updates = read_profile_batch(batch.keys, batch.payloads, batch.arrival_ms)
            undated = 0 if part.is_archive else int(np.count_nonzero(updates.updated_ms == 0))
            summary += Summary(
                rejected_profiles=updates.rejected,
                profile_rejections=updates.examples,
                unread_profile_fields=updates.unread,
                undated_profiles=undated,
            )
            packed = [profile.tobytes() for profile in updates.profiles]
            if packed:
                files.add(updates.user_ids, packed, updates.updated_ms)
    return summary


def _build(
    bucket: int, spill: Path, out: Path, preparation: Preparation, data_end_ms: int, gaps: Sequence[Gap]
) -> Summary:
    examples, summary = build_bucket(
        gather_filled(spill, "events", bucket, EVENT_ROWS, preparation.declaration.layout),
        gather(spill, "profiles", bucket, UPDATE_ROWS),
        preparation,
        data_end_ms,
        None if preparation.log is None else gather(spill, "log", bucket, LOG_ROWS),
        gather(spill, "logins", bucket, LOGIN_ROWS),
        gaps,
    )
    if len(examples):
        save_examples(examples, _bucket_directory(out, bucket))
    return summary


def build_bucket(
    events: pa.Table,
    updates: pa.Table,
    preparation: Preparation,
    data_end_ms: int,
    log: pa.Table | None = None,
    logins: pa.Table = NO_LOGINS,
    gaps: Sequence[Gap] = (),
) -> tuple[Examples, Summary]:
    """Make examples of a bucket's events, profile updates, rows of the feature log and of logins, in any order.

    Events whose horizon reaches into one of the gaps have no label.
    """
    clicks, partition, offset, counted = _in_order_of_arrival(events, logins, preparation.declaration.layout.dtype)
    data = arrange(clicks, _profile_updates(updates), preparation.history_length, preparation.duplicates_within_ms)
    own = ~data.is_history
    if preparation.bots is not None:
        users, found = find_bots(preparation.bots, data.user[own], data.records["time_ms"][own])
        data = data.without(users)
        counted += found
    label, counts = preparation.label, Counter()
    is_unknown = reaches_into_gap(data.records["time_ms"], label.horizon_ms, gaps)
    data = data.without_events(is_unknown)
    counted.before_gaps = int(np.count_nonzero(is_unknown & own))
    if log is None:
        computer = FeatureComputer(preparation.features, preparation.history_length, preparation.declaration)
        examples = make_examples(data, label, computer, partition, offset, data_end_ms, preparation.rows_from_ms)
    else:
        names = preparation.log.names
        examples, counts = logged_examples(log, names, data, label, partition, offset, data_end_ms)
    events = without_ids(data.records[own])
    packed = np.rec.fromarrays([data.user[own], events.view(f"V{events.dtype.itemsize}")])
    summary = Summary(
        repeated=int(np.count_nonzero(~clicks.is_history)) - len(packed),
        copies=len(packed) - len(np.unique(packed.view(f"V{packed.dtype.itemsize}"))),
        examples=len(examples),
        positives=int(examples.labels.sum()),
        logged=counts,
    )
    summary += counted
    return examples, summary


def _in_order_of_arrival(
    events: pa.Table, logins: pa.Table, event: np.dtype
) -> tuple[Clicks, np.ndarray, np.ndarray, Summary]:
    """Order the clicks; returns them with their partitions and offsets, and counts duplicates and skewed events."""
    history = logins.filter(pc.invert(logins.column("is_outcome")))
    outcomes = logins.filter(logins.column("is_outcome"))
    user_ids = pa.chunked_array(
        [chunk for table in (events, history, outcomes) for chunk in table.column("user_id").chunks], pa.string()
    )
    user, user_ids = coded(user_ids)
    user, outcome_user = user[: len(user) - outcomes.num_rows], user[len(user) - outcomes.num_rows :]
    arrival, partition, offset = (
        np.concatenate([table.column(name).to_numpy() for table in (events, history)]).astype(np.int64)
        for name in ("arrival_ms", "partition", "offset")
    )
    records = np.concatenate([unpack(table.column("packed"), event) for table in (events, history)])
    place = np.concatenate([np.zeros(events.num_rows, np.int64), history.column("place").to_numpy()])
    time_ms = np.concatenate([records["time_ms"][: events.num_rows], history.column("login_ms").to_numpy()])
    arrived = arrivals(user, arrival, partition, offset, time_ms, place, records)
    is_file = bool(len(arrival)) and arrival.min() == UNKNOWN_MS
    arrival = arrived.arrival_ms
    user, partition, offset, records, place = (
        column[arrived.order] for column in (user, partition, offset, records, place)
    )
    is_duplicate = read_twice(user, partition, offset, place)
    user, arrival, partition, offset, records, place = (
        column[~is_duplicate] for column in (user, arrival, partition, offset, records, place)
    )
    own = place == 0
    rows = np.flatnonzero(own)
    if not arrived.is_known:
        rows = rows[np.lexsort((offset[rows], partition[rows], user[rows]))]  # as in the files
    counted = skew(user[rows], records["time_ms"][rows])
    counted.contradicted = 0 if is_file or arrived.is_known else len(rows)
    counted.duplicates = int(is_duplicate.sum())
    clicks = Clicks(
        user_ids,
        user,
        records,
        arrival,
        np.arange(len(user)),
        Counter(),
        ~own,
        Outcomes(outcome_user, unpack(outcomes.column("packed"), event)),
    )
    return clicks, partition, offset, counted


def _profile_updates(updates: pa.Table) -> ProfileUpdates:
    return ProfileUpdates(
        updates.column("user_id").to_pylist(),
        updates.column("arrival_ms").to_numpy().astype(np.int64),
        unpack(updates.column("packed"), PROFILE),
        Counter(),
    )
