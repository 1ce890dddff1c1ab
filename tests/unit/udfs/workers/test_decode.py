"""Raw Kafka records in; rows for the score operator and dead letters out, none lost, in order."""

import json
import pickle
import struct
import time
from base64 import b64decode
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.contracts import broken
from tests.support.fake_operator import FakeOperator, Record, read_records, rows_of
from tests.unit.udfs.contracts.test_clicks import BAD_RECORDS, NOW, click
from udfs.contracts.clicks import Click, ClickDecoder, ClickLimits, pack_click
from udfs.contracts.profiles import NO_PROFILE, Profile, ProfileDecoder, pack_profile
from udfs.contracts.rejects import Reason
from udfs.features.user_slots import EVENT_ROW, PROFILE_ROW, USER_ROW
from udfs.mapping.topic import ClickTopic
from udfs.workers.decode import DEAD_LETTERS, RAW_RECORD, ROWS, ClickHandler, ProfileHandler
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import ProtocolError
from udfs.workers.server import Handler


def raw_record(key=None, value=None, time_ms=NOW, offset=0, partition=0) -> bytes:
    """As RawRecordReader.java writes it."""
    lengths = [-1 if part is None else len(part) for part in (key, value)]
    return struct.pack("<qqiii", time_ms, offset, partition, *lengths) + (key or b"") + (value or b"")


class Decoding:
    """A handler that was opened, and its metrics."""

    def __init__(self, handler: Handler):
        self._handler = pickle.loads(pickle.dumps(handler))
        self._values = np.zeros(100, np.int64)
        self._metrics = Metrics(self._values)
        self._handler.open(None, self._metrics.group())
        self._declared = self._metrics.take_declared()

    def __call__(self, *raw: bytes) -> list[Record]:
        return read_records(b"".join(self._handler.process(rows_of(list(raw)))))

    @property
    def metrics(self) -> dict[str, int]:
        self._metrics.update_gauges()
        return dict(zip(self._declared, self._values.tolist()))


def decode_clicks(*raw: bytes, topic="clicks", **limits) -> list[Record]:
    return Decoding(ClickHandler(topic, ClickTopic(ClickLimits(**limits))))(*raw)


def decode_profiles(*raw: bytes, topic="profiles", max_record_bytes=65_536) -> list[Record]:
    return Decoding(ProfileHandler(topic, max_record_bytes))(*raw)


def row_of(record: Record) -> tuple[np.void, bytes]:
    """The fields of a row, and the id of its event."""
    assert record.output == ROWS
    (fields,) = np.frombuffer(record.content[: USER_ROW.itemsize], USER_ROW)
    assert fields["key_bytes"] == len(record.key)
    return fields, record.content[USER_ROW.itemsize : len(record.content) - len(record.key)]


def letter_of(record: Record) -> dict:
    assert record.output == DEAD_LETTERS
    assert record.key is None
    assert broken("dead_letters", [record.value]) == []
    return json.loads(record.value)


def original(letter: dict) -> bytes | None:
    return None if letter["original"] is None else b64decode(letter["original"], validate=True)


def source(record: Record) -> tuple[int, int]:
    """Partition and offset."""
    if record.output == ROWS:
        fields, _ = row_of(record)
        return int(fields["partition"]), int(fields["offset"])
    letter = letter_of(record)
    return letter["partition"], letter["offset"]


def iso(time_ms: int) -> str:
    """A time that Python has a name for."""
    named = datetime(1970, 1, 1) + timedelta(milliseconds=time_ms)
    return f"{named:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z"


# Clicks


def test_a_raw_record_is_read_as_it_is_written():
    raw = raw_record(b"key", None, -5, 2**40, 7)
    (head,) = np.frombuffer(raw[: RAW_RECORD.itemsize], RAW_RECORD).tolist()
    assert head == (-5, 2**40, 7, 3, -1)
    assert raw[RAW_RECORD.itemsize :] == b"key"


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x"], ids=["shorter", "longer"])
@pytest.mark.parametrize("decode", [decode_clicks, decode_profiles])
def test_a_raw_record_of_another_length_than_it_says_is_refused(decode, change):
    with pytest.raises(ProtocolError, match="not as long as its head announces"):
        decode(change(raw_record(b"k", click())))


