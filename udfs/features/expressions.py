"""Expressions of features: parsed from text to a tree, and checked.

An expression is Python's syntax with a closed set of names. It is about the event being scored, `now`, and counts,
sums and so on over earlier ones:

    count(kind == add_to_cart, over=30m)
    least(now.value / mean(value, kind == view_item, over=before), 1e6)

docs/features.md has the language. Nothing here is evaluated: udfs/features/code_generation.py makes code of the tree.
"""

import ast
import math
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from udfs.config.durations import duration_ms
from udfs.config.text import one_line
from udfs.features.columns import PROFILE_FIELDS, USER_FIELDS, Column
from udfs.features.event_codes import MOST_EVENTS

#: A duration in an expression, such as 30m: Python has no such literal, so it is read as a string. Texts stay as they
#: are, and a comment would swallow what follows on the next line.
_DURATION = re.compile(r"""(?P<text>"[^"]*"|'[^']*')|(?P<comment>\#)|(?<![\w.])\d+(?:ms|s|m|min|h|d)(?!\w)""")
_LONGEST_MS = 100 * 365 * 86_400_000
_LONGEST, _MOST_NESTED = 10_000, 100

_OPERATORS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
}  # fmt: skip
_EQUALITY = ("==", "!=")
_MINUTE_MS = 60_000

#: The most buckets that tiles may have.
MOST_BUCKETS = 401


class ExpressionError(ValueError):
    """An expression that can't be read: the rule, the part that breaks it, and what to write instead."""


@dataclass(frozen=True)
class Span:
    """The events that an aggregate covers.

    `window`: those of the last `ms`, the scored one included. `session`: those of the scored one's session, which
    pauses of more than `ms` separate. `history`: all that are kept. `before`: all but the scored one.
    `earlier_sessions`: those before the session. `tiles`: those since the beginning of the bucket of `by_ms` in which
    the last `ms` begin, whether they are in the history or not.
    """

    name: Literal["window", "session", "history", "before", "earlier_sessions", "tiles"]
    ms: int = 0
    by_ms: int = 0

    @property
    def buckets(self) -> int:
        """How many buckets of tiles it covers, the first and the last one included."""
        return self.ms // self.by_ms + 1


@dataclass(frozen=True)
class IsIn:
    """Whether a category of an event is one of `codes`."""

    column: Column
    codes: frozenset[int]


@dataclass(frozen=True)
class Compared:
    """Whether a column of an event compares with a number, or with the scored event's column if `with_now`."""

    column: Column
    operator: str
    number: float = 0.0
    with_now: bool = False
    codes: frozenset[int] = frozenset()  # as in Now


@dataclass(frozen=True)
class Present:
    """Whether an event carries a column."""

    column: Column


@dataclass(frozen=True)
class All:
    parts: tuple["Condition", ...]


@dataclass(frozen=True)
class Any:
    parts: tuple["Condition", ...]


@dataclass(frozen=True)
class Not:
    part: "Condition"


Condition = IsIn | Compared | Present | All | Any | Not


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Now:
    """A column of the scored event. A code that is not among `codes`, if there are any, counts as 0."""

    column: Column
    codes: frozenset[int] = frozenset()


@dataclass(frozen=True)
class User:
    field: str


@dataclass(frozen=True)
class Profile:
    field: str


@dataclass(frozen=True)
class Operation:
    """An operator or function of numbers; missing if any of its parts is."""

    operator: str
    parts: tuple["Value", ...]


@dataclass(frozen=True)
class Aggregate:
    """A number made of those events of a span for which the condition holds, or of what a column has there."""

    function: str
    over: Span
    column: Column | None = None
    where: Condition | None = None
    half_life_ms: int = 0
    codes: frozenset[int] = frozenset()  # as in Now
    text: str = ""  # over tiles, what is totalled


@dataclass(frozen=True)
class EventCode:
    """The code of the event `back` events before the scored one; udfs/features/event_codes.py has what it says."""

    back: int


