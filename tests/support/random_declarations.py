"""Random feature files over the whole language of expressions, and users whose histories are nasty to them.

All comes from a `random.Random`: one with a seed, or one of Hypothesis, which it can shrink.
"""

import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.packed_events import DEVICES, EVENT_KINDS, PAGE_TYPES
from udfs.contracts.profiles import NO_DAY, PROFILE

NOON = 1_700_049_600_000  # Wednesday 2023-11-15 12:00 UTC
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000

#: Several of them are the same length.
DURATIONS = ("1ms", "1s", "1000ms", "90s", "1m", "1min", "60s", "30m", "1h", "60m", "24h", "1d", "007d")
EDGES_MS = (0, 1, 1_000, 90_000, MINUTE, 30 * MINUTE, HOUR, DAY, 7 * DAY)
GAPS = {"1ms": 1, "10s": 10_000, "5m": 5 * MINUTE, "30min": 30 * MINUTE, "2h": 2 * HOUR, "1d": DAY}
SPANS = ("session", "history", "before", "earlier_sessions")

OWN_KINDS = ("rented", "quiz_done", "Video_Start", "x", "is", "chat")
OWN_NUMBERS = {
    "margin": {"type": "number", "bytes": 2, "scale": 100},
    "stars": {"type": "number", "bytes": 1},
    "points": {"type": "number", "field": "loyalty_points", "scale": 3},
}
OWN_CATEGORIES = {
    "plan": {"type": "category", "names": ["free", "pro", "gold plus"]},
    "shop": {"type": "category", "names": ["Köln", "in", "open 24h"]},
}
OWN_IDENTIFIERS = {"brand": {"type": "identifier"}}

NUMBERS = ("0", "1", "2", "0.1", "19.99", "-1", "3e0", "1_000", "1e6", "1e39", "0x10")
CONSTANTS = {
    "value": ("0", "5", "19.99", "0.1", "-7.5", "1e15", "1e39"),
    "scroll": ("0", "50", "50.5", "100", "-1"),
    "engagement": ("0", "0.1", "0.7", "6553.5", "0.05", "1e308"),
    "hour": ("0", "12", "11.5", "23"),
    "weekday": ("0", "2", "6"),
    "margin": ("0", "19.99", "-0.01", "327.67", "1e3"),
    "stars": ("0", "5", "-127"),
    "points": ("0", "0.333333333", "1", "-700"),
}  # fmt: skip
VALUES = tuple(float(np.float32(value)) for value in (0.0, -0.0, 0.1, 5.0, 5.0, 19.99, -7.5, 1e-40, 1e15, 3e37))

#: Codes that newer versions may write.
UNNAMED = (99, 255)

WITH_COLUMN = {
    "sum": "number", "mean": "number", "min": "number", "max": "number", "rank": "number", "trend": "number",
    "decay": "number", "last": "number or category", "distinct": "category or identifier",
}  # fmt: skip
WITHOUT_COLUMN = ("count", "since_last", "since_first", "decay")


def random_file(random: Random, features: int, depth: int = 3, with_own: bool = True) -> dict[str, Any]:
    """The content of a valid feature file, with expressions nested that deep.

    `with_own`: whether it has what the job must keep for it alone: own kinds and columns, and totals by time.
    """
    content: dict[str, Any] = {}
    if with_own and random.random() < 0.7:
        names = random.sample(OWN_KINDS, random.randint(1, 4))
        content["kinds"] = dict(zip(names, random.sample(range(100, 256), len(names))))
    if with_own and random.random() < 0.5:
        columns = {**OWN_NUMBERS, **OWN_CATEGORIES, **OWN_IDENTIFIERS}
        content["columns"] = {
            name: deepcopy(columns[name]) for name in random.sample(sorted(columns), random.randint(1, 4))
        }
    if random.random() < 0.7:
        content["session_gap"] = random.choice(sorted(GAPS))
    if random.random() < 0.5:
        content["windows"] = random.sample(["1s", "90s", "1min", "30m", "24h", "7d"], random.randint(1, 3))
    writer = _Writer(random, content, with_own)
    content["features"] = groups = {}
    left = features
    while left > 0:
        windows = len(content.get("windows", ()))
        if 1 < windows <= left and random.random() < 0.3:
            name, value, count = f"f{left}_{{window}}", writer.value(depth - 1, over=["{window}"]), windows
        else:
            value = f"event({random.randint(0, 9)})" if random.random() < 0.05 else writer.value(depth)
            name, count = f"f{left}", 1
        entry = {"value": writer.spaced(value), "unit": "u", "doc": "d"}
        groups.setdefault(random.choice("abc"), {})[name] = entry
        left -= count
    return content


