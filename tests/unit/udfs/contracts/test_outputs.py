"""What the score job writes keeps to its contracts, whatever the values."""

import json
from base64 import b64decode
from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.contracts import broken
from udfs.contracts.outputs import ARMS, RECORDS, FeatureVector, ShadowScores, iso_time, to_json
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.contracts.rejects import Reason

#: What the score job writes.
STRUCTS = {role: RECORDS[role] for role in ("scores", "feature_log", "shadow_scores", "dead_letters")}

int32, int64 = st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)
any_int64 = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=128)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=128)
scores = st.floats(0, 1, width=32)
#: What each field of any of the structs may hold.
VALUES = {
    "user_id": names,
    "event_id": st.none() | texts,
    "event_name": st.sampled_from(EVENT_KINDS),
    "event_time": int64,
    "score": scores,
    "decision": st.booleans(),
    "arm": st.sampled_from(ARMS),
    "model_version": names,
    "propensity": st.none() | st.floats(0, 1),
    "scored_at": int64,
    "source_partition": int32,
    "source_offset": int64,
    "feature_schema_hash": texts,
    "features": st.binary(max_size=400),
    "shadow_versions": st.lists(names, min_size=1, max_size=3),
    "shadow_scores": st.lists(scores, min_size=1, max_size=3),
    "topic": names,
    "partition": int32,
    "offset": int64,
    "timestamp": st.builds(iso_time, any_int64),
    "reason": st.sampled_from([reason.value for reason in Reason]),
    "message": texts,
    "original": st.none() | st.binary(max_size=200),
}


def instances(role: str) -> st.SearchStrategy:
    struct = STRUCTS[role]
    return st.builds(struct, **{name: VALUES[name] for name in struct.__struct_fields__})


@pytest.mark.parametrize("role", STRUCTS)
@given(data=st.data())
def test_what_is_written_keeps_to_its_contract_and_says_what_it_was_given(role, data):
    instance = data.draw(instances(role))
    written = to_json(instance)
    assert broken(role, [written]) == []
    found = json.loads(written)
    assert list(found) == list(instance.__struct_fields__)
    for name, value in found.items():
        given_value = getattr(instance, name)
        if isinstance(given_value, bytes):
            value = b64decode(value, validate=True)
        assert value == given_value


@given(st.floats(0, 1, width=32))
def test_a_score_has_the_same_bits_when_it_is_read(score):
    written = to_json(ShadowScores("u", None, 0, "v1", score, ["v2"], [score], 0, 0, 0))
    found = json.loads(written)
    assert [np.float32(one).tobytes() for one in (found["score"], *found["shadow_scores"])] == [
        np.float32(score).tobytes()
    ] * 2


def test_a_vector_is_read_bit_for_bit():
    vector = np.array([0.1, np.nan, np.inf, -0.0, 1e-40], "<f4")
    written = to_json(FeatureVector("u", None, 0, 0.5, "v1", "hash", vector.tobytes(), 0, 0))
    assert b64decode(json.loads(written)["features"]) == vector.tobytes()


FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 to 9999


@given(st.integers(FIRST_MS, LAST_MS))
def test_a_time_is_named_to_the_millisecond(time_ms):
    named = iso_time(time_ms)
    assert named.endswith("Z")
    assert datetime.fromisoformat(named[:-1]) - datetime(1970, 1, 1) == timedelta(milliseconds=time_ms)


@given(st.lists(any_int64, min_size=2))
def test_times_are_named_in_their_order_and_all_at_the_same_length(times_ms):
    named = [iso_time(time_ms) for time_ms in sorted(times_ms)]
    assert named == sorted(named)
    assert {len(name) for name in named} == {len("2027-01-15T08:00:00.123Z")}


@pytest.mark.parametrize(
    ("time_ms", "name"),
    [
        (FIRST_MS - 1, "0001-01-01T00:00:00.000Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (LAST_MS, "9999-12-31T23:59:59.999Z"),
        (LAST_MS + 1, "9999-12-31T23:59:59.999Z"),
        (2**62, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_time_that_has_no_name_gets_the_nearest_one(time_ms, name):
    assert iso_time(time_ms) == name
