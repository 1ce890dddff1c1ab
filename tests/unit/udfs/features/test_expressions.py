"""Texts of features: what is read, and what is refused with which message. What they compute is tested elsewhere."""

import ast
import pickle
import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udfs.contracts.event_layout import OwnColumn
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.features.columns import COLUMNS, own_column
from udfs.features.expressions import (
    AGGREGATES,
    Aggregate,
    All,
    Any,
    Compared,
    EventCode,
    ExpressionError,
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
    duration_of,
    normalized,
)

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
OWN = (
    OwnColumn("plan", "category", "plan", 1, names=("free", "gold plus", "open 24h", "it's")),
    OwnColumn("margin", "number", "margin", 2, scale=100),
    OwnColumn("brand", "identifier", "brand", 4),
)
COLUMNS_HERE = COLUMNS | {column.name: own_column(column) for column in OWN}
KINDS = {name: code for code, name in enumerate(EVENT_KINDS)} | {"rented": 200}
READER = Reader(KINDS, COLUMNS_HERE, 10 * MINUTE)

NUMBERS = "value, scroll, engagement, hour, weekday, margin"
ANYTHING_ELSE = "expected a number, now., user. or profile. and a field, an aggregate, or arithmetic of these"
CONDITION = (
    "a condition compares a column of each event with a value, as in kind == add_to_cart or value > 10; join several "
    "with and, or, not"
)
DURATION = "expected a duration above 0, such as 90s, 30m, 24h or 7d, and of at most 100 years"
OVER = "over= takes a duration, such as 30m, or session, history, before, earlier_sessions"
LIST = "`in` takes a category and a list of its names, as in kind in (view_item, add_to_cart)"
FUNCTIONS = ", ".join([*AGGREGATES, "least", "greatest"])


def read(text: str):
    return READER.read(text)