@dataclass(frozen=True)
class _Writer:
    """Writes expressions."""

    random: Random
    content: dict[str, Any]
    with_totals_by_time: bool

    def value(self, depth: int, over: list[str] | None = None) -> str:
        """An expression of a number, in brackets where others may be around it."""
        choice = self.random.random()
        if depth == 0 or choice < 0.45:
            return self.aggregate(over) if self.random.random() < (0.8 if depth else 0.6) or over else self.simple()
        part = lambda: self.value(depth - 1, over)  # noqa: E731
        if choice < 0.65:
            return f"({part()} {self.random.choice('+-*/')} {part()})"
        if choice < 0.75:
            left, comparison = part(), self.random.choice(["<", "<=", ">", ">=", "==", "!="])
            of_now = left.removeprefix("now.")
            if of_now in self._columns("category") and comparison in ("==", "!="):
                return f"({left} {comparison} {self._name_of(of_now)})"
            return f"({left} {comparison} {part()})"
        if choice < 0.85:
            word = self.random.choice([" and ", " or "])
            return f"({word.join(part() for _ in range(self.random.choice([2, 2, 3])))})"
        if choice < 0.9:
            return self.random.choice([f"(not {part()})", f"(-{part()})"])
        name = self.random.choice(["least", "greatest"])
        return f"{name}({', '.join(part() for _ in range(self.random.choice([2, 2, 3])))})"

    def simple(self) -> str:
        choice = self.random.random()
        if choice < 0.3:
            return self.random.choice(NUMBERS)
        if choice < 0.7:
            return f"now.{self.random.choice(self._columns('number or category'))}"
        if choice < 0.85:
            names = ["lifetime_events", "history_events", "since_first_seen", "since_first_kept"]
            return f"user.{self.random.choice(names)}"
        names = ["known", "country", "age_band", "membership_tier", "marketing_consent", "days_since_signup"]
        return f"profile.{self.random.choice(names)}"

    def aggregate(self, over: list[str] | None = None) -> str:
        span = self.random.choice(over or [*SPANS, *self.random.sample(DURATIONS, 3), ""])
        if self.random.random() < 0.15:  # as most features of a shop
            kinds = self.random.choice(["kind == {0}", "kind == {0}", "kind in ({0}, {1})"])
            where = kinds.format(self._name_of("kind"), self._name_of("kind"))
            of = self.random.choice(["count", "count", "since_last", "sum(value", "sum(engagement"])
            return f"{of}{', ' if '(' in of else '('}{where}, over={span or 'history'})"
        if self.with_totals_by_time and not over and self.random.random() < 0.1:
            return self._total_by_time()
        arguments = []
        if self.random.random() < 0.6:
            name = self.random.choice(sorted(WITH_COLUMN))
            arguments.append(self.random.choice(self._columns(WITH_COLUMN[name])))
        else:
            name = self.random.choice(WITHOUT_COLUMN)
        if self.random.random() < 0.6:
            arguments.append(self.condition(self.random.choice([0, 0, 1, 2])))
        options = [f"over={span}"] if span else []
        if name == "decay":
            options.append(f"half_life={self.random.choice(DURATIONS)}")
        self.random.shuffle(options)
        return f"{name}({', '.join([*arguments, *options])})"

    def _total_by_time(self) -> str:
        """Few of them, so that some are the same but for their length."""
        where = self.random.choice(["", "kind == page_view", "kind != purchase and scroll > 50", "value == 19.99"])
        of = self.random.choice(["", "", f"sum({self.random.choice(self._columns('number'))}"])
        arguments = f"{of or 'count('}{', ' if of and where else ''}{where}"
        span = self.random.choice(["over=5m, by=1m", "over=1h, by=1h", "over=24h, by=60min", "over=7d, by=1d"])
        return f"{arguments}{'' if arguments.endswith('(') else ', '}{span})"

    def condition(self, depth: int) -> str:
        if depth == 0:
            return self._comparison()
        choice = self.random.random()
        if choice < 0.25:
            return f"not {self._inner(depth)}"
        word = " and " if choice < 0.65 else " or "
        return word.join(self._inner(depth) for _ in range(self.random.choice([2, 2, 3])))

    def _inner(self, depth: int) -> str:
        return f"({self.condition(depth - 1)})"

    def _comparison(self) -> str:
        column = self.random.choice(["kind", "kind", "kind", *self._columns("number or category or identifier")])
        equality = self.random.choice(["==", "==", "!="])
        if column in self._columns("number"):
            comparison = self.random.choice(["<", "<=", ">", ">=", "==", "!="])
            return f"{column} {comparison} {self.random.choice([*CONSTANTS[column], f'now.{column}'])}"
        if column in self._columns("identifier") or self.random.random() < 0.15:
            return f"{column} {equality} now.{column}"
        if self.random.random() < 0.6:
            return f"{column} {equality} {self._name_of(column)}"
        names = [self._name_of(column) for _ in range(self.random.randint(1, 4))]
        return f"{column} {self.random.choice(['in', 'in', 'not in'])} [{', '.join(names)}]"

    def _name_of(self, column: str) -> str:
        if column == "kind":
            names = [*self.content.get("kinds", {}), *EVENT_KINDS[:3], self.random.choice(EVENT_KINDS)]
        elif column in ("page_type", "device"):
            names = [PAGE_TYPES, DEVICES][column == "device"]
        else:
            names = ["unknown", *self.content["columns"][column]["names"]]
        name = self.random.choice(names)
        is_plain = re.fullmatch(r"[a-zA-Z_]\w*", name) and name not in ("in", "is")
        return name if is_plain and self.random.random() < 0.8 else f'"{name}"'

    def _columns(self, types: str) -> list[str]:
        standard = {
            "number": ["value", "value", "scroll", "engagement", "hour", "weekday"],
            "category": ["kind", "page_type", "device"],
            "identifier": ["item", "category", "page"],
        }
        names = [name for type_ in types.split(" or ") for name in standard[type_]]
        return [*names, *(name for name, own in self.content.get("columns", {}).items() if own["type"] in types)]

    def spaced(self, text: str) -> str:
        """The same expression, written differently."""
        change: Callable[[str], str] = self.random.choice(
            [str, str, lambda text: text.replace("(", "( ").replace(", ", " ,\n "), lambda text: f"  {text}\n"]
        )
        return text if '"' in text else change(text)


