"""Generates the source of `compute_row`: one pass over a user's history, newest record first, for a set of features.

Windows and the session all end at the scored event. So one running total serves them all: whenever the pass leaves a
window, or the session, the totals so far are those of that window. Features of one window are stored there; what
others need of it is remembered until the end of the pass.

Running totals that several features share exist once. Each belongs to a bit of `needs`; a total that no wanted feature
needs is not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout, Tiles
from udfs.features.columns import PROFILE_FIELDS, USER_FIELDS, Column, columns_of
from udfs.features.expressions import (
    Aggregate,
    All,
    Any,
    Compared,
    Condition,
    EventCode,
    Function,
    IsIn,
    Not,
    Now,
    Number,
    Operation,
    Present,
    Profile,
    Reader,
    Span,
    User,
    Value,
    aggregates,
)

#: The bit of `needs` of the pass itself. Totals have the others; if there are more, the last bit is for several.
PASS = 1
_LAST_BIT = 62
FOREVER_MS = 2**63 - 1
_LARGEST_COUNT = 2**16 - 1

_FUNCTIONS = {
    "/": "divide", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal", "==": "equal",
    "!=": "not_equal", "and": "both", "or": "either", "least": "least", "greatest": "greatest",
}  # fmt: skip
#: Spans of which the pass knows when it leaves them; the totals of the others end with the pass.
_LEFT_ON_THE_WAY = ("window", "session")
_END = Span("history")
_OF_USER = "lifetime_events, first_seen_ms, profile"


@dataclass(frozen=True)
class RowCode:
    """The source of `compute_row`, the needs of each feature, and the sizes of the tables that it works with."""

    source: str
    needs: tuple[int, ...]
    functions: tuple[Function, ...]  # called `function_0` and so on
    windows: tuple[int, ...]  # lengths in ms, and an end that is never reached
    count_tables: int
    sum_tables: int
    time_tables: int
    sets: int
    table_length: int


def generate(values: Sequence[Value], layout: EventLayout = STANDARD_LAYOUT) -> RowCode:
    """Code that stores the value of the i-th expression in row[i], for a job with a layout; and that of `add_to_tiles`.

    The layout has the tiles that the expressions need.
    """
    return _Generator(values, layout).code()


@dataclass(frozen=True)
class _Total:
    """A running total: an aggregate without its span, over all events of the pass, or those before the scored one, or
    those before its session."""

    aggregate: Aggregate
    base: Span

    @classmethod
    def of(cls, aggregate: Aggregate) -> "_Total":
        base = aggregate.over if aggregate.over.name in ("before", "earlier_sessions") else _END
        return cls(replace(aggregate, over=_END), base)


@dataclass
class _Cell:
    """The code of a running total."""

    start: list[str]  # before the pass
    update: list[str]  # for each event of its base
    result: str  # float64
    spans: set[Span] = field(default_factory=set)  # at whose end it is read
    block: tuple = ()  # totals of the same block are kept together, or not at all


class _Generator:
    def __init__(self, values: Sequence[Value], layout: EventLayout):
        self._values, self._layout = values, layout
        self._tiles = [_of_tiles(tiles, layout) for tiles in layout.tiles]
        self._tables: dict[str, dict[tuple, int]] = {"counts": {}, "sums": {}, "times": {}}
        self._sets = 0
        self._globals: list[str] = []
        self._lookups: dict[frozenset[int], str] = {}
        self._code_tables: dict[frozenset[int], str] = {}
        self._has: dict[Column, str] = {}  # whether the scored event carries a column
        found = list(dict.fromkeys(part for value in values for part in aggregates(value) if not _is_of_tiles(part)))
        over_tiles = dict.fromkeys(part for value in values for part in aggregates(value) if _is_of_tiles(part))
        self._kinds = sorted({code for part in found for code in _kind_in_table(part)})
        self._cells: dict[_Total, _Cell] = {}
        for part in found:
            total = _Total.of(part)
            if total not in self._cells:
                self._cells[total] = self._cell(total, f"a{len(self._cells)}")
            self._cells[total].spans.add(_end_of(part))
        self._functions = list(dict.fromkeys(value for value in values if isinstance(value, Function)))
        blocks = [
            *dict.fromkeys(cell.block for cell in self._cells.values() if cell.update),
            *self._functions,
            *over_tiles,
            *([EventCode] if any(isinstance(value, EventCode) for value in values) else []),  # all are kept, or none
        ]
        self._bits = {block: 1 << min(number, _LAST_BIT) for number, block in enumerate(blocks, 1)}
        self._gaps = sorted({part.over.ms for part in found if part.over.name in ("session", "earlier_sessions")})
        self._windows = sorted({part.over.ms for part in found if part.over.name == "window"})

    def code(self) -> RowCode:
        table_rows = {name: len(rows) for name, rows in self._tables.items()}
        body = self._body()
        tiles = self._add_to_tiles()  # may add to the lookups
        globals_ = self._globals + [
            f"{name} = {_table(lambda code, codes=codes: code in codes)}" for codes, name in self._lookups.items()
        ]
        globals_ += [
            f"{name} = {_table(lambda code, codes=codes: code if code in codes else 0)}"
            for codes, name in self._code_tables.items()
        ]
        places = {code: place for place, code in enumerate(self._kinds, 1)}
        globals_.append(f"PLACES = {_table(lambda code: places.get(code, 0))}")
        source = "\n".join([*globals_, "", "", "@compiled", *body, "", "", "@compiled", *tiles, ""])
        needs = tuple(self._needs(value) for value in self._values)
        return RowCode(
            source,
            needs,
            tuple(self._functions),
            (*self._windows, FOREVER_MS),
            table_rows["counts"],
            table_rows["sums"],
            table_rows["times"],
            self._sets,
            len(self._kinds) + 1,
        )

    def _needs(self, value: Value) -> int:
        needs = PASS | self._bits[value] if isinstance(value, Function) else 0
        if isinstance(value, EventCode):
            needs = PASS | self._bits[EventCode]
        for part in aggregates(value):
            if _is_of_tiles(part):
                needs |= self._bits[part]
            else:
                needs |= PASS | self._bits.get(self._cells[_Total.of(part)].block, 0)
        return needs

    def _body(self) -> list[str]:
        simple, at_span, at_end, codes = [], {}, [], []
        remembered: dict[Aggregate, str] = {}
        for position, value in enumerate(self._values):
            spans = {_end_of(part) for part in aggregates(value) if not _is_of_tiles(part)}
            if isinstance(value, Function):
                call = f"function_{self._functions.index(value)}(records, order[:size], {_OF_USER})"
                at_end += [f"if needs & {self._bits[value]}:", f"    row[{position}] = finite(float({call}))"]
            elif isinstance(value, EventCode):
                codes.append((position, value.back))
            elif not spans:
                store = self._store(position, value, {})
                of_tiles = self._needs(value)
                simple += [f"if needs & {of_tiles}:", f"    {store}"] if of_tiles else [store]
            elif len(spans) == 1 and _END not in spans:
                at_span.setdefault(spans.pop(), []).append(self._store(position, value, {}))
            else:
                for part in aggregates(value):
                    if part.over.name in _LEFT_ON_THE_WAY and part not in remembered:
                        remembered[part] = f"s{len(remembered)}"
                at_end.append(self._store(position, value, remembered))
        if codes:
            places, backs = zip(*codes)
            self._globals = [f"CODE_PLACES = np.array({list(places)})", f"CODE_BACKS = np.array({list(backs)})"]
            at_end += [
                f"if needs & {self._bits[EventCode]}:",
                f"    for number in range({len(codes)}):",
                "        row[CODE_PLACES[number]] = event_code(records, order, size, CODE_BACKS[number])",
            ]
        for part, name in remembered.items():
            at_span.setdefault(part.over, []).insert(0, f"{name} = {self._result(part)}")
        loop = self._loop(at_span)
        head = [
            "def compute_row(",
            "    row, records, start, end, lifetime_events, first_seen_ms, profile, tiles, slot, needs, generation,",
            "    order, sets, counts, sums, times,",
            "):",
        ]
        before = ["scored = event = records[end - 1]", "now = scored.time_ms"]
        before += [f"{name} = {_present(column, 'scored')}" for column, name in self._has.items()]
        before += [
            *simple,
            f"if needs & {PASS} == 0:",
            "    return",
            "size = order_by_time(records, start, end, order)",
        ]
        before += [f"{name}[:] = {empty}" for name, empty in (("counts", "0"), ("sums", "0.0"), ("times", "NEVER"))]
        before += [line for cell in self._cells.values() for line in cell.start]
        before += [f"{name} = np.nan" for name in remembered.values()]
        return [*head, *_indented([*before, *loop, *at_end])]

    def _add_to_tiles(self) -> list[str]:
        """The function that adds an event to the tiles in a slot."""
        lines = ["kept = tiles[slot]"] if self._tiles else ["pass"]
        for number, (part, tiles) in enumerate(zip(self._tiles, self._layout.tiles)):
            buckets, newest = f"kept.buckets_{number}", f"kept.newest_{number}"
            cell = f"{buckets}[number % {tiles.count}]"
            add = [f"if {cell} < {_LARGEST_COUNT}:", f"    {cell} += 1"]
            if part.function == "sum":
                add = [f"{cell} += np.float32({_scaled(f'float({_or_nothing(part.column)})', part.column)})"]
            if part.where is not None:
                add = [f"if {self._condition(part.where)}:", *_indented(add)]
            lines += [
                f"number = event.time_ms // {tiles.by_ms}",
                f"{newest} = advance_tiles({buckets}, np.int64({newest}), number)",
                f"if number > {newest} - {tiles.count}:",
                *_indented(add),
            ]
        return ["def add_to_tiles(tiles, slot, event):", *_indented(lines)]

    def _total_of_tiles(self, part: Aggregate) -> str:
        place, by_ms = self._layout.find_tiles(part.text, part.over.by_ms), part.over.by_ms
        newest = f"np.int64(tiles[slot].newest_{place})"
        # As if no more buckets were kept than it covers: the layout of a job may have more than that of the training.
        first = f"max(now // {by_ms}, {newest}) - {part.over.buckets - 1}"
        return f"total_of_tiles(tiles[slot].buckets_{place}, {newest}, {first}, now // {by_ms})"

    def _loop(self, at_span: dict[Span, list[str]]) -> list[str]:
        lines = ["newer_age = ZERO", "window = ZERO"]
        lines += [f"in_session_{number} = True" for number in range(len(self._gaps))]
        lines.append("for index in range(size - 1, -2, -1):  # -1: past the last record, where everything ends")
        lines += _indented(
            [
                "event = records[order[max(index, ZERO)]]",
                "age = now - event.time_ms if index >= 0 else FOREVER",
                "newer = size - 1 - index",
            ]
        )
        leave = []
        for number, length_ms in enumerate(self._windows):
            stores = at_span.get(Span("window", length_ms), ["pass"])
            leave += [f"if window == {number} and age >= {length_ms}:", *_indented([*stores, "window += 1"])]
        if leave:
            first = "age >= WINDOWS[window]"
            lines += _indented([f"if {first}:", *_indented(leave)])
        for number, gap_ms in enumerate(self._gaps):
            stores = at_span.get(Span("session", gap_ms), [])
            lines += _indented(
                [
                    f"if in_session_{number} and (index < 0 or age - newer_age > {gap_ms}):",
                    *_indented([*stores, f"in_session_{number} = False"]),
                ]
            )
        lines += _indented(["if index < 0:", "    break", "newer_age = age", *self._updates()])
        return lines

    def _updates(self) -> list[str]:
        """The updates of all totals, those of the same condition together."""
        grouped: dict[str, dict[tuple, list[list[str]]]] = {}
        for total, cell in self._cells.items():
            if cell.update:
                updates = grouped.setdefault(self._while(total, cell), {}).setdefault(cell.block, [])
                if cell.update not in updates:  # cells of one table row are updated together
                    updates.append(cell.update)
        lines = []
        for condition, blocks in grouped.items():
            inner = []
            for block, updates in blocks.items():
                lines_of_block = [line for update in updates for line in update]
                inner += [f"if needs & {self._bits[block]}:", *_indented(lines_of_block)]
            lines += [f"if {condition}:", *_indented(inner)] if condition else inner
        return lines

    def _while(self, total: _Total, cell: _Cell) -> str:
        """The condition of events that count; empty for all events."""
        if total.base.name == "before":
            return "newer > 0"
        if total.base.name == "earlier_sessions":
            return f"not in_session_{self._gaps.index(total.base.ms)}"
        # Totals in tables share their rows with others, which may last longer: so all of a block last alike.
        spans = set().union(*(other.spans for other in self._cells.values() if other.block == cell.block))
        if _END in spans:
            return ""
        windows = [self._windows.index(span.ms) for span in spans if span.name == "window"]
        parts = [f"in_session_{self._gaps.index(span.ms)}" for span in spans if span.name == "session"]
        return " or ".join([*sorted(parts), *([f"window <= {max(windows)}"] if windows else [])])

    def _store(self, position: int, value: Value, remembered: dict[Aggregate, str]) -> str:
        code = self._value(value, remembered)
        return f"row[{position}] = {f'finite({code})' if _may_overflow(value) else code}"

    def _value(self, value: Value, remembered: dict[Aggregate, str]) -> str:
        match value:
            case Number():
                return repr(value.value)
            case Now():
                return self._of_now(value.column, value.codes)
            case User():
                return USER_FIELDS[value.field][0]
            case Profile():
                return PROFILE_FIELDS[value.field][0]
            case Aggregate() if _is_of_tiles(value):
                return self._total_of_tiles(value)
            case Aggregate():
                return remembered[value] if value in remembered else self._result(value)
        parts = [self._value(part, remembered) for part in value.parts]
        if value.operator in ("+", "-", "*"):
            return f"({parts[0]} {value.operator} {parts[1]})"
        if value.operator == "negate":
            return f"divide({parts[0]}, -1.0)"  # the minus of Python would change the bits of a missing number
        if value.operator == "not":
            return f"opposite({parts[0]})"
        code = parts[0]
        for part in parts[1:]:
            code = f"{_FUNCTIONS[value.operator]}({code}, {part})"
        return code

    def _of_now(self, column: Column, codes: frozenset[int]) -> str:
        stored = column.stored.replace("event.", "scored.")
        if codes:
            return f"float({self._known_codes(codes)}[{stored}])"
        value = _scaled(f"float({stored})", column)
        return value if column.missing in (None, "nan") else f"({value} if {_present(column, 'scored')} else np.nan)"

    def _result(self, aggregate: Aggregate) -> str:
        """The aggregate's value where its span ends."""
        result = self._cells[_Total.of(aggregate)].result
        if (
            aggregate.function in ("count", "since_last")
            and aggregate.where is None
            and aggregate.over.name == "before"
        ):
            result = {"count": "float(size - 1)", "since_last": "since_previous(records, order, size, now)"}[
                aggregate.function
            ]
        needed = [self._has_now(column) for column in sorted(_of_now_in(aggregate.where), key=_name)]
        return f"({result} if {' and '.join(needed)} else np.nan)" if needed else result

    def _has_now(self, column: Column) -> str:
        return self._has.setdefault(column, f"has_{column.name}")

    def _cell(self, total: _Total, name: str) -> _Cell:
        """The code of a total whose variables begin with `name`."""
        part, is_over_all = total.aggregate, total.base == _END
        for column in _of_now_in(part.where):
            self._has_now(column)
        kinds = _kind_in_table(part)
        if kinds:
            return self._table_cell(total, kinds)
        if part.where is None and part.column is None and part.function in ("count", "since_first") and is_over_all:
            return _Cell([], [], "float(newer)" if part.function == "count" else "newer_age / 1000.0")
        if part.where is None and part.function in ("count", "since_last") and total.base.name == "before":
            return _Cell([], [], "")  # known without a total: see _result
        column = part.column
        start, update, result = self._kept(part, column, name)
        where = [] if part.where is None else [self._condition(part.where)]
        if column is not None and column.missing is not None and part.function not in ("sum", "distinct"):
            where.append(_present(column, "event"))
        if where:
            update = [f"if {' and '.join(where)}:", *_indented(update)]
        columns = frozenset({part.column, *_columns_in(part.where)} - {None})
        return _Cell(start, update, result, block=(total.base, columns, part.function == "distinct" and name))

    def _table_cell(self, total: _Total, kinds: Sequence[int]) -> _Cell:
        """A total by kind of event: many features count kinds, and one addition serves them all."""
        part = total.aggregate
        table = {"count": "counts", "sum": "sums", "since_last": "times"}[part.function]
        key = (part.column, total.base)
        row = self._tables[table].setdefault(key, len(self._tables[table]))
        cells = [f"{table}[{row}, {self._kinds.index(code) + 1}]" for code in kinds]
        place = f"{table}[{row}, PLACES[event.kind]]"
        if table == "times":
            return _Cell(
                [], [f"{place} = max({place}, event.time_ms)"], f"seconds_since({cells[0]}, now)", block=(table, key)
            )
        if table == "counts":
            return _Cell([], [f"{place} += 1"], f"float({' + '.join(cells)})", block=(table, key))
        column = part.column
        return _Cell([], [f"{place} += {_or_nothing(column)}"], _scaled(cells[0], column), block=(table, key))

    def _kept(self, part: Aggregate, column: Column | None, name: str) -> tuple[list[str], list[str], str]:
        """What starts and updates a total, and its result."""
        stored = None if column is None else column.stored
        match part.function:
            case "count":
                return [f"{name} = ZERO"], [f"{name} += 1"], f"float({name})"
            case "sum" if column.is_integer:
                return (
                    [f"{name} = ZERO"],
                    [f"{name} += np.int64({_or_nothing(column)})"],
                    _scaled(f"float({name})", column),
                )
            case "sum":
                return [f"{name} = 0.0"], [f"{name} += {_or_nothing(column)}"], _scaled(name, column)
            case "min" | "max":
                sign = "" if part.function == "min" else "-"
                result = _scaled(f"({sign}{name} if {name} != np.inf else np.nan)", column)
                return [f"{name} = np.inf"], [f"{name} = min({name}, {sign}float({stored}))"], result
            case "last":
                known = f"{self._known_codes(part.codes)}[{stored}]" if part.codes else stored
                update = [f"if np.isnan({name}):", f"    {name} = float({known})"]
                return [f"{name} = np.nan"], update, _scaled(name, column)
            case "since_last":
                update = [f"if {name} == NEVER:", f"    {name} = event.time_ms"]
                return [f"{name} = np.int64(NEVER)"], update, f"seconds_since({name}, now)"
            case "since_first":
                return [f"{name} = np.int64(NEVER)"], [f"{name} = event.time_ms"], f"seconds_since({name}, now)"
            case "distinct":
                self._sets += 1
                identifier = f"({self._known_codes(part.codes)}[{stored}] + 1)" if part.codes else stored
                update = f"{name} += count_if_new(sets[{self._sets - 1}], generation, {identifier})"
                return [f"{name} = ZERO"], [update], f"float({name})"
            case "decay":
                what = "" if column is None else f"float({stored}) * "
                update = f"{name} += {what}np.exp2(-(now - event.time_ms) / {float(part.half_life_ms)})"
                return [f"{name} = 0.0"], [update], name if column is None else _scaled(name, column)
            case "trend":  # https://en.wikipedia.org/wiki/Algorithms_for_calculating_variance#Online
                names = [f"{name}_{part}" for part in ("n", "t", "x", "tt", "tx")]
                n, t, x, tt, tx = names
                update = [
                    f"if {n} == 0.0:",
                    f"    {name}_0 = event.time_ms",
                    f"hours = (event.time_ms - {name}_0) / 3600000.0",
                    f"{n} += 1.0",
                    f"{name}_d = hours - {t}",
                    f"{t} += {name}_d / {n}",
                    f"{x} += (float({stored}) - {x}) / {n}",
                    f"{tt} += {name}_d * (hours - {t})",
                    f"{tx} += {name}_d * (float({stored}) - {x})",
                ]
                return (
                    [*(f"{each} = 0.0" for each in names), f"{name}_0 = now"],
                    update,
                    _scaled(f"divide({tx}, {tt})", column),
                )
        raise AssertionError(part.function)

    def _condition(self, where: Condition) -> str:
        match where:
            case All() | Any():
                word = " and " if isinstance(where, All) else " or "
                return f"({word.join(self._condition(part) for part in where.parts)})"
            case Not():
                return f"(not {self._condition(where.part)})"
            case Present():
                return _present(where.column, "event")
            case IsIn():
                stored = where.column.stored
                if len(where.codes) <= 2:
                    return f"({' or '.join(f'{stored} == {code}' for code in sorted(where.codes))})"
                return f"{self._lookup(where.codes)}[{stored}]"
        column = where.column
        left = f"{self._known_codes(where.codes)}[{column.stored}]" if where.codes else column.stored
        right = left.replace("event.", "scored.") if where.with_now else _constant(where.number, column)
        compared = f"{left} {where.operator} {right}"
        # A missing identifier equals no other; comparisons with NaN are false, but for !=.
        is_sentinel = column.type == "number" and column.missing not in (None, "nan")
        if is_sentinel or where.operator == "!=" and column.missing is not None:
            return f"({_present(column, 'event')} and {compared})"
        return f"({compared})"

    def _lookup(self, codes: frozenset[int]) -> str:
        return self._lookups.setdefault(codes, f"IS_IN_{len(self._lookups)}")

    def _known_codes(self, codes: frozenset[int]) -> str:
        return self._code_tables.setdefault(codes, f"KNOWN_{len(self._code_tables)}")


