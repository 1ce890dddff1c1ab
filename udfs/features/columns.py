"""What a feature can read of an event, of the user and of the user's profile, by the name that expressions use.

Each entry says how compiled code reads the value out of a packed record. `event` stands for the record.
"""

from dataclasses import dataclass
from typing import Literal

from udfs.contracts.event_layout import EventLayout, OwnColumn, PopulationColumn
from udfs.contracts.packed_events import DEVICES, NO_ID, PAGE_TYPES
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, NO_DAY

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
QUARTER_HOUR_MS = 900_000

_LOCAL_MS = f"(event.time_ms + event.utc_offset_quarters * {QUARTER_HOUR_MS})"


@dataclass(frozen=True)
class Column:
    """A column of events.

    An identifier can be compared and counted, but has no order; a category is one of `names`, the first of which stands
    for all others; a number is `stored` / `scale`.
    """

    name: str
    type: Literal["identifier", "category", "number"]
    stored: str  # how compiled code reads it from `event`
    doc: str
    scale: int = 1
    missing: int | Literal["nan"] | None = (
        None  # what a record has where the event does not carry it; None: it always does
    )
    is_integer: bool = True  # whether it is stored as one, so that sums are exact
    names: tuple[str, ...] = ()


#: Event columns by name. `kind` has its names from the declaration.
COLUMNS = {
    column.name: column
    for column in (
        Column("kind", "category", "event.kind", "kind of event, such as add_to_cart"),
        Column("item", "identifier", "event.item", "the first item", missing=NO_ID),
        Column("category", "identifier", "event.category", "category of the first item", missing=NO_ID),
        Column("page", "identifier", "event.page", "the page's address", missing=NO_ID),
        Column("value", "number", "event.value", "value in the clicks' currency", missing="nan", is_integer=False),
        Column("scroll", "number", "event.scroll", "deepest scroll, percent"),
        Column("engagement", "number", "event.engagement_ds", "engagement time, seconds", scale=10),
        Column("page_type", "category", "event.page_type", "type of page", missing=NO_ID, names=PAGE_TYPES),
        Column("device", "category", "event.device", "device category", missing=NO_ID, names=DEVICES),
        Column("hour", "number", f"({_LOCAL_MS} // {HOUR_MS} % 24)", "hour of the day at the user's UTC offset"),
        Column("weekday", "number", f"(({_LOCAL_MS} // {DAY_MS} + 3) % 7)", "day of the week there, Monday 0"),
    )
}

#: The first name of own categories.
UNKNOWN = "unknown"


def own_column(own: OwnColumn | PopulationColumn) -> Column:
    """A shop's own column, as expressions know it."""
    if isinstance(own, PopulationColumn):
        what = f"{own.kind or 'all'} events of other users" + (f" with this {own.by}" if own.by else "")
        what += ", as a share of all with it" if own.rate else ""
        return Column(own.name, "number", f"event.{own.stored_name}", what, missing="nan", is_integer=False)
    names = (UNKNOWN, *own.names) if own.type == "category" else ()
    return Column(
        own.name, own.type, f"event.{own.stored_name}", f"own column, of the field {own.field}", own.scale, own.missing,
        names=names,
    )  # fmt: skip


def columns_of(layout: EventLayout) -> dict[str, Column]:
    """All columns of the events in a layout, by name."""
    return COLUMNS | {own.name: own_column(own) for own in layout.own_columns}


def can_be_shared(column: Column) -> bool:
    """Whether events of many users have the same value of a column, so that they can be counted by it."""
    return column.type != "number" and column.name != "kind" or column.name in ("hour", "weekday")


#: What is known of the user beside the history: how compiled code computes it, and what it is.
USER_FIELDS = {
    "lifetime_events": ("float(lifetime_events)", "events ever seen of the user, this one included"),
    "history_events": ("float(end - start)", "events of the history kept"),
    "since_first_seen": ("(now - first_seen_ms) / 1000.0", "seconds since the user's first event; may be negative"),
    "since_first_kept": ("(now - records[start].time_ms) / 1000.0", "seconds since the first event of those kept"),
}  # fmt: skip

#: Fields of the user's profile, likewise.
PROFILE_FIELDS = {
    "known": ("float(profile.known)", "1 when the user has a profile"),
    "country": ("float(profile.country)", "1 + 26 x first letter + second letter of ISO 3166, 0 unknown"),
    "age_band": (f"float(known_code(profile.age_band, {len(AGE_BANDS)}))", "index into AGE_BANDS, 0 unknown"),
    "membership_tier": (
        f"float(known_code(profile.membership_tier, {len(MEMBERSHIP_TIERS)}))",
        "index into MEMBERSHIP_TIERS, 0 unknown",
    ),
    "marketing_consent": (
        "(float(profile.marketing_consent) if profile.marketing_consent >= 0 else np.nan)",
        "1 yes, 0 no, missing when unknown",
    ),
    "days_since_signup": (
        f"(float(now // {DAY_MS} - profile.signup_day) if profile.signup_day != {NO_DAY} else np.nan)",
        "UTC days from sign-up to this event, missing when unknown",
    ),
}

#: Names of the profile fields that are codes, in ascending order; `country` apart.
PROFILE_NAMES = {"age_band": AGE_BANDS, "membership_tier": MEMBERSHIP_TIERS}