@dataclass(frozen=True)
class RandomUser:
    """What a kernel is given of a user whose last event is scored."""

    events: list[tuple]  # namedtuples of Python's numbers, with the fields of the layout's records, in order of arrival
    lifetime_events: int
    first_seen_ms: int
    profile: tuple  # likewise, of PROFILE


def random_user(random: Random, layout: EventLayout, gap_ms: int, most_events: int) -> RandomUser:
    """A user with pauses and ages on the edges of windows and sessions, late events, and events stamped after now."""
    random_event = _event_maker(random, layout)
    now = NOON + random.randint(-DAY, DAY)
    times = list(_times(random, now, gap_ms, random.randint(0, most_events - 1)))
    events = [random_event(time) for time in [*times, now]]
    return RandomUser(
        events,
        len(events) + random.choice([0, 0, 1, 10**6]),
        min([*times, now]) + random.choice([0, 0, -DAY, 1, 10**6]),
        _PROFILE(
            signup_day=random.choice([NO_DAY, 0, 19_000, 40_000]),
            country=random.randint(0, 676),
            age_band=random.randint(0, 9),
            membership_tier=random.randint(0, 7),
            marketing_consent=random.randint(-1, 1),
            known=random.randint(0, 1),
            spare=(0,) * 6,
        ),
    )