def _is_of_tiles(aggregate: Aggregate) -> bool:
    return aggregate.over.name == "tiles"


def _of_tiles(tiles: Tiles, layout: EventLayout) -> Aggregate:
    """What tiles total."""
    return Reader(layout.kinds, columns_of(layout), 0).read(tiles.text)


def _end_of(aggregate: Aggregate) -> Span:
    return aggregate.over if aggregate.over.name in _LEFT_ON_THE_WAY else _END


def _kind_in_table(part: Aggregate) -> list[int]:
    """The kinds of events that an aggregate is of, if it is only by them and is kept in a table by kind."""
    if not isinstance(part.where, IsIn) or part.where.column.name != "kind":
        return []
    is_countable = part.function == "count" or part.function in ("sum", "since_last") and len(part.where.codes) == 1
    return sorted(part.where.codes) if is_countable and len(part.where.codes) <= 8 else []


def _of_now_in(where: Condition | None) -> set[Column]:
    """Columns of a condition that the scored event may be missing, and without which there is no result."""
    match where:
        case All() | Any():
            return set().union(*map(_of_now_in, where.parts))
        case Not():
            return _of_now_in(where.part)
        case Compared(with_now=True) if where.column.missing is not None:
            return {where.column}
    return set()


def _columns_in(where: Condition | None) -> set[Column]:
    match where:
        case None:
            return set()
        case All() | Any():
            return set().union(*map(_columns_in, where.parts))
        case Not():
            return _columns_in(where.part)
    return {where.column}


