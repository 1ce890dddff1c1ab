"""The behaviour of the simulated shop's users.

A user in a session is in one of a few contexts, has some items in the cart and an intent. Intent is self-exciting: it
decays with time and jumps by what the user does, so it follows from observable behaviour. After a random pause the user
takes one of `ACTIONS`, chosen by context, cart and intent. That makes a Markov chain; `propensity` solves it.
A visit has one `Behaviour` from its first action to its last.
"""

from enum import IntEnum, IntFlag
from math import prod
from typing import NamedTuple

import numpy as np


class ShoppingContext(IntEnum):
    """The part of the shop that a user is in."""

    HOME = 0
    LIST = 1
    PRODUCT = 2
    CART = 3
    CHECKOUT = 4
    FORM = 5
    PAYMENT = 6


class Action(NamedTuple):
    """A possible next action of a user."""

    event: str  # GA4 event name; empty for leaving, which has no event
    leads_to: ShoppingContext | None  # None: the user stays
    jump: float  # added to intent
    slope: float  # how strongly intent draws the user to it, in log odds
    weights: dict[ShoppingContext, float]  # how likely it is in each context at no intent, relative to the others
    cart_change: int = 0
    needs_cart: bool = False


class Behaviour(IntFlag):
    """Flags for the differences of a visit from the usual one, which is 0."""

    LIFTED = 1  # as if a better model chose the promotions
    SHIFTED = 2  # as in a sale


class BehaviourChange(NamedTuple):
    """The differences of a visit from the usual one: factors, by name of the action where there is one per action."""

    weights: dict[str, float]
    slopes: dict[str, float] = {}
    jumps: dict[str, float] = {}
    pauses: float = 1.0
    prices: float = 1.0
    intent_kept: float = 1.0  # of the intent that the visit would start with
    intent_added: float = 0.0  # to it


HOME, LIST, PRODUCT, CART, CHECKOUT, FORM, PAYMENT = ShoppingContext
ACTIONS = {
    "go_home": Action("page_view", HOME, 0.0, 0.0, {HOME: 0.8, LIST: 0.4, PRODUCT: 0.3, CART: 0.4}),
    "read_article": Action("page_view", HOME, -0.1, -0.2, {HOME: 0.8, LIST: 0.2}),
    "click_link": Action("click", None, 0.0, 0.0, {HOME: 0.5, LIST: 0.3}),
    "see_promotion": Action("view_promotion", None, 0.05, 0.0, {HOME: 1.2, LIST: 0.5}),
    "take_promotion": Action("select_promotion", LIST, 0.8, 0.3, {HOME: 0.3, LIST: 0.1}),
    "list_category": Action("view_item_list", LIST, 0.05, 0.0, {HOME: 3.0, LIST: 1.5, PRODUCT: 1.2, CART: 0.6}),
    "search": Action("search", LIST, 0.1, 0.1, {HOME: 1.5, LIST: 0.8, PRODUCT: 0.4, CART: 0.2}),
    "view_item": Action("view_item", PRODUCT, 0.05, 0.1, {HOME: 0.5, LIST: 4.0, PRODUCT: 1.5, CART: 0.5}),
    "view_offer": Action("view_item", PRODUCT, 0.5, 0.1, {LIST: 0.4, PRODUCT: 0.2}),
    "return_to_item": Action("view_item", PRODUCT, 0.5, 0.4, {PRODUCT: 0.5}),
    "scroll": Action("scroll", None, 0.0, 0.0, {HOME: 1.0, LIST: 2.0, PRODUCT: 2.0}),
    "read_to_end": Action("scroll", None, 0.25, 0.4, {LIST: 0.2, PRODUCT: 0.5}),
    "engage": Action("user_engagement", None, 0.05, 0.0, {HOME: 0.8, LIST: 1.0, PRODUCT: 1.5, CART: 0.6, FORM: 0.5}),
    "add_to_wishlist": Action("add_to_wishlist", None, 0.4, 0.2, {PRODUCT: 0.15}),
    "add_to_cart": Action("add_to_cart", None, 1.5, 2.0, {PRODUCT: 0.013}, cart_change=1),
    "open_cart": Action("page_view", CART, 0.1, 0.6, {HOME: 0.3, LIST: 0.3, PRODUCT: 0.5}, needs_cart=True),
    "remove_from_cart": Action("remove_from_cart", None, -0.8, -0.5, {CART: 0.8}, cart_change=-1, needs_cart=True),
    "begin_checkout": Action("begin_checkout", CHECKOUT, 0.6, 0.9, {CART: 0.5}, needs_cart=True),
    "start_form": Action("form_start", FORM, 0.2, 0.5, {CHECKOUT: 1.8}),
    "submit_form": Action("form_submit", PAYMENT, 0.2, 0.5, {FORM: 1.5}),
    "return_to_cart": Action("page_view", CART, -0.4, -0.2, {CHECKOUT: 0.6, FORM: 0.3, PAYMENT: 0.3}),
    "buy": Action("purchase", HOME, -4.0, 0.4, {PAYMENT: 2.0}),
    "leave": Action(
        "", None, 0.0, 0.0, {HOME: 1.5, LIST: 1.3, PRODUCT: 1.4, CART: 1.5, CHECKOUT: 1.0, FORM: 0.8, PAYMENT: 0.5}
    ),
}
ACTION_CODES = {name: code for code, name in enumerate(ACTIONS)}
BUY, LEAVE = ACTION_CODES["buy"], ACTION_CODES["leave"]

