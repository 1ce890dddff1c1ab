"""What an expression of features means, in slow and obvious Python. Generated code is checked against it bit by bit.

It shares nothing with the product: Python's own parser reads the text, and each aggregate goes through all events for
itself. Sums of values run from the newest event to the oldest, in double precision, because the order decides the last
bit. A missing number is None.
"""

import ast
import math
import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import cache, cached_property
from typing import Any

import numpy as np

from udfs.contracts.packed_events import DEVICES, EVENT_KINDS, PAGE_TYPES
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, NO_DAY

LARGEST = float(np.finfo(np.float32).max)
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": HOUR_MS, "d": DAY_MS}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How exact a trend or a decay has to be, relative to the largest number on the way to it.
ROUNDING = 1e-14

ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
COMPARISONS = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip

Missing = None
Event = dict[
    str, Any
]  # columns by name, None where it lacks one; of a category the code, of a scaled number the integer


@dataclass(frozen=True)
class OwnColumn:
    """A column that a shop has of its own, kept as `own_NAME`."""

    type: str
    bytes: int = 4
    scale: int = 1
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shop:
    """What a feature file says beside its features."""

    kinds: dict[str, int] = field(default_factory=dict)
    session_gap_ms: int = 1_800_000
    columns: dict[str, OwnColumn] = field(default_factory=dict)

    @classmethod
    def of_file(cls, content: Mapping[str, Any]) -> "Shop":
        columns = {}
        for name, entry in content.get("columns", {}).items():
            names = ("unknown", *entry["names"]) if "names" in entry else ()
            columns[name] = OwnColumn(entry["type"], entry.get("bytes", 4), entry.get("scale", 1), names)
        return cls(content.get("kinds", {}), milliseconds(content.get("session_gap", "30m")), columns)

    @cached_property
    def names(self) -> dict[str, dict[int, str]]:
        """The names of each category's codes."""
        known = {"kind": EVENT_KINDS, "page_type": PAGE_TYPES, "device": DEVICES}
        known |= {name: column.names for name, column in self.columns.items() if column.type == "category"}
        by_code = {column: dict(enumerate(names)) for column, names in known.items()}
        by_code["kind"] |= {code: name for name, code in self.kinds.items()}
        return by_code

    def known_code(self, column: str, code: int) -> int:
        """The code, or 0 for one that has no name."""
        return code if code in self.names[column] else 0

    def scale(self, column: str) -> int:
        return 10 if column == "engagement" else self.columns[column].scale if column in self.columns else 1

    def event(self, record: Mapping[str, Any]) -> Event:
        """An event of its packed record."""
        local = EPOCH + timedelta(milliseconds=int(record["time_ms"]) + int(record["utc_offset_quarters"]) * 900_000)
        value = float(record["value"])
        event = {
            "time_ms": int(record["time_ms"]),
            "kind": int(record["kind"]),
            "item": int(record["item"]) or Missing,
            "category": int(record["category"]) or Missing,
            "page": int(record["page"]) or Missing,
            "value": Missing if math.isnan(value) else value,
            "scroll": int(record["scroll"]),
            "engagement": int(record["engagement_ds"]),
            "page_type": int(record["page_type"]),
            "device": int(record["device"]),
            "hour": local.hour,
            "weekday": local.weekday(),
        }
        for name, column in self.columns.items():
            stored = int(record[f"own_{name}"])
            event[name] = stored
            if column.type == "identifier" and stored == 0:
                event[name] = Missing
            if column.type == "number" and stored == -(256**column.bytes // 2):
                event[name] = Missing
        return event

    def has(self, event: Event, column: str) -> bool:
        """Whether an event carries a column. Each has a kind; another category is lacking where it is unknown."""
        if column in self.names and column != "kind":
            return self.known_code(column, event[column]) != 0
        return event[column] is not Missing


@dataclass(frozen=True)
class Case:
    """A scored event and all that its features may look at. `seen` are all events of the user, in order of arrival."""

    shop: Shop
    seen: list[Event]
    history_length: int
    lifetime_events: int
    first_seen_ms: int
    profile: Mapping[str, Any]

    @cached_property
    def kept(self) -> list[Event]:
        return self.seen[-self.history_length :]

    @property
    def scored(self) -> Event:
        return self.seen[-1]

    @property
    def now(self) -> int:
        return self.scored["time_ms"]

    @cached_property
    def history(self) -> list[Event]:
        """Oldest first; sorted() keeps events of the same time in order of arrival."""
        return sorted(
            (event for event in self.kept if event["time_ms"] <= self.now), key=lambda event: event["time_ms"]
        )

    @cached_property
    def session(self) -> list[Event]:
        events = self.history
        start = len(events) - 1
        while start > 0 and events[start]["time_ms"] - events[start - 1]["time_ms"] <= self.shop.session_gap_ms:
            start -= 1
        return events[start:]

    def span(self, node: ast.expr | None) -> list[Event]:
        """The events that `over=` means, oldest first."""
        match node:
            case None | ast.Name(id="history"):
                return self.history
            case ast.Name(id="before"):
                return self.history[:-1]
            case ast.Name(id="session"):
                return self.session
            case ast.Name(id="earlier_sessions"):
                return self.history[: -len(self.session)]
            case ast.Constant(value=duration):
                length_ms = milliseconds(duration)
                return [event for event in self.history if self.now - event["time_ms"] < length_ms]
        raise AssertionError(ast.dump(node))


def milliseconds(duration: str) -> int:
    number, unit = re.fullmatch(r"(\d+) ?([a-z]+)", duration).groups()
    return int(number) * UNITS_MS[unit]


def evaluate(text: str, case: Case) -> np.float32:
    """The value of an expression."""
    return _stored(_Evaluation(case).number(_tree(text)))


def bounds(text: str, case: Case) -> list[np.float32]:
    """The values of an expression if all that can't be computed exactly is a little less, exact, or a little more."""
    return [_stored(_Evaluation(case, nudge).number(_tree(text))) for nudge in (-ROUNDING, 0.0, ROUNDING)]


def is_inexact(text: str) -> bool:
    """Whether two right computations may differ in an expression's last bits."""
    return re.search(r"\b(trend|decay)\b", text) is not None


def _digits(number: int, most: int) -> int:
    """How many binary digits a number has, at most `most`."""
    return min(len(f"{number:b}"), most) if number > 0 else 0


def _stored(number: float | None) -> np.float32:
    return np.float32(math.nan if number is Missing else min(max(number, -LARGEST), LARGEST))


@cache
def _tree(text: str) -> ast.expr:
    parts = text.strip().split('"')  # every second one is quoted
    parts[::2] = [re.sub(r"\b(\d+(?:ms|s|m|min|h|d))\b", r"'\1'", part) for part in parts[::2]]
    return ast.parse('"'.join(parts), mode="eval").body


@dataclass(frozen=True)
class _Evaluation:
    case: Case
    nudge: float = 0.0

    def number(self, node: ast.expr) -> float | None:
        match node:
            case ast.Constant(value=value):
                return float(value)
            case ast.Attribute(value=ast.Name(id="now"), attr=column):
                return self._of(self.case.scored, column)
            case ast.Attribute(value=ast.Name(id="user"), attr=name):
                return self._of_user(name)
            case ast.Attribute(value=ast.Name(id="profile"), attr=name):
                return self._of_profile(name)
            case ast.Call(func=ast.Name(id="event"), args=[ast.Constant(value=back)]):
                return self._event_code(back)
            case ast.Call(func=ast.Name(id="least")):
                return self._operate(min, node.args)
            case ast.Call(func=ast.Name(id="greatest")):
                return self._operate(max, node.args)
            case ast.Call():
                return self._aggregate(node)
            case ast.UnaryOp(op=ast.USub()):
                return self._operate(operator.neg, [node.operand])
            case ast.UnaryOp(op=ast.Not()):
                return self._operate(operator.not_, [node.operand])
            case ast.BoolOp(op=ast.And()):
                return self._operate(lambda *parts: all(parts), node.values)
            case ast.BoolOp(op=ast.Or()):
                return self._operate(lambda *parts: any(parts), node.values)
            case ast.BinOp():
                return self._operate(ARITHMETIC[type(node.op)], [node.left, node.right])
            case ast.Compare(
                left=ast.Attribute(value=ast.Name(id="now"), attr=column), ops=[ast.Eq() | ast.NotEq()]
            ) if column in self.case.shop.names:
                is_same = self._name(self.case.scored, column) == _written(node.comparators[0])
                return float(is_same == isinstance(node.ops[0], ast.Eq))
            case ast.Compare(ops=[comparison]):
                return self._operate(COMPARISONS[type(comparison)], [node.left, *node.comparators])
        raise AssertionError(ast.dump(node))

    def _operate(self, function, nodes: list[ast.expr]) -> float | None:
        parts = [self.number(node) for node in nodes]
        if Missing in parts or function is operator.truediv and parts[1] == 0:
            return Missing
        result = float(function(*parts))
        return Missing if math.isnan(result) else result  # infinity less infinity

    def _of(self, event: Event, column: str) -> float | None:
        """A column as a number."""
        if column in self.case.shop.names:
            return float(self.case.shop.known_code(column, event[column]))
        return Missing if event[column] is Missing else event[column] / self.case.shop.scale(column)

    def _of_user(self, name: str) -> float:
        return {
            "lifetime_events": float(self.case.lifetime_events),
            "history_events": float(len(self.case.kept)),
            "since_first_seen": (self.case.now - self.case.first_seen_ms) / 1000,
            "since_first_kept": (self.case.now - self.case.kept[0]["time_ms"]) / 1000,
        }[name]

    def _of_profile(self, name: str) -> float | None:
        if name == "days_since_signup":
            signup_day = int(self.case.profile["signup_day"])
            return Missing if signup_day == NO_DAY else float(self.case.now // DAY_MS - signup_day)
        number = int(self.case.profile[name])
        if name == "marketing_consent" and number < 0:
            return Missing
        names = {"age_band": AGE_BANDS, "membership_tier": MEMBERSHIP_TIERS}.get(name)
        return 0.0 if names is not None and number >= len(names) else float(number)

    def _event_code(self, back: int) -> float | None:
        """The code of an event, as docs/features.md describes it."""
        events = self.case.history
        if back >= len(events):
            return Missing
        event, before = events[-1 - back], events[-2 - back] if back + 1 < len(events) else None
        gap = 0 if before is None else 1 + _digits((event["time_ms"] - before["time_ms"]) // 1000, 22)
        value = 0 if event["value"] is Missing else 1 + _digits(int(max(event["value"], 0)), 14)
        numbers = [
            (20, event["kind"] if event["kind"] < len(EVENT_KINDS) else 0),
            (10, event["page_type"] if event["page_type"] < len(PAGE_TYPES) else 0),
            (24, gap),
            (24, _digits((self.case.now - event["time_ms"]) // 1000, 23)),
            *((3, self._same(event[column], self.case.scored[column])) for column in ("item", "category")),
            (16, value),
        ]
        code = 0
        for size, number in numbers:
            assert number < size
            code = code * size + number
        return float(code)

    def _same(self, one: int | None, other: int | None) -> int:
        return 0 if Missing in (one, other) else 2 if one == other else 1

    def _aggregate(self, node: ast.Call) -> float | None:
        arguments = list(node.args)
        column = arguments.pop(0).id if arguments and isinstance(arguments[0], ast.Name) else None
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if "by" in options:
            length_ms, bucket_ms = (milliseconds(options[name].value) for name in ("over", "by"))
            return self._by_time(length_ms, bucket_ms, column, arguments)
        events = self.case.span(options.get("over"))
        if arguments:
            if not all(self.case.shop.has(self.case.scored, name) for name in _compared_with_now(arguments[0])):
                return Missing
            events = [event for event in events if self._holds(arguments[0], event)]
        having = [event for event in events if column is not None and self.case.shop.has(event, column)]
        match node.func.id:
            case "count":
                return float(len(events))
            case "since_last":
                return (self.case.now - events[-1]["time_ms"]) / 1000 if events else Missing
            case "since_first":
                return (self.case.now - events[0]["time_ms"]) / 1000 if events else Missing
            case "distinct" if column in self.case.shop.names:
                return float(len({self._name(event, column) for event in events}))
            case "distinct":
                return float(len({event[column] for event in having}))
            case "last":
                return self._of(having[-1], column) if having else Missing
            case "sum":
                return self._sum(having, column)
            case "mean":
                return self._sum(having, column) / len(having) if having else Missing
            case "min":
                return min((self._of(event, column) for event in reversed(having)), default=Missing)
            case "max":
                return max((self._of(event, column) for event in reversed(having)), default=Missing)
            case "rank":
                return self._rank(having, column)
            case "trend":
                return self._trend(having, column)
            case "decay":
                half_life_ms = milliseconds(options["half_life"].value)
                return self._decay(having if column else events, column, half_life_ms)
        raise AssertionError(ast.dump(node))

    def _by_time(self, length_ms: int, bucket_ms: int, column: str | None, conditions: list[ast.expr]) -> float:
        """A count or a sum by buckets of time, of which the newest are kept, however many events there are.

        Each has the precision of what it is kept in: a count ends at 65,535, a sum is float32, in order of arrival.
        """
        numbers = [event["time_ms"] // bucket_ms for event in self.case.seen]
        last = self.case.now // bucket_ms
        first = max(last, *numbers) - length_ms // bucket_ms
        total = 0.0
        for number in sorted({number for number in numbers if first <= number <= last}, reverse=True):
            events = [event for event, its in zip(self.case.seen, numbers) if its == number]
            events = [event for event in events if all(self._holds(condition, event) for condition in conditions)]
            if column is None:
                total += min(len(events), 65_535)
            else:
                of_bucket = np.float32(0.0)
                with np.errstate(over="ignore"):
                    for event in events:
                        if self.case.shop.has(event, column):
                            of_bucket += np.float32(self._of(event, column))
                total += float(of_bucket)
        return total

    def _sum(self, events: list[Event], column: str) -> float:
        total = 0 if column != "value" else 0.0  # what is stored as an integer has an exact sum
        for event in reversed(events):
            total += event[column]
        return total / self.case.shop.scale(column)

    def _rank(self, events: list[Event], column: str) -> float | None:
        if not events or not self.case.shop.has(self.case.scored, column):
            return Missing
        return len([event for event in events if event[column] < self.case.scored[column]]) / len(events)

    def _trend(self, events: list[Event], column: str) -> float | None:
        """The least-squares slope per hour, exact but for the last rounding."""
        times = [event["time_ms"] - self.case.now for event in events]
        if len(set(times)) < 2:
            return Missing
        numbers = [Fraction(event[column]) / self.case.shop.scale(column) for event in events]
        n, t = len(times), sum(times)
        above = n * _products(times, numbers) - t * sum(numbers)
        below = n * _products(times, times) - t * t
        duration = max(times) - min(times)
        largest = float(max(map(abs, numbers))) * HOUR_MS / duration * (1 + max(map(abs, times)) / duration)
        return float(above / below * HOUR_MS) + self.nudge * n * largest

    def _decay(self, events: list[Event], column: str | None, half_life_ms: int) -> float:
        total, largest = 0.0, 0.0
        for event in reversed(events):
            part = 2.0 ** (-(self.case.now - event["time_ms"]) / half_life_ms)
            part *= 1.0 if column is None else self._of(event, column)
            total += part
            largest += abs(part)
        return total + self.nudge * largest

    def _holds(self, node: ast.expr, event: Event) -> bool:
        """Whether a condition holds for an event."""
        match node:
            case ast.BoolOp(op=ast.And()):
                return all(self._holds(part, event) for part in node.values)
            case ast.BoolOp(op=ast.Or()):
                return any(self._holds(part, event) for part in node.values)
            case ast.UnaryOp(op=ast.Not()):
                return not self._holds(node.operand, event)
            case ast.Compare(left=ast.Name(id=column), ops=[ast.In()], comparators=[names]):
                return self._name(event, column) in map(_written, names.elts)
            case ast.Compare(left=ast.Name(id=column), ops=[ast.NotIn()], comparators=[names]):
                return self._name(event, column) not in map(_written, names.elts)
            case ast.Compare(left=ast.Name(id=column), ops=[comparison], comparators=[right]):
                return self._compares(event, column, COMPARISONS[type(comparison)], right)
        raise AssertionError(ast.dump(node))

    def _compares(self, event: Event, column: str, comparison, right: ast.expr) -> bool:
        is_category = column in self.case.shop.names
        if isinstance(right, ast.Attribute):
            if not self.case.shop.has(event, column):
                return False
            if is_category:
                return comparison(self._name(event, column), self._name(self.case.scored, column))
            return comparison(event[column], self.case.scored[column])
        if is_category:
            return comparison(self._name(event, column), _written(right))
        if event[column] is Missing:
            return False
        number = ast.literal_eval(right)
        if column == "value":  # a value of 19.99 is the float32 nearest to it
            with np.errstate(over="ignore"):
                number = float(np.float32(number))
        return comparison(event[column] / self.case.shop.scale(column), number)

    def _name(self, event: Event, column: str) -> str:
        """The name of an event's category: that of 0 for a code without a name."""
        return self.case.shop.names[column][self.case.shop.known_code(column, event[column])]


def _products(left: Iterable, right: Iterable):
    return sum(one * other for one, other in zip(left, right))


def _written(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.value


@cache
def _compared_with_now(condition: ast.expr) -> set[str]:
    return {node.attr for node in ast.walk(condition) if isinstance(node, ast.Attribute)}
