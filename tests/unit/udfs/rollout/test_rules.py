import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.profiles import MEMBERSHIP_TIERS, country_code
from udfs.rollout.rules import Rule, RuleError, check_rule, matches, rule_features

NAMES = ("since_cart_add_s", "cart_adds_30m", "device", "country", "membership_tier", "event_kind")
NAN = np.nan
ROWS = np.array(
    [
        [60, 1, 2, country_code("DE"), 4, 6],
        [1800, 0, 1, country_code("NO"), 2, 0],
        [1801, 0, 0, 0, 0, 9],
        [NAN, 0, 3, country_code("FR"), 1, 2],
    ],
    np.float32,
)


def rows(rule: dict) -> list[int]:
    """The rows of ROWS that a rule holds for."""
    return np.flatnonzero(matches(msgspec.convert(rule, Rule), NAMES, ROWS)).tolist()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("since_cart_add_s <= 1800", [0, 1]),
        ("since_cart_add_s < 1800", [0]),
        ("since_cart_add_s > 1800", [2]),
        ("since_cart_add_s >= 1.8e3", [1, 2]),
        ("since_cart_add_s == 60", [0]),
        ("cart_adds_30m not in [1, 2]", [1, 2, 3]),
        ("device == mobile", [0]),
        ("device in [mobile, tablet]", [0, 3]),
        ("country in [DE, NO]", [0, 1]),
        ("membership_tier >= basic", [0, 1]),
        ("event_kind == purchase", [2]),
    ],
)
def test_a_condition_holds_where_its_comparison_does(condition, expected):
    assert rows({"all": [condition]}) == expected


@pytest.mark.parametrize(
    "condition",
    [
        *(f"since_cart_add_s {operator} 60" for operator in ("<", "<=", ">", ">=", "==", "!=")),
        "since_cart_add_s not in [60]",
    ],
)
def test_a_missing_value_matches_no_condition(condition):
    assert 3 not in rows({"all": [condition]})


@pytest.mark.parametrize("condition", ["country != DE", "country not in [DE]", "device != tablet"])
def test_an_unknown_code_is_missing(condition):
    assert 2 not in rows({"all": [condition]})


def test_an_unknown_tier_is_not_below_the_others():
    assert rows({"all": ["membership_tier < gold"]}) == [1, 3]


def test_unknown_can_be_asked_for_by_name():
    assert rows({"all": ["country == unknown"]}) == [2]
    assert rows({"all": ["device in [unknown, tablet]"]}) == [2, 3]


def test_an_event_that_is_not_listed_is_none_of_those_that_are():
    assert rows({"all": ["event_kind != purchase"]}) == [0, 1, 3]


def test_rules_nest():
    rule = {"any": ["event_kind == purchase", {"all": ["device == mobile", "country == DE"]}]}
    assert rows(rule) == [0, 2]


@given(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), max_size=20), st.floats(-100, 100, width=32))
def test_any_and_all_join_what_the_conditions_say_row_by_row(values, bound):
    features = np.array(values, np.float32).reshape(-1, 2)
    conditions = (f"value >= {bound!r}", f"scroll < {bound!r}")
    expected = [(value >= bound, scroll < bound) for value, scroll in features]
    for join, of in (("any", any), ("all", all)):
        found = matches(Rule(**{join: conditions}), ("value", "scroll"), features)
        assert found.tolist() == [of(held) for held in expected]


def test_a_rule_tells_the_features_that_it_needs_once_each():
    rule = Rule(any=("value > 1", Rule(all=("scroll > 2", "value > 3"))))
    assert rule_features(rule) == ("value", "scroll")


def test_a_feature_that_was_not_computed_is_named():
    with pytest.raises(RuleError, match="feature scroll is not among the 6"):
        matches(Rule(all=("scroll > 1",)), NAMES, ROWS)


def test_a_rule_without_rows_has_no_answers():
    assert matches(Rule(all=("value > 1",)), ("value",), np.empty((0, 1), np.float32)).shape == (0,)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("cart", "expected FEATURE OPERATOR VALUE, for example cart_adds_30m >= 1"),
        ("carts >= 1", "unknown feature carts; `intent features list` lists all features"),
        ("value >= much", "expected a number, got much"),
        ("value >= nan", "expected a number, got nan"),
        ("value in 1", "in requires a list such as [1, 2] (got 1)"),
        ("value in []", "expected a number, got "),
        ("device == phone", "expected one of unknown, desktop, mobile, tablet, smart tv, got phone"),
        ("device >= mobile", "values of device have no order; use ==, !=, in or not in instead of >="),
        ("country > DE", "values of country have no order; use ==, !=, in or not in instead of >"),
        ("country == Germany", "expected two capital letters (ISO 3166) or unknown, got Germany"),
        ("membership_tier > unknown", "unknown can only be used with == and in (got >)"),
    ],
)
def test_a_condition_that_cannot_be_read_is_refused_by_rule_and_value(condition, message):
    with pytest.raises(RuleError) as caught:
        check_rule(Rule(any=("value > 1", Rule(all=(condition,)))))
    assert str(caught.value) == f"condition {condition!r}: {message}"


@pytest.mark.parametrize("rule", [Rule(), Rule(all=("value > 1",), any=("value > 1",))])
def test_a_rule_has_either_all_or_any(rule):
    with pytest.raises(RuleError, match="expected exactly one of all and any, got (neither|both)"):
        check_rule(rule)


def test_a_higher_tier_has_a_higher_code():
    matrix = np.arange(len(MEMBERSHIP_TIERS), dtype=np.float32).reshape(-1, 1)
    found = matches(Rule(all=("membership_tier >= gold",)), ("membership_tier",), matrix)
    assert [tier for tier, held in zip(MEMBERSHIP_TIERS, found) if held] == ["gold", "platinum"]
