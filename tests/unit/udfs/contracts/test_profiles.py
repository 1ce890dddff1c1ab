import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.profiles import (
    AGE_BANDS,
    MEMBERSHIP_TIERS,
    NO_DAY,
    NO_PROFILE,
    PROFILE,
    ProfileDecoder,
    country_code,
    country_of,
)
from udfs.contracts.rejects import Reason


def decode(payload, key=b"ada"):
    return ProfileDecoder().decode([key], [payload])


def profile(**fields) -> np.void:
    decoded = decode(json.dumps({"user_id": "ada", **fields}).encode())
    assert decoded.reasons == [None], decoded.messages
    return np.frombuffer(decoded.profiles[0], PROFILE)[0]


def test_a_profile_is_packed_field_by_field():
    packed = profile(
        country="de", age_band="25-34", membership_tier="gold", signup_date="1970-01-11", marketing_consent=True
    )
    assert packed["country"] == country_code("DE") == 1 + 26 * 3 + 4
    assert AGE_BANDS[packed["age_band"]] == "25-34"
    assert MEMBERSHIP_TIERS[packed["membership_tier"]] == "gold"
    assert (packed["signup_day"], packed["marketing_consent"], packed["known"]) == (10, 1, 1)


def test_null_and_missing_fields_are_unknown():
    unknown = dict.fromkeys(("country", "age_band", "membership_tier", "signup_date", "marketing_consent"))
    assert profile(**unknown) == profile()
    assert (profile()["signup_day"], profile()["marketing_consent"], profile()["country"]) == (NO_DAY, -1, 0)


def test_an_unlisted_band_or_tier_is_unknown_and_unknown_fields_are_ignored():
    assert profile(age_band="ancient", membership_tier="tin", shoe_size=43) == profile()


@pytest.mark.parametrize("payload", [None, b""])
def test_an_empty_record_deletes_the_profile_of_its_key(payload):
    decoded = decode(payload, key=b"ada")
    assert (decoded.user_ids, decoded.profiles) == (["ada"], [NO_PROFILE])


@pytest.mark.parametrize(
    ("payload", "key", "reason"),
    [
        (None, None, Reason.EMPTY_RECORD),
        (b"", b"", Reason.EMPTY_RECORD),
        (None, b"\xff", Reason.INVALID_UTF8),
        (b"{}", b"ada", Reason.MISSING_FIELD),
        (b'{"user_id": "ada", "country": "Germany"}', b"ada", Reason.OUT_OF_RANGE),
        (b'{"user_id": "ada", "country": 49}', b"ada", Reason.WRONG_TYPE),
        (b'{"user_id": "ada", "signup_date": "yesterday"}', b"ada", Reason.OUT_OF_RANGE),
        (b'{"user_id": "ada", "note": "' + b"x" * 70_000 + b'"}', b"ada", Reason.TOO_LARGE),
    ],
)
def test_a_bad_profile_is_rejected_with_its_reason(payload, key, reason):
    decoded = decode(payload, key)
    assert decoded.reasons == [reason.value], decoded.messages
    assert (decoded.user_ids, decoded.profiles) == ([None], [None])


@given(st.binary(max_size=200) | st.none(), st.binary(max_size=10) | st.none())
def test_no_bytes_stop_the_decoder(payload, key):
    decoded = decode(payload, key)
    assert decoded.reasons[0] is None or Reason(decoded.reasons[0])


@pytest.mark.parametrize("country", ["AA", "DE", "ZZ"])
def test_a_country_comes_back_from_its_number(country):
    assert country_of(country_code(country)) == country
    assert country_of(country_code(None)) == "unknown"
