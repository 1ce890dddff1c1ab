"""Counts of the data that was read, added up over workers, and the messages about them."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training.data.dataset import largest_so_far
from training.data.event_names import probable_kind
from training.data.gaps import DAY_MS, Gap, Hour, add_hours, covered, find_gaps
from training.data.intake import EXAMPLES_SHOWN, Intake, counted
from udfs.contracts.clicks import DecodedClicks
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.contracts.rejects import Reason
from udfs.features.declaration import SESSION_GAP_MS
from udfs.measurement.bots import Bots, users_by_limit
from udfs.measurement.labels import Label

UNKNOWN_MS = -1  # arrival of an event whose file has no arrival times
#: Networks and batching make events late by seconds or minutes; by more than the gap of a session, features suffer.
SKEW_MS = SESSION_GAP_MS
#: Distinct event names that are counted apart; a column that is no event name may have millions of values.
MAX_NAMES = 10_000
NAMES_SHOWN = 10
#: With fewer users who have a positive example, chance moves the AUC by several hundredths.
RELIABLE_USERS = 50
OTHER = EVENT_KINDS[0]

#: With less, each hour of each weekday occurred once, and what happened then is taken for what always happens then.
CALENDAR_MS = 14 * DAY_MS
_FLOAT_ID = re.compile(r"\d+\.0+|\d+(\.\d+)?[eE][+-]?\d+")


@dataclass
class Summary:
    """Counts of one part of the data, or of all parts."""

    intake: Intake = field(default_factory=Intake)  # of files
    read: int = 0
    rejected: Counter = field(default_factory=Counter)  # clicks, by reason
    rejections: list[str] = field(default_factory=list)  # the first messages
    names: Counter = field(default_factory=Counter)  # accepted events, by event_name; at most MAX_NAMES
    own_kinds: set[str] = field(default_factory=set)  # names that a shop declares
    rejected_profiles: Counter = field(default_factory=Counter)
    profile_rejections: list[str] = field(default_factory=list)  # the first messages
    unread_profile_fields: Counter = field(default_factory=Counter)  # of accepted profiles, by name
    duplicates: int = 0  # records read twice: same partition and offset
    repeated: int = 0  # events sent before, by their event id or their order
    copies: int = 0  # further events identical to another one of the same user
    bots: Counter = field(default_factory=Counter)  # users who reach a limit of bots, by the limit
    bot_users: int = 0
    bot_events: int = 0
    skewed: int = 0  # events dated more than SKEW_MS before an earlier one of the same user
    skewed_users: int = 0
    contradicted: int = 0  # events of an archive whose order of arrival its times contradict
    before_gaps: int = 0  # events whose label depends on a gap
    undated_profiles: int = 0  # profiles of files without a time from which they hold
    float_events: int = 0  # accepted events whose user id looks like a float
    float_ids: list[str] = field(default_factory=list)  # the first such ids
    hours: dict[int, Hour] = field(default_factory=dict)  # accepted events, by hour since 1970
    calendar_features: tuple[str, ...] = ()  # that are computed from the hour or the weekday
    examples: int = 0
    positives: int = 0
    logged: Counter = field(default_factory=Counter)  # rows of the feature log, by outcome
    other_schemas: Counter = field(default_factory=Counter)  # skipped rows of the log, by schema hash
    first_ms: int = 2**62
    last_ms: int = -1
    last_arrival_ms: int = UNKNOWN_MS
    largest_skew_ms: int = 0

    def __iadd__(self, other: "Summary") -> "Summary":
        for name, value in vars(other).items():
            if name == "first_ms":
                self.first_ms = min(self.first_ms, value)
            elif name.endswith("_ms"):
                setattr(self, name, max(getattr(self, name), value))
            elif name == "intake":
                self.intake += value
            elif name in ("rejections", "profile_rejections"):
                setattr(self, name, (getattr(self, name) + value)[:EXAMPLES_SHOWN])
            elif name == "names":
                self.count_names(value)
            elif name == "hours":
                add_hours(self.hours, value)
            elif name == "calendar_features":
                self.calendar_features = self.calendar_features or value
            elif name == "float_ids":
                self.float_ids = first_distinct(self.float_ids + value)
            elif name == "own_kinds":
                self.own_kinds |= value
            else:
                setattr(self, name, getattr(self, name) + value)
        return self

    def add_decoded(self, decoded: DecodedClicks) -> list[int]:
        """Count a batch of decoded clicks; returns the rows of the accepted ones."""
        self.read += len(decoded.reasons)
        accepted = [row for row, reason in enumerate(decoded.reasons) if reason is None]
        for reason, message in zip(decoded.reasons, decoded.messages):
            if reason is not None and reason != Reason.UNFIT_ROW:  # which the intake has counted
                self.rejections = (self.rejections + [message])[:EXAMPLES_SHOWN]
        self.rejected.update(reason for reason in decoded.reasons if reason is not None)
        self.count_names(Counter(decoded.clicks[row].event_name for row in accepted))
        floats = [user for row in accepted if is_float(user := decoded.user_ids[row])]
        self.float_events += len(floats)
        self.float_ids = first_distinct(self.float_ids + floats)
        return accepted

    def count_names(self, names: Counter) -> None:
        """Add events by name."""
        for name, count in names.items():
            known = name in self.names or len(self.names) < MAX_NAMES
            self.names[name if known else OTHER] += count

    @property
    def accepted(self) -> int:
        return self.read - self.rejected.total()

    @property
    def unknown_names(self) -> Counter:
        """The names that count as `other`, and how many events have them."""
        kinds = self.own_kinds.union(EVENT_KINDS[1:])
        return Counter({name: count for name, count in self.names.items() if name not in kinds})

    @property
    def gaps(self) -> list[Gap]:
        """The stretches of time without data."""
        return find_gaps(self.hours)

    @property
    def covered_ms(self) -> int:
        """The time that the data covers, without gaps."""
        return covered(self.hours, self.gaps)

    @property
    def data_end_ms(self) -> int:
        """The end of the data: its last arrival or, if that is unknown, its newest event."""
        return self.last_ms if self.last_arrival_ms == UNKNOWN_MS else self.last_arrival_ms


def skew(user: np.ndarray, time_ms: np.ndarray) -> Summary:
    """Count events, given by user and arrival, that are dated long before an earlier one of the same user."""
    behind_ms = largest_so_far(user, time_ms) - time_ms
    skewed = behind_ms > SKEW_MS
    return Summary(
        skewed=int(skewed.sum()),
        skewed_users=len(np.unique(user[skewed])),
        largest_skew_ms=int(behind_ms.max(initial=0)),
    )


def find_bots(bots: Bots, user: np.ndarray, time_ms: np.ndarray) -> tuple[np.ndarray, Summary]:
    """The users who reach a limit of bots, int64[k] codes, and counts of them and of their events.

    Takes the user int64[n] and the time int64[n] of events in any order.
    """
    by_limit = users_by_limit(bots, user, time_ms)
    users = np.unique(np.concatenate([*by_limit.values(), np.empty(0, np.int64)]))
    return users, Summary(
        bots=Counter({limit: len(found) for limit, found in by_limit.items() if len(found)}),
        bot_users=len(users),
        bot_events=int(np.isin(user, users).sum()),
    )


def is_float(user_id: str) -> bool:
    """Whether an id looks like a number that was stored as a float.

    >>> is_float("123.0"), is_float("1e5"), is_float("1.5"), is_float("123")
    (True, True, False, False)
    """
    return _FLOAT_ID.fullmatch(user_id) is not None


def first_distinct(ids: list[str]) -> list[str]:
    """The first EXAMPLES_SHOWN different ones."""
    return list(dict.fromkeys(ids))[:EXAMPLES_SHOWN]


def why_none_is_scored(label: Label, names: Iterable[str]) -> str | None:
    """Why no event of these names can be an example of a label, with the remedy; None if one can."""
    if {name if name in EVENT_KINDS else OTHER for name in names} & set(label.scored_events):
        return None
    if label.rows:
        why = f"no event is {' or '.join(label.rows)}, and the label predicts nothing after any other"
    else:
        why = f"each event is {' or '.join(label.events)}, which the label predicts"
    return f"{why}: give the other events too, or choose another label"


def in_words(counts: Counter) -> str:
    """The counts as text, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"


