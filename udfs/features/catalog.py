"""The catalogue of features: what each one means, and the work that it costs.

To add a feature:
1. add an entry to FEATURES below; its `need` names the work that it costs;
2. store it in udfs/features/kernel.py: `row[Column.your_feature] = ...`;
3. define it once more, slowly and obviously, in tests/support/oracles/features.py.
tests/unit/udfs/features/test_features.py fails while one of the three is missing, or while they disagree.
To change what a feature means, do all three and raise its `revision`: models trained on the old meaning are refused.

`intent features` prints the table.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from udfs.contracts.packed_events import DEVICES, EVENT, EVENT_KINDS, PAGE_TYPES
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, PROFILE

#: A pause longer than this ends a session.
SESSION_GAP_MS = 1_800_000

#: Sliding windows (now - length, now] by label, in milliseconds, short to long.
WINDOWS_MS = {"1m": 60_000, "5m": 300_000, "30m": 1_800_000, "24h": 86_400_000}


class Need(IntFlag):
    """Work that a feature depends on. What no wanted feature needs is skipped."""

    NOTHING = 0  # the scored event, the counters and the profile are at hand anyway
    HISTORY = 1  # a pass over the history, counting events by kind; all needs below include it
    LAST_TIMES = 2  # when each kind of event last happened
    VALUES = 4  # sums of value by kind of event
    DISTINCT_ITEMS = 8
    DISTINCT_CATEGORIES = 16
    DISTINCT_PAGES = 32
    ENGAGEMENT = 64  # engagement time, scroll depth and funnel step of the session
    REPEATS = 128  # earlier events with the same item or category
    VALUE_COMPARISON = 256  # the event's value against earlier product views


@dataclass(frozen=True)
class Feature:
    """A column of the feature matrix. `revision` changes with the meaning."""

    name: str
    group: str
    unit: str
    description: str
    need: Need
    revision: int = 1


def _recency() -> list[Feature]:
    by_kind = {
        "since_product_view_s": "the last product view (view_item)",
        "since_cart_add_s": "the last add_to_cart",
        "since_cart_remove_s": "the last remove_from_cart",
        "since_checkout_s": "the last begin_checkout",
        "since_purchase_s": "the last purchase",
        "since_search_s": "the last search",
        "since_promotion_click_s": "the last select_promotion",
    }
    return [
        Feature("since_previous_event_s", "recency", "s", "time since the event before this one", Need.HISTORY),
        Feature("since_last_visit_s", "recency", "s", "time since the previous session's last event", Need.HISTORY),
        *(
            Feature(name, "recency", "s", f"time since {what} before this event", Need.LAST_TIMES)
            for name, what in by_kind.items()
        ),
    ]


def _windows() -> list[Feature]:
    rows = [
        ("events", "events", "events", Need.HISTORY),
        ("product_views", "events", "view_item events", Need.HISTORY),
        ("list_views", "events", "view_item_list and select_item events", Need.HISTORY),
        ("searches", "events", "search events", Need.HISTORY),
        ("cart_adds", "events", "add_to_cart events", Need.HISTORY),
        ("cart_removes", "events", "remove_from_cart events", Need.HISTORY),
        ("checkouts", "events", "begin_checkout events", Need.HISTORY),
        ("purchases", "events", "purchase events", Need.HISTORY),
        ("wishlist_adds", "events", "add_to_wishlist events", Need.HISTORY),
        ("distinct_items", "items", "different items", Need.DISTINCT_ITEMS),
        ("distinct_categories", "categories", "different categories", Need.DISTINCT_CATEGORIES),
        ("value_viewed", "currency", "summed value of view_item events", Need.VALUES),
        ("value_carted", "currency", "summed value of add_to_cart events", Need.VALUES),
        ("value_purchased", "currency", "summed value of purchase events", Need.VALUES),
    ]
    return [
        Feature(f"{stem}_{label}", "window", unit, f"{what} in the last {label}, this event included", need)
        for stem, unit, what, need in rows
        for label in WINDOWS_MS
    ]


def _session() -> list[Feature]:
    rows = [
        ("session_duration_s", "s", "time since the session's first event", Need.HISTORY),
        ("session_events", "events", "events of the session so far", Need.HISTORY),
        ("session_page_views", "events", "page_view events of the session", Need.HISTORY),
        ("session_depth", "pages", "different pages of the session", Need.DISTINCT_PAGES),
        ("session_product_views", "events", "view_item events of the session", Need.HISTORY),
        ("session_distinct_items", "items", "different items of the session", Need.DISTINCT_ITEMS),
        ("session_engagement_s", "s", "summed engagement time of the session", Need.ENGAGEMENT),
        ("session_max_scroll", "percent", "deepest scroll of the session", Need.ENGAGEMENT),
        ("session_cart_adds", "events", "add_to_cart events of the session", Need.HISTORY),
        ("session_forms_started", "events", "form_start events of the session", Need.HISTORY),
        ("session_forms_submitted", "events", "form_submit events of the session", Need.HISTORY),
        ("session_searches", "events", "search events of the session", Need.HISTORY),
        (
            "session_funnel_step",
            "step",
            "deepest of 0 browsing, 1 product, 2 cart, 3 checkout, 4 purchase",
            Need.ENGAGEMENT,
        ),
        ("session_mean_gap_s", "s", "mean time between events of the session, NaN for one event", Need.HISTORY),
    ]
    return [Feature(name, "session", unit, what, need) for name, unit, what, need in rows]


def _context() -> list[Feature]:
    rows = [
        ("event_kind", "code", "index into EVENT_KINDS", Need.NOTHING),
        ("page_type", "code", "index into PAGE_TYPES", Need.NOTHING),
        ("device", "code", "index into DEVICES", Need.NOTHING),
        ("scroll", "percent", "scroll depth of this event", Need.NOTHING),
        ("value", "currency", "value of this event, NaN without", Need.NOTHING),
        (
            "value_to_viewed_mean",
            "ratio",
            "value over the mean of earlier view_item values, at most 1e6",
            Need.VALUE_COMPARISON,
        ),
        ("value_rank_in_viewed", "share", "share of earlier view_item values below this value", Need.VALUE_COMPARISON),
        ("item_seen_before", "events", "earlier events with this item, NaN without an item", Need.REPEATS),
        ("item_in_cart", "flag", "1 when this item was added to the cart more often than removed before", Need.REPEATS),
        ("category_seen_before", "events", "earlier events with this category, NaN without one", Need.REPEATS),
        ("item_views_before", "events", "earlier view_item events with this item, NaN without an item", Need.REPEATS),
        ("local_hour", "hour", "hour of the day at the user's UTC offset, 0 to 23", Need.NOTHING),
        ("local_weekday", "day", "day of the week at the user's UTC offset, Monday 0", Need.NOTHING),
    ]
    return [Feature(name, "context", unit, what, need) for name, unit, what, need in rows]


def _lifetime() -> list[Feature]:
    rows = [
        ("lifetime_events", "events", "events ever seen of the user, this one included", Need.NOTHING),
        ("since_first_seen_s", "s", "time since the user's first event, at least 0", Need.NOTHING),
        ("first_visit", "flag", "1 when the user's first event is in the session so far", Need.HISTORY),
        ("history_events", "events", "records of the history kept", Need.NOTHING),
        ("saturated", "flag", "1 when events were dropped and the first one kept is younger than 24 h", Need.NOTHING),
    ]
    return [Feature(name, "lifetime", unit, what, need) for name, unit, what, need in rows]


def _profile() -> list[Feature]:
    rows = [
        ("profile_known", "flag", "1 when the user has a profile"),
        ("country", "code", "1 + 26 x first letter + second letter of ISO 3166, 0 unknown"),
        ("age_band", "code", "index into AGE_BANDS, 0 unknown"),
        ("membership_tier", "code", "index into MEMBERSHIP_TIERS, 0 unknown"),
        ("marketing_consent", "flag", "1 yes, 0 no, NaN unknown"),
        ("since_signup_days", "days", "UTC days from sign-up to this event, NaN unknown"),
    ]
    return [Feature(name, "profile", unit, what, Need.NOTHING) for name, unit, what in rows]


FEATURES: tuple[Feature, ...] = (*_recency(), *_windows(), *_session(), *_context(), *_lifetime(), *_profile())
FEATURE_NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)

#: EVENT as features see it: models outlive what tells the job that an event was sent before.
SEEN_EVENT = np.dtype([*((name, EVENT[name]) for name in EVENT.names if not name.startswith("dedup")), ("spare", "u1")])

_COLUMN_OF = {name: column for column, name in enumerate(FEATURE_NAMES)}


def find_columns(names: Sequence[str]) -> list[int]:
    """Where the named features are in FEATURES. Raises ValueError for an unknown or repeated name."""
    seen = set()
    for name in names:
        if name not in _COLUMN_OF:
            raise ValueError(f"unknown feature {name!r}; `intent features` lists all features")
        if name in seen:
            raise ValueError(f"feature {name!r} is listed twice; list it once")
        seen.add(name)
    return [_COLUMN_OF[name] for name in names]


def combined_need(names: Sequence[str]) -> Need:
    """The work that the named features need together. Raises ValueError for an unknown or repeated name."""
    need = Need.NOTHING
    for column in find_columns(names):
        need |= FEATURES[column].need
    return need


def schema_hash(names: Sequence[str], history_length: int) -> str:
    """SHA-256, in hex, of all that gives a column its meaning: equal hashes mean equal features from equal histories.

    Covers the layouts of SEEN_EVENT and PROFILE, the vocabularies, the session gap, the windows, the history length,
    and name and revision of the features in order. Raises ValueError for an unknown or repeated name.
    """
    schema = {
        "event": _layout(SEEN_EVENT),
        "profile": _layout(PROFILE),
        "vocabularies": [EVENT_KINDS, PAGE_TYPES, DEVICES, AGE_BANDS, MEMBERSHIP_TIERS],
        "session_gap_ms": SESSION_GAP_MS,
        "windows_ms": WINDOWS_MS,
        "history_length": history_length,
        "features": [(FEATURES[column].name, FEATURES[column].revision) for column in find_columns(names)],
    }
    return hashlib.sha256(json.dumps(schema).encode()).hexdigest()


def feature_table() -> str:
    """The features as aligned plain text, a line each."""
    header = ("name", "group", "unit", "description")
    lines = [header, *((feature.name, feature.group, feature.unit, feature.description) for feature in FEATURES)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _layout(dtype: np.dtype) -> list:
    return [dtype.itemsize, *((name, field.str, field.shape, offset) for name, (field, offset) in dtype.fields.items())]
