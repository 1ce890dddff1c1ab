"""The users of the simulated shop: devices, profiles and their changes, and the intent that a visit starts with."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS

UTC_OFFSETS = {"DE": 60, "FR": 60, "GB": 0, "US": -300, "BR": -180, "IN": 330, "JP": 540}  # minutes
DEVICE_SHARES = {"mobile": 0.55, "desktop": 0.35, "tablet": 0.07, None: 0.03}
TO_MOBILE_SHARE = 0.6  # of those at a desktop or tablet, in a visit that is shifted
TIER_SHARES = (0.05, 0.35, 0.25, 0.2, 0.1, 0.05)
TIER_INTENT = dict(zip(MEMBERSHIP_TIERS, (0.3, 0.0, 0.2, 0.7, 1.3, 2.0)))
CONSENT_INTENT = 0.4
LATE_PROFILE_SHARE = 0.1
PROMOTED_SHARE = 0.15


@dataclass(frozen=True)
class People:
    """All users, by user code."""

    traits: list[dict]  # fields in every click of a user
    device: np.ndarray  # int8[users, 2], index into DEVICE_SHARES: in usual visits, and in shifted ones
    updates: list[dict]  # Profile records with `updated_at` in milliseconds, oldest first
    is_bot: np.ndarray  # bool[users]
    utc_offset_ms: np.ndarray  # int64[users]
    start_intent: np.ndarray  # float64[users, 2]: of a visit before and after the user's profile changes
    change_ms: np.ndarray  # int64[users]: when it changes


def draw_people(
    users: int, bot_share: float, profile_share: float, start_ms: int, end_ms: int, rng: np.random.Generator
) -> People:
    """Draw the users. Some profiles arrive mid-stream, and some change then: the membership tier rises."""
    countries = rng.choice(list(UTC_OFFSETS), users).tolist()
    device = _draw_devices(users, rng)
    traits = [
        {"user_id": f"u{user}", "utc_offset_minutes": UTC_OFFSETS[country]} for user, country in enumerate(countries)
    ]

    is_bot = rng.random(users) < bot_share
    has_profile = ~is_bot & (rng.random(users) < profile_share)
    fate = rng.random(users)
    change_ms = rng.integers(start_ms, end_ms, users, endpoint=True)
    profiles = _draw_profiles(countries, datetime.fromtimestamp(start_ms / 1000, UTC), rng)

    updates = []
    start_intent = np.full((users, 2), TIER_INTENT["unknown"])
    for user in np.flatnonzero(has_profile).tolist():
        profile, moment_ms = profiles[user], int(change_ms[user])
        if fate[user] < LATE_PROFILE_SHARE:
            updates.append(profile | {"updated_at": moment_ms})
            start_intent[user, 1] = _start_intent(profile)
            continue
        updates.append(profile | {"updated_at": start_ms})
        start_intent[user] = _start_intent(profile)
        if fate[user] < LATE_PROFILE_SHARE + PROMOTED_SHARE:
            promoted = _promoted(profile)
            updates.append(promoted | {"updated_at": moment_ms})
            start_intent[user, 1] = _start_intent(promoted)
    updates.sort(key=lambda update: update["updated_at"])
    offsets_ms = np.array([UTC_OFFSETS[country] * 60_000 for country in countries])
    return People(traits, device, updates, is_bot, offsets_ms, start_intent, change_ms)


def _draw_devices(users: int, rng: np.random.Generator) -> np.ndarray:
    """Draw devices for usual and shifted visits; the latter from a generator of its own, to keep the draws of `rng`."""
    names = list(DEVICE_SHARES)
    usual = rng.choice(len(names), users, p=list(DEVICE_SHARES.values()))
    moves = rng.spawn(1)[0].random(users) < TO_MOBILE_SHARE
    shifted = np.where(moves & (usual != names.index(None)), names.index("mobile"), usual)
    return np.stack([usual, shifted], axis=1).astype(np.int8)


def _draw_profiles(countries: list[str], now: datetime, rng: np.random.Generator) -> list[dict]:
    """Draw a profile for each user; unknown values are null or left out."""
    users = len(countries)
    columns = (
        countries,
        (rng.random(users) < 0.95).tolist(),
        rng.integers(0, len(AGE_BANDS), users).tolist(),
        rng.choice(len(MEMBERSHIP_TIERS), users, p=TIER_SHARES).tolist(),
        rng.integers(-200, 2_000, users).tolist(),
        rng.choice((None, False, True), users, p=(0.1, 0.4, 0.5)).tolist(),
    )
    profiles = []
    for user, (country, is_country_known, age_band, tier, signup_days, consent) in enumerate(zip(*columns)):
        signup = None if signup_days < 0 else (now - timedelta(days=signup_days)).date().isoformat()
        profile = {
            "user_id": f"u{user}",
            "country": country if is_country_known else None,
            "signup_date": signup,
            "marketing_consent": consent,
        }
        if age_band:
            profile["age_band"] = AGE_BANDS[age_band]
        if tier:
            profile["membership_tier"] = MEMBERSHIP_TIERS[tier]
        profiles.append(profile)
    return profiles


def _promoted(profile: dict) -> dict:
    tier = MEMBERSHIP_TIERS.index(profile.get("membership_tier", "unknown"))
    return profile | {"membership_tier": MEMBERSHIP_TIERS[min(tier + 1, len(MEMBERSHIP_TIERS) - 1)]}


def _start_intent(profile: dict) -> float:
    tier = TIER_INTENT[profile.get("membership_tier", "unknown")]
    return tier + (CONSENT_INTENT if profile["marketing_consent"] else 0.0)
