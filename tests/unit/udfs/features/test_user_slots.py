"""A user's slot: whatever the operator does with it between batches, features are those of the whole history."""

import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.udfs.features.test_features import EDGES, MINUTE, NOON, assert_same_bits, event, random_batch
from udfs.contracts.packed_events import (
    DEDUP_BY_EVENT,
    DEDUP_BY_NOTHING,
    DEDUP_BY_ORDER,
    EVENT,
    read_histories,
)
from udfs.contracts.profiles import NO_PROFILE, PROFILE, Profile, pack_profile
from udfs.features.computer import FeatureComputer
from udfs.features.user_slots import (
    EVENT_ROW,
    HISTORY_ROW,
    LAYOUT,
    LOGIN_ROW,
    PROFILE_ROW,
    REMEMBERED_ORDERS,
    SLOT_HEAD,
    USER_ROW,
    UserSlots,
    new_head,
    ring_bytes,
    user_row_format,
)

RANGE_BYTES = 8  # of a head: begin and end, which are not part of the state
LAYOUT_BYTES = 4  # behind them, with which the state begins
HEAD_BYTES = 72  # of a head in the state
WITHIN = 5 * MINUTE
ROW_FORMAT = user_row_format(EVENT)


class Operator:
    """Slots as KeyedBatchOperator.java keeps them: a cache of the state, the least recently used one is given away."""

    def __init__(self, history_length: int, slot_count: int, state: dict[str, bytes]):
        self.computer = FeatureComputer(history_length=history_length)
        self.state = dict(state)
        self.features: list[np.ndarray] = []
        self.scored: list[bool] = []  # each event in turn
        self._users = UserSlots.empty(slot_count, history_length)
        self._heads = self._users.heads.view(np.uint8).reshape(slot_count, -1)
        self._bodies = self._users.events.view(np.uint8).reshape(slot_count, -1)
        self._slots: OrderedDict[str, int] = OrderedDict()  # by user, the least recently used first
        self._dirty: set[str] = set()
        self._batch: list[tuple[str, int, bytes]] = []

    def add(self, user: str, kind: int, content: bytes) -> None:
        if user not in self._slots:
            self._load(user)
        self._slots.move_to_end(user)
        self._dirty.add(user)
        self._batch.append((user, kind, content))

    def flush(self) -> None:
        if self._batch:
            packed = [struct.pack(ROW_FORMAT, 1, kind, 0, 0, 0, 0, 0, content) for _, kind, content in self._batch]
            rows = np.frombuffer(bytearray(b"".join(packed)), USER_ROW)
            slots = np.array([self._slots[user] for user, _, _ in self._batch], np.int32)
            features, scored = self.computer.append(rows, slots, self._users, WITHIN)
            self.features.append(features)
            self.scored += scored[rows["kind"] == EVENT_ROW].tolist()
            assert not scored[rows["kind"] != EVENT_ROW].any()
            self._batch = []

    def checkpoint(self) -> None:
        self.flush()
        for user in self._slots:
            self._write(user)

    def _load(self, user: str) -> None:
        slot = len(self._slots)
        if slot == len(self._heads):
            gone = next(iter(self._slots))
            if any(gone == batched for batched, _, _ in self._batch):
                self.flush()
            self._write(gone)
            slot = self._slots.pop(gone)
        self._fill(slot, self.state.get(user))
        self._slots[user] = slot

    def _fill(self, slot: int, value: bytes | None) -> None:
        head, used = new_head(), 0
        if value is not None:
            kept = len(head) - RANGE_BYTES
            assert value[:LAYOUT_BYTES] == head[RANGE_BYTES : RANGE_BYTES + LAYOUT_BYTES]
            used = min(len(value) - kept, self._bodies.shape[1])
            head = head[:RANGE_BYTES] + value[:kept]
            self._bodies[slot, :used] = np.frombuffer(value[len(value) - used :], np.uint8)
        self._heads[slot] = np.frombuffer(struct.pack("<ii", 0, used) + head[RANGE_BYTES:], np.uint8)

    def _write(self, user: str) -> None:
        if user in self._dirty:
            self._dirty.remove(user)
            head, body = (part[self._slots[user]].tobytes() for part in (self._heads, self._bodies))
            begin, end = struct.unpack_from("<ii", head)
            assert 0 <= begin <= end <= len(body)
            self.state[user] = head[RANGE_BYTES:] + body[begin:end]