def test_an_accepted_click_is_a_row_of_its_user():
    payload = click(user_id="zoë", event_id="é1", event_name="add_to_cart", item_id="i1", price=2.5)
    (record,) = decode_clicks(raw_record(b"any key", payload, NOW + 3, 2**40, 5))
    fields, event_id = row_of(record)
    assert record.key == "zoë".encode()
    assert event_id == "é1".encode()
    assert (fields["kind"], fields["has_event_id"]) == (EVENT_ROW, 1)
    assert (fields["partition"], fields["offset"], fields["record_ms"]) == (5, 2**40, NOW + 3)
    click_ = Click("zoë", "add_to_cart", NOW, event_id="é1", item_id="i1", price=2.5)
    assert fields["event"].tobytes() == pack_click(click_)


@pytest.mark.parametrize(("event_id", "has_id"), [(..., 0), (None, 0), ("", 1), ("x" * 128, 1)])
def test_an_event_without_an_id_is_told_from_one_whose_id_is_empty(event_id, has_id):
    (record,) = decode_clicks(raw_record(None, click(event_id=event_id)))
    fields, found = row_of(record)
    assert fields["has_event_id"] == has_id
    assert found.decode() == (event_id if has_id else "")
    assert record.key == b"ada"


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_a_rejected_click_is_a_dead_letter_that_keeps_its_bytes(name):
    payload, reason, words = BAD_RECORDS[name]
    good = raw_record(b"k", click())
    before, record, after = decode_clicks(good, raw_record(b"k", payload, NOW, 41, 3), good, topic="shop-clicks")
    letter = letter_of(record)
    assert words in letter["message"]
    assert original(letter) == payload
    assert {name: letter[name] for name in ("topic", "partition", "offset", "timestamp", "reason")} == {
        "topic": "shop-clicks",
        "partition": 3,
        "offset": 41,
        "timestamp": "2023-11-14T22:13:20.000Z",
        "reason": reason.value,
    }
    assert before == after
    assert before.key == b"ada"


