"""One user's events from an archive or from files, as training and the job read them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dashboard.user.population import fill_events
from intent.features.errors import NoEventError
from intent.features.late_progress import Report
from intent.features.user_events import JobRules, Place, UserEvents
from training.data.archive import OFFSETS_OF_FILE, Batch, Part, find_parts, read_part
from training.data.arrival_order import arrivals, read_twice
from training.data.dataset import NO_UPDATES, Clicks, ProfileUpdates, read_profile_batch
from training.data.decoded import DecodedBatch, decoded_batches
from training.data.logins import DEVICE_ROWS, login_rows
from training.data.rows import SourceError
from training.data.summary import UNKNOWN_MS, Summary, in_words
from udfs.contracts.clicks import DecodedClicks
from udfs.mapping.definition import MappingFile

EXAMPLES = 3  # of other users, for the message that there is no such user


class _Row(NamedTuple):
    """An event on its way to the user's history."""

    packed: bytes
    arrival_ms: int
    partition: int
    offset: int
    order_ms: int  # when it happened or, of an event that a login adds, when the login did
    place: int = 0  # of an event that a login adds, counted from the login: below 0
    name: str = ""
    source: Part | None = None


def read_recorded(
    user_id: str,
    clicks: Path,
    rules: JobRules,
    report: Report,
    profiles: Path | None = None,
    mappings: MappingFile | None = None,
) -> UserEvents:
    """A user's events and profiles. Raises SourceError, MappingError and, if there is no such user, NoEventError."""
    parts, summary = find_parts(clicks, mappings), Summary()
    rows: list[_Row] = []
    visitors: set[str | None] = set()
    others: list[str] = []
    for part, (batch, decoded, accepted) in _batches(parts, rules, summary, report):
        own = [at for at in accepted if decoded.user_ids[at] == user_id]
        rows += [_row(part, batch, decoded, at) for at in own]
        visitors.update(decoded.clicks[at].visitor for at in own)
        if not rows:
            others = sorted({*others, *(decoded.user_ids[at] for at in accepted[:EXAMPLES])})[:EXAMPLES]
    if not rows:
        raise _no_event(clicks, user_id, summary, others)
    visitors -= {None, user_id}
    packed, cautions = _filled(
        [row.packed for row in rows], [user_id] * len(rows), [row.arrival_ms for row in rows], rules
    )
    rows = [row._replace(packed=event) for row, event in zip(rows, packed)]
    if rules.follow_logins and visitors:
        rows += _rows_of_logins(parts, rules, report, user_id, visitors)
    rows = _in_order(rows, rules)
    own_rows = {position: row for position, row in enumerate(rows) if not row.place}
    return UserEvents(
        _as_clicks(rows, rules, user_id),
        NO_UPDATES if profiles is None else _updates(profiles, user_id, report),
        {position: row.name for position, row in own_rows.items()},
        {position: _shown_place(row) for position, row in own_rows.items()},
        cautions=cautions,
    )


def _batches(
    parts: Sequence[Part], rules: JobRules, summary: Summary, report: Report
) -> Iterator[tuple[Part, DecodedBatch]]:
    for number, part in enumerate(parts):
        report("reading clicks", number, len(parts))
        for batch in decoded_batches(part, summary, rules.topic.layout):
            yield part, batch


def _row(part: Part, batch: Batch, decoded: DecodedClicks, at: int) -> _Row:
    return _Row(
        decoded.events[at],
        int(batch.arrival_ms[at]) if part.is_archive else UNKNOWN_MS,
        int(batch.partition[at]),
        int(batch.offset[at]),
        decoded.event_times_ms[at],
        name=decoded.clicks[at].event_name,
        source=part,
    )


def _filled(
    packed: Sequence[bytes], user_ids: Sequence[str], arrival_ms: Sequence[int], rules: JobRules
) -> tuple[list[bytes], list[str]]:
    """Packed events of users with the columns of the population, and why these may differ from the job's."""
    layout = rules.topic.layout
    if not layout.population_columns:
        return packed, []
    records = np.frombuffer(b"".join(packed), layout.dtype)
    arrival = np.where(np.equal(arrival_ms, UNKNOWN_MS), records["time_ms"], arrival_ms)
    records, cautions = fill_events(records, user_ids, arrival, layout, rules.population)
    return [record.tobytes() for record in records], cautions


