"""Rows of clicks with an anonymous id in; rows for the score operator out, where histories go on after a login."""

import json
import pickle
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_operator import Memory, Record, read_records, rows_of
from tests.unit.udfs.workers.test_decode import raw_record
from udfs.contracts.clicks import Click, pack_click
from udfs.contracts.identifiers import hash_id
from udfs.features.user_slots import EVENT_ROW, HISTORY_ROW, LOGIN_ROW, USER_ROW, new_head, ring_bytes
from udfs.mapping.topic import ClickTopic
from udfs.workers.decode import ANONYMOUS, ROWS, ClickHandler
from udfs.workers.logins import FollowLogins
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import SharedMemory

NOW = 1_700_000_000_000
HISTORY_LENGTH, WITHIN_MS = 3, 60_000
DEVICES = ("d1", "d2", "gerät")


class Following:
    """A handler that was opened over slots which nobody evicts."""

    def __init__(self, directory: Path):
        Memory(directory / "memory", slot_count=8, new_head=new_head(), body_bytes=ring_bytes(HISTORY_LENGTH))
        memory = SharedMemory(directory / "memory")
        self.handler = pickle.loads(pickle.dumps(FollowLogins(HISTORY_LENGTH, WITHIN_MS)))
        self._slots: dict[bytes, int] = {}
        self._metrics, self._values = Metrics(memory.metrics), memory.metrics
        self.handler.open(memory, self._metrics.group())

    def __call__(self, clicks: list[dict]) -> list[Record]:
        rows = decoded(clicks)
        slots = [self._slots.setdefault(row.key, len(self._slots)) for row in rows]
        return read_records(b"".join(self.handler.process(rows_of([row.content for row in rows], slots))))

    @property
    def logins(self) -> int:
        return int(self._values[0])


@pytest.fixture
def following(tmp_path) -> Following:
    return Following(tmp_path)


def decoded(clicks: list[dict]) -> list[Record]:
    """The rows that a decode operator makes of clicks with an anonymous id."""
    handler = ClickHandler("clicks", ClickTopic(), follow_logins=True)
    with_memory(handler)
    raw = [raw_record(None, json.dumps(one).encode(), one["event_time"], row) for row, one in enumerate(clicks)]
    records = read_records(b"".join(handler.process(rows_of(raw))))
    assert {record.output for record in records} <= {ANONYMOUS}
    return records


def with_memory(handler: ClickHandler) -> None:
    handler.open(None, Metrics(np.zeros(64, np.int64)).group())


def click(device: str, user: str | None = None, at: int = 0, **fields) -> dict:
    """A click on a device, logged in or not."""
    times = {"event_name": "view_item", "event_time": NOW + at}
    return {"user_id": user or device, "anonymous_id": device, **times, **fields}


def packed(fields: dict) -> bytes:
    return pack_click(Click(**fields))


def shown(record: Record) -> tuple:
    """User, kind and content of a row for the score operator."""
    head = np.frombuffer(record.content[: USER_ROW.itemsize], USER_ROW)[0]
    assert head["key_bytes"] == len(record.key)
    kind = int(head["kind"])
    content = tuple(head["login"].item()) if kind == LOGIN_ROW else head["event"].tobytes()
    return record.key.decode(), kind, content


def test_clicks_without_an_anonymous_id_take_the_short_way():
    handler = ClickHandler("clicks", ClickTopic(), follow_logins=True)
    with_memory(handler)
    clicks = [click("d", anonymous_id=missing) for missing in (None, "")]
    raw = [raw_record(None, json.dumps(one).encode(), NOW) for one in clicks]
    assert [record.output for record in read_records(b"".join(handler.process(rows_of(raw))))] == [ROWS] * 2


def test_nothing_changes_where_logins_are_not_followed():
    handler = ClickHandler("clicks", ClickTopic())
    with_memory(handler)
    (record,) = read_records(
        b"".join(handler.process(rows_of([raw_record(None, json.dumps(click("d")).encode(), NOW)])))
    )
    assert (record.output, record.key) == (ROWS, b"d")