#: A lift makes promotions better and visits longer. In a sale users come for offers, browse less and often abandon
#: carts; their usual intent has no effect.
CHANGES = {
    Behaviour.LIFTED: BehaviourChange({"take_promotion": 1.4, "leave": 0.85}, intent_added=0.1),
    Behaviour.SHIFTED: BehaviourChange(
        {
            "go_home": 0.4,
            "read_article": 0.2,
            "see_promotion": 1.5,
            "take_promotion": 2.0,
            "view_offer": 4.0,
            "scroll": 0.5,
            "engage": 0.5,
            "add_to_cart": 6.0,
            "begin_checkout": 0.4,
        },
        slopes={"add_to_cart": 0.3, "begin_checkout": 2.0},
        jumps={"view_offer": 2.5, "read_to_end": 0.0, "return_to_item": -1.0, "add_to_cart": 0.0},
        pauses=0.7,
        prices=0.75,
        intent_kept=0.0,
        intent_added=0.5,
    ),
}

CART_LIMIT = 3
INTENT_LIMIT = 4.0
INTENT_LIFETIME_S = 300.0  # intent falls to 1/e in this time
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 1200.0
_PAUSE_MEDIAN_S = np.array([9.0, 10.0, 16.0, 14.0, 15.0, 30.0, 12.0])  # by context
_PAUSE_SIGMA = 0.9  # of the pause's logarithm

_LEADS_TO = np.array([-1 if action.leads_to is None else action.leads_to for action in ACTIONS.values()])
_CART_CHANGE = np.array([action.cart_change for action in ACTIONS.values()])
_CART_CHANGE[BUY] = -CART_LIMIT


#: The changes of each behaviour, by its number.
_CHANGES = [[CHANGES[flag] for flag in Behaviour if flag & number] for number in range(2 ** len(Behaviour))]


def _changed(field: str) -> np.ndarray:
    """The combined factor of a field of `BehaviourChange` in each behaviour, float64[behaviours]."""
    return np.array([prod(getattr(change, field) for change in changes) for changes in _CHANGES])


def _changed_actions(field: str) -> np.ndarray:
    """The combined factors of a field with one factor per action: float64[behaviours, actions]."""
    factors = [[getattr(change, field) for change in changes] for changes in _CHANGES]
    return np.array([[prod(factor.get(name, 1.0) for factor in combined) for name in ACTIONS] for combined in factors])


_JUMP = np.array([action.jump for action in ACTIONS.values()]) * _changed_actions("jumps")
_SLOPE = np.array([action.slope for action in ACTIONS.values()]) * _changed_actions("slopes")
_PAUSES = _changed("pauses")
PRICES = _changed("prices")
INTENT_KEPT = _changed("intent_kept")
INTENT_ADDED = np.array([sum(change.intent_added for change in changes) for changes in _CHANGES])


def _weights() -> np.ndarray:
    """Weights of actions by behaviour, context and cart: float64[behaviours, contexts, CART_LIMIT + 1, actions]."""
    weights = np.zeros((len(ShoppingContext), CART_LIMIT + 1, len(ACTIONS)))
    for code, action in enumerate(ACTIONS.values()):
        for context, weight in action.weights.items():
            weights[context, 1 if action.needs_cart else 0 :, code] = weight
    return weights * _changed_actions("weights")[:, None, None]


_WEIGHTS = _weights()


def draw_pauses(context: np.ndarray, behaviour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the seconds until the next action, float64[n], for n users in the given contexts."""
    return pauses_of(context, behaviour, rng.standard_normal(len(context)))


def pauses_of(context: np.ndarray, behaviour: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Log-normal pauses in seconds, from standard normal numbers; arguments broadcast."""
    pauses = _PAUSE_MEDIAN_S[context] * _PAUSES[behaviour] * np.exp(_PAUSE_SIGMA * normal)
    return pauses.clip(SHORTEST_PAUSE_S, LONGEST_PAUSE_S)


def decay(intent: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The intent after a number of seconds."""
    return intent * np.exp(-seconds / INTENT_LIFETIME_S)


def action_probabilities(
    context: np.ndarray, cart: np.ndarray, intent: np.ndarray, behaviour: np.ndarray | int
) -> np.ndarray:
    """The probability of each action, float64[..., actions], for states of any shape [...]: a softmax."""
    weights = _WEIGHTS[behaviour, context, cart] * np.exp(intent[..., None] * _SLOPE[behaviour])
    return weights / weights.sum(-1, keepdims=True)


def draw_actions(
    context: np.ndarray, cart: np.ndarray, intent: np.ndarray, behaviour: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the next actions of n users; returns their codes, int64[n]."""
    upper = action_probabilities(context, cart, intent, behaviour).cumsum(-1)
    upper[:, -1] = 1.0  # else rounding may leave a draw above every bound
    return (rng.random(len(context))[:, None] >= upper).sum(-1)


def state_after(
    context: np.ndarray, cart: np.ndarray, intent: np.ndarray, behaviour: np.ndarray | int, action: np.ndarray
) -> tuple:
    """Context, cart and intent after the actions; arguments broadcast."""
    leads_to = _LEADS_TO[action]
    return (
        np.where(leads_to < 0, context, leads_to),
        (cart + _CART_CHANGE[action]).clip(0, CART_LIMIT),
        (intent + _JUMP[behaviour, action]).clip(0.0, INTENT_LIMIT),
    )