@pytest.mark.parametrize(
    ("time_ms", "timestamp"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (2**62, "9999-12-31T23:59:59.999Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_kafka_timestamp_that_nobody_can_mean_stops_nothing(time_ms, timestamp):
    letter = letter_of(decode_clicks(raw_record(b"k", b"{", time_ms))[0])
    assert (letter["timestamp"], letter["reason"]) == (timestamp, Reason.INVALID_JSON)
    letter = letter_of(decode_clicks(raw_record(b"k", click(), time_ms))[0])
    assert letter["timestamp"] == timestamp
    assert letter["reason"] == (Reason.TIME_TOO_OLD if time_ms > NOW else Reason.TIME_IN_FUTURE)


def test_a_click_of_a_record_without_a_timestamp_is_accepted_by_its_bounds():
    (record,) = decode_clicks(raw_record(b"k", click(), -1), max_ahead_ms=NOW + 1)
    assert row_of(record)[0]["record_ms"] == -1


def test_limits_are_those_of_the_handler():
    late = raw_record(None, click(event_time=NOW - 5_000))
    assert decode_clicks(late, max_behind_ms=5_000)[0].output == ROWS
    assert letter_of(decode_clicks(late, max_behind_ms=4_999)[0])["reason"] == Reason.TIME_TOO_OLD
    assert letter_of(decode_clicks(late, max_record_bytes=10)[0])["reason"] == Reason.TOO_LARGE


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
good_clicks = st.builds(lambda user, event_id: click(user_id=user, event_id=event_id), names, st.none() | names)
bad_clicks = st.sampled_from([payload for payload, _, _ in BAD_RECORDS.values() if len(payload or b"") < 1_000])
payloads = st.one_of(good_clicks, good_clicks, bad_clicks, st.binary(max_size=60), st.none())
keys = st.none() | st.binary(max_size=20)
kafka_times = st.sampled_from([NOW, NOW, NOW + 1, -1, 0, 2**62, -(2**63), 2**63 - 1])
raw_fields = st.tuples(keys, payloads, kafka_times, st.integers(0, 2**63 - 1), st.integers(0, 2**31 - 1))
batches = st.lists(raw_fields, min_size=1, max_size=12)


@given(batches)
def test_as_many_records_come_out_as_go_in_and_in_their_order(batch):
    records = decode_clicks(*(raw_record(*fields) for fields in batch))
    assert [source(record) for record in records] == [(partition, offset) for *_, offset, partition in batch]


@given(batches)
def test_a_click_is_either_a_row_or_a_dead_letter_as_the_decoder_says(batch):
    records = decode_clicks(*(raw_record(*fields) for fields in batch))
    for record, (_, payload, time_ms, *_) in zip(records, batch):
        decoded = ClickDecoder().decode([payload], [time_ms])
        if decoded.reasons == [None]:
            fields, event_id = row_of(record)
            assert [record.key.decode()] == decoded.user_ids
            assert [event_id.decode() if fields["has_event_id"] else None] == decoded.event_ids
            assert fields["event"].tobytes() == decoded.events[0]
            assert fields["record_ms"] == time_ms
        else:
            letter = letter_of(record)
            assert original(letter) == payload
            assert [letter["reason"]] == decoded.reasons
            assert [letter["message"]] == decoded.messages
            if 0 <= time_ms <= NOW + 1:
                assert letter["timestamp"] == iso(time_ms)


@given(batches, st.integers(0, 12))
def test_where_a_batch_is_cut_does_not_matter(batch, cut):
    raw = [raw_record(*fields) for fields in batch]
    parts = [decode_clicks(*part) for part in (raw[:cut], raw[cut:]) if part]
    assert [record for part in parts for record in part] == decode_clicks(*raw)


def test_decoding_is_timed_and_rejects_are_counted_by_reason():
    decode = Decoding(ClickHandler("shop-clicks", ClickTopic()))
    now = time.time_ns() // 1_000_000
    recent = [raw_record(None, click(event_time=now), now - age) for age in (0, 30, 5_000)]
    decode(*recent, raw_record(None, b"{", now), raw_record(None, None, now), raw_record(None, b"{", now))
    shown = decode.metrics
    rejected = {line.rpartition("=")[2]: count for line, count in shown.items() if "\trejected\ttopic=clicks" in line}
    assert {reason: count for reason, count in rejected.items() if count} == {"invalid_json": 2, "empty_record": 1}
    assert set(rejected) == set(Reason)
    assert shown["counter\tdecode_ms_bucket\tle=+Inf"] == 1
    assert shown["counter\tevent_to_decode_ms_bucket\tle=+Inf"] == 3  # not of rejects: their times may be anything
    assert shown["counter\tevent_to_decode_ms_bucket\tle=20"] <= 1
    assert shown["counter\tevent_to_decode_ms_bucket\tle=10000"] >= 2
    assert shown["counter\tevent_to_decode_ms_sum"] >= 5_030


# Profiles


def profile(**fields) -> bytes:
    return json.dumps({"user_id": "ada", **fields}).encode()


def test_an_accepted_profile_is_a_row_of_its_user():
    (record,) = decode_profiles(raw_record(b"other", profile(country="DE", marketing_consent=True), NOW, 9, 2))
    fields, nothing = row_of(record)
    assert (record.key, nothing) == (b"ada", b"")
    assert (fields["kind"], fields["has_event_id"]) == (PROFILE_ROW, 0)
    assert (fields["partition"], fields["offset"], fields["record_ms"]) == (2, 9, NOW)
    assert fields["profile"].tobytes() == pack_profile(Profile("ada", country="DE", marketing_consent=True))
    assert len(record.content) == USER_ROW.itemsize + len(b"ada")


@pytest.mark.parametrize("tombstone", [None, b""])
def test_a_tombstone_deletes_the_profile_of_its_key(tombstone):
    (record,) = decode_profiles(raw_record("zoë".encode(), tombstone))
    assert record.key == "zoë".encode()
    assert row_of(record)[0]["profile"].tobytes() == NO_PROFILE
    assert decode_profiles(raw_record("é".encode() * 128, tombstone))[0].key == "é".encode() * 128


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, None, Reason.EMPTY_RECORD),
        (b"", None, Reason.EMPTY_RECORD),
        (None, b"", Reason.EMPTY_RECORD),
        (b"\xff", None, Reason.INVALID_UTF8),
        (b"x" * 129, None, Reason.TOO_LONG),
        (b"x" * 70_000, b"", Reason.TOO_LONG),
        (b" \t", None, Reason.EMPTY_FIELD),
        (b"ada", b"{", Reason.INVALID_JSON),
        (b"ada", profile(user_id=""), Reason.EMPTY_FIELD),
        (b"ada", profile(note="x" * 70_000), Reason.TOO_LARGE),
    ],
)
def test_a_rejected_profile_is_a_dead_letter_that_keeps_its_bytes(key, value, reason):
    (record,) = decode_profiles(raw_record(key, value, 2**62, 8, 6), topic="shop-profiles")
    letter = letter_of(record)
    assert (letter["topic"], letter["partition"], letter["offset"]) == ("shop-profiles", 6, 8)
    assert (letter["timestamp"], letter["reason"]) == ("9999-12-31T23:59:59.999Z", reason)
    assert original(letter) == value
    assert letter["message"]