def _rows_of_logins(
    parts: Sequence[Part], rules: JobRules, report: Report, user_id: str, visitors: set[str | None]
) -> list[_Row]:
    """What the user's logins add to the history: events of anonymous visitors."""
    devices = [
        (decoded.clicks[at].visitor, decoded.user_ids[at], *_row(part, batch, decoded, at)[:4])
        for part, (batch, decoded, accepted) in _batches(parts, rules, Summary(), report)
        for at in accepted
        if decoded.clicks[at].visitor in visitors
    ]
    visitor, user, packed, arrival_ms, *place = zip(*devices)
    packed, _ = _filled(packed, user, arrival_ms, rules)
    columns = visitor, user, packed, arrival_ms, *place
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, DEVICE_ROWS)], DEVICE_ROWS)
    added = login_rows(table, rules.history_length, rules.duplicates_within_ms, rules.topic.layout.dtype)
    added = added.filter(pc.and_(pc.equal(added["user_id"], user_id), pc.invert(added["is_outcome"])))
    columns = ("packed", "arrival_ms", "partition", "offset", "login_ms", "place")
    return [_Row(*row) for row in zip(*(added.column(name).to_pylist() for name in columns))]


def _in_order(rows: list[_Row], rules: JobRules) -> list[_Row]:
    """The rows in order of arrival, each record once, with their arrival as training takes it."""
    records = np.frombuffer(b"".join(row.packed for row in rows), rules.topic.layout.dtype)
    arrival, partition, offset, order_ms, place = (np.array(column, np.int64) for column in [*zip(*rows)][1:6])
    user = np.zeros(len(rows), np.int64)
    order, arrival, _ = arrivals(user, arrival, partition, offset, order_ms, place, records)
    once = ~read_twice(user, partition[order], offset[order], place[order])
    return [rows[at]._replace(arrival_ms=ms) for at, ms in zip(order[once], arrival[once].tolist())]


def _as_clicks(rows: list[_Row], rules: JobRules, user_id: str) -> Clicks:
    records = np.frombuffer(b"".join(row.packed for row in rows), rules.topic.layout.dtype)
    arrival = np.array([row.arrival_ms for row in rows], np.int64)
    added = np.array([row.place != 0 for row in rows])
    count = len(rows)
    return Clicks([user_id], np.zeros(count, np.int64), records, arrival, np.arange(count), Counter(), added)


def _updates(profiles: Path, user_id: str, report: Report) -> ProfileUpdates:
    """The user's profile updates."""
    times, profile_records = [NO_UPDATES.updated_ms], [NO_UPDATES.profiles]
    parts = find_parts(profiles)
    for number, part in enumerate(parts):
        report("reading profiles", number, len(parts))
        for batch in read_part(part):
            read = read_profile_batch(batch.keys, batch.payloads, batch.arrival_ms)
            own = [at for at, user in enumerate(read.user_ids) if user == user_id]
            times.append(read.updated_ms[own])
            profile_records.append(read.profiles[own])
    updated_ms = np.concatenate(times)
    return ProfileUpdates([user_id] * len(updated_ms), updated_ms, np.concatenate(profile_records), Counter())


def _shown_place(row: _Row) -> Place:
    if row.source.is_archive:
        return {"partition": row.partition, "offset": row.offset}
    return {"file": row.source.path.name, "record": row.offset % OFFSETS_OF_FILE + 1}


def _no_event(clicks: Path, user_id: str, summary: Summary, others: Sequence[str]) -> Exception:
    if summary.accepted:
        return NoEventError(
            f"{clicks}: no event of user {user_id} among {summary.accepted:,} accepted clicks; others are, for "
            f"example, {', '.join(others)}"
        )
    problems = [line.strip() for line in summary.intake.problems()]
    if summary.rejections:
        problems.append(f"{in_words(summary.rejected)} ({'; '.join(summary.rejections)})")
    return SourceError(f"{clicks}: no click accepted of {summary.read} records: {'; '.join(problems) or 'it is empty'}")