@dataclass
class User:
    """All that there ever was of a user."""

    events: list[bytes] = field(default_factory=list)
    kept: list[bytes] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)
    older_events: int = 0  # that came with logins
    older_first_ms: list[int] = field(default_factory=list)
    profile: bytes = NO_PROFILE
    assigned_by: int = 0

    @property
    def count(self) -> int:
        return len(self.events) + self.older_events

    @property
    def first_seen_ms(self) -> int:
        return min([*np.frombuffer(b"".join(self.events), EVENT)["time_ms"].tolist(), *self.older_first_ms], default=0)

    def has_had(self, content: bytes) -> bool:
        """Whether an event is one of those that are remembered."""
        (event,) = np.frombuffer(content, EVENT)
        if event["dedup_by"] == DEDUP_BY_ORDER:
            return event["dedup_key"] in self.orders[-REMEMBERED_ORDERS:]
        kept = np.frombuffer(b"".join(self.kept), EVENT)
        is_same = (kept["dedup_by"] == DEDUP_BY_EVENT) & (kept["dedup_key"] == event["dedup_key"])
        is_near = np.abs(kept["time_ms"] - event["time_ms"]) < WITHIN
        return event["dedup_by"] == DEDUP_BY_EVENT and bool((is_same & is_near).any())


@dataclass
class Expected:
    """What each event in turn is to be computed from."""

    history_length: int = 0
    users: dict[str, User] = field(default_factory=dict)
    scored: list[bool] = field(default_factory=list)  # each event in turn
    histories: list[bytes] = field(default_factory=list)
    lifetime_events: list[int] = field(default_factory=list)
    first_seen_ms: list[int] = field(default_factory=list)
    profiles: list[bytes] = field(default_factory=list)

    def restart(self, history_length: int) -> None:
        self.history_length, self.scored = history_length, []
        for user in self.users.values():
            user.kept = user.kept[-history_length:]

    def add(self, name: str, kind: int, content: bytes) -> None:
        user = self.users.setdefault(name, User())
        if kind == PROFILE_ROW:
            user.profile = content
        elif kind == LOGIN_ROW:
            assigned_by, older, first_ms = struct.unpack("<Qqq", content)
            if user.count == 0:
                user.assigned_by = assigned_by
            if older:
                user.older_events += older
                user.older_first_ms.append(first_ms)
        elif user.has_had(content):
            self.scored += [False] * (kind == EVENT_ROW)
        else:
            self._add_event(user, content, kind == EVENT_ROW)

    def _add_event(self, user: User, content: bytes, is_scored: bool) -> None:
        user.events.append(content)
        user.kept = [*user.kept, content][-self.history_length :]
        (event,) = np.frombuffer(content, EVENT)
        if event["dedup_by"] == DEDUP_BY_ORDER:
            user.orders.append(event["dedup_key"])
        if is_scored:
            self.scored.append(True)
            self.histories.append(b"".join(user.events))
            self.lifetime_events.append(user.count)
            self.first_seen_ms.append(user.first_seen_ms)
            self.profiles.append(user.profile)

    def take_features(self, computer: FeatureComputer) -> np.ndarray:
        """The features of the events since the last call."""
        features = computer.compute(
            *read_histories(self.histories),
            np.array(self.lifetime_events, np.int64),
            np.array(self.first_seen_ms, np.int64),
            np.frombuffer(b"".join(self.profiles), PROFILE),
        )
        for column in (self.histories, self.lifetime_events, self.first_seen_ms, self.profiles):
            column.clear()
        return features


#: What happens beside rows.
FLUSH, CHECKPOINT, RESTORE = "flush", "checkpoint", "restore"


