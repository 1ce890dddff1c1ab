"""A busy user's slot in the memory that a task shares with its worker, and the rows that change it.

A slot is a head and a ring of packed events. The operator writes the head from `layout` on, and the bytes of the ring
between `begin` and `end`, to Flink's state; it knows no more of a slot than that.
"""

import json
from dataclasses import astuple, dataclass, replace
from typing import Self
from zlib import crc32

import numpy as np

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.contracts.packed_events import EVENT
from udfs.contracts.profiles import NO_PROFILE, PROFILE

#: Changes with everything that gives the bytes in state another meaning.
LAYOUT = 2

#: How many orders of a user are remembered, to count each once.
REMEMBERED_ORDERS = 4

SLOT_HEAD = np.dtype(
    [
        ("begin", "<i4"),  # where in the ring, in bytes, the kept events begin
        ("end", "<i4"),  # and end
        ("layout", "<u4"),  # `layout_id` of the events
        ("events", "<u4"),  # how many there ever were of the user
        ("first_seen_ms", "<i8"),  # time of the earliest one
        ("profile", PROFILE),
        ("orders", "<u8", REMEMBERED_ORDERS),  # dedup_key of the latest ones, the newest first
        ("assigned_by", "<u8"),  # hash of the anonymous id that the arm is assigned by; 0: the user's own id
    ]
)


def earlier_layouts(layout: EventLayout) -> list[EventLayout]:
    """The layouts with fewer of the own columns and tiles: a job can go on from them, with the later ones empty."""
    columns, tiles = layout.own_columns, layout.tiles
    found = [
        replace(layout, own_columns=columns[:first], tiles=tiles[:second])
        for first in range(len(columns) + 1)
        for second in range(len(tiles) + 1)
    ]
    return found[:-1]


def layout_id(layout: EventLayout) -> int:
    """What names the layout of a slot with such events: a job refuses state of another one."""
    if not layout.own_columns and not layout.tiles:
        return LAYOUT
    parts = [astuple(part) for part in (*layout.own_columns, *layout.tiles)]
    return crc32(json.dumps([LAYOUT, *parts]).encode())


def head_type(layout: EventLayout) -> np.dtype:
    """The type of a slot head: SLOT_HEAD, then the tiles of the layout, if it has any."""
    if not layout.tiles:
        return SLOT_HEAD
    return np.dtype([*((name, SLOT_HEAD[name]) for name in SLOT_HEAD.names), ("tiles", layout.tiles_type)])


def new_head(layout: EventLayout = STANDARD_LAYOUT) -> bytes:
    """The slot head of a new user."""
    head = np.zeros(1, head_type(layout))
    head["layout"] = layout_id(layout)
    head["profile"] = np.frombuffer(NO_PROFILE, PROFILE)
    return head.tobytes()


def ring_bytes(history_length: int, event: np.dtype = EVENT) -> int:
    """The size of a ring: 1.5 times the history, so that the newest events are seldom moved to its start."""
    return event.itemsize * (history_length + max(history_length // 2, 1))


#: Kinds of rows: an event to score; a profile; an event that was scored before as another user's; and a login, which
#: comes before those of the anonymous user.
EVENT_ROW, PROFILE_ROW, HISTORY_ROW, LOGIN_ROW = range(4)

#: What a login brings with it, besides the kept events.
LOGIN = np.dtype(
    [
        ("assigned_by", "<u8"),  # taken over by a new user
        ("events", "<i8"),  # how many older events there were that are not kept
        ("first_seen_ms", "<i8"),  # time of the earliest event of all
    ]
)


def user_row_type(event: np.dtype) -> np.dtype:
    """The type of such a row, for packed events of a type."""
    return np.dtype(
        {
            "names": [
                "key_bytes", "kind", "has_event_id", "user_bytes", "partition", "offset", "record_ms", "event",
                "profile", "login",
            ],
            "formats": ["<i4", "u1", "u1", "<u2", "<i4", "<i8", "<i8", event, PROFILE, LOGIN],
            "offsets": [0, 4, 5, 6, 8, 12, 20, 28, 28, 28],  # an event, a profile or a login
            "itemsize": 28 + event.itemsize,
        }
    )  # fmt: skip


#: What a row of the score operator begins with: a frame's header, then the fields that all rows have. An event row goes
#: on with the event's id, where it has one; each row ends with its key, the user's id. A row of the operator that
#: follows logins has the anonymous id as its key, and the user's id before it.
USER_ROW = user_row_type(EVENT)


def user_row_format(event: np.dtype) -> str:
    """The `struct` format of `user_row_type`."""
    return f"<iBBHiqq{event.itemsize}s"


def is_event(rows: np.ndarray) -> np.ndarray:
    """Which of n rows USER_ROW[n] are events to score, bool[n]."""
    return rows["kind"] == EVENT_ROW


@dataclass(frozen=True)
class UserSlots:
    """The slots of all busy users, c of them: views of the shared memory, or arrays of this process."""

    heads: np.ndarray  # SLOT_HEAD[c]
    events: np.ndarray  # EVENT[c * ring_length], a ring after the other

    @classmethod
    def empty(cls, count: int, history_length: int, layout: EventLayout = STANDARD_LAYOUT) -> Self:
        """Slots of new users, in memory of this process."""
        heads = np.frombuffer(bytearray(new_head(layout) * count), head_type(layout))
        return cls(
            heads, np.zeros(count * ring_bytes(history_length, layout.dtype) // layout.dtype.itemsize, layout.dtype)
        )

    @property
    def ring_length(self) -> int:
        return len(self.events) // len(self.heads)

    @property
    def tiles(self) -> np.ndarray:
        """The tiles of all users; without any, what stands for them in kernel functions."""
        return self.heads["tiles"] if "tiles" in self.heads.dtype.names else np.zeros(1, STANDARD_LAYOUT.tiles_type)

    @property
    def kernel_arguments(self) -> tuple[np.ndarray | int, ...]:
        """The fields that every kernel function of slots takes, in its order."""
        heads = self.heads
        fields = (heads[name] for name in ("begin", "end", "events", "first_seen_ms", "orders"))
        return (*fields, self.events, self.ring_length)
