"""The clicks contract: the fields of a click record, and decoding a batch of them into packed events."""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any
from zlib import crc32

import msgspec
from msgspec import Meta

from udfs.contracts.currencies import Currencies
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout, OwnColumn
from udfs.contracts.identifiers import hash_id, identifies
from udfs.contracts.lenient import (
    EARLIEST_TIME_MS,
    LATEST_TIME_MS,
    Codes,
    Leeway,
    fields_of,
    lenient_schema,
    read_fields,
    read_items,
    read_object,
)
from udfs.contracts.packed_events import (
    DEDUP_BY_EVENT,
    DEDUP_BY_NOTHING,
    DEDUP_BY_ORDER,
    DEVICES,
    EVENT_FORMAT,
    EVENT_KINDS,
    NO_ID,
    PAGE_TYPES,
)
from udfs.contracts.rejects import Reason, Reject, explain

LARGEST_AMOUNT, LARGEST_QUANTITY = 1e12, 1e6

UserId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        description="the user's id; the key of all state",
        extra_json_schema={"pattern": r"\S"},
        extra=Leeway.INTEGER.meta,
    ),
]
EventTime = Annotated[
    int,
    Meta(
        ge=EARLIEST_TIME_MS,
        le=LATEST_TIME_MS,
        description="when the event happened, ms since 1970-01-01 UTC",
        extra=Leeway.TIME.meta,
    ),
]


def _optional_id(meaning: str) -> Meta:
    """An id without which the click is still worth having."""
    description = f"{meaning}. Read if a text of at most 128 characters, else it counts as missing"
    return Meta(max_length=128, description=description, extra=Leeway.ANYTHING.meta)


AnonymousId = Annotated[str, _optional_id("the id of the device or cookie; before the login, user_id is the same")]
EventId = Annotated[
    str,
    Meta(
        max_length=128,
        description="copied to the score; an event that is sent again with the same id counts once",
        extra=Leeway.INTEGER.meta,
    ),
]
TransactionId = Annotated[str, _optional_id("the order of a purchase, which counts once")]
Currency = Annotated[
    str, Meta(max_length=16, description="ISO 4217 code of the amounts; by default that of clicks.currency")
]
Identifier = Annotated[str, Meta(max_length=256, extra=Leeway.INTEGER.meta)]
Slot = Annotated[
    str,
    Meta(max_length=256, description="position of promoted content on the page", extra=Leeway.INTEGER.meta),
]
Price = Annotated[float, Meta(ge=0, le=LARGEST_AMOUNT, description="price of one unit")]
Quantity = Annotated[float, Meta(ge=0, le=LARGEST_QUANTITY, description="number of units, 1 if missing")]
Value = Annotated[
    float,
    Meta(
        ge=0,
        le=LARGEST_AMOUNT,
        description="value of the whole event; if missing, the sum of price x quantity over several items, else "
        "price x quantity",
    ),
]
UtcOffset = Annotated[
    int, Meta(ge=-720, le=840, description="the user's local time minus UTC", extra=Leeway.WHOLE.meta)
]
EntryPrice = Annotated[
    float,
    Meta(
        ge=-LARGEST_AMOUNT,
        le=LARGEST_AMOUNT,
        description=f"price of one unit, below 0 for a discount; read if a number from {-LARGEST_AMOUNT:g} to "
        f"{LARGEST_AMOUNT:g}, else the entry adds nothing to the event's value",
        extra=Leeway.ANYTHING.meta,
    ),
]
EntryQuantity = Annotated[
    float,
    Meta(
        ge=-LARGEST_QUANTITY,
        le=LARGEST_QUANTITY,
        description=f"number of units, 1 if missing; read if a number from {-LARGEST_QUANTITY:,.0f} to "
        f"{LARGEST_QUANTITY:,.0f}, else the entry adds nothing to the event's value",
        extra=Leeway.ANYTHING.meta,
    ),
]


OwnNumber = Annotated[float, Meta(description="a shop's own column", extra=Leeway.ANYTHING.meta)]
OwnText = Annotated[str, Meta(max_length=256, description="a shop's own column", extra=Leeway.ANYTHING.meta)]


