"""Handwritten rules over features: eligibility, and decisions without a model.

A rule is YAML: `all` or `any` of a list of conditions and further rules. A condition is text, FEATURE OPERATOR VALUE:

    any:
      - cart_adds_30m >= 1
      - all:
          - session_funnel_step >= 2
          - device in [mobile, tablet]

`intent features list` lists the features. The value of a code is written as a name: `membership_tier >= silver`.
A missing value matches no condition; the code for unknown is one, unless `==` or `in` asks for `unknown` by name.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from udfs.contracts.profiles import country_code
from udfs.features.columns import PROFILE_NAMES
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.features.expressions import Profile

_COMPARISONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_LISTS = ("in", "not in")
_CONDITION = re.compile(r"(\w+)\s*(<=|>=|==|!=|<|>|\bnot in\b|\bin\b)\s*(\S.*)")


class RuleError(ValueError):
    """A rule that can't be used; the message is one line that names the condition, what is wrong and the value."""


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A rule, which holds if all parts of `all`, or any part of `any`, hold; it has one of the two."""

    all: Annotated[tuple["Rule | str", ...], Meta(min_length=1)] | None = None
    any: Annotated[tuple["Rule | str", ...], Meta(min_length=1)] | None = None


@dataclass(frozen=True)
class Condition:
    """A parsed condition, FEATURE OPERATOR VALUE."""

    feature: str
    operator: str
    values: tuple[float, ...]
    zero_is_missing: bool


def matches(rule: Rule, names: Sequence[str], features: np.ndarray, declaration: Declaration = STANDARD) -> np.ndarray:
    """Whether a rule holds for each row, bool[n], given features float32[n, k] with NaN for missing, and their k names.

    As a score of 0 or 1 it is a baseline for models. Raises RuleError for a rule that `check_rule` rejects or a feature
    that is not among the names.
    """
    columns = {name: column for column, name in enumerate(names)}
    return _matches(rule, columns, features, declaration)


def check_rule(rule: Rule, declaration: Declaration = STANDARD) -> None:
    """Check a rule. Raises RuleError if it has both or none of `all` and `any`, or if a condition can't be read."""
    for text in _conditions(rule):
        read_condition(text, declaration)


def rule_features(rule: Rule) -> tuple[str, ...]:
    """The features that a rule uses, each once, in the rule's order."""
    return tuple(dict.fromkeys(_split(text)[0] for text in _conditions(rule)))


@lru_cache(maxsize=1024)
def read_condition(text: str, declaration: Declaration = STANDARD) -> Condition:
    """Read FEATURE OPERATOR VALUE, about a feature of the declaration. Raises RuleError.

    >>> read_condition("cart_adds_30m >= 1")
    Condition(feature='cart_adds_30m', operator='>=', values=(1.0,), zero_is_missing=False)
    """
    feature, operator, value = _split(text)
    if feature not in declaration:
        raise RuleError(f"condition {text!r}: unknown feature {feature}; `intent features list` lists all features")
    if operator in _COMPARISONS and _has_no_order(feature, declaration):
        raise RuleError(
            f"condition {text!r}: values of {feature} have no order; use ==, !=, in or not in instead of {operator}"
        )
    if operator in _LISTS:
        if not re.fullmatch(r"\[.*\]", value):
            raise RuleError(f"condition {text!r}: {operator} requires a list such as [1, 2] (got {value})")
        written = [part.strip() for part in value[1:-1].split(",")]
    else:
        written = [value]
    values = tuple(_value(feature, part, text, declaration) for part in written)
    zero_is_missing = _zero_is_unknown(feature, declaration)
    if operator not in ("==", "in") and zero_is_missing and 0 in values:
        raise RuleError(f"condition {text!r}: unknown can only be used with == and in (got {operator})")
    return Condition(feature, operator, values, zero_is_missing)


def _matches(rule: Rule, columns: dict[str, int], features: np.ndarray, declaration: Declaration) -> np.ndarray:
    results = [
        _matches(part, columns, features, declaration)
        if isinstance(part, Rule)
        else _holds(read_condition(part, declaration), columns, features)
        for part in _parts(rule)
    ]
    return (np.logical_and if rule.any is None else np.logical_or).reduce(results)


def _holds(condition: Condition, columns: dict[str, int], features: np.ndarray) -> np.ndarray:
    if condition.feature not in columns:
        raise RuleError(f"feature {condition.feature} is not among the {len(columns)} that were computed")
    column = features[:, columns[condition.feature]]
    values = np.array(condition.values, np.float32)
    if condition.operator in ("==", "in"):
        return np.isin(column, values)
    known = column != 0 if condition.zero_is_missing else ~np.isnan(column)
    if condition.operator in ("!=", "not in"):
        return known & ~np.isin(column, values)
    return known & _COMPARISONS[condition.operator](column, values[0])


def _split(text: str) -> tuple[str, str, str]:
    """Feature, operator and value of a condition as they are written. Raises RuleError."""
    match = _CONDITION.fullmatch(text.strip())
    if not match:
        raise RuleError(f"condition {text!r}: expected FEATURE OPERATOR VALUE, for example cart_adds_30m >= 1")
    return match.groups()


def _conditions(rule: Rule) -> Iterator[str]:
    for part in _parts(rule):
        if isinstance(part, Rule):
            yield from _conditions(part)
        else:
            yield part


def _parts(rule: Rule) -> tuple[Rule | str, ...]:
    if (rule.all is None) == (rule.any is None):
        raise RuleError(f"expected exactly one of all and any, got {'neither' if rule.all is None else 'both'}")
    return rule.any if rule.all is None else rule.all


def _value(feature: str, written: str, text: str, declaration: Declaration) -> float:
    """The feature's number for a written value."""
    if declaration[feature].is_country:
        if written != "unknown" and not re.fullmatch("[A-Z]{2}", written):
            raise RuleError(f"condition {text!r}: expected two capital letters (ISO 3166) or unknown, got {written}")
        return float(country_code(None if written == "unknown" else written))
    codes = declaration.vocabulary(feature)
    if codes is not None:
        if written not in codes:
            raise RuleError(f"condition {text!r}: expected one of {', '.join(codes)}, got {written}")
        return float(codes[written])
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RuleError(f"condition {text!r}: expected a number, got {written}")
    return number


def _has_no_order(feature: str, declaration: Declaration) -> bool:
    match declaration[feature].value:
        case Profile(field=field) if field in PROFILE_NAMES:
            return False
    return declaration.is_code(feature)


def _zero_is_unknown(feature: str, declaration: Declaration) -> bool:
    return declaration[feature].is_country or "unknown" in (declaration.vocabulary(feature) or ())
