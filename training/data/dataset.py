"""Batch computation, from clicks and profile updates, of the features that the job computes event by event.

Clicks are laid out by user and, within a user, in order of arrival. A row is then a slice of that one array: nothing is
copied, and nothing that arrived later can be seen.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from udfs.config.durations import now_ms
from udfs.contracts.clicks import LATEST_TIME_MS, ClickLimits
from udfs.contracts.lenient import read_object, read_time
from udfs.contracts.packed_events import EVENT
from udfs.contracts.profiles import NO_PROFILE, PROFILE, ProfileDecoder
from udfs.contracts.rejects import Reason, Reject
from udfs.features.computer import FeatureComputer
from udfs.mapping.topic import ClickTopic
from udfs.measurement.labels import Label, label_events

#: The job bounds event times relative to Kafka's timestamps, which a plain file does not have.
ANY_TIME = ClickLimits(max_behind_ms=LATEST_TIME_MS, max_ahead_ms=LATEST_TIME_MS)
AT_ANY_TIME = ClickTopic(ANY_TIME)
_BATCH = 10_000
_AHEAD_MS = 86_400_000  # that a profile's time may be ahead of the clock
_EXAMPLES = 5


@dataclass(frozen=True)
class Outcomes:
    """k events of logins, which count as outcomes of what the anonymous users had done before."""

    user: np.ndarray  # int64[k], codes of the anonymous users
    records: np.ndarray  # EVENT[k]


NO_OUTCOMES = Outcomes(np.empty(0, np.int64), np.empty(0, EVENT))


@dataclass(frozen=True)
class Clicks:
    """n accepted clicks in order of arrival."""

    user_ids: list[str]  # of the users, by code
    user: np.ndarray  # int64[n], codes
    records: np.ndarray  # EVENT[n]
    arrival_ms: np.ndarray  # int64[n]
    positions: np.ndarray  # int64[n], index into the payloads
    rejected: Counter  # number of rejected payloads, by reason
    is_history: np.ndarray  # bool[n]: an event that was scored as another user's, before a login
    outcomes: Outcomes = NO_OUTCOMES


@dataclass(frozen=True)
class ProfileUpdates:
    """m accepted profile updates."""

    user_ids: list[str]  # of each update
    updated_ms: np.ndarray  # int64[m]
    profiles: np.ndarray  # PROFILE[m]
    rejected: Counter  # number of rejected payloads, by reason
    examples: list[str] = field(default_factory=list)  # messages of the first rejected payloads
    unread: Counter = field(default_factory=Counter)  # number of optional values that could not be read, by field


@dataclass(frozen=True)
class Dataset:
    """n events to score, by user and arrival, with the arguments of `FeatureComputer.compute`."""

    user_ids: list[str]  # of the users, by code
    user: np.ndarray  # int64[n], codes
    records: np.ndarray  # EVENT[n]
    starts: np.ndarray  # int64[n], of all events of the user
    ends: np.ndarray  # int64[n]
    lifetime_events: np.ndarray  # int64[n]
    first_seen_ms: np.ndarray  # int64[n]
    profiles: np.ndarray  # PROFILE[n]
    positions: np.ndarray  # int64[n], index into the payloads
    is_history: np.ndarray  # bool[n]: an event that was scored as another user's, before a login
    is_left_out: np.ndarray  # bool[n]: an event of a bot, or one whose label is not known
    outcomes: Outcomes
    history_length: int

    def label(self, label: Label, data_end_ms: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Whether each event is positive, bool[n], and whether it is a row to train on and evaluate, bool[n].

        See `label_events`.
        """
        own = ~self.is_history
        user = np.concatenate([self.user[own], self.outcomes.user])
        records = self.records[own]
        if len(self.outcomes.user):
            records = np.concatenate([records, self.outcomes.records])
        positive, usable = np.zeros(len(own), bool), np.zeros(len(own), bool)
        labels = label_events(label, user, records, data_end_ms)
        positive[own], usable[own] = (column[: np.count_nonzero(own)] for column in labels)
        return positive, usable & ~self.is_left_out

    def without(self, users: np.ndarray) -> "Dataset":
        """The dataset in which no event of these users is a row, given as int64[k] codes."""
        return self.without_events(np.isin(self.user, users))

    def without_events(self, chosen: np.ndarray) -> "Dataset":
        """The dataset in which these events, bool[n], are no rows either; they remain history."""
        return replace(self, is_left_out=self.is_left_out | chosen)

    def features(self, computer: FeatureComputer, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The feature matrix float32[k, features] of all rows, or of the k rows selected."""
        return computer.compute(
            self.records,
            self.starts[rows],
            self.ends[rows],
            self.lifetime_events[rows],
            self.first_seen_ms[rows],
            self.profiles[rows],
        )


def read_clicks(
    payloads: Iterable[bytes], arrival_ms: np.ndarray | None = None, topic: ClickTopic = AT_ANY_TIME
) -> Clicks:
    """Decode click records, given in order of arrival, as the job does.

    `arrival_ms` int64 has the arrival of each payload: Kafka's timestamp, to which the topic's limits relate. Without
    it, each event is taken to have arrived when it happened, and any event time is accepted. The newest event time so
    far would not do: one clock that is ahead would let all later events see profiles of the future.
    """
    decode = (replace(topic, limits=ANY_TIME) if arrival_ms is None else topic).decoder().decode
    codes: dict[str, int] = {}
    users, events, positions, rejected = [], [], [], Counter()
    payloads, read = iter(payloads), 0
    while batch := list(islice(payloads, _BATCH)):
        times_ms = [0] * len(batch) if arrival_ms is None else arrival_ms[read : read + len(batch)].tolist()
        decoded = decode(batch, times_ms)
        for position, (user_id, event, reason) in enumerate(
            zip(decoded.user_ids, decoded.events, decoded.reasons), read
        ):
            if reason is None:
                users.append(codes.setdefault(user_id, len(codes)))
                events.append(event)
                positions.append(position)
            else:
                rejected[reason] += 1
        read += len(batch)
    records = np.frombuffer(b"".join(events), topic.layout.dtype)
    positions = np.array(positions, np.int64)
    arrival = records["time_ms"] if arrival_ms is None else arrival_ms[positions]
    is_history = np.zeros(len(records), bool)
    return Clicks(list(codes), np.array(users, np.int64), records, arrival, positions, rejected, is_history)


def read_profiles(payloads: Iterable[bytes]) -> ProfileUpdates:
    """Decode profile records; each is valid from its `updated_at`, by default always."""
    payloads = list(payloads)
    return read_profile_batch([None] * len(payloads), payloads)


def read_profile_batch(
    keys: Sequence[bytes | None], payloads: Sequence[bytes | None], arrival_ms: np.ndarray | None = None
) -> ProfileUpdates:
    """Decode profile records as the job does; valid from `arrival_ms` int64 or, without it, from `updated_at`.

    `updated_at` is in milliseconds or ISO 8601. A record without it is valid from 0 (always).
    """
    decoded = ProfileDecoder().decode(keys, payloads)
    latest_ms = now_ms() + _AHEAD_MS
    user_ids, updated_ms, profiles, rejected, examples = [], [], [], Counter(), []
    for row, (user_id, profile, reason, message) in enumerate(
        zip(decoded.user_ids, decoded.profiles, decoded.reasons, decoded.messages)
    ):
        if reason is None:
            try:
                since = _updated_ms(payloads[row], latest_ms) if arrival_ms is None else arrival_ms[row]
            except Reject as reject:
                reason, message = reject.reason.value, str(reject)
        if reason is None:
            user_ids.append(user_id)
            updated_ms.append(since)
            profiles.append(profile)
        else:
            rejected[reason] += 1
            if len(examples) < _EXAMPLES:
                examples.append(message)
    packed = np.frombuffer(b"".join(profiles), PROFILE)
    return ProfileUpdates(user_ids, np.array(updated_ms, np.int64), packed, rejected, examples, decoded.unread)


def _updated_ms(payload: bytes | None, latest_ms: int) -> int:
    """The `updated_at` of a profile, in ms; 0 if it has none. Raises Reject."""
    given = read_object(payload).get("updated_at") if payload else None
    if given in (None, 0):
        return 0
    since = read_time("updated_at", given, may_be_iso=True)
    if since > latest_ms:
        expected = "expected the time of a change that has happened"
        raise Reject(Reason.TIME_IN_FUTURE, f"updated_at {given} is more than a day after now: {expected}")
    return since


NO_UPDATES = read_profiles([])


def arrange(
    clicks: Clicks, updates: ProfileUpdates = NO_UPDATES, history_length: int = 64, duplicates_within_ms: int = 0
) -> Dataset:
    """Order clicks by user, and add to each the state that the job would have at its arrival.

    Events that the job would not score because they were sent before are left out (`mark_repeated`).
    """
    order = np.argsort(clicks.user, kind="stable")
    order = order[~repeated_events(clicks.user[order], clicks.records[order], history_length, duplicates_within_ms)]
    user, records, arrival_ms = clicks.user[order], clicks.records[order], clicks.arrival_ms[order]
    index = np.arange(len(user))
    first = np.searchsorted(user, user, side="left")
    newest = _newest_update(clicks.user_ids, user, arrival_ms, updates)
    known = np.concatenate([np.frombuffer(NO_PROFILE, PROFILE), updates.profiles])
    return Dataset(
        user_ids=clicks.user_ids,
        user=user,
        records=records,
        starts=first,
        ends=index + 1,
        lifetime_events=index + 1 - first,
        first_seen_ms=smallest_so_far(user, records["time_ms"]),
        profiles=known[newest + 1],
        positions=clicks.positions[order],
        is_history=clicks.is_history[order],
        is_left_out=np.zeros(len(order), bool),
        outcomes=clicks.outcomes,
        history_length=history_length,
    )


def repeated_events(user: np.ndarray, records: np.ndarray, history_length: int, within_ms: int) -> np.ndarray:
    """Which of n events, by user and arrival, the job would not score because they were sent before; bool[n]."""
    repeated = np.zeros(len(records), bool)
    if within_ms > 0 and records["dedup_by"].any():
        from udfs.features.kernel import slot_functions  # compiles, which takes seconds

        slot_functions(records.dtype).mark_repeated(user, records, history_length, within_ms, repeated)
    return repeated


def largest_so_far(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The running maximum within each group; groups are numbered upwards."""
    return -smallest_so_far(group, -values)


def smallest_so_far(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The running minimum within each group; groups are numbered upwards."""
    distinct, rank = np.unique(values, return_inverse=True)
    # Every group's numbers lie below those of the previous group, so the minimum restarts with each group.
    floor = -group * len(distinct)
    return distinct[np.minimum.accumulate(floor + rank) - floor]


def _newest_update(
    user_ids: list[str], user: np.ndarray, arrival_ms: np.ndarray, updates: ProfileUpdates
) -> np.ndarray:
    """The index of the update that each event sees, int64[n]: its user's last one up to its arrival; -1 for none."""
    codes = {user_id: code for code, user_id in enumerate(user_ids)}
    update_user = np.array([codes.get(user_id, -1) for user_id in updates.user_ids], np.int64)
    m, n = len(update_user), len(user)
    users = np.concatenate([update_user, user])
    is_event = np.arange(m + n) >= m
    order = np.lexsort((is_event, np.concatenate([updates.updated_ms, arrival_ms]), users))
    place = np.maximum.accumulate(np.where(is_event[order], -1, np.arange(m + n)))
    has_update = (place >= 0) & (users[order[place]] == users[order])
    newest = np.empty(m + n, np.int64)
    newest[order] = np.where(has_update, order[place], -1)
    return newest[m:]