def limits_in_words(bots: Counter) -> str:
    """How many users reach each limit of bots."""
    return ", ".join(f"{counted(users, 'user')} with {limit}" for limit, users in bots.most_common())


def bots_in_words(summary: Summary) -> str:
    """Whose events are left out, and why; the number of events comes before it."""
    return (
        f"events of {counted(summary.bot_users, 'user')} who look like bots are left out "
        f"({limits_in_words(summary.bots)}); bots: null in the training settings keeps them"
    )


def names_in_words(names: Counter) -> str:
    """The most frequent names that count as `other`, each with the GA4 name that is probably meant."""
    shown = []
    for name, count in names.most_common(NAMES_SHOWN):
        kind = probable_kind(name)
        shown.append(f"{count} {name}" + (f" (probably {kind})" if kind not in (None, name) else ""))
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more names" if more else "")


def overview(summary: Summary) -> str:
    """The counts in a few lines: records, events by name, and the feature log if there is one."""
    first, last = (datetime.fromtimestamp(time / 1000, UTC) for time in (summary.first_ms, summary.last_ms))
    lines = [
        f"{summary.accepted} of {summary.read} clicks accepted, from {first:%Y-%m-%d %H:%M} to "
        f"{last:%Y-%m-%d %H:%M} UTC; {summary.examples} examples for training and testing"
    ]
    known = Counter({name: summary.names[name] for name in EVENT_KINDS[1:] if summary.names[name]})
    lines.append(f"events: {in_words(known)}; {summary.unknown_names.total()} other")
    if logged := summary.logged:
        lines.append(
            f"feature log: {logged['rows']} rows, {logged['repeated']} of them repeated, "
            f"match {logged['matched']} clicks"
        )
    return "\n".join(lines)