def check(history_lengths: list[int], slot_counts: list[int], happens: list) -> None:
    """Let it happen, where each restore goes on with the next of the history lengths and of the numbers of slots."""
    expected, state = Expected(), {}
    restores = [position for position, one in enumerate(happens) if one == RESTORE]
    for number, (start, end) in enumerate(pairwise([0, *restores, len(happens)])):
        history_length = history_lengths[min(number, len(history_lengths) - 1)]
        operator = Operator(history_length, slot_counts[number % len(slot_counts)], state)
        expected.restart(history_length)
        for one in happens[start:end]:
            if one == FLUSH:
                operator.flush()
            elif one == CHECKPOINT:
                operator.checkpoint()
            elif one != RESTORE:
                operator.add(*one)
                expected.add(*one)
        operator.checkpoint()
        state = operator.state
        assert operator.scored == expected.scored
        if operator.features:
            assert_same_bits(np.concatenate(operator.features), expected.take_features(operator.computer))
        assert_state_is_complete(state, expected.users, history_length)


def assert_state_is_complete(state: dict[str, bytes], users: dict[str, User], history_length: int) -> None:
    for name, user in users.items():
        kept = user.events[-history_length:]
        content = state[name]
        head = np.frombuffer(bytes(RANGE_BYTES) + content[:HEAD_BYTES], SLOT_HEAD)[0]
        assert content[HEAD_BYTES:].endswith(b"".join(kept))
        assert (head["events"], head["first_seen_ms"]) == (user.count, user.first_seen_ms)
        assert head["profile"].tobytes() == user.profile
        assert head["assigned_by"] == user.assigned_by


PROFILES = [NO_PROFILE, pack_profile(Profile("u")), pack_profile(Profile("u", "DE", membership_tier="gold"))]
users = st.sampled_from("abcde")
times = st.one_of(st.sampled_from(EDGES), st.integers(-10 * MINUTE, 10 * MINUTE))
events = st.builds(
    lambda at, kind, item, by, key: np.array(
        event(at, item=item, kind=kind, dedup_by=by, dedup_key=key if by else 0), EVENT
    ).tobytes(),
    times,
    st.integers(0, 17),
    st.integers(0, 2),
    st.sampled_from([DEDUP_BY_NOTHING, DEDUP_BY_EVENT, DEDUP_BY_ORDER]),
    st.sampled_from([1, 2, 3, 4, 5, 6, 2**64 - 1]),
)
event_rows = st.tuples(users, st.sampled_from([EVENT_ROW, EVENT_ROW, HISTORY_ROW]), events)
logins = st.builds(struct.pack, st.just("<Qqq"), st.integers(0, 2**64 - 1), st.integers(0, 3), times.map(NOON.__add__))
login_rows = st.tuples(users, st.just(LOGIN_ROW), logins)
profile_rows = st.tuples(users, st.just(PROFILE_ROW), st.sampled_from(PROFILES))
others = st.sampled_from([FLUSH, FLUSH, CHECKPOINT, RESTORE])


@given(
    history_lengths=st.lists(st.sampled_from([1, 2, 3, 64]), min_size=1, max_size=4),
    slot_counts=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    happens=st.lists(st.one_of(event_rows, event_rows, event_rows, profile_rows, login_rows, others), max_size=60),
)
def test_features_are_those_of_the_whole_histories_whatever_happens_between(history_lengths, slot_counts, happens):
    check(sorted(history_lengths, reverse=True), slot_counts, happens)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("history_lengths", [[1], [2], [3], [64], [64, 3, 2, 1]])
def test_features_are_those_of_the_whole_histories_on_long_ones(history_lengths, seed):
    random = np.random.default_rng(seed)
    happens = []
    for record in random_batch(rows=1_200, history_length=1, seed=seed)["records"]:
        user = f"u{int(random.exponential(1.5))}"  # a few come often, some come back much later
        happens.append((user, EVENT_ROW, record.tobytes()))
        if random.random() < 0.03:
            happens.append((user, PROFILE_ROW, PROFILES[random.integers(3)]))
        happens += [
            what for what, share in ((FLUSH, 0.1), (CHECKPOINT, 0.01), (RESTORE, 0.003)) if random.random() < share
        ]
    check(history_lengths, [3], happens)


