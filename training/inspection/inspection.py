"""Counts over recorded clicks, read as training and the job would read them."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from training.data.archive import Part, find_parts, unmatched_files
from training.data.calendar import calendar_names
from training.data.decoded import decoded_batches
from training.data.gaps import reaches_into_gap
from training.data.sources import DAY_MS
from training.data.summary import Summary, find_bots
from training.inspection.devices import BUSY_DEVICE, NO_DEVICE, Devices, find_devices
from training.inspection.repeats import REPEAT_FIELDS, Repeats, find_repeats
from udfs.contracts.clicks import DecodedClicks
from udfs.contracts.event_layout import EventLayout
from udfs.contracts.identifiers import identifies
from udfs.contracts.packed_events import EVENT, EVENT_KINDS, NO_ID, standard_kinds, without_ids
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.mapping.definition import MappingFile
from udfs.measurement.bots import Bots
from udfs.measurement.labels import Label, label_events

HOUR_MS, QUARTER_MS = 3_600_000, 900_000
#: One user with so many of all events is a crawler, a test account, or an id that many users share.
BUSY_USER = 0.05
ENOUGH_EVENTS = 1_000  # for a share of one user to mean anything
SHARED_SHOWN = 5  # anonymous ids


@dataclass
class Inspection:
    """What recorded clicks hold."""

    summary: Summary = field(default_factory=Summary)
    users: Counter = field(default_factory=Counter)  # accepted events by user
    by_day: dict[int, np.ndarray] = field(default_factory=dict)  # days since 1970: int64[kinds], accepted events
    by_hour: np.ndarray = field(default_factory=lambda: np.zeros(24, np.int64))  # accepted events, local time
    filled: Counter = field(default_factory=Counter)  # accepted events that have a field
    repeats: Repeats = field(default_factory=Repeats)  # among accepted events
    devices: Devices = field(default_factory=Devices)  # of accepted events
    shared_devices: dict[str, int] = field(default_factory=dict)  # the first SHARED_SHOWN anonymous ids: their users
    bots: list[str] = field(default_factory=list)  # users who reach a limit of bots, of the default settings
    skipped_files: list[Path] = field(default_factory=list)
    label: Label | None = None
    examples: int = 0
    positives: int = 0
    positive_users: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether every row becomes an accepted click."""
        return not self.summary.rejected and not self.summary.intake.unfit and bool(self.summary.accepted)

    @property
    def kinds(self) -> np.ndarray:
        """Accepted events by kind, int64[kinds]."""
        return sum(self.by_day.values(), np.zeros(len(EVENT_KINDS), np.int64))

    @cached_property
    def placeholders(self) -> Counter:
        """Events of users whose id is probably none."""
        return Counter({user: count for user, count in self.users.items() if not identifies(user)})

    @property
    def busiest(self) -> tuple[str, int] | None:
        """The user with the most events and their number, if they are a suspicious share of all."""
        if self.summary.accepted < ENOUGH_EVENTS:
            return None
        user, count = self.users.most_common(1)[0]
        return (user, count) if count >= BUSY_USER * self.summary.accepted else None


def inspect(
    data: Path,
    mappings: MappingFile | None = None,
    label: Label | None = None,
    progress: Callable[[int, int, int], None] = lambda *_: None,
    declaration: Declaration = STANDARD,
) -> Inspection:
    """Read all clicks of a file, a directory or an archive, and count. It takes some 300 bytes of memory per event.

    `progress` is called with the files read, the files in total and the records so far. `declaration` has a shop's own
    kinds of events and features. Raises SourceError and MappingError.
    """
    result = Inspection(label=label)
    layout = declaration.layout
    result.summary.calendar_features = calendar_names(declaration.features)
    parts = find_parts(data, mappings)
    if mappings is not None:
        result.skipped_files = unmatched_files(data, mappings)
    codes: dict[str, int] = {}
    users, events = [], []
    for number, part in enumerate(parts):
        for user, records in _accepted(part, result, codes, layout):
            users.append(user)
            events.append(records)
            progress(number, len(parts), result.summary.read)
    if users:
        user, kept = np.concatenate(users), np.concatenate(events)
        users.clear(), events.clear()
        distinct = np.unique(np.stack([user, kept["hash"]], 1), axis=0)
        result.summary.copies = len(user) - len(distinct)
        _count_devices(result, user, kept["device"], codes)
        result.repeats, left_out = find_repeats(user, kept)
        _count_bots(result, user[~left_out], kept["time_ms"][~left_out], codes)
        if label is not None:
            _count_label(result, user[~left_out], kept[~left_out])
    return result


