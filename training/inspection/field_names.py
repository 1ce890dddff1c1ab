"""Names of columns and of values in other products and shops, and what they are in a click."""

from functools import lru_cache

from training.data.event_names import words_of
from udfs.contracts.packed_events import DEVICES, PAGE_TYPES
from udfs.mapping.columns import column_steps
from udfs.mapping.definition import ITEM_FIELDS

#: Names of columns by field, in the order of a mapping, the best name first. They are in lower case and compared
#: without spaces, so "visitor id" is also visitorid.
SYNONYMS = {
    "event_id": "event id, message id, insert id, uuid, event uuid, hit id, row id, id",
    "user_id": "user id, customer id, client id, distinct id, visitor id, member id, account id, shopper id, customer, "
    "user, visitor, user pseudo id, domain userid, anonymous id, person id, network userid, device id, cookie id, "
    "full visitor id, session id, session",
    "anonymous_id": "anonymous id, user pseudo id, anon id, domain userid, device id, cookie id, visitor id, client id",
    "event_name": "event name, event type, event, action, behavior, behaviour, event action, behavior type, "
    "behaviour type, action type, activity, interaction, interaction type, type",
    "event_time": "event time, event timestamp, timestamp, time, ts, at, event datetime, datetime, occurred at, "
    "event at, created at, date time, derived tstamp, collector tstamp, original timestamp, sent at, received at, "
    "server time, client time, server timestamp, event date, date, day",
    "item_id": "item id, product id, sku, product sku, item sku, sku id, article id, article, product, item, aid, "
    "asin, variant id, content id, goods id, offer id, product view sku, item nr, article number, product code",
    "item_category": "item category, category id, category, product category, item category id, category name, "
    "category code, product view categories, product type, department, group",
    "price": "price, unit price, item price, product price, sale price, price per unit, product view price",
    "quantity": "quantity, qty, item quantity, product quantity, units, number of units, amount",
    "items": "items, products, line items, order items, cart items, ecommerce items, item details, contents, basket, "
    "cart, lines",
    "value": "value, revenue, total, purchase revenue, order value, total price, order total, total amount, "
    "event value, conversion value, grand total, amount",
    "currency": "currency, currency code, order currency, site currency",
    "transaction_id": "transaction id, order id, order number, purchase id, txn id, tr orderid, invoice id, "
    "invoice no, order no, receipt id",
    "page_location": "page location, page url, url, current url, request url, document location, href, uri, page path, "
    "location, page",
    "page_type": "page type, page category, page template, content group, template, page",
    "creative_slot": "creative slot, ad slot, banner position, slot, placement",
    "percent_scrolled": "percent scrolled, scroll percent, scroll percentage, scroll depth",
    "engagement_time_msec": "engagement time msec, engagement time ms, engagement time, engagement time seconds",
    "device_category": "device category, device type, device class, device",
    "utc_offset_minutes": "utc offset minutes, utc offset, timezone offset minutes, time zone offset minutes, "
    "timezone offset, time zone offset, time zone offset seconds, timezone offset seconds, tz offset, gmt offset, "
    "utc offset hours",
}
_ITEM_SYNONYMS = {field: SYNONYMS[field] for field in ITEM_FIELDS}
_ITEM_SYNONYMS["item_id"] += ", id, article no"

#: Objects whose name says nothing about what is in them.
_CONTAINERS = frozenset(
    ("properties", "event properties", "params", "event params", "parameters", "attributes", "data", "event data",
     "payload", "body", "context", "record", "message", "fields")
)  # fmt: skip
#: Words that mean something else behind another word, or inside of an object: traffic_source.name, delivery_date.
_GENERIC = frozenset(
    ("type", "name", "id", "uuid", "time", "date", "day", "at", "ts", "timestamp", "datetime", "value", "action",
     "total", "amount", "group", "product", "item", "page", "user", "customer", "visitor", "location", "session",
     "template", "device", "article", "event", "activity", "units", "lines", "department", "slot", "cart")
)  # fmt: skip
#: Words that change the meaning of those behind them: total_item_quantity is no item quantity.
_CHANGING = frozenset(
    ("total", "sub", "max", "min", "avg", "average", "num", "count", "old", "original", "previous", "prev", "last",
     "first", "next", "parent", "discount", "refund", "tax", "shipping", "referrer", "referer", "ref", "is", "has")
)  # fmt: skip
#: How much less a last synonym fits than the first.
_LAST_RANK = 0.4