def message(text: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 +", "not an expression: invalid syntax, at 1 +"),
        ("o\\\ni", "not an expression: invalid syntax, at o\\ i"),
        ("now.scroll; now.value", "not an expression: invalid syntax, at ; now.value"),
        ("count(over=1.5h)", "not an expression: invalid decimal literal, at 5h)"),
        ("now.scroll # percent", "not an expression: comments are not allowed"),
        ("True", "True: a number is expected"),
        ("'5' + 1", "'5': a number is expected"),
        ("30m", "30m: a number is expected"),
        ("1e400", "1e309: a number must be finite"),
        ("9" * 400, "a number must be finite: there is one of more than 308 digits"),
        ("count(value > " + "9" * 400 + ")", "a number must be finite: there is one of more than 308 digits"),
        ("1 " * 5_001, "an expression has at most 10,000 characters (got 10,002): make several features of it"),
        ("-" * 101 + "1", "nested more than 100 deep: make several features of it"),
        (
            "value / 2",
            "value: value is a column of many events: write now.value for the event being scored, or an aggregate such "
            "as last(value)",
        ),
        ("view_item", f"view_item: {ANYTHING_ELSE}"),
        ("now.scroll ** 2", f"now.scroll ** 2: {ANYTHING_ELSE}"),
        ("1 < now.scroll < 3", f"1 < now.scroll < 3: {ANYTHING_ELSE}"),
        ("users.known", "users.known: unknown name users; did you mean user?"),
        ("me.known", "me.known: unknown name me; expected one of now, user, profile"),
        ("now.scrol", "now.scrol: now has no field scrol; did you mean scroll?"),
        ("profile.ages_band", "profile.ages_band: profile has no field ages_band; did you mean age_band?"),
        (
            "user.x",
            "user.x: user has no field x; expected one of lifetime_events, history_events, since_first_seen, "
            "since_first_kept",
        ),
        (
            "now.item",
            "now.item: item is an identifier, not a number; compare it, as in count(item == now.item)",
        ),
        ("least(1)", "least(1): least takes two or more numbers"),
        ("greatest(1, 2, over=30m)", "greatest(1, 2, over=30m): greatest takes two or more numbers"),
        ("counts()", "counts(): unknown function counts; did you mean count?"),
        ("exec(1)", f"exec(1): unknown function exec; expected one of {FUNCTIONS}"),
        ("sum()", f"sum(): sum takes a column first: {NUMBERS}"),
        ("sum(value + 1)", f"sum(value + 1): sum takes a column first: {NUMBERS}"),
        ("mean(kind)", f"kind: kind is a category; mean takes a column first: {NUMBERS}"),
        (
            "distinct(value)",
            "value: value is a number; distinct takes a column first: kind, item, category, page, page_type, device, "
            "plan, brand",
        ),
        (
            "last(item)",
            "item: item is an identifier; last takes a column first: kind, value, scroll, engagement, page_type, "
            "device, hour, weekday, plan, margin",
        ),
        ("sum(valu)", "valu: events have no column valu; did you mean value?"),
        ("count(scroll > 1, value > 2)", "value > 2: count takes one condition; join several with `and`"),
        ("count(over=30m, over=1h)", "count(over=30m, over=1h): an argument of count is given twice"),
        ("decay(value)", "decay(value): decay needs half_life=, for example half_life=1h"),
        ("count(half_life=1h)", "count(half_life=1h): count has no argument half_life"),
        ("count(over=forever)", f"forever: {OVER}"),
        ("count(over=30)", f"30: {OVER}"),
        ("count(over=0m)", f"0m: {DURATION}"),
        ("count(over='soon')", f"'soon': {DURATION}"),
        ("count(over=36501d)", f"36501d: {DURATION}"),
        ("decay(half_life=session)", f"session: {DURATION}"),
        ("decay(half_life=99999999999999999999d)", f"99999999999999999999d: {DURATION}"),
        ("count(value)", f"value: {CONDITION}"),
        ("count(1 < value)", f"1 < value: {CONDITION}"),
        ("count(now.value > 1)", f"now.value > 1: {CONDITION}"),
        ("count(0 < value < 3)", f"0 < value < 3: {CONDITION}"),
        ("count(valu > 1)", "valu: events have no column valu; did you mean value?"),
        ("count(kind in purchase)", f"kind in purchase: {LIST}"),
        ("count(value not in (1, 2))", f"value not in (1, 2): {LIST}"),
        ("count(value is 1)", "value is 1: expected one of <, <=, >, >=, ==, !=, in, not in"),
        (
            "count(kind < purchase)",
            "kind < purchase: kind is a category and has no order: use == or != instead of <",
        ),
        (
            "count(item >= now.item)",
            "item >= now.item: item is an identifier and has no order: use == or != instead of >=",
        ),
        (
            "count(item == now.page)",
            "now.page: a column can be compared with the same one of now: now.item",
        ),
        ("count(brand == 5)", "5: brand is an identifier and can only be compared with now.brand"),
        ("count(value > now.value * 2)", "now.value * 2: value is compared with a number or with now.value"),
        ("count(kind == purchased)", "purchased: kind has no purchased; did you mean purchase?"),
        ("now.device == 2", "2: device is a category: expected one of unknown, desktop, mobile, tablet, smart tv"),
        ("now.kind != now.kind", f"now.kind: kind is a category: expected one of {', '.join(KINDS)}"),
        ("mean(value, over=7d, by=1d)", "mean(value, over=7d, by=1d): by= goes with count(...) and sum(...) only"),
        ("count(by=1d)", "1d: by= needs over= with a duration, as in over=30d, by=1d"),
        ("count(over=session, by=1d)", "1d: by= needs over= with a duration, as in over=30d, by=1d"),
        ("count(over=7d, by=session)", f"session: {DURATION}"),
        (
            "count(item == now.item, over=7d, by=1d)",
            "count(item == now.item, over=7d, by=1d): with by=, a condition can't compare with now: totals are kept "
            "before now is known",
        ),
        ("count(over=90m, by=1h)", "count(over=90m, by=1h): over= must be 1 to 400 times by="),
        ("count(over=401d, by=1d)", "count(over=401d, by=1d): over= must be 1 to 400 times by="),
        ("count(over=60s, by=30s)", "count(over=60s, by=30s): by= must be at least 1m"),
        ("count(plan == 1)", "1: plan is a category: expected one of unknown, free, gold plus, open 24h, it's"),
        (
            "count(device in [mobile, fax])",
            "fax: device has no fax; expected one of unknown, desktop, mobile, tablet, smart tv",
        ),
        ("event()", "event(): event takes how many events before the scored one it is, from 0 to 255"),
        ("event(256)", "event(256): event takes how many events before the scored one it is, from 0 to 255"),
        ("event(True)", "event(True): event takes how many events before the scored one it is, from 0 to 255"),
        ("1 + event(1)", "event(1): the code of an event is an expression of its own, not part of another one"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_part_the_rule_and_a_remedy(text, expected):
    assert message(text) == expected


HISTORY, BEFORE = Span("history"), Span("before")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-1.5", Number(-1.5)),
        ("0x10", Number(16)),
        ("-now.value", Operation("negate", (Now(COLUMNS["value"]),))),
        ("user.lifetime_events", User("lifetime_events")),
        ("profile.country", Profile("country")),
        ("1 + 2 * 3", Operation("+", (Number(1), Operation("*", (Number(2), Number(3)))))),
        ("1 or 2 and 3 or 4", Operation("or", (Number(1), Operation("and", (Number(2), Number(3))), Number(4)))),
        ("not 1 <= 2", Operation("not", (Operation("<=", (Number(1), Number(2))),))),
        ("least(1, 2, 3)", Operation("least", (Number(1), Number(2), Number(3)))),
        ("now.kind", Now(COLUMNS["kind"], frozenset(KINDS.values()))),
        ("now.kind == purchase", Operation("==", (Now(COLUMNS["kind"], frozenset(KINDS.values())), Number(9)))),
        ("now.plan != 'gold plus'", Operation("!=", (Now(COLUMNS_HERE["plan"], frozenset(range(5))), Number(2)))),
        ("count(over=7d, by=1d)", Aggregate("count", Span("tiles", 7 * DAY, DAY), text="count()")),
        ("now.plan", Now(COLUMNS_HERE["plan"], frozenset(range(5)))),
        ("count()", Aggregate("count", HISTORY)),
        ("count(over=history)", Aggregate("count", HISTORY)),
        ("count(over=before)", Aggregate("count", BEFORE)),
        ("count(over=session)", Aggregate("count", Span("session", 10 * MINUTE))),
        ("count(over=earlier_sessions)", Aggregate("count", Span("earlier_sessions", 10 * MINUTE))),
        ("since_last(over=7d)", Aggregate("since_last", Span("window", 7 * DAY))),
        ("sum(margin)", Aggregate("sum", HISTORY, COLUMNS_HERE["margin"])),
        ("decay(half_life=1h)", Aggregate("decay", HISTORY, half_life_ms=HOUR)),
        ("decay(value, half_life=1h)", Aggregate("decay", HISTORY, COLUMNS["value"], half_life_ms=HOUR)),
        ("last(device)", Aggregate("last", HISTORY, COLUMNS["device"], codes=frozenset(range(5)))),
        (
            "mean(scroll)",
            Operation("/", (Aggregate("sum", HISTORY, COLUMNS["scroll"]), Aggregate("count", HISTORY))),
        ),
        (
            "mean(value)",
            Operation(
                "/",
                (
                    Aggregate("sum", HISTORY, COLUMNS["value"]),
                    Aggregate("count", HISTORY, where=Present(COLUMNS["value"])),
                ),
            ),
        ),
        ("event(0)", EventCode(0)),
        (" event( 255 ) ", EventCode(255)),
    ],
)
def test_an_expression_is_read_as_a_tree(text, expected):
    assert read(text) == expected


