"""Event names that are not GA4's, and the GA4 name that is probably meant."""

import re
from difflib import get_close_matches

from udfs.contracts.packed_events import EVENT_KINDS

#: Names for GA4's events in other products and shops, in lower case, with single spaces between words.
_SYNONYMS = {
    "page_view": "page, pageview, page viewed, view page, screen, screen view, screen viewed, visit",
    "view_item": "view, pv, viewed, seen, click item, product view, product viewed, viewed product, item view, detail, "
    "product detail, view content, view product, product details view, clicks",
    "view_item_list": "product list viewed, category view, view category, list, product list, view list, impression, "
    "view item category, product impression",
    "select_item": "product clicked, item click, click product, product click, select content, select product",
    "search": "products searched, search submitted, site search, view search results, query, searched, search event",
    "add_to_cart": "cart, carts, basket, add, addtocart, product added, added to cart, added to basket, in basket, "
    "add to basket, add cart, cart add, ecommerce cart",
    "remove_from_cart": "product removed, removed from cart, remove, remove cart, cart remove, remove from basket",
    "begin_checkout": "checkout, checkout started, initiate checkout, started checkout, start checkout, "
    "checkout step viewed, checkout begin",
    "purchase": "buy, buys, bought, order, orders, ordered, transaction, order completed, order placed, placed order, "
    "completed order, sale, checkout completed, payment, paid, conversion, ecommerce order, ecommerce purchase, "
    "in app purchase, order created",
    "scroll": "page scrolled, scroll depth, scrolled",
    "user_engagement": "page ping, engagement, heartbeat, ping",
    "click": "link click, outlink, link clicked, button click, button clicked, autocapture, element clicked",
    "view_promotion": "promotion viewed, promotion view, banner view, ad view",
    "select_promotion": "promotion clicked, promotion click, banner click, ad click",
    "add_to_wishlist": "fav, favorite, favourite, wishlist, product added to wishlist, wish, like, save for later",
    "form_start": "form started, form begin",
    "form_submit": "form submitted, form sent",
}
_KIND_OF_WORDS = {
    words: kind for kind, synonyms in _SYNONYMS.items() for words in (kind.replace("_", " "), *synonyms.split(", "))
}


def probable_kind(name: str) -> str | None:
    """GA4's name of an event, one of EVENT_KINDS, that another name probably means; None if there is none.

    >>> probable_kind("Order Completed"), probable_kind("addToCart"), probable_kind("quiz_completed")
    ('purchase', 'add_to_cart', None)
    """
    if name in EVENT_KINDS:
        return name
    words = words_of(name)
    if words in _KIND_OF_WORDS:
        return _KIND_OF_WORDS[words]
    close = get_close_matches(words, _KIND_OF_WORDS, 1, 0.88)
    return _KIND_OF_WORDS[close[0]] if close else None


def words_of(name: str) -> str:
    """A name in lower case with single spaces between words.

    >>> words_of("$addToCart-v2")
    'add to cart v2'
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[a-z0-9]+", spaced.lower()))
