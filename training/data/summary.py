"""What was read and what became of it: counts that workers add up, and what they say in words."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training.data.dataset import largest_so_far
from udfs.features.catalog import SESSION_GAP_MS

UNKNOWN_MS = -1  # arrival of an event whose file does not tell
#: Networks and batching make events late by seconds or minutes; by more than the gap of a session, features suffer.
SKEW_MS = SESSION_GAP_MS


@dataclass
class Summary:
    """Counts of a part of the data, or of all."""

    read: int = 0
    rejected: Counter = field(default_factory=Counter)  # clicks, by reason
    rejected_profiles: Counter = field(default_factory=Counter)
    duplicates: int = 0  # records read twice: same partition and offset
    copies: int = 0  # events equal in all to another one of the same user
    skewed: int = 0  # events dated more than SKEW_MS before an earlier one of the same user
    skewed_users: int = 0
    examples: int = 0
    positives: int = 0
    logged: Counter = field(default_factory=Counter)  # rows of the feature log, by what became of them
    other_schemas: Counter = field(default_factory=Counter)  # rows of the log that were left out, by schema hash
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
            else:
                setattr(self, name, getattr(self, name) + value)
        return self

    @property
    def accepted(self) -> int:
        return self.read - self.rejected.total()

    @property
    def data_end_ms(self) -> int:
        """When the data ended: its last arrival, or else its newest event."""
        return self.last_ms if self.last_arrival_ms == UNKNOWN_MS else self.last_arrival_ms


def skew(user: np.ndarray, time_ms: np.ndarray) -> Summary:
    """How many of n events, by user and in order of arrival, are dated long before an earlier one of the same user."""
    behind_ms = largest_so_far(user, time_ms) - time_ms
    skewed = behind_ms > SKEW_MS
    return Summary(
        skewed=int(skewed.sum()),
        skewed_users=len(np.unique(user[skewed])),
        largest_skew_ms=int(behind_ms.max(initial=0)),
    )


def in_words(counted: Counter) -> str:
    """How many there are of what, the most frequent first."""
    return ", ".join(f"{count} {what}" for what, count in counted.most_common()) or "there are none"


def overview(found: Summary) -> str:
    """What was read: a line, with one more for a feature log."""
    first, last = (datetime.fromtimestamp(time / 1000, UTC) for time in (found.first_ms, found.last_ms))
    lines = [
        f"{found.accepted} clicks accepted of {found.read}, from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC; "
        f"{found.examples} events to train on and test"
    ]
    if logged := found.logged:
        lines.append(
            f"{logged['rows']} rows of the feature log, {logged['repeated']} repeated, tell of {logged['found']} clicks"
        )
    return "\n".join(lines)


def warnings(found: Summary, clicks: Path, profiles: Path | None, log: Path | None) -> list[str]:
    """What is not as it should be and what that means, a line each."""
    others = found.other_schemas
    told = [
        (clicks, found.rejected.total(), f"clicks rejected, as the job would: {in_words(found.rejected)}"),
        (
            profiles,
            found.rejected_profiles.total(),
            f"profiles rejected, as the job would: {in_words(found.rejected_profiles)}",
        ),
        (clicks, found.duplicates, "records were there twice (partition and offset) and count once"),
        (
            clicks,
            found.copies,
            "events equal another one of the same user in everything; they are kept, as the job scores them too",
        ),
        (
            clicks,
            found.skewed,
            f"events of {found.skewed_users} users are dated more than {SKEW_MS // 60_000} min before an earlier one "
            f"of the same user, by up to {_duration(found.largest_skew_ms)}: a clock is off, or the file is not in "
            "order of arrival; their features leave out what is dated after them, and labels go by the dates",
        ),
        (log, others.total(), f"rows have another feature_schema_hash and are left out: {in_words(others)}"),
        (log, found.logged["absent"], "rows are of no click that was read and are left out"),
        (log, found.logged["differing"], "rows differ from an earlier one of the same event, which counts"),
    ]
    return [f"{path}: {count} {what}" for path, count, what in told if count]


def _duration(milliseconds: int) -> str:
    for unit, size in (("days", 86_400_000), ("h", 3_600_000)):
        if milliseconds >= 2 * size:
            return f"{milliseconds / size:.1f} {unit}"
    return f"{milliseconds / 60_000:.0f} min"
