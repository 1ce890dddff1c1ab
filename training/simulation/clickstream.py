"""A seeded simulator of a shop's clicks and profiles, in which the true propensity to buy is known for every event.

`population` draws the users, `behaviour` defines how they act, `traffic` simulates their visits. This module makes
records of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf

import numpy as np

from training.simulation.behaviour import ACTION_CODES, ACTIONS
from training.simulation.population import DEVICE_SHARES, draw_people
from training.simulation.propensity import purchase_propensity
from training.simulation.traffic import HOUR_MS, SLOTS, Changes, crawl, draw_prices, shop
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.measurement.labels import CONVERTED, label_clicks
from udfs.rollout.assignment import positions, redraw


@dataclass(frozen=True)
class Simulation:
    """The settings of a simulation. Equal settings give equal results.

    Raises ValueError when a value is out of range.
    """

    users: int = 2_000
    hours: float = 24.0
    seed: int = 1
    start: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    visits_per_day: float = 4.0  # of the average user, approximately
    bot_share: float = 0.01  # of users
    profile_share: float = 0.85  # of human users
    late_share: float = 0.0  # of events, which then arrive seconds after newer ones
    shift_at: float = inf  # hours after the start: visits that begin then or later are shifted, as in a sale
    lift_at: float = 0.0  # hours after the start: visits of the users in a region of a rollout are lifted from then on
    lift_start: float = 0.0  # the region of [0, 1), up to
    lift_end: float = 0.0  # here
    lift_salt: str = "rollout"  # of the rollout
    lift_challenger_salt: str | None = None  # of the rollout; the region is then the first one after control's

    def __post_init__(self):
        if self.users < 1:
            raise ValueError(f"users must be at least 1 (got {self.users})")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0 (got {self.seed})")
        for name in ("hours", "visits_per_day"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number above 0 (got {getattr(self, name)})")
        for name in ("shift_at", "lift_at"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0 (got {getattr(self, name)})")
        for name in ("bot_share", "profile_share", "late_share", "lift_start", "lift_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1 (got {getattr(self, name)})")
        if self.start.tzinfo is None:
            raise ValueError(f"start must be a time with a UTC offset (got {self.start})")

    @property
    def start_ms(self) -> int:
        return round(self.start.timestamp() * 1000)

    @property
    def end_ms(self) -> int:
        return self.start_ms + round(self.hours * HOUR_MS)

    @property
    def shift_ms(self) -> float:
        return self.start_ms + self.shift_at * HOUR_MS


@dataclass(frozen=True)
class Clickstream:
    """A simulated stream of n events, in order of arrival."""

    events: np.ndarray  # STEP[n]
    arrival_ms: np.ndarray  # int64[n], never decreasing
    propensity: np.ndarray  # float64[n]: P(the label CONVERTED), given all that the simulator knows
    profiles: list[dict]  # Profile records with `updated_at` in milliseconds, oldest first
    people: list[dict]  # fields in every click of a user, by user code
    seed: int
    first: int = 0  # number of the first event in the stream that this is a part of

    def __len__(self) -> int:
        return len(self.events)

    @property
    def kind(self) -> np.ndarray:
        """Index into EVENT_KINDS, uint8[n]."""
        return _KINDS[self.events["action"]]

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """The label CONVERTED of each event, and which events to use, both bool[n]; see `label_events`."""
        return label_clicks(CONVERTED, self.events["user"], self.events["time_ms"], self.kind)

    def between(self, start_ms: float, end_ms: float) -> "Clickstream":
        """The events that arrive from the start up to the end, with ids of their own; profiles stay."""
        rows = slice(*np.searchsorted(self.arrival_ms, [start_ms, end_ms]))
        return replace(
            self,
            events=self.events[rows],
            arrival_ms=self.arrival_ms[rows],
            propensity=self.propensity[rows],
            first=self.first + rows.start,
        )

    def clicks(self) -> Iterator[dict]:
        """The events as records of the clicks contract."""
        part = f"{self.seed}.{self.first}" if self.first else self.seed
        for number, step in enumerate(zip(*(self.events[name].tolist() for name in _RECORDED))):
            user, time_ms, device, action, context, item, category, price, quantity, value, scroll, engaged, slot = step
            click = {
                **self.people[user],
                **_DEVICES[device],
                "event_id": f"e{part}-{number}",
                "event_name": _EVENT_NAMES[action],
                "event_time": time_ms,
                "page_type": _PAGE_TYPES[action][context],
                "page_location": _page_location(context, action, item, category),
            }
            if category >= 0:
                click["item_category"] = f"c{category}"
            if item >= 0:
                click["item_id"] = f"i{item}"
                click["price"] = round(price, 2)
            if quantity:
                click["quantity"] = quantity
            if value:
                click["value"] = round(value, 2)
            if scroll:
                click["percent_scrolled"] = scroll
            if engaged:
                click["engagement_time_msec"] = engaged
            if slot >= 0:
                click["creative_slot"] = SLOTS[slot]
            yield click


_RECORDED = [
    "user",
    "time_ms",
    "device",
    "action",
    "context",
    "item",
    "category",
    "price",
    "quantity",
    "value",
    "scroll",
    "engagement_ms",
    "slot",
]
_DEVICES = [{"device_category": name} if name else {} for name in DEVICE_SHARES]
_EVENT_NAMES = [action.event for action in ACTIONS.values()]
_KINDS = np.array([EVENT_KINDS.index(name) if name else 0 for name in _EVENT_NAMES], np.uint8)
_CONTEXT_PAGE_TYPES = ("home", "category", "product", "cart", "checkout", "checkout", "checkout")
_ACTION_PAGE_TYPES = {"read_article": "content", "search": "search", "buy": "confirmation"}
_PAGE_TYPES = [[_ACTION_PAGE_TYPES.get(name, page_type) for page_type in _CONTEXT_PAGE_TYPES] for name in ACTIONS]
_CONTEXT_PAGES = ("/", "/c", "/p", "/cart", "/checkout", "/checkout/address", "/checkout/payment")
_ACTION_PAGES = {ACTION_CODES["read_article"]: "/magazine", ACTION_CODES["buy"]: "/checkout/done"}
_SEARCH = ACTION_CODES["search"]


def _page_location(context: int, action: int, item: int, category: int) -> str:
    if action == _SEARCH:
        return f"/search?q=c{category}"
    if action in _ACTION_PAGES:
        return _ACTION_PAGES[action]
    if item >= 0:
        return f"/p/i{item}"
    if category >= 0:
        return f"/c/c{category}"
    return _CONTEXT_PAGES[context]


def simulate(config: Simulation) -> Clickstream:
    """Run the simulation."""
    rng = np.random.default_rng(config.seed)
    span = config.start_ms, config.end_ms
    people = draw_people(config.users, config.bot_share, config.profile_share, *span, rng)
    prices = draw_prices(rng)
    changes = Changes(config.shift_ms, _lift_ms(config))
    steps = np.concatenate(
        [
            shop(people, changes, prices, config.visits_per_day, *span, rng),
            crawl(people, prices, config.visits_per_day, *span, rng),
        ]
    )
    steps = steps[steps["time_ms"] < config.end_ms]

    delay_ms = np.rint(rng.exponential(10_000, len(steps))).astype(np.int64)
    arrival_ms = steps["time_ms"] + np.where(rng.random(len(steps)) < config.late_share, delay_ms, 0)
    order = np.lexsort((steps["user"], steps["time_ms"], arrival_ms))
    steps = steps[order]

    state = (steps[name] for name in ("context", "cart", "intent", "behaviour"))
    propensity = purchase_propensity(*state, CONVERTED.horizon_ms // 1000)
    propensity[people.is_bot[steps["user"]]] = 0.0
    return Clickstream(steps, arrival_ms[order], propensity, people.updates, people.traits, config.seed)


def _lift_ms(config: Simulation) -> np.ndarray:
    """The time from which each user's visits are lifted, float64[users]; infinite for never."""
    user_ids = [f"u{user}" for user in range(config.users)]
    place = positions(config.lift_salt, user_ids)
    if config.lift_challenger_salt is not None:
        place = redraw(place, config.lift_start, config.lift_challenger_salt, user_ids)
    is_lifted = (config.lift_start <= place) & (place < config.lift_end)
    return np.where(is_lifted, config.start_ms + config.lift_at * HOUR_MS, inf)


def best_auc(stream: Clickstream) -> float:
    """The AUC of ranking by the true propensity, which a model can beat only by chance, over the rows to use."""
    from sklearn.metrics import roc_auc_score  # takes seconds, and a replay does not need it

    labels, rows = stream.labels()
    return roc_auc_score(labels[rows], stream.propensity[rows])
