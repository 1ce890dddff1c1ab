"""The profiles contract: the fields of a profile record, and decoding a batch of them into packed profiles."""

import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from udfs.contracts.countries import ALPHA_2
from udfs.contracts.lenient import Codes, Leeway, fields_of, lenient_schema, read_object
from udfs.contracts.rejects import Reason, Reject, explain

#: Age bands by code, 0 when unknown; ordered, so that a code compares like an age. Append only.
AGE_BANDS = ("unknown", "under 18", "18-24", "25-34", "35-44", "45-54", "55-64", "65+")
#: Membership tiers by code, 0 when unknown, ordered from low to high. Append only.
MEMBERSHIP_TIERS = ("unknown", "none", "basic", "silver", "gold", "platinum")

PROFILE = np.dtype(
    [
        ("signup_day", "<i4"),  # days since 1970-01-01, NO_DAY when unknown
        ("country", "<u2"),  # ISO 3166 letters as 1 + 26 * first + second, 0 when unknown
        ("age_band", "u1"),  # index into AGE_BANDS
        ("membership_tier", "u1"),  # index into MEMBERSHIP_TIERS
        ("marketing_consent", "i1"),  # 1 yes, 0 no, -1 unknown
        ("known", "u1"),  # 1 when there is a profile at all
        ("spare", "u1", (6,)),
    ]
)
PROFILE_FORMAT = "<iHBBbB6x"
NO_DAY = -(2**31)
LONGEST_USER_ID = 128  # characters, as in clicks
COUNTRY = "^[A-Za-z]{2}$"  # in Python also of a text that ends with a line break, so the length is checked as well

_pack = struct.Struct(PROFILE_FORMAT).pack
#: The profile of a user who has none, or whose profile was deleted.
NO_PROFILE = _pack(NO_DAY, 0, 0, 0, -1, 0)


class Profile(msgspec.Struct, gc=False):
    """A record of the compacted profiles topic; the newest one per user counts. Unknown fields are ignored.

    An optional field that can't be read is unknown.
    """

    user_id: Annotated[
        str,
        Meta(min_length=1, max_length=LONGEST_USER_ID, extra_json_schema={"pattern": r"\S"}, extra=Leeway.INTEGER.meta),
    ]
    country: (
        Annotated[str, Meta(pattern=COUNTRY, max_length=2, description="ISO 3166-1 alpha-2 or alpha-3 code")] | None
    ) = None
    age_band: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(AGE_BANDS))] | None = None
    membership_tier: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(MEMBERSHIP_TIERS))] | None = (
        None
    )
    signup_date: Annotated[date, Meta(description="ISO 8601 date; of a date and time, the date counts")] | None = None
    marketing_consent: bool | None = None


@dataclass
class DecodedProfiles:
    """A decoded batch, column by column. A rejected record has None everywhere but in reason and message."""

    user_ids: list[str | None] = field(default_factory=list)
    profiles: list[bytes | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)  # number of values that could not be read, by field


class ProfileDecoder:
    """Decodes profile records. An empty record is a deletion (a tombstone of the compacted topic), named by its key."""

    def __init__(self, max_record_bytes: int = 65_536):
        self._max_record_bytes = max_record_bytes
        self._parse = msgspec.json.Decoder(Profile).decode

    def decode(self, keys: Sequence[bytes | None], payloads: Sequence[bytes | None]) -> DecodedProfiles:
        """Decode n records, given their n Kafka keys."""
        out = DecodedProfiles()
        for key, payload in zip(keys, payloads):
            try:
                user_id, packed = self.accept(key, payload, out.unread)
                reason = message = None
            except Exception as error:  # explain() raises again what a record can't cause
                reject = explain(payload, error)
                user_id = packed = None
                reason, message = reject.reason.value, str(reject)
            out.user_ids.append(user_id)
            out.profiles.append(packed)
            out.reasons.append(reason)
            out.messages.append(message)
        return out

    def accept(self, key: bytes | None, payload: bytes | None, unread: Counter[str] | None = None) -> tuple[str, bytes]:
        """The user and the packed profile of a record; optional fields that can't be read are counted in `unread`.

        Raises an error that `udfs.contracts.rejects.explain` explains if the record breaks the contract.
        """
        if not payload:
            if not key:
                raise Reject(Reason.EMPTY_RECORD, "a deletion needs the user_id as the record's key")
            return _deleted_user(key), NO_PROFILE
        if len(payload) > self._max_record_bytes:
            raise Reject(Reason.TOO_LARGE, f"{len(payload)} bytes: at most {self._max_record_bytes}")
        try:
            profile, unreadable = self._parse(payload), []
        except (msgspec.DecodeError, UnicodeDecodeError):
            profile, unreadable = _read_leniently(payload)
        if profile.user_id.isspace():
            raise Reject(Reason.EMPTY_FIELD, "user_id has only blanks - at `$.user_id`")
        if unread is not None:
            unread.update([*unreadable, *_unlisted(profile)])
        return profile.user_id, pack_profile(profile)