@dataclass(frozen=True)
class Function:
    """A function of the user's own, by module and name; `sha256` is that of its module's source."""

    path: str
    sha256: str


Value = Number | Now | User | Profile | Operation | Aggregate | EventCode | Function

#: What an aggregate takes: whether a column, and of which types.
_NUMBER, _NUMBER_OR_CATEGORY = ("number",), ("number", "category")
AGGREGATES: dict[str, tuple[str, ...]] = {
    "count": (),
    "since_last": (),
    "since_first": (),
    "sum": _NUMBER,
    "mean": _NUMBER,
    "min": _NUMBER,
    "max": _NUMBER,
    "rank": _NUMBER,
    "trend": _NUMBER,
    "decay": _NUMBER,  # the column can be left out: a count that decays
    "last": _NUMBER_OR_CATEGORY,
    "distinct": ("identifier", "category"),
}
_SPANS = ("session", "history", "before", "earlier_sessions")
_FUNCTIONS = ("least", "greatest")
EVENT_CODE = "event"


@dataclass(frozen=True)
class Reader:
    """Reads expressions of a declaration: its kinds of events and columns, by name, and its session gap."""

    kinds: Mapping[str, int]
    columns: Mapping[str, Column]
    session_gap_ms: int

    def read(self, text: str) -> Value:
        """The tree of an expression. Raises ExpressionError."""
        tree = parse(text)
        # A code is no number to compute with, so `event` is an expression of its own.
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == EVENT_CODE:
            return _event_code(tree)
        return self._value(tree)

    def _value(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=bool() | str()):
                raise _error(node, "a number is expected")
            case ast.Constant(value=int() | float()):
                if not math.isfinite(node.value):
                    raise _error(node, "a number must be finite")
                return Number(float(node.value))
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                return self._field(node, owner, name)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                return Operation(_OPERATORS[type(node.op)], (self._value(node.left), self._value(node.right)))
            case ast.UnaryOp(op=ast.USub()):
                operand = self._value(node.operand)
                return Number(-operand.value) if isinstance(operand, Number) else Operation("negate", (operand,))
            case ast.UnaryOp(op=ast.Not()):
                return Operation("not", (self._value(node.operand),))
            case ast.BoolOp():
                operator = "and" if isinstance(node.op, ast.And) else "or"
                return Operation(operator, tuple(self._value(part) for part in node.values))
            case ast.Compare(left=ast.Attribute(value=ast.Name(id="now"), attr=name), ops=[ast.Eq() | ast.NotEq()]) if (
                name in self.columns and self.columns[name].type == "category"
            ):
                code = Number(float(self._code_of(self.columns[name], node.comparators[0])))
                return Operation(_OPERATORS[type(node.ops[0])], (self._value(node.left), code))
            case ast.Compare(ops=[operator]) if type(operator) in _OPERATORS:
                sides = node.left, node.comparators[0]
                return Operation(_OPERATORS[type(operator)], tuple(self._value(side) for side in sides))
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name)
            case ast.Name(id=name) if name in self.columns:
                raise _error(
                    node, f"{name} is a column of many events: write now.{name} for the event being scored, or an "
                    f"aggregate such as last({name})"
                )  # fmt: skip
        raise _error(
            node, "expected a number, now., user. or profile. and a field, an aggregate, or arithmetic of these"
        )

    def _field(self, node: ast.expr, owner: str, name: str) -> Value:
        fields = {"now": self.columns, "user": USER_FIELDS, "profile": PROFILE_FIELDS}
        if owner not in fields:
            raise _error(node, f"unknown name {owner}{_meant(owner, fields)}")
        if name not in fields[owner]:
            raise _error(node, f"{owner} has no field {name}{_meant(name, fields[owner])}")
        if owner == "user":
            return User(name)
        if owner == "profile":
            return Profile(name)
        column = self.columns[name]
        if column.type == "identifier":
            raise _error(node, f"{name} is an identifier, not a number; compare it, as in count({name} == now.{name})")
        return Now(column, self._codes(column))

    def _call(self, node: ast.Call, name: str) -> Value:
        if name in _FUNCTIONS:
            if node.keywords or len(node.args) < 2:
                raise _error(node, f"{name} takes two or more numbers")
            return Operation(name, tuple(self._value(argument) for argument in node.args))
        if name == EVENT_CODE:
            raise _error(node, "the code of an event is an expression of its own, not part of another one")
        if name not in AGGREGATES:
            raise _error(node, f"unknown function {name}{_meant(name, (*AGGREGATES, *_FUNCTIONS))}")
        arguments = list(node.args)
        column = None
        if AGGREGATES[name] and not (name == "decay" and not (arguments and isinstance(arguments[0], ast.Name))):
            column = self._column_argument(node, name, arguments)
        if len(arguments) > 1:
            raise _error(arguments[1], f"{name} takes one condition; join several with `and`")
        where = self._condition(arguments[0]) if arguments else None
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if len(keywords) < len(node.keywords):
            raise _error(node, f"an argument of {name} is given twice")
        span = self._span(keywords.pop("over", None), keywords.pop("by", None))
        if span.name == "tiles":
            return self._tiles(node, name, span, column, where, keywords)
        half_life_ms = 0
        if name == "decay":
            if "half_life" not in keywords:
                raise _error(node, "decay needs half_life=, for example half_life=1h")
            half_life_ms = _duration(keywords.pop("half_life"))
        if keywords:
            raise _error(node, f"{name} has no argument {next(iter(keywords))}")
        return self._aggregate(name, span, column, where, half_life_ms)

    def _tiles(
        self,
        node: ast.Call,
        name: str,
        span: Span,
        column: Column | None,
        where: Condition | None,
        keywords: Mapping[str, ast.expr],
    ) -> Value:
        if name not in ("count", "sum") or keywords:
            raise _error(node, "by= goes with count(...) and sum(...) only")
        if where is not None and compares_with_now(where):
            raise _error(node, "with by=, a condition can't compare with now: totals are kept before now is known")
        if where is not None and _has_code_0(where):
            raise _error(node, "with by=, kind can't be compared with other: it depends on the kinds that a job has")
        if span.ms % span.by_ms or not 1 < span.buckets <= MOST_BUCKETS:
            raise _error(node, f"over= must be 1 to {MOST_BUCKETS - 1} times by=")
        if span.by_ms < _MINUTE_MS:
            raise _error(node, "by= must be at least 1m")
        return Aggregate(name, span, column, where, text=ast.unparse(ast.Call(node.func, node.args, [])))

    def _aggregate(
        self, name: str, span: Span, column: Column | None, where: Condition | None, half_life_ms: int
    ) -> Value:
        if column is None:
            return Aggregate(name, span, None, where, half_life_ms)
        if name in ("mean", "rank"):
            there = where if column.missing is None else _both(where, Present(column))
            of = Aggregate("sum", span, column, where)
            if name == "rank":
                of = Aggregate("count", span, None, _both(where, Compared(column, "<", with_now=True)))
            return Operation("/", (of, Aggregate("count", span, None, there)))
        return Aggregate(name, span, column, where, half_life_ms, self._codes(column))

    def _column_argument(self, node: ast.Call, function: str, arguments: list[ast.expr]) -> Column:
        types = AGGREGATES[function]
        fitting = [column.name for column in self.columns.values() if column.type in types]
        expected = f"{function} takes a column first: {', '.join(fitting)}"
        if not arguments or not isinstance(arguments[0], ast.Name):
            raise _error(node, expected)
        argument = arguments.pop(0)
        column = self._column(argument, argument.id)
        if column.type not in types:
            raise _error(argument, f"{column.name} is {_A_TYPE[column.type]}; {expected}")
        return column

    def _span(self, node: ast.expr | None, by: ast.expr | None) -> Span:
        if by is not None:
            if not isinstance(node, ast.Constant):
                raise _error(by, "by= needs over= with a duration, as in over=30d, by=1d")
            return Span("tiles", _duration(node), _duration(by))
        match node:
            case None:
                return Span("history")
            case ast.Name(id=name) if name in ("session", "earlier_sessions"):
                return Span(name, self.session_gap_ms)
            case ast.Name(id=name) if name in _SPANS:
                return Span(name)
            case ast.Constant(value=str()):
                return Span("window", _duration(node))
        raise _error(node, f"over= takes a duration, such as 30m, or {', '.join(_SPANS)}")

    def _condition(self, node: ast.expr) -> Condition:
        match node:
            case ast.BoolOp():
                kind = All if isinstance(node.op, ast.And) else Any
                return kind(tuple(self._condition(part) for part in node.values))
            case ast.UnaryOp(op=ast.Not()):
                return Not(self._condition(node.operand))
            case ast.Compare(left=ast.Name(id=name), ops=[operator], comparators=[right]):
                return self._comparison(node, self._column(node.left, name), operator, right)
        raise _error(
            node, "a condition compares a column of each event with a value, as in kind == add_to_cart or value > 10; "
            "join several with and, or, not"
        )  # fmt: skip

    def _comparison(self, node: ast.Compare, column: Column, operator: ast.cmpop, right: ast.expr) -> Condition:
        if isinstance(operator, ast.In | ast.NotIn):
            if column.type != "category" or not isinstance(right, ast.Tuple | ast.List):
                raise _error(
                    node, "`in` takes a category and a list of its names, as in kind in (view_item, add_to_cart)"
                )
            of = IsIn(column, frozenset().union(*(self._codes_of(column, name) for name in right.elts)))
            return of if isinstance(operator, ast.In) else Not(of)
        if type(operator) not in _OPERATORS:
            raise _error(node, "expected one of <, <=, >, >=, ==, !=, in, not in")
        written = _OPERATORS[type(operator)]
        if column.type != "number" and written not in _EQUALITY:
            raise _error(
                node, f"{column.name} is {_A_TYPE[column.type]} and has no order: use == or != instead of {written}"
            )
        match right:
            case ast.Attribute(value=ast.Name(id="now"), attr=name):
                if name != column.name:
                    raise _error(right, f"a column can be compared with the same one of now: now.{column.name}")
                return Compared(column, written, with_now=True, codes=self._codes(column))
            case _ if column.type == "category":
                of = IsIn(column, self._codes_of(column, right))
                return of if written == "==" else Not(of)
            case _ if column.type == "identifier":
                raise _error(right, f"{column.name} is an identifier and can only be compared with now.{column.name}")
        number = self._value(right)
        if not isinstance(number, Number):
            raise _error(right, f"{column.name} is compared with a number or with now.{column.name}")
        return Compared(column, written, number.value)

    def _column(self, node: ast.expr, name: str) -> Column:
        if name not in self.columns:
            raise _error(node, f"events have no column {name}{_meant(name, self.columns)}")
        return self.columns[name]

    def _names(self, column: Column) -> Mapping[str, int]:
        return self.kinds if column.name == "kind" else {name: code for code, name in enumerate(column.names)}

    def _codes(self, column: Column) -> frozenset[int]:
        return frozenset(self._names(column).values()) if column.type == "category" else frozenset()

    def _codes_of(self, column: Column, node: ast.expr) -> frozenset[int]:
        """The codes that a name of a category stands for: `other` and `unknown` also for those that have no name."""
        code = self._code_of(column, node)
        return frozenset({code}) if code else frozenset(range(256)) - (self._codes(column) - {0})

    def _code_of(self, column: Column, node: ast.expr) -> int:
        names = self._names(column)
        match node:
            case ast.Name(id=name) | ast.Constant(value=str(name)) if name in names:
                return names[name]
            case ast.Name(id=name) | ast.Constant(value=str(name)):
                raise _error(node, f"{column.name} has no {name}{_meant(name, names)}")
        raise _error(node, f"{column.name} is a category: expected one of {', '.join(names)}")


