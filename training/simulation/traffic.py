"""Traffic of the simulated shop: visits of human users, and crawling by bots."""

from dataclasses import dataclass

import numpy as np

from training.simulation.behaviour import (
    ACTION_CODES,
    BUY,
    CART_LIMIT,
    INTENT_ADDED,
    INTENT_KEPT,
    LEAVE,
    PRICES,
    Behaviour,
    ShoppingContext,
    decay,
    draw_actions,
    draw_pauses,
    state_after,
)
from training.simulation.population import People
from udfs.features.declaration import SESSION_GAP_MS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

#: An action: its record, and the state that the propensity depends on.
STEP = np.dtype(
    [
        ("user", "<i4"),
        ("time_ms", "<i8"),
        ("behaviour", "i1"),  # of the visit
        ("device", "i1"),  # index into DEVICE_SHARES
        ("action", "i1"),  # index into ACTIONS
        ("context", "i1"),  # after the action, as cart and intent
        ("cart", "i1"),
        ("intent", "<f8"),
        ("item", "<i4"),  # -1 for none
        ("category", "<i4"),  # -1 for none
        ("price", "<f8"),
        ("quantity", "i1"),
        ("value", "<f8"),
        ("scroll", "i1"),
        ("engagement_ms", "<i4"),
        ("slot", "i1"),  # index into SLOTS, -1 for none
    ]
)

_SHOPPER = np.dtype(
    [
        ("time_ms", "<i8"),
        ("in_session", "?"),
        ("behaviour", "i1"),
        ("device", "i1"),
        ("context", "i1"),
        ("cart", "i1"),
        ("intent", "<f8"),
        ("category", "<i4"),
        ("items", "<i4", (3,)),  # viewed last, newest first
        ("price", "<f8"),  # of the newest
        ("cart_items", "<i4", (CART_LIMIT,)),  # added last, newest first; `cart` of them are in the cart
        ("cart_prices", "<f8", (CART_LIMIT,)),
        ("cart_value", "<f8"),
    ]
)
CATEGORIES, ITEMS_PER_CATEGORY = 40, 50
_AWAY_MS = SESSION_GAP_MS + 1_000  # so that no label reaches from one session into the next
_FULL_CART_INTENT = 0.3
_LANDINGS = {"go_home": 0.45, "list_category": 0.25, "search": 0.15, "view_item": 0.15}

#: Slots of promoted content. Of the two in a context, the first is seen more often, the second clicked more often.
SLOTS = ("home_hero", "home_recommendations", "list_banner", "list_recommendations")
_SLOTS_OF = {ShoppingContext.HOME: 0, ShoppingContext.LIST: 2}
_HERO_SHARE = {"see_promotion": 0.6, "take_promotion": 0.4}


def _codes(*names: str) -> list[int]:
    return [ACTION_CODES[name] for name in names]


_VIEW, _OFFER, _RETURN, _LIST = _codes("view_item", "view_offer", "return_to_item", "list_category")
_ADD, _REMOVE, _WISH = _codes("add_to_cart", "remove_from_cart", "add_to_wishlist")
_SCROLL, _READ, _ENGAGE = _codes("scroll", "read_to_end", "engage")
_LANDING_CODES = _codes(*_LANDINGS)
_VIEWS = [_VIEW, _OFFER, _RETURN]
_FROM_THE_CART = [_REMOVE, BUY]
_ABOUT_AN_ITEM = [*_VIEWS, _ADD, _WISH, *_FROM_THE_CART]
_ABOUT_A_CATEGORY = _codes("list_category", "search", "take_promotion")
_ABOUT_THE_CART = _codes("begin_checkout", "buy")
_PROMOTIONS = _codes(*_HERO_SHARE)


def draw_prices(rng: np.random.Generator) -> np.ndarray:
    """Price of each item, float64[items]; item i is of category i // ITEMS_PER_CATEGORY."""
    level = rng.lognormal(3.5, 0.6, CATEGORIES)
    return (level[:, None] * rng.lognormal(0.0, 0.25, (CATEGORIES, ITEMS_PER_CATEGORY))).ravel()


