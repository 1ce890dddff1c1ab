"""How the simulated shop's users behave, and how likely each of them is to buy next: exactly known.

A user in a session is in one of a few contexts, has some items in the cart and an intent. Intent is self-exciting: it
decays with time and jumps by what the user does, so it follows from observable behaviour. After a random pause the user
takes one of `ACTIONS`, chosen by context, cart and intent. That makes a Markov chain, whose chance of a purchase within
a horizon `purchase_propensity` solves by backward recursion over the time left.
"""

from enum import IntEnum
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array


class Context(IntEnum):
    """Where in the shop a user is."""

    HOME = 0
    LIST = 1
    PRODUCT = 2
    CART = 3
    CHECKOUT = 4
    FORM = 5
    PAYMENT = 6


class Action(NamedTuple):
    """Something a user may do next."""

    event: str  # GA4 event name; empty for leaving, which no event tells of
    leads_to: Context | None  # None: the user stays
    jump: float  # added to intent
    slope: float  # how strongly intent draws the user to it, in log odds
    weights: dict[Context, float]  # how likely it is in each context at no intent, relative to the others
    cart_change: int = 0
    needs_cart: bool = False


HOME, LIST, PRODUCT, CART, CHECKOUT, FORM, PAYMENT = Context
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

CART_LIMIT = 3
INTENT_LIMIT = 4.0
INTENT_LIFETIME_S = 300.0  # intent falls to 1/e in this time
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 1200.0
_PAUSE_MEDIAN_S = np.array([9.0, 10.0, 16.0, 14.0, 15.0, 30.0, 12.0])  # by context
_PAUSE_SIGMA = 0.9  # of the pause's logarithm

_LEADS_TO = np.array([-1 if action.leads_to is None else action.leads_to for action in ACTIONS.values()])
_JUMP = np.array([action.jump for action in ACTIONS.values()])
_SLOPE = np.array([action.slope for action in ACTIONS.values()])
_CART_CHANGE = np.array([action.cart_change for action in ACTIONS.values()])
_CART_CHANGE[BUY] = -CART_LIMIT


def _weights() -> np.ndarray:
    """Of each action by context and cart: float64[contexts, CART_LIMIT + 1, actions]."""
    weights = np.zeros((len(Context), CART_LIMIT + 1, len(ACTIONS)))
    for code, action in enumerate(ACTIONS.values()):
        for context, weight in action.weights.items():
            weights[context, 1 if action.needs_cart else 0 :, code] = weight
    return weights


_WEIGHTS = _weights()