def _deleted_user(key: bytes) -> str:
    """The user whom the key of a deletion names, who is one that a record could have. Raises Reject."""
    user_id = key.decode()
    if len(user_id) > LONGEST_USER_ID:
        limit = f"at most {LONGEST_USER_ID}, as in every user_id"
        raise Reject(Reason.TOO_LONG, f"the key of a deletion has {len(user_id)} characters: {limit}")
    if user_id.isspace():
        raise Reject(Reason.EMPTY_FIELD, "the key of a deletion has only blanks, and is no user_id")
    return user_id


def _read_leniently(payload: bytes) -> tuple[Profile, list[str]]:
    """A profile that is not exactly as its struct declares, and the names of the fields that can't be read."""
    record = read_object(payload)
    fields = {field.name: field.read(record[field.name]) for field in _REQUIRED if field.name in record}
    unreadable = []
    for name, read in _READERS.items():
        value = record.get(name)
        fields[name] = None if value is None else read(value)
        if fields[name] is None and value is not None:
            unreadable.append(name)
    return msgspec.convert(fields, Profile), unreadable


def _unlisted(profile: Profile) -> list[str]:
    """The names of the fields whose value is none of those listed."""
    given = ((name, getattr(profile, name), codes) for name, codes in _CODES.items())
    return [name for name, value, codes in given if value is not None and value.lower() not in codes]


def _read_country(value: Any) -> str | None:
    code = ALPHA_2.get(value.upper(), value) if isinstance(value, str) else ""
    return code if re.fullmatch(COUNTRY, code) else None


def _read_name(value: Any, codes: Codes) -> str | None:
    return value if isinstance(value, str) and value.lower() in codes else None


def _read_day(value: Any) -> date | None:
    try:
        return datetime.fromisoformat(value).date()
    except (TypeError, ValueError):
        return None


def _read_consent(value: Any) -> bool | None:
    return _CONSENTS.get(value.lower() if isinstance(value, str) else value) if isinstance(value, str | int) else None


_CONSENTS = {1: True, 0: False, "true": True, "false": False}
_AGE_BAND_CODES, _TIER_CODES = Codes(AGE_BANDS), Codes(MEMBERSHIP_TIERS)
_CODES = {"age_band": _AGE_BAND_CODES, "membership_tier": _TIER_CODES}
_REQUIRED = tuple(field for field in fields_of(Profile) if field.name == "user_id")
#: How to read the optional fields; the result is None if that is not possible.
_READERS: dict[str, Callable[[Any], Any]] = {
    "country": _read_country,
    **{name: partial(_read_name, codes=codes) for name, codes in _CODES.items()},
    "signup_date": _read_day,
    "marketing_consent": _read_consent,
}
_EPOCH = date(1970, 1, 1).toordinal()


def pack_profile(profile: Profile) -> bytes:
    """One PROFILE record, as bytes. An age band or tier that is not listed counts as unknown."""
    return _pack(
        NO_DAY if profile.signup_date is None else profile.signup_date.toordinal() - _EPOCH,
        country_code(profile.country),
        _AGE_BAND_CODES[profile.age_band],
        _TIER_CODES[profile.membership_tier],
        -1 if profile.marketing_consent is None else int(profile.marketing_consent),
        1,
    )


def country_code(country: str | None) -> int:
    """The number that stands for an ISO 3166-1 alpha-2 code: AA is 1, AB is 2, ..., ZZ is 676."""
    if country is None:
        return 0
    first, second = (ord(letter) - ord("A") for letter in country.upper())
    return 1 + 26 * first + second


def country_of(code: int) -> str:
    """The ISO 3166-1 alpha-2 code of a number that `country_code` returned; "unknown" for 0."""
    if not code:
        return "unknown"
    first, second = divmod(code - 1, 26)
    return chr(ord("A") + first) + chr(ord("A") + second)


def profile_schema() -> dict:
    """The JSON Schema of a profile record, of which all is read. Other values of optional fields are unknown."""
    schema = lenient_schema(Profile)
    properties = schema["$defs"]["Profile"]["properties"]
    country, signup, consent = (properties[name]["anyOf"] for name in ("country", "signup_date", "marketing_consent"))
    country[0] |= {"pattern": "^[A-Za-z]{2,3}$", "maxLength": 3}
    signup.insert(1, {"type": "string", "format": "date-time"})
    consent[0] = {"enum": [True, False, 1, 0, "true", "false"]}
    return schema