class Item(msgspec.Struct, gc=False, omit_defaults=True):
    """An entry of GA4's `items`. The first one fills in fields that the event itself leaves out."""

    item_id: Identifier | None = None
    item_category: Identifier | None = None
    price: EntryPrice | None = None
    quantity: EntryQuantity | None = None


class Click(msgspec.Struct, gc=False):
    """A record of the clicks topic: a GA4 event with its parameters, as a flat object. Unknown fields are ignored."""

    user_id: UserId
    event_name: Annotated[
        str, Meta(min_length=1, max_length=64, description="GA4 event name; an unknown name counts as other")
    ]
    event_time: EventTime
    event_id: EventId | None = None
    anonymous_id: AnonymousId | None = None
    item_id: Identifier | None = None
    item_category: Identifier | None = None
    price: Price | None = None
    quantity: Quantity | None = None
    value: Value | None = None
    currency: Currency | None = None
    transaction_id: TransactionId | None = None
    items: list[Item] | None = None
    page_location: str | None = None
    page_type: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(PAGE_TYPES))] | None = None
    creative_slot: Slot | None = None
    percent_scrolled: Annotated[int, Meta(ge=0, le=100, description="a fraction is dropped")] | None = None
    engagement_time_msec: Annotated[int, Meta(ge=0, description="a fraction is dropped")] | None = None
    device_category: Annotated[str, Meta(max_length=64, description="one of " + ", ".join(DEVICES))] | None = None
    utc_offset_minutes: UtcOffset | None = None

    @property
    def visitor(self) -> str | None:
        """The anonymous id; None if there is none, or a placeholder for it."""
        return self.anonymous_id if identifies(self.anonymous_id) else None


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
    clicks: list[Click | None] = field(default_factory=list, compare=False)  # equal events may be of different clicks

    @property
    def event_names(self) -> list[str | None]:
        """The names as sent."""
        return [None if click is None else click.event_name for click in self.clicks]


_parse = msgspec.json.Decoder(Click).decode
_CLICK_FIELDS, _ITEM_FIELDS = fields_of(Click), fields_of(Item)