def _present(column: Column, event: str) -> str:
    stored = column.stored.replace("event.", f"{event}.")
    if column.missing is None:
        return "True"
    if column.names:  # codes without a name are unknown ones
        return f"(0 < {stored} < {len(column.names)})"
    return f"(not np.isnan({stored}))" if column.missing == "nan" else f"({stored} != {column.missing})"


def _or_nothing(column: Column) -> str:
    """What an event adds to a sum."""
    if column.missing is None:
        return column.stored
    nothing = "0" if column.is_integer else "0.0"
    return f"{column.stored} if {_present(column, 'event')} else {nothing}"


def _name(column: Column) -> str:
    return column.name


def _scaled(code: str, column: Column) -> str:
    return code if column.scale == 1 else f"({code} / {float(column.scale)})"


def _constant(number: float, column: Column) -> str:
    """A number as the column stores it: 19.99 is not exact, and must equal a value of 19.99."""
    scaled = max(-(2.0**63), min(2.0**63, number * column.scale))  # no column holds more
    return repr(round(scaled, 9)) if column.is_integer else f"np.float32({number!r})"


def _may_overflow(value: Value) -> bool:
    """Whether a value may not fit float32: models refuse infinity."""
    match value:
        case Number():
            return abs(value.value) >= 2.0**127
        case Operation(operator="/" | "*" | "+" | "-"):
            return True
        case Operation(operator="least" | "greatest" | "negate"):
            return any(map(_may_overflow, value.parts))
        case Aggregate():
            return (
                value.function in ("sum", "decay", "trend") and value.column is not None and not value.column.is_integer
            )
    return False


def _table(value) -> str:
    return f"np.array({[int(value(code)) for code in range(256)]}, np.uint8)"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]