WITHOUT_NAME = frozenset(range(256)) - set(KINDS.values())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("kind == rented", IsIn(COLUMNS["kind"], frozenset({200}))),
        ("kind == 'rented'", IsIn(COLUMNS["kind"], frozenset({200}))),
        ("kind != purchase", Not(IsIn(COLUMNS["kind"], frozenset({9})))),
        ("kind in (page_view, 'search')", IsIn(COLUMNS["kind"], frozenset({1, 5}))),
        ("kind not in [page_view]", Not(IsIn(COLUMNS["kind"], frozenset({1})))),
        ("kind in ()", IsIn(COLUMNS["kind"], frozenset())),
        ("kind == other", IsIn(COLUMNS["kind"], WITHOUT_NAME | {0})),
        ("kind in (other, purchase)", IsIn(COLUMNS["kind"], WITHOUT_NAME | {0, 9})),
        ("plan == unknown", IsIn(COLUMNS_HERE["plan"], frozenset(range(256)) - {1, 2, 3, 4})),
        ('plan == "gold plus"', IsIn(COLUMNS_HERE["plan"], frozenset({2}))),
        ("plan == 'open 24h'", IsIn(COLUMNS_HERE["plan"], frozenset({3}))),
        ('plan == "it\'s"', IsIn(COLUMNS_HERE["plan"], frozenset({4}))),
        ("value >= -1.5", Compared(COLUMNS["value"], ">=", -1.5)),
        ("value != now.value", Compared(COLUMNS["value"], "!=", with_now=True)),
        ("brand == now.brand", Compared(COLUMNS_HERE["brand"], "==", with_now=True)),
        (
            "not (scroll > 1 or hour == 2) and weekday < 3",
            All(
                (
                    Not(Any((Compared(COLUMNS["scroll"], ">", 1), Compared(COLUMNS["hour"], "==", 2)))),
                    Compared(COLUMNS["weekday"], "<", 3),
                )
            ),
        ),
    ],
)
def test_a_condition_is_read_as_a_tree(condition, expected):
    assert read(f"count({condition})") == Aggregate("count", HISTORY, where=expected)


