"""The profiles contract: the fields of a profile record, and decoding a batch of them into packed profiles."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

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

_pack = struct.Struct(PROFILE_FORMAT).pack
#: The profile of a user who has none, or whose profile was deleted.
NO_PROFILE = _pack(NO_DAY, 0, 0, 0, -1, 0)


class Profile(msgspec.Struct, gc=False):
    """A record of the compacted profiles topic; the newest one per user counts. Unknown fields are ignored."""

    user_id: Annotated[str, Meta(min_length=1, max_length=128)]
    country: Annotated[str, Meta(pattern="^[A-Za-z]{2}$", description="ISO 3166-1 alpha-2 code")] | None = None
    age_band: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(AGE_BANDS))] | None = None
    membership_tier: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(MEMBERSHIP_TIERS))] | None = (
        None
    )
    signup_date: Annotated[date, Meta(description="ISO 8601 date")] | None = None
    marketing_consent: bool | None = None


@dataclass
class DecodedProfiles:
    """A decoded batch, column by column. A rejected record has None everywhere but in reason and message."""

    user_ids: list[str | None] = field(default_factory=list)
    profiles: list[bytes | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)


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
                user_id, packed = self.accept(key, payload)
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

    def accept(self, key: bytes | None, payload: bytes | None) -> tuple[str, bytes]:
        """The user and the packed profile of a record.

        Raises an error that `udfs.contracts.rejects.explain` explains if the record breaks the contract.
        """
        if not payload:
            if not key:
                raise Reject(Reason.EMPTY_RECORD, "a deletion needs the user_id as the record's key")
            return key.decode(), NO_PROFILE
        if len(payload) > self._max_record_bytes:
            raise Reject(Reason.TOO_LARGE, f"{len(payload)} bytes: at most {self._max_record_bytes}")
        profile = self._parse(payload)
        return profile.user_id, pack_profile(profile)


_AGE_BAND_CODES = {name: code for code, name in enumerate(AGE_BANDS)}
_TIER_CODES = {name: code for code, name in enumerate(MEMBERSHIP_TIERS)}
_EPOCH = date(1970, 1, 1).toordinal()


def pack_profile(profile: Profile) -> bytes:
    """One PROFILE record, as bytes. An age band or tier that is not listed counts as unknown."""
    return _pack(
        NO_DAY if profile.signup_date is None else profile.signup_date.toordinal() - _EPOCH,
        country_code(profile.country),
        _AGE_BAND_CODES.get(profile.age_band, 0),
        _TIER_CODES.get(profile.membership_tier, 0),
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
    """The JSON Schema of a profile record."""
    return msgspec.json.schema(Profile)