def read_click(payload: bytes | None) -> Click:
    """The click of a JSON record, whatever its size and time.

    Raises an error that `udfs.contracts.rejects.explain` explains if the record breaks the contract.
    """
    try:
        return _parse(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return read_leniently(payload)


def read_leniently(payload: bytes, click_type: type[Click] = Click) -> Click:
    """The same, several times slower. Of what a strict decoder accepts, both make the same packed event."""
    return click_of(read_object(payload), click_type)


def click_of(record: Mapping[str, Any], click_type: type[Click] = Click) -> Click:
    """The click of a record that has been read into an object, with the same leniency. Raises as `read_click` does."""
    fields = read_fields(record, _CLICK_FIELDS if click_type is Click else fields_of(click_type))
    if record.get("items") is not None:
        fields["items"] = read_items(record["items"], _ITEM_FIELDS)
    return msgspec.convert(fields, click_type)


def write_click(click: Click, **further: int) -> bytes:
    """The record of a click, in JSON without the fields that it does not have, and with further ones."""
    fields = zip(click.__struct_encode_fields__, click.__struct_fields__)
    given = {name: value for name, attribute in fields if (value := getattr(click, attribute)) is not None}
    return msgspec.json.encode(given | further)


class ClickDecoder:
    """Decodes click records under given limits, and converts amounts to the shop's currency if `currencies` name it.

    `parse` makes the click of a record, by default of one in JSON. `pack` makes the packed event of a click, in a
    layout.
    """

    def __init__(
        self,
        limits: ClickLimits = ClickLimits(),
        parse: Callable[[bytes | None], Click] | None = None,
        currencies: Currencies | None = None,
        layout: EventLayout = STANDARD_LAYOUT,
    ):
        self._limits, self._currencies, self.layout = limits, currencies, layout
        self.pack = packer(layout)
        self.parse = parse or read_click
        self._parse, self._parse_again = parse, None
        if parse is None:
            kind = click_type(layout)
            self._parse = msgspec.json.Decoder(kind).decode
            self._parse_again = partial(read_leniently, click_type=kind)

    def accept(self, payload: bytes | None, record_time_ms: int) -> Click:
        """The click of a record, given its Kafka timestamp (milliseconds).

        Raises an error that `udfs.contracts.rejects.explain` explains if the record breaks the contract.
        """
        limits = self._limits
        if payload is not None and len(payload) > limits.max_record_bytes:
            raise Reject(Reason.TOO_LARGE, f"{len(payload)} bytes: at most {limits.max_record_bytes}")
        try:
            click = self._parse(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            if self._parse_again is None:
                raise
            click = self._parse_again(payload)
        if click.currency is not None and self._currencies is not None:
            _convert_amounts(click, self._currencies)
        if click.user_id.isspace():
            raise Reject(Reason.EMPTY_FIELD, "user_id has only blanks - at `$.user_id`")
        lead = click.event_time - record_time_ms
        if not -limits.max_behind_ms <= lead <= limits.max_ahead_ms:
            raise _time_reject(lead, limits)
        return click

    def decode(self, payloads: Sequence[bytes | None], record_times_ms: Sequence[int]) -> DecodedClicks:
        """Decode n records, given their n Kafka timestamps (milliseconds)."""
        out = DecodedClicks()
        add_user, add_event, add_id, add_time, add_click = (
            out.user_ids.append, out.events.append, out.event_ids.append, out.event_times_ms.append,
            out.clicks.append,
        )  # fmt: skip
        add_reason, add_message = out.reasons.append, out.messages.append
        for payload, record_time_ms in zip(payloads, record_times_ms):
            try:
                click = self.accept(payload, record_time_ms)
                event = self.pack(click)
            except Exception as error:  # explain() raises again what a record can't cause
                reject = explain(payload, error)
                add_user(None), add_event(None), add_id(None), add_time(0), add_click(None)
                add_reason(reject.reason.value), add_message(str(reject))
            else:
                add_user(click.user_id), add_event(event), add_id(click.event_id), add_time(click.event_time)
                add_click(click), add_reason(None), add_message(None)
        return out


_pack = struct.Struct(EVENT_FORMAT).pack
_KIND_CODES = {name: code for code, name in enumerate(EVENT_KINDS)}
_PAGE_TYPE_CODES, _DEVICE_CODES = Codes(PAGE_TYPES), Codes(DEVICES)
_PURCHASE = _KIND_CODES["purchase"]
_NAN = float("nan")


def pack_click(click: Click, kinds: Mapping[str, int] = _KIND_CODES) -> bytes:
    """One EVENT record, as bytes; an event whose name is not one of `kinds` is of the kind `other`."""
    item, category, value, price, items = click.item_id, click.item_category, click.value, click.price, click.items
    quantity = click.quantity
    if items:
        first = items[0]
        item, category = item or first.item_id, category or first.item_category
        if value is None:
            if len(items) > 1:
                value = _total(items)
            if price is None:
                price = first.price
            if quantity is None:
                quantity = first.quantity
    if value is None:
        value = _NAN if price is None else price if quantity is None else price * quantity
        if items and value < 0:
            value = 0.0
    page = click.page_location
    kind = kinds.get(click.event_name, 0)
    dedup_by, dedup_key = DEDUP_BY_NOTHING, 0
    if kind == _PURCHASE and identifies(click.transaction_id):
        dedup_by, dedup_key = DEDUP_BY_ORDER, hash_id(click.transaction_id)
    elif identifies(click.event_id):
        dedup_by, dedup_key = DEDUP_BY_EVENT, hash_id(click.event_id)
    return _pack(
        click.event_time,
        crc32(item.encode()) if item else NO_ID,
        crc32(category.encode()) if category else NO_ID,
        crc32(page.encode()) if page else NO_ID,
        value,
        min(click.engagement_time_msec // 100, 65_535) if click.engagement_time_msec else 0,
        kind,
        _PAGE_TYPE_CODES[click.page_type],
        click.percent_scrolled or 0,
        click.utc_offset_minutes // 15 if click.utc_offset_minutes else 0,
        _DEVICE_CODES[click.device_category],
        dedup_by,
        dedup_key,
    )


def click_type(layout: EventLayout) -> type[Click]:
    """The struct of a click with the fields that the layout's own columns are filled from."""
    own = _own_fields(layout)
    if not own:
        return Click
    types = {column.field: OwnNumber if column.type == "number" else OwnText for column in layout.click_columns}
    fields = [(attribute, types[name] | None, None) for name, attribute in own.items()]
    renamed = {attribute: name for name, attribute in own.items()}
    return msgspec.defstruct("Click", fields, bases=(Click,), gc=False, rename=renamed)


def packer(layout: EventLayout) -> Callable[[Click], bytes]:
    """The function that packs a click in a layout."""
    if not layout.own_columns:
        return partial(pack_click, kinds=layout.kinds)
    kinds, attributes = layout.kinds, _own_fields(layout)
    columns = [
        (attributes.get(column.field, column.field), column.encoder())
        if isinstance(column, OwnColumn)
        else ("event_time", lambda _: math.nan)  # of the population: filled later, for many events at once
        for column in layout.own_columns
    ]
    pack_own = struct.Struct("<" + "".join(column.format for column in layout.own_columns) + f"{layout.spare}x").pack

    def pack(click: Click) -> bytes:
        return pack_click(click, kinds) + pack_own(*[encode(getattr(click, name)) for name, encode in columns])

    return pack


def _own_fields(layout: EventLayout) -> dict[str, str]:
    """The fields that own columns are filled from and clicks don't have, with what they are called in the struct."""
    fields = dict.fromkeys(
        column.field for column in layout.click_columns if column.field not in Click.__struct_fields__
    )
    return {name: f"own_{number}" for number, name in enumerate(fields)}


def _total(items: list[Item]) -> float | None:
    """The value of several items, of which one that costs less than nothing is a discount; None without any price."""
    amounts = [
        entry.price if entry.quantity is None else entry.price * entry.quantity
        for entry in items
        if entry.price is not None
    ]
    return max(sum(amounts), 0.0) if amounts else None


def _convert_amounts(click: Click, currencies: Currencies) -> None:
    try:
        rate = currencies.rate(click.currency)
    except ValueError as error:
        raise Reject(Reason.UNKNOWN_CURRENCY, str(error)) from None
    click.currency = currencies.shop
    if rate != 1.0:
        click.price = None if click.price is None else click.price * rate
        click.value = None if click.value is None else click.value * rate
        for item in click.items or ():
            item.price = None if item.price is None else item.price * rate


def click_schema() -> dict:
    """The JSON Schema of a click record."""
    schema = lenient_schema(Click, Item)
    entry = {"$ref": "#/$defs/Item"}
    entries = {"type": "array", "prefixItems": [{"anyOf": [entry, {"type": "null"}]}], "items": {}}
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": entries}
    schema["$defs"]["Click"]["properties"]["items"] = {
        "description": "GA4's items: an array, one object, or JSON of these in a text; of entries after the first, "
        "only price and quantity are read",
        "anyOf": [entries, entry, text, {"type": "null"}],
        "default": None,
    }
    return schema


def mapped_click_schema() -> dict:
    """The JSON Schema of a click that the score job has made of a record that is not in the contract."""
    schema = click_schema()
    position = {"type": "integer", "minimum": 0}
    schema["$defs"]["Click"]["properties"] |= {"source_partition": position, "source_offset": position}
    return schema


def _time_reject(lead_ms: int, limits: ClickLimits) -> Reject:
    if lead_ms > 0:
        reason, side, bound = Reason.TIME_IN_FUTURE, "ahead of", limits.max_ahead_ms
    else:
        reason, side, bound = Reason.TIME_TOO_OLD, "behind", limits.max_behind_ms
    return Reject(
        reason, f"event_time is {abs(lead_ms) / 1000:.0f} s {side} the record's timestamp: at most {bound / 1000:.0f} s"
    )