_A_TYPE = {"identifier": "an identifier", "category": "a category", "number": "a number"}


def _event_code(node: ast.Call) -> EventCode:
    match node:
        case ast.Call(args=[ast.Constant(value=int(back))], keywords=[]) if (
            0 <= back < MOST_EVENTS and back is not True
        ):
            return EventCode(int(back))
    raise _error(node, f"{EVENT_CODE} takes how many events before the scored one it is, from 0 to {MOST_EVENTS - 1}")


def duration_of(text: str) -> int:
    """Milliseconds of a duration such as 30m, 24h or 7 d."""
    return duration_ms(re.sub(r"(?<=\d)m$", "min", text.strip()))


def parse(text: str) -> ast.expr:
    """Python's tree of an expression, durations as strings. Raises ExpressionError."""
    if len(text) > _LONGEST:
        raise ExpressionError(
            f"an expression has at most {_LONGEST:,} characters (got {len(text):,}): make several features of it"
        )
    try:
        tree = ast.parse(_DURATION.sub(_quoted, text.strip()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = getattr(error, "text", None) and one_line((error.text or "")[max((error.offset or 1) - 1, 0) :])
        raise ExpressionError(
            f"not an expression: {getattr(error, 'msg', error)}{f', at {at}' if at else ''}"
        ) from None
    _check_size(tree)
    return tree


def _quoted(match: re.Match) -> str:
    if match["comment"]:
        raise SyntaxError("comments are not allowed")
    return match[0] if match["text"] else f"'{match[0]}'"


def _check_size(tree: ast.expr) -> None:
    """Refuse what Python could not compile, and numbers that it could not write."""
    nodes = [(tree, 1)]
    while nodes:
        node, depth = nodes.pop()
        if depth > _MOST_NESTED:
            raise ExpressionError(f"nested more than {_MOST_NESTED} deep: make several features of it")
        if isinstance(node, ast.Constant) and isinstance(node.value, int) and abs(node.value) > sys.float_info.max:
            raise ExpressionError("a number must be finite: there is one of more than 308 digits")
        parts = node.values if isinstance(node, ast.BoolOp) else node.args if isinstance(node, ast.Call) else ()
        depth += max(1, len(parts) - 1)  # code for three parts is that for two, inside that for two
        nodes += [(child, depth) for child in ast.iter_child_nodes(node)]


def normalized(text: str) -> str:
    """The expression with spaces and brackets in one form: equal for expressions that are written differently only."""
    return ast.unparse(parse(text))


def aggregates(value: Value) -> Iterator[Aggregate]:
    """All aggregates of an expression."""
    if isinstance(value, Aggregate):
        yield value
    elif isinstance(value, Operation):
        for part in value.parts:
            yield from aggregates(part)


def compares_with_now(where: Condition) -> bool:
    """Whether a condition looks at the scored event."""
    match where:
        case All() | Any():
            return any(map(compares_with_now, where.parts))
        case Not():
            return compares_with_now(where.part)
    return isinstance(where, Compared) and where.with_now


def _has_code_0(where: Condition) -> bool:
    """Whether a condition names the kind `other`."""
    match where:
        case All() | Any():
            return any(map(_has_code_0, where.parts))
        case Not():
            return _has_code_0(where.part)
    return isinstance(where, IsIn) and where.column.name == "kind" and 0 in where.codes


def _both(where: Condition | None, other: Condition) -> Condition:
    return other if where is None else All((where, other))


def _duration(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=str(text)) if re.fullmatch(r"0*[1-9]\d*(ms|s|m|min|h|d)", text):
            if duration_of(text) <= _LONGEST_MS:
                return duration_of(text)
    raise _error(node, "expected a duration above 0, such as 90s, 30m, 24h or 7d, and of at most 100 years")


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"


def _error(node: ast.expr, rule: str) -> ExpressionError:
    try:
        written = re.sub(r"'(\d+(?:ms|s|m|min|h|d))'", r"\1", ast.unparse(node))
    except ValueError:  # some texts in texts
        written = "an expression"
    return ExpressionError(f"{written}: {rule}")
