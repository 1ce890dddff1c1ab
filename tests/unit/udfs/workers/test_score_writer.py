"""Compiled JSON of scores is the JSON of their struct."""

import json

import msgspec
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fake_operator import read_records
from tests.support.sample_records import sample
from udfs.contracts.outputs import Score, to_json
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.features.user_slots import USER_ROW
from udfs.workers.score_writer import event_names, verdict, write_scores

OUTPUT = 3
int64s = st.integers(-(2**63) + 1, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shares = st.floats(0, 1, width=32)
scores = st.builds(
    Score,
    user_id=texts.filter(bool),
    event_id=st.none() | texts,
    event_name=st.sampled_from(EVENT_KINDS),
    event_time=int64s,
    score=shares,
    decision=st.booleans(),
    arm=st.sampled_from(["champion", "challenger"]),
    model_version=texts.filter(bool),
    propensity=st.none() | st.floats(0, 1),
    scored_at=int64s,
    source_partition=st.integers(0, 2**31 - 1),
    source_offset=st.integers(0, 2**63 - 1),
)


def written(records: list[Score], room: int = 1 << 20) -> list[bytes]:
    """The pieces that are written of these scores."""
    heads = np.zeros(len(records), USER_ROW)
    content, id_starts, key_starts, ends = b"", [], [], []
    for head, record in zip(heads, records):
        head["kind"], head["has_event_id"] = 0, record.event_id is not None
        head["partition"], head["offset"] = record.source_partition, record.source_offset
        head["event"]["kind"] = EVENT_KINDS.index(record.event_name)
        head["event"]["time_ms"] = record.event_time
        id_starts.append(len(content))
        content += (record.event_id or "").encode()
        key_starts.append(len(content))
        content += record.user_id.encode()
        ends.append(len(content))
    shared = [
        verdict(record.decision, record.arm, record.model_version, record.propensity, record.scored_at)
        for record in records
    ]
    return write_scores(
        OUTPUT, content, np.array(id_starts, np.int64), np.array(key_starts, np.int64), np.array(ends, np.int64), heads,
        np.array([record.score for record in records], np.float32), np.arange(len(records)), shared,
        event_names({}), room,
    )  # fmt: skip


@given(st.lists(scores, max_size=5))
def test_each_score_is_read_as_its_struct_and_keyed_by_the_user(records):
    found = read_records(b"".join(written(records)))
    assert [record.key.decode() for record in found] == [record.user_id for record in records]
    for one, expected in zip(found, records):
        assert one.output == OUTPUT
        read = msgspec.json.decode(one.value, type=Score)
        assert np.float32(read.score) == np.float32(expected.score)
        read.score = expected.score
        assert read == expected


@given(st.lists(scores, min_size=1, max_size=5))
def test_the_json_is_that_of_the_struct_but_for_the_digits_of_the_score(records):
    for record in records:
        record.score = 0.5
        (one,) = read_records(b"".join(written([record])))
        escaped = to_json(record).replace(b'"score":0.5', b'"score":0.500000000')
        assert json.loads(one.value) == json.loads(escaped)
        assert list(json.loads(one.value)) == list(Score.__struct_fields__)
        assert len(one.value) <= len(escaped) + 10 * one.value.count(b"\\u")


@given(shares)
@example(1.0)
@example(0.0)
@example(float(np.nextafter(np.float32(1), np.float32(0))))
@example(float(np.finfo(np.float32).tiny))
@example(1e-45)
def test_a_score_is_read_back_as_the_same_float32(share):
    record = sample("scores", score=share)
    (one,) = read_records(b"".join(written([record])))
    assert np.float32(json.loads(one.value)["score"]) == np.float32(share)


@given(st.lists(scores, min_size=1, max_size=8), st.integers(1, 2_000))
def test_pieces_are_whole_records_and_no_larger_than_the_room_or_one_record(records, room):
    pieces = written(records, room)
    assert sum(len(read_records(piece)) for piece in pieces) == len(records)
    assert all(len(piece) <= room or len(read_records(piece)) == 1 for piece in pieces)