@pytest.mark.parametrize(
    "duration", ["30m", "30min", "1800s", "1800000ms", "030m", "'30m'", '"30min"', "   30m", "(30m)"]
)
def test_a_length_of_time_can_be_written_in_any_unit(duration):
    assert read(f"count(over={duration})") == Aggregate("count", Span("window", 30 * MINUTE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1ms", 1),
        ("90s", 90_000),
        ("5m", 5 * MINUTE),
        ("5min", 5 * MINUTE),
        ("24 h", DAY),
        ("7d", 7 * DAY),
    ],
)
def test_durations_of_settings_and_expressions_are_the_same(text, expected):
    assert duration_of(text) == expected


@pytest.mark.parametrize("text", ["count(over = 30 m)", "count(over=30M)", "count(over=m)", "count(over=-30m)"])
def test_what_only_looks_like_a_duration_is_refused(text):
    message(text)


@pytest.mark.parametrize(
    ("written", "otherwise"),
    [
        ("now.value/2+1", "( now.value / 2 ) + 1"),
        ("count(kind==purchase,over=30m)", "count( kind == purchase,  over = 30m, )"),
        ("count(kind in (search, click))", "count((kind in (search,click)))"),
        ("1e6 * now.value", "1000000.0*now.value"),
        ("count(kind == 'search')", 'count(kind == "search")'),
        ("1 or (2 and 3)", "1 or 2 and 3"),
    ],
)
def test_an_expression_written_differently_is_normalized_to_the_same(written, otherwise):
    assert normalized(written) == normalized(otherwise)
    assert read(written) == read(otherwise) == read(normalized(written))


@pytest.mark.parametrize(
    ("one", "other"), [("1 - (2 - 3)", "1 - 2 - 3"), ("count(over=30m)", "count(over=31m)"), ("1", "-1")]
)
def test_another_expression_is_normalized_to_something_else(one, other):
    assert normalized(one) != normalized(other)