def warnings(summary: Summary, clicks: Path, profiles: Path | None, log: Path | None) -> list[str]:
    """One line per problem in the data, with its effect."""
    others = summary.other_schemas
    unknown = summary.unknown_names
    broken = Counter(summary.rejected)
    del broken[Reason.UNFIT_ROW]  # the intake shows these
    rejected = f"clicks rejected by the same rules as in the job: {in_words(broken)}"
    if summary.rejections:
        rejected += f"; for example: {'; '.join(summary.rejections)}"
    if summary.last_arrival_ms == UNKNOWN_MS:
        order = (
            "Without arrival times, events are taken in the order of their event times, in whichever order the rows "
            "are: no event sees another one that is dated later. An event that is dated too late counts, and sees "
            "profiles, as of its date"
        )
    elif summary.contradicted:
        order = "Where the order of arrival is not known, events are taken in the order of their event times"
    else:
        order = (
            "Events are taken in order of arrival, as in the job: their features leave out events with later event "
            "times, but `lifetime_events` counts all that had arrived, and profiles are those known at the arrival. "
            "Labels follow the event times"
        )
    problems = [
        (clicks, broken.total(), rejected),
        (
            clicks,
            unknown.total(),
            f"events have names that count as `other`: {names_in_words(unknown)}; map what they mean under "
            "values.event_name of a mapping, or declare kinds of your own",
        ),
        (
            profiles,
            summary.rejected_profiles.total(),
            f"profiles can't be used: {in_words(summary.rejected_profiles)}; for example: "
            f"{'; '.join(summary.profile_rejections)}",
        ),
        (
            profiles,
            summary.unread_profile_fields.total(),
            f"values of profiles can't be read and count as unknown: {in_words(summary.unread_profile_fields)}",
        ),
        (clicks, summary.duplicates, "duplicate records (same partition and offset), each counted once"),
        (
            clicks,
            summary.repeated,
            "events were sent before, with the same event_id or transaction_id; they are left out, as in the job",
        ),
        (
            clicks,
            summary.copies,
            f"events are identical to another event of the same user{_share(summary.copies, summary.accepted)}; they "
            "are kept, because no id says that they are the same, and the job would score each. If something was "
            "exported twice, remove equal rows (`sort -u`, SELECT DISTINCT), or map an event_id: events with an id "
            "that an earlier one has are left out",
        ),
        (clicks, summary.bot_events, bots_in_words(summary)),
        (
            clicks,
            summary.skewed,
            f"events of {summary.skewed_users} users have event times more than {SKEW_MS // 60_000} min before an "
            f"earlier event of the same user, by up to {_duration(summary.largest_skew_ms)}: a clock is wrong, or the "
            f"file is not in order of arrival. {order}",
        ),
        (
            clicks,
            summary.contradicted,
            "events have Kafka timestamps that contradict the order of their offsets, so when they arrived is not "
            "known: an export that was not in order was probably sent with the times of its events. They are taken in "
            "the order of their event times, and see the profiles of these times",
        ),
        (
            profiles,
            summary.undated_profiles,
            "profiles have no updated_at, and count as known at all times. If they tell what was known only later, "
            "such as a customer's number of orders, the model learns from the future: set updated_at",
        ),
        (log, others.total(), f"rows have another feature_schema_hash and are skipped: {in_words(others)}"),
        (log, summary.logged["absent"], "rows match no click that was read and are skipped"),
        (log, summary.logged["differing"], "rows differ from an earlier row of the same event, which is used instead"),
    ]
    return [
        *(f"{clicks}: {line}" if not line.startswith(" ") else line for line in summary.intake.problems()),
        *(f"{path}: {count} {problem}" for path, count, problem in problems if count),
        *(f"{clicks}: {line}" for line in doubts(summary, summary.calendar_features)),
    ]


