"""What every feature means, in slow and obvious Python, a function each. The kernel is checked against it bit by bit.

Sums of values run from the newest event to the oldest, in double precision, because the order decides the last bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from udfs.contracts.packed_events import DEVICES, EVENT_KINDS, PAGE_TYPES
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, NO_DAY

MINUTE_MS = 60_000
DAY_MS = 86_400_000
SESSION_GAP_MS = 30 * MINUTE_MS
NAN = math.nan


@dataclass(frozen=True)
class Event:
    time_ms: int
    item: int | None
    category: int | None
    page: int | None
    value: float | None
    engagement_ds: int
    kind: str
    page_type: str
    scroll: int
    utc_offset_quarters: int
    device: str


@dataclass(frozen=True)
class Case:
    """A scored event and all that its features may look at. `kept` is the history in order of arrival."""

    kept: list[Event]
    lifetime_events: int
    first_seen_ms: int
    profile: np.void

    @property
    def scored(self) -> Event:
        return self.kept[-1]

    @property
    def now(self) -> int:
        return self.scored.time_ms

    @cached_property
    def events(self) -> list[Event]:
        """Oldest first; sorted() keeps events of the same time in order of arrival."""
        return sorted((event for event in self.kept if event.time_ms <= self.now), key=lambda event: event.time_ms)

    @cached_property
    def earlier(self) -> list[Event]:
        return self.events[:-1]

    def window(self, length_ms: int) -> list[Event]:
        return [event for event in self.events if self.now - length_ms < event.time_ms]

    @cached_property
    def session(self) -> list[Event]:
        events = self.events
        start = len(events) - 1
        while start > 0 and events[start].time_ms - events[start - 1].time_ms <= SESSION_GAP_MS:
            start -= 1
        return events[start:]


def read_case(records, start, end, history_length, lifetime_events, first_seen_ms, profile) -> Case:
    """The case of one row, its history cut to the newest `history_length` records."""
    kept = [_read_event(record) for record in records[start:end]][-history_length:]
    return Case(kept, int(lifetime_events), int(first_seen_ms), profile)


def _read_event(record) -> Event:
    value = float(record["value"])
    return Event(
        int(record["time_ms"]),
        int(record["item"]) or None,
        int(record["category"]) or None,
        int(record["page"]) or None,
        None if math.isnan(value) else value,
        int(record["engagement_ds"]),
        _name(EVENT_KINDS, record["kind"]),
        _name(PAGE_TYPES, record["page_type"]),
        int(record["scroll"]),
        int(record["utc_offset_quarters"]),
        _name(DEVICES, record["device"]),
    )


def _name(vocabulary: tuple[str, ...], code: int) -> str:
    return vocabulary[code] if code < len(vocabulary) else vocabulary[0]


def _of_kind(events: list[Event], *kinds: str) -> list[Event]:
    return [event for event in events if event.kind in kinds]


def _distinct(identifiers: list[int | None]) -> int:
    return len(set(identifiers) - {None})


def _sum_of_values(events: list[Event]) -> float:
    total = 0.0  # not sum(), which newer Pythons compensate
    for event in reversed(events):
        total += event.value or 0.0
    return total


def _since(case: Case, events: list[Event]) -> float:
    return (case.now - events[-1].time_ms) / 1000 if events else NAN


def since_previous_event_s(case: Case) -> float:
    return _since(case, case.earlier)


def since_last_visit_s(case: Case) -> float:
    return _since(case, case.events[: -len(case.session)])


def since_product_view_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "view_item"))


def since_cart_add_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "add_to_cart"))


def since_cart_remove_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "remove_from_cart"))


def since_checkout_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "begin_checkout"))


def since_purchase_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "purchase"))


def since_search_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "search"))


def since_promotion_click_s(case: Case) -> float:
    return _since(case, _of_kind(case.earlier, "select_promotion"))


def since_item_seen_s(case: Case) -> float:
    return NAN if case.scored.item is None else _since(case, _with_item(case))


def since_category_seen_s(case: Case) -> float:
    return NAN if case.scored.category is None else _since(case, _with_category(case))


def events(window: list[Event]) -> float:
    return len(window)


def product_views(window: list[Event]) -> float:
    return len(_of_kind(window, "view_item"))


def list_views(window: list[Event]) -> float:
    return len(_of_kind(window, "view_item_list", "select_item"))


def searches(window: list[Event]) -> float:
    return len(_of_kind(window, "search"))


def cart_adds(window: list[Event]) -> float:
    return len(_of_kind(window, "add_to_cart"))


def cart_removes(window: list[Event]) -> float:
    return len(_of_kind(window, "remove_from_cart"))


def checkouts(window: list[Event]) -> float:
    return len(_of_kind(window, "begin_checkout"))


def purchases(window: list[Event]) -> float:
    return len(_of_kind(window, "purchase"))


def wishlist_adds(window: list[Event]) -> float:
    return len(_of_kind(window, "add_to_wishlist"))


def distinct_items(window: list[Event]) -> float:
    return _distinct([event.item for event in window])


def distinct_categories(window: list[Event]) -> float:
    return _distinct([event.category for event in window])


def value_viewed(window: list[Event]) -> float:
    return _sum_of_values(_of_kind(window, "view_item"))


def value_carted(window: list[Event]) -> float:
    return _sum_of_values(_of_kind(window, "add_to_cart"))


def value_purchased(window: list[Event]) -> float:
    return _sum_of_values(_of_kind(window, "purchase"))


def session_duration_s(case: Case) -> float:
    return (case.now - case.session[0].time_ms) / 1000


def session_events(case: Case) -> float:
    return len(case.session)


def session_page_views(case: Case) -> float:
    return len(_of_kind(case.session, "page_view"))


def session_depth(case: Case) -> float:
    return _distinct([event.page for event in case.session])


def session_product_views(case: Case) -> float:
    return len(_of_kind(case.session, "view_item"))


def session_distinct_items(case: Case) -> float:
    return _distinct([event.item for event in case.session])


def session_engagement_s(case: Case) -> float:
    return sum(event.engagement_ds for event in case.session) / 10


def session_max_scroll(case: Case) -> float:
    return max(event.scroll for event in case.session)


def session_cart_adds(case: Case) -> float:
    return len(_of_kind(case.session, "add_to_cart"))


def session_forms_started(case: Case) -> float:
    return len(_of_kind(case.session, "form_start"))


def session_forms_submitted(case: Case) -> float:
    return len(_of_kind(case.session, "form_submit"))


def session_searches(case: Case) -> float:
    return len(_of_kind(case.session, "search"))


def session_funnel_step(case: Case) -> float:
    kinds = {event.kind for event in case.session}
    page_types = {event.page_type for event in case.session}
    if "purchase" in kinds or "confirmation" in page_types:
        return 4
    if "begin_checkout" in kinds or "checkout" in page_types:
        return 3
    if kinds & {"add_to_cart", "remove_from_cart"} or "cart" in page_types:
        return 2
    if "view_item" in kinds or "product" in page_types:
        return 1
    return 0


def session_mean_gap_s(case: Case) -> float:
    gaps = len(case.session) - 1
    return session_duration_s(case) / gaps if gaps else NAN


def event_kind(case: Case) -> float:
    return EVENT_KINDS.index(case.scored.kind)


def page_type(case: Case) -> float:
    return PAGE_TYPES.index(case.scored.page_type)


def device(case: Case) -> float:
    return DEVICES.index(case.scored.device)


def scroll(case: Case) -> float:
    return case.scored.scroll


def value(case: Case) -> float:
    return NAN if case.scored.value is None else case.scored.value


def _viewed_with_value(case: Case) -> list[Event]:
    return [event for event in _of_kind(case.earlier, "view_item") if event.value is not None]


def value_to_viewed_mean(case: Case) -> float:
    viewed = _viewed_with_value(case)
    if case.scored.value is None or not viewed:
        return NAN
    mean = _sum_of_values(viewed) / len(viewed)
    return min(case.scored.value / mean, 1_000_000) if mean else NAN


def value_rank_in_viewed(case: Case) -> float:
    viewed = _viewed_with_value(case)
    if case.scored.value is None or not viewed:
        return NAN
    return len([event for event in viewed if event.value < case.scored.value]) / len(viewed)


def _with_item(case: Case) -> list[Event]:
    return [event for event in case.earlier if event.item == case.scored.item]


def _with_category(case: Case) -> list[Event]:
    return [event for event in case.earlier if event.category == case.scored.category]


def item_seen_before(case: Case) -> float:
    return NAN if case.scored.item is None else len(_with_item(case))


def item_in_cart(case: Case) -> float:
    if case.scored.item is None:
        return NAN
    added = len(_of_kind(_with_item(case), "add_to_cart"))
    removed = len(_of_kind(_with_item(case), "remove_from_cart"))
    return 1 if added > removed else 0


def category_seen_before(case: Case) -> float:
    if case.scored.category is None:
        return NAN
    return len(_with_category(case))


def item_views_before(case: Case) -> float:
    return NAN if case.scored.item is None else len(_of_kind(_with_item(case), "view_item"))


def _local_ms(case: Case) -> int:
    return case.now + case.scored.utc_offset_quarters * 15 * MINUTE_MS


def local_hour(case: Case) -> float:
    return _local_ms(case) // (60 * MINUTE_MS) % 24


def local_weekday(case: Case) -> float:
    days_since_a_monday = _local_ms(case) // DAY_MS + 3  # 1970-01-01 was a Thursday
    return days_since_a_monday % 7


def lifetime_events(case: Case) -> float:
    return case.lifetime_events


def since_first_seen_s(case: Case) -> float:
    return max(case.now - case.first_seen_ms, 0) / 1000


def first_visit(case: Case) -> float:
    return 1 if case.session[0].time_ms <= case.first_seen_ms else 0


def history_events(case: Case) -> float:
    return len(case.kept)


def saturated(case: Case) -> float:
    dropped = case.lifetime_events > len(case.kept)
    return 1 if dropped and case.now - case.kept[0].time_ms < DAY_MS else 0


def profile_known(case: Case) -> float:
    return int(case.profile["known"])


def country(case: Case) -> float:
    return int(case.profile["country"])


def age_band(case: Case) -> float:
    return AGE_BANDS.index(_name(AGE_BANDS, case.profile["age_band"]))


def membership_tier(case: Case) -> float:
    return MEMBERSHIP_TIERS.index(_name(MEMBERSHIP_TIERS, case.profile["membership_tier"]))


def marketing_consent(case: Case) -> float:
    return NAN if case.profile["marketing_consent"] < 0 else int(case.profile["marketing_consent"])


def since_signup_days(case: Case) -> float:
    signup_day = int(case.profile["signup_day"])
    return NAN if signup_day == NO_DAY else case.now // DAY_MS - signup_day


_WINDOWS = {"1m": MINUTE_MS, "5m": 5 * MINUTE_MS, "30m": 30 * MINUTE_MS, "24h": DAY_MS}
_WINDOW_FEATURES = (
    events,
    product_views,
    list_views,
    searches,
    cart_adds,
    cart_removes,
    checkouts,
    purchases,
    wishlist_adds,
    distinct_items,
    distinct_categories,
    value_viewed,
    value_carted,
    value_purchased,
)
_CASE_FEATURES = (
    since_previous_event_s,
    since_last_visit_s,
    since_product_view_s,
    since_cart_add_s,
    since_cart_remove_s,
    since_checkout_s,
    since_purchase_s,
    since_search_s,
    since_promotion_click_s,
    since_item_seen_s,
    since_category_seen_s,
    session_duration_s,
    session_events,
    session_page_views,
    session_depth,
    session_product_views,
    session_distinct_items,
    session_engagement_s,
    session_max_scroll,
    session_cart_adds,
    session_forms_started,
    session_forms_submitted,
    session_searches,
    session_funnel_step,
    session_mean_gap_s,
    event_kind,
    page_type,
    device,
    scroll,
    value,
    value_to_viewed_mean,
    value_rank_in_viewed,
    item_seen_before,
    item_in_cart,
    category_seen_before,
    item_views_before,
    local_hour,
    local_weekday,
    lifetime_events,
    since_first_seen_s,
    first_visit,
    history_events,
    saturated,
    profile_known,
    country,
    age_band,
    membership_tier,
    marketing_consent,
    since_signup_days,
)


def _over_window(define: Callable[[list[Event]], float], length_ms: int) -> Callable[[Case], float]:
    return lambda case: define(case.window(length_ms))


#: Every feature by name.
ORACLE: dict[str, Callable[[Case], float]] = {
    **{define.__name__: define for define in _CASE_FEATURES},
    **{
        f"{define.__name__}_{label}": _over_window(define, length_ms)
        for define in _WINDOW_FEATURES
        for label, length_ms in _WINDOWS.items()
    },
}