def draw_pauses(context: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Seconds until the next action, float64[n], for n users in the given contexts."""
    return _pauses(context, rng.standard_normal(len(context)))


def _pauses(context: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Log-normal seconds, from standard normal numbers."""
    pauses = _PAUSE_MEDIAN_S[context] * np.exp(_PAUSE_SIGMA * normal)
    return pauses.clip(SHORTEST_PAUSE_S, LONGEST_PAUSE_S)


def decay(intent: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """What is left of intent after so many seconds."""
    return intent * np.exp(-seconds / INTENT_LIFETIME_S)


def action_probabilities(context: np.ndarray, cart: np.ndarray, intent: np.ndarray) -> np.ndarray:
    """How likely each action is, float64[..., actions], for states of any shape [...]: a softmax."""
    weights = _WEIGHTS[context, cart] * np.exp(intent[..., None] * _SLOPE)
    return weights / weights.sum(-1, keepdims=True)


def draw_actions(context: np.ndarray, cart: np.ndarray, intent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Codes of the n actions taken, int64[n]."""
    upper = action_probabilities(context, cart, intent).cumsum(-1)
    upper[:, -1] = 1.0  # else rounding may leave a draw above every bound
    return (rng.random(len(context))[:, None] >= upper).sum(-1)


def state_after(context: np.ndarray, cart: np.ndarray, intent: np.ndarray, action: np.ndarray) -> tuple:
    """Context, cart and intent once the actions are taken; arguments broadcast."""
    leads_to = _LEADS_TO[action]
    return (
        np.where(leads_to < 0, context, leads_to),
        (cart + _CART_CHANGE[action]).clip(0, CART_LIMIT),
        (intent + _JUMP[action]).clip(0.0, INTENT_LIMIT),
    )


def purchase_propensity(context: np.ndarray, cart: np.ndarray, intent: np.ndarray, horizon_s: int = 1800) -> np.ndarray:
    """The probability that a user who has just come into these states buys within the horizon, float64[n].

    Exact but for the numerics: time in steps of 5 s, pauses by their quantiles, linear interpolation in intent.
    """
    table = _propensity_table(horizon_s)
    lower, share = _bracket(intent)
    return (1 - share) * table[context, cart, lower] + share * table[context, cart, lower + 1]


_STEP_S = 5
_QUANTILES = 200
_GRID = np.linspace(0.0, INTENT_LIMIT, 161)
_SHAPE = (len(Context), CART_LIMIT + 1, len(_GRID))


@cache
def _propensity_table(horizon_s: int) -> np.ndarray:
    """Purchase probability by context, cart and intent on the grid, float64[contexts, CART_LIMIT + 1, grid].

    Bellman's recursion over the time left, with sparse matrices on states. `after[s]` is the probability with s steps
    left when an action was just taken, `before[s]` when the pause is over and the next action is due:
        after[s](state)  = mean over pauses p of before[s - p](state, intent decayed over p), 0 when p > s
        before[s](state) = P(buy) + sum over other actions a of P(a) after[s](state after a)
    """
    buy, act = _action_operator()
    pause, longest = _pause_operator()
    steps = horizon_s // _STEP_S
    before = np.zeros((longest + steps + 1, buy.size))  # the first rows stand for the time past the horizon
    for row in range(longest, longest + steps + 1):
        after = pause @ before[row - longest : row].ravel()
        before[row] = buy + act @ after
    return after.reshape(_SHAPE)


def _action_operator() -> tuple[np.ndarray, csr_array]:
    """P(buy) of each state, and the matrix from each state to those after the actions that go on."""
    context, cart, grid = np.indices(_SHAPE)
    probabilities = action_probabilities(context, cart, _GRID[grid])
    buy = probabilities[..., BUY].copy()
    probabilities[..., [BUY, LEAVE]] = 0.0
    context, cart, grid = context[..., None], cart[..., None], grid[..., None]
    after = state_after(context, cart, _GRID[grid], np.arange(len(ACTIONS)))
    return buy.ravel(), _interpolation(*after, weight=probabilities, offset=0, columns=buy.size)


def _pause_operator() -> tuple[csr_array, int]:
    """The matrix from each state to the states at the pause's end, in a window of `longest` steps, oldest first."""
    context, cart, grid = (index[..., None] for index in np.indices(_SHAPE))
    normal = np.array([NormalDist().inv_cdf((quantile + 0.5) / _QUANTILES) for quantile in range(_QUANTILES)])
    pauses = _pauses(context, normal)
    steps = np.maximum(np.rint(pauses / _STEP_S).astype(np.int64), 1)
    longest, states = int(steps.max()), int(np.prod(_SHAPE))
    weight = np.full(steps.shape, 1 / _QUANTILES)
    offset = (longest - steps) * states
    operator = _interpolation(
        context, cart, decay(_GRID[grid], pauses), weight=weight, offset=offset, columns=longest * states
    )
    return operator, longest


def _interpolation(context, cart, intent, weight, offset, columns: int) -> csr_array:
    """Row r of the matrix spreads weight[r, :] over the grid points around the r-th row of the states given."""
    context, cart, intent, weight, offset = np.broadcast_arrays(context, cart, intent, weight, offset)
    lower, share = _bracket(intent)
    column = offset + np.ravel_multi_index((context, cart, lower), _SHAPE)
    row = np.arange(weight.size) // weight.shape[-1]
    entries = np.concatenate([((1 - share) * weight).ravel(), (share * weight).ravel()])
    places = np.concatenate([row, row]), np.concatenate([column.ravel(), column.ravel() + 1])
    return csr_array((entries, places), shape=(weight.size // weight.shape[-1], columns))


def _bracket(intent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The grid point below each intent, and which share of the way to the next it lies."""
    position = intent / INTENT_LIMIT * (len(_GRID) - 1)
    lower = np.minimum(position.astype(np.int64), len(_GRID) - 2)
    return lower, position - lower
