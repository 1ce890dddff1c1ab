import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from udfs.contracts.countries import ALPHA_2
from udfs.contracts.profiles import (
    AGE_BANDS,
    MEMBERSHIP_TIERS,
    NO_DAY,
    NO_PROFILE,
    PROFILE,
    ProfileDecoder,
    country_code,
    country_of,
    profile_schema,
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


READ = {
    "country": [("DE", 83), ("de", 83), ("DEU", 83), ("GBR", 158), ("gbr", 158), ("GB", 158)],
    "age_band": [("25-34", 3), ("Under 18", 1), ("UNKNOWN", 0), ("65+", 7)],
    "membership_tier": [("gold", 4), ("Gold", 4), ("NONE", 1)],
    "signup_day": [("2024-05-01", 19_844), ("2024-05-01T00:00:00Z", 19_844), ("2024-05-01T23:30:00.5+02:00", 19_844)],
    "marketing_consent": [
        *((value, 1) for value in (True, 1, "true", "True")),
        *((value, 0) for value in (False, 0, "false", "FALSE")),
    ],
}
UNREADABLE = {
    "country": ["", "(not set)", "Germany", "ZZZ", "G1", "DE\n", 49, ["DE"], {}, True, "\ud83d"],
    "age_band": ["", "(not set)", "ancient", 25, "x" * 65],
    "membership_tier": ["tin", "", "Gold ", 3],
    "signup_date": ["", "yesterday", "2024-02-30", 1_714_521_600_000, "(not set)", True],
    "marketing_consent": ["yes", "", 2, -1, 1.5, [True], "(not set)"],
}


@pytest.mark.parametrize(
    ("column", "given", "code"), [(name, *case) for name, cases in READ.items() for case in cases], ids=str
)
def test_a_value_whose_meaning_is_certain_is_read(column, given, code):
    field = "signup_date" if column == "signup_day" else column
    payload = json.dumps({"user_id": "ada", field: given}).encode()
    assert np.frombuffer(decode(payload).profiles[0], PROFILE)[0][column] == code
    assert decode(payload).unread == {}


@pytest.mark.parametrize(
    ("name", "given"), [(name, value) for name, cases in UNREADABLE.items() for value in cases], ids=ascii
)
def test_a_value_that_cannot_be_read_is_unknown_and_counted_while_the_rest_counts(name, given):
    rest = {"country": "FR", "age_band": "18-24", "membership_tier": "gold", "signup_date": "2024-05-01"}
    expected = profile(**rest | {name: None})
    decoded = decode(json.dumps({"user_id": "ada", **rest, name: given}).encode())
    assert decoded.reasons == [None]
    assert np.frombuffer(decoded.profiles[0], PROFILE)[0] == expected
    assert decoded.unread == {name: 1}


def test_unread_values_are_counted_over_a_batch():
    records = [{"country": "", "age_band": "old"}, {"country": "(not set)"}, {"country": "DE", "shoe_size": "?"}, {}]
    payloads = [json.dumps({"user_id": "ada", **record}).encode() for record in records]
    decoder, unread = ProfileDecoder(), Counter()
    assert decoder.decode([None] * 4, payloads).unread == {"country": 2, "age_band": 1}
    assert [decoder.accept(None, payload, unread) for payload in payloads] == [
        decoder.accept(None, payload) for payload in payloads
    ]
    assert unread == {"country": 2, "age_band": 1}


def test_a_record_is_read_as_leniently_as_a_click():
    plain = decode(b'{"user_id": "42", "country": "DE"}')
    assert plain.user_ids == ["42"]
    for payload in (
        b'\xef\xbb\xbf{"user_id": "42", "country": "DE"}',
        b'{"user_id": 42, "country": "DEU", "note": NaN}',
        b'{"user_id": 42, "country": "de", "note": "\\ud83d"}',
    ):
        assert decode(payload) == plain


def is_in_schema(**fields) -> bool:
    return Draft202012Validator(profile_schema(), format_checker=FormatChecker(["date"])).is_valid(fields)


def test_the_schema_describes_what_is_read():
    for user_id, is_valid in {"ada": True, 42: True, "": False, " ": False, None: False, 1.5: False}.items():
        assert is_in_schema(user_id=user_id) is is_valid
    for column, cases in READ.items():
        field = "signup_date" if column == "signup_day" else column
        values = [value for value, _ in cases if value not in ("True", "FALSE")]  # it has no case that does not matter
        assert all(is_in_schema(user_id="ada", **{field: value}) for value in [*values, None])
        assert not any(is_in_schema(user_id="ada", **{field: value}) for value in ({}, ["DE"], 1.5))


def test_there_are_two_codes_for_each_country():
    assert len(ALPHA_2) == len(set(ALPHA_2.values())) == 249
    assert all(len(long) == 3 and len(short) == 2 and (long + short).isupper() for long, short in ALPHA_2.items())
    known = {"DEU": "DE", "GBR": "GB", "USA": "US", "CHE": "CH", "ESP": "ES", "UKR": "UA", "CHN": "CN", "AUT": "AT"}
    assert known.items() <= ALPHA_2.items()


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
        (b'{"user_id": "", "country": "DE"}', b"ada", Reason.EMPTY_FIELD),
        (b'{"user_id": " ", "country": "DE"}', b"ada", Reason.EMPTY_FIELD),
        (b'{"user_id": null}', b"ada", Reason.WRONG_TYPE),
        (b'{"user_id": true}', b"ada", Reason.WRONG_TYPE),
        (b'{"user_id": "' + b"x" * 129 + b'"}', b"ada", Reason.TOO_LONG),
        (b'{"user_id": "\\ud83d"}', b"ada", Reason.INVALID_UTF8),
        (b'{"user_id": "\xff"}', b"ada", Reason.INVALID_UTF8),
        (b'\0\0\0\0\x07{"user_id": "ada"}', b"ada", Reason.INVALID_JSON),
        (b"{", b"ada", Reason.INVALID_JSON),
        (b'["ada"]', b"ada", Reason.NOT_AN_OBJECT),
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