_DEVICE_WORDS = {
    "mobile": "smartphone, phone, mobile phone, phablet, feature phone, handset, ios, iphone, android, mobile web, "
    "mobile app",
    "desktop": "pc, computer, laptop, desktop computer, personal computer",
    "tablet": "ipad, android tablet",
    "smart tv": "tv, smarttv, connected tv, television",
}
_PAGE_WORDS = {
    "home": "home page, homepage, index, start, start page",
    "category": "category page, categories, plp, listing, list, collection, product list",
    "search": "search page, search results, searchresults",
    "product": "product page, product detail, pdp, detail, item",
    "cart": "cart page, basket, shopping cart, bag",
    "checkout": "checkout page, payment, shipping",
    "confirmation": "order confirmation, thank you, thankyou, success, purchase, order complete",
    "account": "account page, my account, login, profile",
    "content": "blog, article, cms, content page, landing page",
}
_MEANINGS = {  # by words without spaces, as words_of splits iPad
    name: {words.replace(" ", ""): code for code, texts in table.items() for words in texts.split(", ")}
    for name, table in (("device_category", _DEVICE_WORDS), ("page_type", _PAGE_WORDS))
}
#: The values that a field has in a click; others count as the first one.
CODES = {"device_category": DEVICES, "page_type": PAGE_TYPES}


def name_score(column: str, field: str) -> float:
    """How well the name of a column, or its path, fits a field of a click: 0 to 1.

    >>> name_score("event_time", "event_time"), name_score("brand", "event_time")
    (1.0, 0.0)
    """
    return _score(column, _RANKS.get(field, {}))


def item_name_score(column: str, field: str) -> float:
    """How well the name of a column in an entry of a list fits a field of an item: 0 to 1."""
    return _score(column, _ITEM_RANKS[field])


def meaning_of(text: str, field: str) -> str | None:
    """Which of CODES the value of another product probably means; None if none.

    >>> meaning_of("Smartphone", "device_category"), meaning_of("fridge", "device_category")
    ('mobile', None)
    """
    return text.lower() if text.lower() in CODES[field] else _MEANINGS[field].get(words_of(text).replace(" ", ""))


def _ranked(synonyms: dict[str, str]) -> dict[str, dict[str, float]]:
    """The score of each name without spaces, by field."""
    ranked = {}
    for field, text in synonyms.items():
        names = text.split(", ")
        scores = [1 - _LAST_RANK * rank / max(len(names) - 1, 1) for rank in range(len(names))]
        ranked[field] = {name.replace(" ", ""): score for name, score in reversed(list(zip(names, scores)))}
    return ranked


_RANKS, _ITEM_RANKS = _ranked(SYNONYMS), _ranked(_ITEM_SYNONYMS)


def _score(column: str, ranks: dict[str, float]) -> float:
    return max((weight * ranks.get(words.replace(" ", ""), 0.0) for words, weight in _readings(column)), default=0.0)


@lru_cache(10_000)
def _readings(column: str) -> list[tuple[str, float]]:
    """What the name of a column may say, from all of its words to the last one, and how sure that is."""
    parts = [words for step in column_steps(column) if isinstance(step, str) and (words := words_of(step))]
    if not parts:
        return []
    *around, last = parts
    telling = [words for words in around if words not in _CONTAINERS]
    readings = [(" ".join([*telling, last]), 1.0 if len(telling) == len(around) else 0.95)]
    if len(telling) > 1:
        readings.append((f"{telling[-1]} {last}", 0.95))
    if telling and last not in _GENERIC:
        readings.append((last, 0.9))
    words = last.split()
    if _CHANGING.isdisjoint(words[:-1]):
        readings += [(" ".join(words[start:]), 0.7) for start in range(1, len(words) - 1)]
        if len(words) > 1 and words[-1] not in _GENERIC:
            readings.append((words[-1], 0.4))
    return readings
