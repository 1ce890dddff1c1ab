"""The handler of the operator that follows logins: what an anonymous user did goes on as the history of the user.

Rows of clicks with an anonymous id come in, with it as their key; rows for the score operator go out, with the user's
id as their key. An anonymous user's events are kept here until a login, because the score operator has them in a slot
that the user's rows can't reach. A login is a click whose user is not the anonymous one: before it goes a LOGIN_ROW,
with the hash that the anonymous user's arm is assigned by, and a HISTORY_ROW for each event that was kept. The first
event of an anonymous user has a LOGIN_ROW of its own, so that its arm is assigned by the same hash.
"""

from typing import NamedTuple

import numpy as np

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.contracts.identifiers import hash_id
from udfs.features.user_slots import HISTORY_ROW, LOGIN, LOGIN_ROW, UserSlots, head_type
from udfs.workers.metrics import MetricGroup
from udfs.workers.protocol import Rows, SharedMemory, frame_record
from udfs.workers.server import Handler
from udfs.workers.user_rows import UserRows

_KEY_BYTES = 4  # that a row begins with


class FollowLogins(Handler):
    """Keeps the latest events of anonymous users in slots, and hands them on to the users that they log in as."""

    def __init__(self, history_length: int, duplicates_within_ms: int, layout: EventLayout = STANDARD_LAYOUT):
        self._history_length, self._duplicates_within_ms, self._layout = history_length, duplicates_within_ms, layout

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        from udfs.features.kernel import slot_functions  # compiles, which takes seconds

        self._event = self._layout.dtype
        self._functions = slot_functions(self._event)
        self._rows = UserRows(self._event)
        self._users = UserSlots(memory.slot_heads(head_type(self._layout)), memory.slot_bodies(self._event))
        self._logins = metrics.counter("logins")

    def process(self, rows: Rows) -> list[bytes]:
        heads = rows.heads(self._rows.type)
        rows.check_tails(self._rows.type.itemsize, heads["key_bytes"].astype(np.int64) + heads["user_bytes"])
        key_starts = (rows.ends - heads["key_bytes"]).tolist()
        user_starts = (key_starts - heads["user_bytes"].astype(np.int64)).tolist()
        users = [rows.content[start:end] for start, end in zip(user_starts, key_starts)]
        keys = [rows.content[start:end] for start, end in zip(key_starts, rows.ends.tolist())]
        is_login = np.array([user != key for user, key in zip(users, keys)], bool)
        moves = self._move_histories(heads, rows.slots, is_login)
        records, begin = [], 0
        for row, (user, key, start, key_start, end) in enumerate(
            zip(users, keys, rows.starts.tolist(), key_starts, moves.ends)
        ):
            if moves.is_first[row]:
                records.append(self._login_row(key, key, 0, 0))
            elif end > begin:
                self._logins.inc()
                records.append(self._login_row(user, key, *moves.older[row]))
                records += [self._rows.row(HISTORY_ROW, event.tobytes(), user) for event in moves.events[begin:end]]
            begin = end
            records.append(frame_record(0, rows.content[start + _KEY_BYTES : key_start - len(user)], user))
        return records

    def _move_histories(self, heads: np.ndarray, slots: np.ndarray, is_login: np.ndarray) -> "_Moves":
        used = self._users.heads["end"] - self._users.heads["begin"]
        room = int(used[np.unique(slots[is_login])].sum()) // self._event.itemsize + int(np.count_nonzero(~is_login))
        is_first, events = np.empty(len(slots), bool), np.empty(room, self._event)
        ends, older = np.empty(len(slots), np.int64), np.zeros((len(slots), 2), np.int64)
        self._functions.move_histories(
            is_login, heads["event"], slots, *self._users.kernel_arguments, self._history_length,
            self._duplicates_within_ms, is_first, events, ends, older,
        )  # fmt: skip
        return _Moves(is_first.tolist(), events, ends.tolist(), older.tolist())

    def _login_row(self, user: bytes, anonymous: bytes, events: int, first_seen_ms: int) -> bytes:
        login = np.array([(hash_id(anonymous.decode()), events, first_seen_ms)], LOGIN)
        return self._rows.row(LOGIN_ROW, login.tobytes(), user)


class _Moves(NamedTuple):
    """What `move_histories` says of n rows."""

    is_first: list[bool]
    events: np.ndarray  # EVENT[m], row r's from ends[r - 1] to ends[r]
    ends: list[int]
    older: list[list[int]]