def _accepted(part: Part, result: Inspection, codes: dict[str, int], layout: EventLayout):
    """The users' codes int64[n] and what is kept of the events of each batch; counts them."""
    for batch, clicks, rows in decoded_batches(part, result.summary, layout):
        records = np.frombuffer(b"".join(clicks.events[row] for row in rows), layout.dtype)
        user_ids = [clicks.user_ids[row] for row in rows]
        _count(result, clicks, rows, user_ids, records)
        user = np.array([codes.setdefault(user, len(codes)) for user in user_ids], np.int64)
        kept = _kept(records, [clicks.clicks[row].event_name for row in rows])
        if batch.arrival_ms is not None:
            kept["arrival_ms"] = batch.arrival_ms[rows]
        # A visitor's id before the login is both, so users and devices share their codes.
        visitors = (clicks.clicks[row].visitor for row in rows)
        kept["device"] = [NO_DEVICE if one is None else codes.setdefault(one, len(codes)) for one in visitors]
        yield user, kept


def _count(
    result: Inspection, decoded: DecodedClicks, rows: list[int], user_ids: list[str], records: np.ndarray
) -> None:
    times = records["time_ms"]
    result.users.update(user_ids)
    days = times // DAY_MS
    for day in np.unique(days).tolist():
        counts = result.by_day.setdefault(day, np.zeros(len(EVENT_KINDS), np.int64))
        counts += np.bincount(standard_kinds(records[days == day]), minlength=len(EVENT_KINDS))
    local = times + records["utc_offset_quarters"].astype(np.int64) * QUARTER_MS
    result.by_hour += np.bincount(local % DAY_MS // HOUR_MS, minlength=24)
    for name, has in (
        ("event_id", _has(decoded, rows, "event_id")),
        ("anonymous_id", _has(decoded, rows, "anonymous_id")),
        ("transaction_id", _has(decoded, rows, "transaction_id")),
        ("item_id", records["item"] != NO_ID),
        ("item_category", records["category"] != NO_ID),
        ("value", ~np.isnan(records["value"])),
        ("page_location", records["page"] != NO_ID),
        ("page_type", records["page_type"] > 0),
        ("device_category", records["device"] > 0),
        ("engagement_time_msec", records["engagement_ds"] > 0),
        ("utc_offset_minutes other than 0", records["utc_offset_quarters"] != 0),
    ):
        result.filled[name] += int(has.sum())


def _has(decoded: DecodedClicks, rows: list[int], name: str) -> np.ndarray:
    """Whether each of the clicks has an id of that name, bool[n]."""
    return np.array([identifies(getattr(decoded.clicks[row], name)) for row in rows])


_EVENT_FIELDS = (*REPEAT_FIELDS, "kind", "engagement_ds")
_KEPT = np.dtype(
    [
        *((name, EVENT[name]) for name in _EVENT_FIELDS),
        ("arrival_ms", "<i8"),
        ("hash", "<i8"),
        ("name", "<i8"),
        ("device", "<i4"),
    ]
)


def _kept(records: np.ndarray, names: list[str]) -> np.ndarray:
    """What a label and repeats depend on, and hashes of the whole event without its id, and of its name.

    The device is left to the caller. Rows of a file are taken to have arrived as they happened.
    """
    kept = np.empty(len(records), _KEPT)
    for name in _EVENT_FIELDS:
        kept[name] = records[name]
    kept["arrival_ms"] = records["time_ms"]
    kept["hash"] = [hash(event) for event in without_ids(records).view(f"V{records.dtype.itemsize}").tolist()]
    kept["name"] = [hash(name) for name in names]
    return kept


def _count_devices(result: Inspection, user: np.ndarray, device: np.ndarray, codes: dict[str, int]) -> None:
    accepted = result.summary.accepted
    result.devices = find_devices(user, device, BUSY_DEVICE * accepted if accepted >= ENOUGH_EVENTS else np.inf)
    shown = result.devices.shared[:SHARED_SHOWN]
    ids = list(codes) if shown else []
    result.shared_devices = {ids[code]: users for code, users in shown}


def _count_bots(result: Inspection, user: np.ndarray, time_ms: np.ndarray, codes: dict[str, int]) -> None:
    found, counts = find_bots(Bots(), user, time_ms)
    result.summary += counts
    ids = list(codes) if len(found) else []
    result.bots = [ids[code] for code in found]


def _count_label(result: Inspection, user: np.ndarray, records: np.ndarray) -> None:
    end_ms = result.summary.data_end_ms
    positive, usable = label_events(result.label, user, records, end_ms)
    is_unknown = reaches_into_gap(records["time_ms"], result.label.horizon_ms, result.summary.gaps)
    usable &= ~is_unknown
    result.summary.before_gaps = int(is_unknown.sum())
    result.examples = int(usable.sum())
    result.positives = int((positive & usable).sum())
    result.positive_users = len(np.unique(user[positive & usable]))