def test_a_longer_history_length_keeps_what_there_was_and_grows():
    records = [np.array(event(number * 1_000, item=number), EVENT).tobytes() for number in range(20)]
    shorter = Operator(2, 1, {})
    for record in records[:10]:
        shorter.add("ada", EVENT_ROW, record)
    shorter.checkpoint()
    assert shorter.state["ada"][HEAD_BYTES:] == b"".join(records[8:10])
    longer = Operator(4, 1, shorter.state)
    for record in records[10:]:
        longer.add("ada", EVENT_ROW, record)
    longer.checkpoint()
    column = longer.computer.names.index("history_events")
    assert longer.features[0][:, column].tolist() == [3] + [4] * 9
    assert longer.state["ada"][HEAD_BYTES:] == b"".join(records[16:])


def test_state_of_a_user_is_72_bytes_and_40_for_each_record_kept():
    operator = Operator(3, 2, {})
    sizes = []
    for number in range(8):
        operator.add("ada", EVENT_ROW, np.array(event(number), EVENT).tobytes())
        operator.checkpoint()
        sizes.append(len(operator.state["ada"]))
    assert sizes == [72 + 40 * records for records in (1, 2, 3, 3, 3, 3, 3, 3)]
    operator.add("profile only", PROFILE_ROW, PROFILES[2])
    operator.checkpoint()
    assert len(operator.state["profile only"]) == 72


def test_a_new_head_is_of_a_user_without_events_or_profile():
    (head,) = np.frombuffer(new_head(), SLOT_HEAD)
    assert head["profile"].tobytes() == NO_PROFILE
    assert head[["begin", "end", "layout", "events", "first_seen_ms", "assigned_by"]].item() == (0, 0, LAYOUT, 0, 0, 0)
    assert not head["orders"].any()
    assert UserSlots.empty(3, 64).heads.tobytes() == new_head() * 3


def test_the_operator_finds_range_and_layout_in_front_of_a_head():
    head = np.zeros((), SLOT_HEAD)
    head["begin"], head["end"], head["layout"] = 3, 5, 7
    assert struct.unpack_from("<iii", head.tobytes()) == (3, 5, 7)
    assert SLOT_HEAD.itemsize == RANGE_BYTES + HEAD_BYTES


@pytest.mark.parametrize(("history_length", "records"), [(1, 2), (2, 3), (3, 4), (64, 96)])
def test_a_ring_has_room_for_half_as_much_again(history_length, records):
    assert ring_bytes(history_length) == records * EVENT.itemsize
    assert UserSlots.empty(5, history_length).ring_length == records


def test_a_row_is_packed_as_it_is_read():
    packed = np.array(event(5, "purchase", item=7, value=2.5), EVENT).tobytes()
    row = struct.pack(ROW_FORMAT, 3, EVENT_ROW, 1, 7, 2**31 - 1, 2**63 - 1, -(2**63), packed)
    assert struct.calcsize(ROW_FORMAT) == len(row) == USER_ROW.itemsize == 68
    read = np.frombuffer(row, USER_ROW)[0]
    assert read[["key_bytes", "kind", "has_event_id", "user_bytes"]].item() == (3, EVENT_ROW, 1, 7)
    assert (read["partition"], read["offset"], read["record_ms"]) == (2**31 - 1, 2**63 - 1, -(2**63))
    assert read["event"].tobytes() == packed
    assert read["event"]["time_ms"] == NOON + 5
    of_profile = struct.pack(ROW_FORMAT, 3, PROFILE_ROW, 0, 3, 0, 0, 0, PROFILES[2])
    assert np.frombuffer(of_profile, USER_ROW)["profile"].tobytes() == PROFILES[2]
