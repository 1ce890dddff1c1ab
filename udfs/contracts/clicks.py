"""The clicks contract: the fields of a click record, and decoding a batch of them into packed events."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated
from zlib import crc32

import msgspec
from msgspec import Meta

from udfs.contracts.packed_events import DEVICES, EVENT_FORMAT, EVENT_KINDS, NO_ID, PAGE_TYPES
from udfs.contracts.rejects import Reason, Reject, explain

LATEST_TIME_MS = 4_102_444_800_000  # 2100-01-01 UTC: a later time is in the wrong unit, whatever the bounds say

Identifier = Annotated[str, Meta(max_length=256)]
Money = Annotated[float, Meta(ge=0, le=1e9)]


class Item(msgspec.Struct, gc=False):
    """An entry of GA4's `items`; the first one fills in fields that the event itself leaves out."""

    item_id: Identifier | None = None
    item_category: Identifier | None = None
    price: Money | None = None
    quantity: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class Click(msgspec.Struct, gc=False):
    """A record of the clicks topic: a GA4 event with its parameters, as a flat object. Unknown fields are ignored."""

    user_id: Annotated[str, Meta(min_length=1, max_length=128, description="the user's id; the key of all state")]
    event_name: Annotated[
        str, Meta(min_length=1, max_length=64, description="GA4 event name; an unknown name counts as other")
    ]
    event_time: Annotated[
        int, Meta(ge=0, le=LATEST_TIME_MS, description="when the event happened, ms since 1970-01-01 UTC")
    ]
    event_id: Annotated[str, Meta(max_length=128, description="copied to the score")] | None = None
    item_id: Identifier | None = None
    item_category: Identifier | None = None
    price: Annotated[float, Meta(ge=0, le=1e9, description="price of one unit")] | None = None
    quantity: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    value: (
        Annotated[float, Meta(ge=0, le=1e9, description="value of the whole event; if missing, price x quantity")]
        | None
    ) = None
    items: list[Item] | None = None
    page_location: Annotated[str, Meta(max_length=2048)] | None = None
    page_type: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(PAGE_TYPES))] | None = None
    creative_slot: (
        Annotated[str, Meta(max_length=256, description="position of promoted content on the page")] | None
    ) = None
    percent_scrolled: Annotated[int, Meta(ge=0, le=100)] | None = None
    engagement_time_msec: Annotated[int, Meta(ge=0, le=86_400_000)] | None = None
    device_category: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(DEVICES))] | None = None
    utc_offset_minutes: Annotated[int, Meta(ge=-720, le=840, description="the user's local time minus UTC")] | None = (
        None
    )


@dataclass(frozen=True)
class ClickLimits:
    """Limits on accepted clicks; those on time are relative to Kafka's timestamp, so that a rerun decides the same."""

    max_record_bytes: int = 65_536
    max_behind_ms: int = 30 * 86_400_000
    max_ahead_ms: int = 600_000


@dataclass
class DecodedClicks:
    """A decoded batch, column by column. A rejected record has a reason, a message, time 0 and otherwise None."""

    user_ids: list[str | None] = field(default_factory=list)
    events: list[bytes | None] = field(default_factory=list)
    event_ids: list[str | None] = field(default_factory=list)
    event_times_ms: list[int] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)


class ClickDecoder:
    """Decodes click records under given limits."""

    def __init__(self, limits: ClickLimits = ClickLimits()):
        self._limits = limits
        self._parse = msgspec.json.Decoder(Click).decode

    def accept(self, payload: bytes | None, record_time_ms: int) -> Click:
        """The click of a record, given its Kafka timestamp (milliseconds).

        Raises an error that `udfs.contracts.rejects.explain` explains if the record breaks the contract.
        """
        limits = self._limits
        if payload is not None and len(payload) > limits.max_record_bytes:
            raise Reject(Reason.TOO_LARGE, f"{len(payload)} bytes: at most {limits.max_record_bytes}")
        click = self._parse(payload)
        lead = click.event_time - record_time_ms
        if not -limits.max_behind_ms <= lead <= limits.max_ahead_ms:
            raise _time_reject(lead, limits)
        return click

    def decode(self, payloads: Sequence[bytes | None], record_times_ms: Sequence[int]) -> DecodedClicks:
        """Decode n records, given their n Kafka timestamps (milliseconds)."""
        out = DecodedClicks()
        add_user, add_event, add_id, add_time = (
            out.user_ids.append, out.events.append, out.event_ids.append, out.event_times_ms.append,
        )  # fmt: skip
        add_reason, add_message = out.reasons.append, out.messages.append
        for payload, record_time_ms in zip(payloads, record_times_ms):
            try:
                click = self.accept(payload, record_time_ms)
                event = pack_click(click)
            except Exception as error:  # explain() raises again what a record can't cause
                reject = explain(payload, error)
                add_user(None), add_event(None), add_id(None), add_time(0)
                add_reason(reject.reason.value), add_message(str(reject))
            else:
                add_user(click.user_id), add_event(event), add_id(click.event_id), add_time(click.event_time)
                add_reason(None), add_message(None)
        return out


_pack = struct.Struct(EVENT_FORMAT).pack
_KIND_CODES = {name: code for code, name in enumerate(EVENT_KINDS)}
_PAGE_TYPE_CODES = {name: code for code, name in enumerate(PAGE_TYPES)}
_DEVICE_CODES = {name: code for code, name in enumerate(DEVICES)}
_NAN = float("nan")


def pack_click(click: Click) -> bytes:
    """One EVENT record, as bytes."""
    item, category, value, quantity = click.item_id, click.item_category, click.value, click.quantity
    price = click.price
    if click.items:
        first = click.items[0]
        item, category = item or first.item_id, category or first.item_category
        if price is None:
            price, quantity = first.price, first.quantity if quantity is None else quantity
    if value is None:
        value = _NAN if price is None else price if quantity is None else price * quantity
    page = click.page_location
    return _pack(
        click.event_time,
        crc32(item.encode()) if item else NO_ID,
        crc32(category.encode()) if category else NO_ID,
        crc32(page.encode()) if page else NO_ID,
        value,
        min(click.engagement_time_msec // 100, 65_535) if click.engagement_time_msec else 0,
        _KIND_CODES.get(click.event_name, 0),
        _PAGE_TYPE_CODES.get(click.page_type, 0),
        click.percent_scrolled or 0,
        click.utc_offset_minutes // 15 if click.utc_offset_minutes else 0,
        _DEVICE_CODES.get(click.device_category, 0),
        0,
    )


def click_schema() -> dict:
    """The JSON Schema of a click record."""
    return msgspec.json.schema(Click)


def _time_reject(lead_ms: int, limits: ClickLimits) -> Reject:
    if lead_ms > 0:
        reason, side, bound = Reason.TIME_IN_FUTURE, "ahead of", limits.max_ahead_ms
    else:
        reason, side, bound = Reason.TIME_TOO_OLD, "behind", limits.max_behind_ms
    return Reject(
        reason, f"event_time is {abs(lead_ms) / 1000:.0f} s {side} the record's timestamp: at most {bound / 1000:.0f} s"
    )