def test_what_an_anonymous_user_did_comes_before_the_login(following):
    before = [click("d", at=at, item_id=f"i{at}") for at in (5, 1, 3)]
    login = click("d", "ada", 9, event_id="e9")
    found = [shown(record) for record in following([*before, login])]
    assert found == [
        ("d", LOGIN_ROW, (hash_id("d"), 0, 0)),
        *(("d", EVENT_ROW, packed(one)) for one in before),
        ("ada", LOGIN_ROW, (hash_id("d"), 0, NOW + 1)),
        *(("ada", HISTORY_ROW, packed(one)) for one in before),
        ("ada", EVENT_ROW, packed(login)),
    ]
    assert following.logins == 1


def test_events_that_are_not_kept_are_counted(following):
    following([click("d", at=at) for at in (7, 2, 3, 4, 5)])
    (_, kind, content), *_ = [shown(record) for record in following([click("d", "ada", 9)])]
    assert (kind, content) == (LOGIN_ROW, (hash_id("d"), 2, NOW + 2))


def test_a_row_keeps_its_event_id_and_its_position(following):
    *_, record = following([click("d"), click("d", at=5, event_id="é1")])
    head = np.frombuffer(record.content[: USER_ROW.itemsize], USER_ROW)[0]
    assert record.content[USER_ROW.itemsize :] == "é1d".encode()
    assert head[["has_event_id", "partition", "offset", "record_ms"]].item() == (1, 0, 1, NOW + 5)


def test_a_second_login_brings_what_happened_since_the_first(following):
    following([click("d", at=1), click("d", "ada", 2), click("d", "ada", 3)])
    found = [shown(record) for record in following([click("d", at=4), click("d", "bob", 5)])]
    assert [(user, kind) for user, kind, _ in found] == [
        ("d", LOGIN_ROW),
        ("d", EVENT_ROW),
        ("bob", LOGIN_ROW),
        ("bob", HISTORY_ROW),
        ("bob", EVENT_ROW),
    ]
    assert found[3][2] == packed(click("d", at=4))


def test_an_event_that_is_sent_again_is_handed_on_once(following):
    again = click("d", at=1, event_id="e1")
    found = [shown(record) for record in following([again, again, click("d", "ada", 2)])]
    assert [kind for user, kind, _ in found if user == "d"] == [LOGIN_ROW, EVENT_ROW, EVENT_ROW]
    assert [kind for user, kind, _ in found if user == "ada"] == [LOGIN_ROW, HISTORY_ROW, EVENT_ROW]


def expected(clicks: list[dict]) -> list[tuple]:
    """The rows for the score operator, by the obvious way."""
    devices, rows = defaultdict(list), []
    for one in clicks:
        device, user = one["anonymous_id"], one["user_id"]
        events = devices[device]
        if user == device:
            if not events:
                rows.append((user, LOGIN_ROW, (hash_id(device), 0, 0)))
            events.append(one)
        elif events:
            older, first_ms = max(len(events) - HISTORY_LENGTH, 0), min(event["event_time"] for event in events)
            rows.append((user, LOGIN_ROW, (hash_id(device), older, first_ms)))
            rows += [(user, HISTORY_ROW, packed(event)) for event in events[-HISTORY_LENGTH:]]
            events.clear()
        rows.append((user, EVENT_ROW, packed(one)))
    return rows


@given(
    clicks=st.lists(
        st.builds(click, st.sampled_from(DEVICES), st.sampled_from([None, None, "ada", "bob"]), st.integers(0, 10)),
        max_size=40,
    ),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_batches_and_devices_do_not_matter(tmp_path_factory, clicks, cuts):
    following = Following(tmp_path_factory.mktemp("following"))
    bounds = [0, *sorted(min(cut, len(clicks)) for cut in cuts), len(clicks)]
    found = []
    for start, end in zip(bounds, bounds[1:]):
        if end > start:
            found += [shown(record) for record in following(clicks[start:end])]
    assert found == expected(clicks)