_PROFILE = namedtuple("_PROFILE", PROFILE.names)


def records_of(users: Sequence[RandomUser], layout: EventLayout) -> dict[str, np.ndarray]:
    """The arguments of FeatureComputer.compute for a row for each user."""
    ends = np.cumsum([len(user.events) for user in users])
    return {
        "records": np.array([tuple(event) for user in users for event in user.events], layout.dtype),
        "starts": np.concatenate([[0], ends[:-1]]),
        "ends": ends,
        "lifetime_events": np.array([user.lifetime_events for user in users]),
        "first_seen_ms": np.array([user.first_seen_ms for user in users]),
        "profiles": np.array([tuple(user.profile) for user in users], PROFILE),
    }


def _times(random: Random, now: int, gap_ms: int, count: int) -> Iterator[int]:
    """Times of earlier arrivals: mostly in order, with pauses as long as a session's, or as old as a window."""
    times, time = [], now
    for _ in range(count):
        choice = random.random()
        if choice < 0.35:
            time -= random.choice([0, 0, 1, 700, gap_ms - 1, gap_ms, gap_ms + 1, gap_ms // 2])
        elif choice < 0.8:
            time = now - random.choice(EDGES_MS) + random.choice([-1, 0, 0, 1])
        else:
            time -= random.randint(0, 2 * MINUTE)
        is_later = random.random() < 0.1
        times.append(now + random.choice([1, gap_ms, *EDGES_MS]) if is_later else min(time, now))
    if random.random() < 0.8:
        times.sort()
    for _ in range(random.choice([0, 0, 1, 2]) if times else 0):
        late = random.randrange(len(times))
        time = times[late] if random.random() < 0.5 else times.pop(late)
        times.insert(random.randrange(len(times) + 1), time)
    yield from times


def _event_maker(random: Random, layout: EventLayout) -> Callable[[int], tuple]:
    """A function that makes a random event with a time. A user has few kinds and items, so that they come again."""
    nothing = np.zeros((), layout.dtype)
    make = namedtuple("Event", layout.dtype.names)
    spare = {name: nothing[name].tolist() for name in make._fields if name.startswith("own_spare")}
    own = [code for _, code in layout.own_kinds]
    kinds = random.sample(sorted({0, 1, 2, 6, *own, *UNNAMED}), 3) + random.sample(range(len(EVENT_KINDS)), 2)
    offset = random.choice([0, 0, 4, -50, 56])

    def own_value(column: Any) -> int:
        if column.type == "identifier":
            return random.choice([0, 7, 2**32 - 1])
        if column.type == "category":
            return random.choice([*range(len(column.names) + 1), *UNNAMED])
        largest = -column.missing - 1
        return random.choice([column.missing, -largest, 0, 1, 5, largest, min(1_999, largest)])

    def random_event(time: int) -> tuple:
        fields = spare | {column.stored_name: own_value(column) for column in layout.own_columns}
        return make(
            time_ms=time,
            item=random.choice([0, 7, 7, 2**32 - 1]),
            category=random.choice([0, 3, 4 << 28]),
            page=random.choice([0, 1, 2, 3]),
            value=random.choice([np.nan, np.nan, *VALUES]),
            engagement_ds=random.choice([0, 1, 7, 65_535]),
            kind=random.choice(kinds),
            page_type=random.choice([0, 0, 4, 5, len(PAGE_TYPES) - 1, *UNNAMED]),
            scroll=random.choice([0, 50, 51, 100]),
            utc_offset_quarters=offset,
            device=random.choice([0, 1, 2, 4, *UNNAMED]),
            dedup_by=0,
            dedup_key=0,
            **fields,
        )

    return random_event


randoms = st.randoms(use_true_random=False)
feature_files = st.builds(random_file, randoms, st.integers(1, 4))
