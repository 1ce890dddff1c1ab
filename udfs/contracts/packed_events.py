"""The packed event: decode writes it, Flink state keeps the last n of a user, the features read it.

One numpy structured dtype is the whole contract between those three. A user's history is the
concatenation of its records in arrival order, oldest first.
"""

import numpy as np

#: GA4 event names by code; a name that is not listed is kept as ``other``. Append only: codes are stored in state.
EVENT_KINDS = (
    "other",
    "page_view",
    "view_item",
    "view_item_list",
    "select_item",
    "search",
    "add_to_cart",
    "remove_from_cart",
    "begin_checkout",
    "purchase",
    "scroll",
    "user_engagement",
    "form_start",
    "form_submit",
    "click",
    "view_promotion",
    "select_promotion",
    "add_to_wishlist",
)

#: Codes of a shop's own kinds of events, as its declaration of features gives them. Those below are for later releases.
OWN_KIND_CODES = range(100, 256)

#: Page types by code; a missing or unlisted one is ``unknown``. Append only.
PAGE_TYPES = (
    "unknown",
    "home",
    "category",
    "search",
    "product",
    "cart",
    "checkout",
    "confirmation",
    "account",
    "content",
)

#: GA4 device categories by code; a missing or unlisted one is ``unknown``. Append only.
DEVICES = ("unknown", "desktop", "mobile", "tablet", "smart tv")

#: Hash of an identifier that the event does not carry.
NO_ID = 0

#: What shows that an event has been sent before: nothing, the same event id, or of a purchase the same order.
DEDUP_BY_NOTHING, DEDUP_BY_EVENT, DEDUP_BY_ORDER = range(3)

EVENT = np.dtype(
    [
        ("time_ms", "<i8"),  # event time, milliseconds since 1970-01-01 UTC
        ("item", "<u4"),  # CRC-32 of the item id, NO_ID when missing
        ("category", "<u4"),  # CRC-32 of the item category
        ("page", "<u4"),  # CRC-32 of the page location
        ("value", "<f4"),  # GA4 `value`, else price x quantity; NaN when missing
        ("engagement_ds", "<u2"),  # engagement time in tenths of a second, at most 6553.5 s
        ("kind", "u1"),  # index into EVENT_KINDS, or one of OWN_KIND_CODES
        ("page_type", "u1"),  # index into PAGE_TYPES
        ("scroll", "u1"),  # deepest scroll, percent
        ("utc_offset_quarters", "i1"),  # user's UTC offset in quarters of an hour
        ("device", "u1"),  # index into DEVICES
        ("dedup_by", "u1"),  # one of DEDUP_BY_...
        ("dedup_key", "<u8"),  # hash of the event's or the order's id, 0 without one
    ]
)

#: `struct` format of EVENT, for packing one record at a time.
EVENT_FORMAT = "<qIIIfHBBBbBBQ"


def standard_kinds(records: np.ndarray) -> np.ndarray:
    """The kinds of n events EVENT[n] as indices into EVENT_KINDS, int64[n]: own ones are `other`."""
    kinds = records["kind"].astype(np.int64)
    return np.where(kinds < len(EVENT_KINDS), kinds, 0)


def without_ids(records: np.ndarray) -> np.ndarray:
    """A copy of n events EVENT[n] without what shows that one was sent before."""
    copies = records.copy()
    copies[["dedup_by", "dedup_key"]] = 0
    return copies


def read_histories(histories: list[bytes], event: np.dtype = EVENT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concatenate packed histories, of events of a type.

    Returns the records EVENT[m] and the start and end of each of the n histories in them: int64[n], int64[n].
    Raises ValueError when a history is empty or not a whole number of records.
    """
    lengths = np.fromiter(map(len, histories), np.int64, len(histories))
    records, rests = np.divmod(lengths, event.itemsize)
    if rests.any() or not records.all():
        broken = int(np.argmax((rests > 0) | (records == 0)))
        raise ValueError(
            f"history {broken} has {lengths[broken]} bytes: expected one or more records of {event.itemsize} bytes each"
        )
    ends = records.cumsum()
    return np.frombuffer(b"".join(histories), event), ends - records, ends