def doubts(summary: Summary, calendar_features: Sequence[str]) -> list[str]:
    """One line for each reason to doubt that accepted events tell what they seem to tell."""
    lines = []
    if summary.float_events:
        events = counted(summary.float_events, "event has a user_id", "events have user ids")
        lines.append(
            f"{events} that look like floats ({', '.join(summary.float_ids)}): a column of numbers was probably read "
            "with missing values. Ids above 2^53 lose digits in this way, so that several users become one, and 123.0 "
            "is another user than 123. Export the column as text or as integers"
        )
    if gaps := summary.gaps:
        shown = [f"{_minute(gap.last_ms)} to {_minute(gap.first_ms)}" for gap in gaps[:EXAMPLES_SHOWN]]
        more = f" and {len(gaps) - len(shown)} more" if len(gaps) > len(shown) else ""
        censored = f" ({counted(summary.before_gaps, 'event')})" if summary.before_gaps else ""
        lines.append(
            f"no event at all from {', '.join(shown)}{more} UTC: data is missing, or a date is wrong. Events whose "
            f"label depends on what happened then are no examples{censored}; what features count is too low after it"
        )
    if summary.accepted and summary.covered_ms < CALENDAR_MS and calendar_features:
        lines.append(
            f"the data covers {_duration(summary.covered_ms)}, less than two weeks: what "
            f"{' and '.join(calendar_features)} seem to say may be chance, because no hour of a weekday occurred more "
            "than twice. Use data of more time, or list the other features under `features` of the settings"
        )
    return lines


def _share(part: int, of: int) -> str:
    return f" ({part / of:.1%} of all)" if of else ""


def _minute(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def _duration(milliseconds: int) -> str:
    for unit, size in (("days", 86_400_000), ("h", 3_600_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.1f} {unit}"
    return f"{milliseconds / 60_000:.0f} min"