def test_a_tree_is_the_same_in_another_process():
    tree = read("least(count(item == now.item, over=30m), rank(value), last(plan), 0.1)")
    assert pickle.loads(pickle.dumps(tree)) == tree
    assert hash(pickle.loads(pickle.dumps(tree))) == hash(tree)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "\0",
        "\ud800",
        "__import__('os').system('false')",
        "__import__('os')",
        "now.__class__",
        "now.value.__class__",
        "user.lifetime_events.real",
        "().__class__.__bases__[0].__subclasses__()",
        "count.__globals__",
        "count(kind == __import__('os'))",
        "count(kind in [x for x in (1).__class__.__mro__])",
        "count(over=open('/etc/passwd'))",
        "count(*[1])",
        "count(**{'over': 1})",
        "least(*[1, 2])",
        "(lambda: 1)()",
        "lambda: 1",
        "f'{now.value}'",
        "least(1, f'{1}')",
        """f'''{'"\""' "'"}'''""",  # Python reads it, but can't write it
        "now.value[0]",
        "[1, 2][0]",
        "{1: 2}",
        "{1}",
        "(1, 2)",
        "[i for i in range(9)]",
        "(yield)",
        "await x",
        "(x := 1)",
        "1 if now.value else 2",
        "print(1)",
        "exec('x')",
        "x = 1",
        "import os",
        "1; import os",
        "...",
        "None",
        "b'1'",
        "1j",
        "1 @ 2",
        "1 // 2",
        "1 % 2",
        "2 ** 99999",
        "1 << 99999",
        "~1",
        "+1",
        "now is user",
        "count(value == 9 ** 9 ** 9)",
        "count(value == 'a' * 10 ** 9)",
        "0x" + "f" * 3_900,
        "count(value == 0x" + "f" * 3_900 + ")",
        "count(kind == 0x" + "f" * 3_900 + ")",
        "1" * 5_000,
        "1e" + "9" * 3_000,
        "count(over=" + "9" * 3_000 + "d)",
        "x" * 1_000_000,
        "1" + " + 1" * 100_000,
        "1" + " or 1" * 100_000,
        "(" * 1_000_000,
        "(" * 150 + "value" + ")" * 150,
        "[" * 10_000 + "]" * 10_000,
        "-" * 100_000 + "1",
        "not " * 100_000 + "1",
        "count(" + "not " * 100_000 + "kind == search)",
        "count(" + "not " * 300 + "kind == search)",
        "least(1, " * 150 + "1" + ")" * 150,
        "least(" + ", ".join(["1"] * 200) + ")",
        "now" + ".value" * 10_000,
        "now" + "[0]" * 10_000,
        "now" + "()" * 10_000,
        "x" + " if 1 else x" * 10_000,
        "lambda: " * 5_000 + "1",
    ],
    ids=lambda text: re.sub(r"[^ -~]", "?", text[:60]),
)
def test_hostile_text_is_refused_and_never_evaluated(text):
    message(text)


def test_a_number_up_to_the_largest_is_read():
    assert read("1" + "0" * 308) == Number(1e308)
    assert read("1.7976931348623157e308") == Number(1.7976931348623157e308)


@pytest.mark.parametrize("text", ["now.value" + " + 1" * 95, "least(" + ", ".join(["now.value"] * 95) + ")"])
def test_what_is_nested_less_than_a_hundred_deep_is_read(text):
    assert isinstance(read(text), Operation)


def test_a_condition_may_list_all_names_of_a_category():
    named = {name: code for name, code in KINDS.items() if name != "other"}
    names = ", ".join([*named] * 20)
    assert read(f"count(kind in ({names}))").where.codes == set(named.values())


def only_ever_refused(text: str) -> None:
    with suppress(ExpressionError):
        assert read(text) == read(normalized(text))


@given(st.text())
@example("ｎｏｗ.value")
def test_any_text_is_read_or_refused(text):
    only_ever_refused(text)


WORDS = """
    now . value kind scroll item plan user profile count ( ) ( ) sum mean rank trend decay last distinct least , ,
    over= half_life= 30m 7d 0s session before == != < in not and or + - * / 1 0.5 1e6 purchase other "gold plus" ' [ ]
    { } : lambda if else f" " # @ _ .. now.value now.kind now.item kind== count( value> over=30m)
"""
TOKENS = st.lists(st.sampled_from(WORDS.split()), max_size=12)


@given(TOKENS.map("".join) | TOKENS.map(" ".join))
def test_any_text_of_known_words_is_read_or_refused(text):
    only_ever_refused(text)


@given(
    st.recursive(
        st.sampled_from(["now.value", "1", "count()"]),
        lambda part: st.tuples(part, st.sampled_from("+-*/<"), part).map("({0[0]} {0[1]} {0[2]})".format),
    )
)
def test_arithmetic_is_read_as_python_reads_it(text):
    def operators(node):
        if isinstance(node, Operation):
            return [node.operator, *map(operators, node.parts)]
        return "leaf"

    def of_python(node):
        match node:
            case (
                ast.BinOp(left=left, op=operator, right=right)
                | ast.Compare(left=left, ops=[operator], comparators=[right])
            ):
                name = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<"}[type(operator)]
                return [name, of_python(left), of_python(right)]
        return "leaf"

    assert operators(read(text)) == of_python(ast.parse(text, mode="eval").body)