@dataclass(frozen=True)
class Changes:
    """The times from which new visits differ from the usual ones; visits under way do not change."""

    shift_ms: float  # of all users
    lift_ms: np.ndarray  # float64[users]

    def behaviour(self, users: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
        """The behaviour of visits that n users begin at these times, int8[n]."""
        lifted = np.where(time_ms >= self.lift_ms[users], Behaviour.LIFTED, 0)
        return lifted + np.where(time_ms >= self.shift_ms, Behaviour.SHIFTED, 0)


def shop(
    people: People,
    changes: Changes,
    prices: np.ndarray,
    visits_per_day: float,
    start_ms: int,
    end_ms: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Simulate the human users: STEP[n] in no particular order, some of them past the end."""
    shoppers = np.zeros(len(people.is_bot), _SHOPPER)
    shoppers["time_ms"] = start_ms - _AWAY_MS
    steps = [np.empty(0, STEP)]
    users = np.flatnonzero(~people.is_bot)
    # All users advance in parallel, one action per turn, until each of them has reached the end.
    while users.size:
        in_session = shoppers["in_session"][users]
        steps.append(_continue_session(shoppers, users[in_session], prices, rng))
        steps.append(_return_to_shop(shoppers, users[~in_session], people, changes, prices, visits_per_day, rng))
        users = users[shoppers["time_ms"][users] < end_ms]
    return np.concatenate(steps)


def _continue_session(
    shoppers: np.ndarray, users: np.ndarray, prices: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Simulate the next action of users in a session, or its end."""
    state = shoppers[users]
    pauses = draw_pauses(state["context"], state["behaviour"], rng)
    pauses_ms = np.rint(pauses * 1000).astype(np.int64)
    state["time_ms"] += pauses_ms
    state["intent"] = decay(state["intent"], pauses)
    actions = draw_actions(state["context"], state["cart"], state["intent"], state["behaviour"], rng)
    stays = actions != LEAVE
    state["in_session"] = stays
    shoppers[users] = state
    return _act(shoppers, users[stays], actions[stays], pauses_ms[stays], prices, rng)


def _return_to_shop(
    shoppers: np.ndarray,
    users: np.ndarray,
    people: People,
    changes: Changes,
    prices: np.ndarray,
    visits_per_day: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Advance the time of users who are away; more of them return in the evening than at night."""
    state = shoppers[users]
    mean_chance = 0.55
    away_ms = rng.exponential(mean_chance * DAY_MS / visits_per_day, len(users))
    state["time_ms"] += _AWAY_MS + np.rint(away_ms).astype(np.int64)
    local_hour = (state["time_ms"] + people.utc_offset_ms[users]) % DAY_MS / HOUR_MS
    chance = mean_chance + 0.45 * np.cos((local_hour - 20) * (2 * np.pi / 24))
    comes = rng.random(len(users)) < chance
    has_changed = (state["time_ms"] >= people.change_ms[users]).astype(np.int64)
    state["in_session"] = comes
    state["context"] = ShoppingContext.HOME
    state["behaviour"] = behaviour = changes.behaviour(users, state["time_ms"])
    state["device"] = people.device[users, (behaviour & Behaviour.SHIFTED > 0).astype(np.int64)]
    intent = people.start_intent[users, has_changed] * INTENT_KEPT[behaviour] + INTENT_ADDED[behaviour]
    state["intent"] = intent + _FULL_CART_INTENT * (state["cart"] > 0)
    state["category"] = rng.integers(0, CATEGORIES, len(users))
    shoppers[users] = state
    actions = rng.choice(_LANDING_CODES, int(comes.sum()), p=list(_LANDINGS.values()))
    return _act(shoppers, users[comes], actions, np.zeros(len(actions), np.int64), prices, rng)


def _act(
    shoppers: np.ndarray,
    users: np.ndarray,
    actions: np.ndarray,
    pauses_ms: np.ndarray,
    prices: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Carry out one action of each user."""
    state, n = shoppers[users], len(users)
    quantity = np.select([actions == _ADD, actions == _REMOVE], [1 + (rng.random(n) < 0.15), 1], 0)
    value = np.where(np.isin(actions, _ABOUT_THE_CART), state["cart_value"], 0.0)
    _browse(state, actions, prices, rng)
    # What is removed from the cart, or bought: what was added last. A click has one item.
    from_cart = np.isin(actions, _FROM_THE_CART)
    item = np.where(from_cart, state["cart_items"][:, 0], state["items"][:, 0])
    price = np.where(from_cart, state["cart_prices"][:, 0], state["price"])
    _fill_cart(state, actions, quantity)
    slots = _slots(state["context"], actions, users, state["time_ms"])
    after = state_after(state["context"], state["cart"], state["intent"], state["behaviour"], actions)
    state["context"], state["cart"], state["intent"] = after
    shoppers[users] = state

    steps = np.empty(n, STEP)
    is_about_item, is_about_category = np.isin(actions, _ABOUT_AN_ITEM), np.isin(actions, _ABOUT_A_CATEGORY)
    steps["user"], steps["action"], steps["quantity"], steps["value"] = users, actions, quantity, value
    steps["slot"] = slots
    for name in ("time_ms", "behaviour", "device", "context", "cart", "intent"):
        steps[name] = state[name]
    steps["item"] = np.where(is_about_item, item, -1)
    steps["category"] = np.select(
        [is_about_item, is_about_category], [item // ITEMS_PER_CATEGORY, state["category"]], -1
    )
    steps["price"] = price
    steps["scroll"] = np.select([actions == _SCROLL, actions == _READ], [rng.integers(1, 4, n) * 20, 90], 0)
    steps["engagement_ms"] = np.where(actions == _ENGAGE, pauses_ms, 0)
    return steps


def _browse(state: np.ndarray, actions: np.ndarray, prices: np.ndarray, rng: np.random.Generator) -> None:
    """Move to another category; view one of its products, or again one of the last three."""
    n = len(state)
    moves = np.isin(actions, _ABOUT_A_CATEGORY) & (rng.random(n) < 0.5)
    state["category"] = np.where(moves, rng.integers(0, CATEGORIES, n), state["category"])
    popular = (ITEMS_PER_CATEGORY * rng.random(n) ** 2).astype(np.int64)
    seen = state["items"][np.arange(n), rng.integers(0, 3, n)]
    item = np.where(actions == _RETURN, seen, state["category"] * ITEMS_PER_CATEGORY + popular)
    price = prices[item] * np.where(actions == _OFFER, 0.6, 1.0) * PRICES[state["behaviour"]]
    views = np.isin(actions, _VIEWS)
    state["items"][views, 1:] = state["items"][views, :2]
    state["items"][views, 0] = item[views]
    state["price"][views] = price[views]


def _fill_cart(state: np.ndarray, actions: np.ndarray, quantity: np.ndarray) -> None:
    """Update the cart's items and its value; removing one removes the average share. Call it before `cart` changes."""
    adds, removes = actions == _ADD, actions == _REMOVE
    for name, added in (("cart_items", state["items"][:, 0]), ("cart_prices", state["price"])):
        in_cart = state[name]
        in_cart[adds, 1:] = in_cart[adds, :-1]
        in_cart[adds, 0] = added[adds]
        in_cart[removes, :-1] = in_cart[removes, 1:]
    worth = state["cart_value"]
    remaining = worth * (1 - 1 / np.maximum(state["cart"], 1))
    state["cart_value"] = np.select(
        [adds, removes, actions == BUY], [worth + state["price"] * quantity, remaining, 0.0], worth
    )


def _slots(context: np.ndarray, actions: np.ndarray, users: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    """The slots of the promotions in n actions, int8[n], -1 for none: chosen by a hash, not by the generator."""
    mixed = (time_ms.astype(np.uint64) ^ (users.astype(np.uint64) << 44)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    place = (mixed >> 11) * 2.0**-53
    hero = np.select([actions == code for code in _PROMOTIONS], list(_HERO_SHARE.values()))
    first = np.select([context == known for known in _SLOTS_OF], list(_SLOTS_OF.values()))
    return np.where(np.isin(actions, _PROMOTIONS), first + (place >= hero), -1)


def crawl(
    people: People, prices: np.ndarray, visits_per_day: float, start_ms: int, end_ms: int, rng: np.random.Generator
) -> np.ndarray:
    """Simulate the bots: fast and even runs through the catalogue, with nothing put into a cart."""
    bots = np.flatnonzero(people.is_bot)
    user = np.repeat(bots, rng.poisson(visits_per_day * (end_ms - start_ms) / DAY_MS, len(bots)))
    length = rng.integers(40, 160, len(user))
    pace_ms = rng.integers(500, 3_000, len(user))
    started_ms = rng.integers(start_ms, end_ms, len(user))
    first_item = rng.integers(0, len(prices), len(user))

    run = np.repeat(np.arange(len(user)), length)
    number = np.arange(len(run)) - np.repeat(np.cumsum(length) - length, length)
    lists = number % 8 == 0
    item = (first_item[run] + number) % len(prices)
    steps = np.zeros(len(run), STEP)
    steps["user"] = user[run]
    steps["device"] = people.device[user[run], 0]
    steps["slot"] = -1
    steps["time_ms"] = started_ms[run] + number * pace_ms[run] + rng.integers(0, 50, len(run))
    steps["action"] = np.where(lists, _LIST, _VIEW)
    steps["context"] = np.where(lists, ShoppingContext.LIST, ShoppingContext.PRODUCT)
    steps["item"] = np.where(lists, -1, item)
    steps["category"] = item // ITEMS_PER_CATEGORY
    steps["price"] = prices[item]
    return steps