some_profiles = st.builds(lambda user: profile(user_id=user, country="FR"), names)


@given(st.lists(st.tuples(keys, st.one_of(some_profiles, st.binary(max_size=30), st.none())), min_size=1, max_size=9))
def test_a_profile_is_either_a_row_or_a_dead_letter_as_the_decoder_says(batch):
    records = decode_profiles(*(raw_record(*fields, NOW, offset) for offset, fields in enumerate(batch)))
    assert [source(record) for record in records] == [(0, offset) for offset in range(len(batch))]
    for record, (key, value) in zip(records, batch):
        decoded = ProfileDecoder().decode([key], [value])
        if decoded.reasons == [None]:
            assert [record.key.decode()] == decoded.user_ids
            assert [row_of(record)[0]["profile"].tobytes()] == decoded.profiles
        else:
            letter = letter_of(record)
            assert ([letter["reason"]], [letter["message"]]) == (decoded.reasons, decoded.messages)
            assert original(letter) == value


def test_rejected_profiles_are_counted_by_reason():
    decode = Decoding(ProfileHandler("shop-profiles", 65_536))
    decode(raw_record(b"k", b"{"), raw_record(b"k", profile()), raw_record(None, None), raw_record(None, b"{"))
    counts = {line: count for line, count in decode.metrics.items() if count}
    assert counts == {
        "counter\trejected\ttopic=profiles\treason=invalid_json": 2,
        "counter\trejected\ttopic=profiles\treason=empty_record": 1,
    }


# In a process


def test_a_worker_decodes_what_does_not_fit_into_the_memory():
    raw = [
        raw_record(b"k", click(event_id="1"), NOW, 0),
        raw_record(b"k", click(event_id="2", note="x" * 5_000), NOW, 1),
        raw_record(b"k", b"[" * 6_000, NOW, 2),
    ]
    with FakeOperator(ClickHandler("clicks", ClickTopic())) as operator:
        answers = [record for one in raw for record in operator.call([one])]
        assert "counter\tdecode_ms_sum\tintent" in operator.metrics
    assert answers == decode_clicks(*raw)
    assert original(letter_of(answers[2])) == b"[" * 6_000
