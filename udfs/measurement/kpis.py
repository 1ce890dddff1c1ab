"""KPIs: ratios of sums over sessions, read from conf/kpis.yaml, for SQL and for data frames."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from msgspec import Meta

from udfs.config.reading import key_and_rule, read_yaml

#: The file of KPIs, in the directory of the settings file.
KPIS_FILE = "kpis.yaml"
#: Counts of events in a session, by the name that a session's record has for them.
COUNTED = {
    "view_promotions": "view_promotion",
    "select_promotions": "select_promotion",
    "add_to_carts": "add_to_cart",
    "begin_checkouts": "begin_checkout",
    "form_starts": "form_start",
    "form_submits": "form_submit",
    "purchases": "purchase",
}
FIELDS = ("events", "pages", *COUNTED, "revenue")
#: Sessions with a numerator, from which on a percentile of theirs says where outliers begin.
LEAST_CAPPING = 100
_SESSIONS, _DURATION, _TOP_SCORE = "sessions", "duration_s", "top_score"
#: What explains differences between users beside their KPIs: how interested the models took them to be.
_COVARIATES = (_TOP_SCORE,)
_COMPARED = re.compile(r"(\w+) (=|>|>=|<|<=) (\d+)")


class KpiError(ValueError):
    """KPIs that can't be used; the message is one line that names the file, the key, the rule and the value."""


class Kpi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A ratio of two sums over sessions; conf/kpis.yaml describes each key."""

    formula: Annotated[str, Meta(min_length=1)]
    numerator: str
    denominator: str
    direction: Literal["up", "down"]
    guardrail: Annotated[float, Meta(ge=0, le=1)] | None = None
    winsorize: Annotated[float, Meta(gt=0.5, lt=1)] | None = None


class Term(NamedTuple):
    """A numerator or denominator, and what a session counts for at most in it; None: without a limit."""

    text: str
    cap: float | None = None


def load_kpis(path: Path) -> dict[str, Kpi]:
    """The KPIs by name. Raises KpiError."""
    content = read_yaml(path, KpiError)
    if not isinstance(content, dict):
        raise KpiError(f"{path}: expected KPIs by name, got {type(content).__name__}")
    return {name: _checked(name, entry, str(path)) for name, entry in content.items()}


def _checked(name: str, entry: object, path: str) -> Kpi:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)):
        raise KpiError(f"{path}: key {name}: the name may only contain a-z, 0-9 and _")
    try:
        kpi = msgspec.convert(entry, Kpi)
    except msgspec.ValidationError as error:
        key, rule = key_and_rule(error)
        raise KpiError(f"{path}: key {'.'.join(filter(None, (name, key)))}: {rule}") from None
    for part in ("numerator", "denominator"):
        try:
            _parse(getattr(kpi, part))
        except KpiError as error:
            raise KpiError(f"{path}: key {name}.{part}: {error}") from None
    if kpi.winsorize is not None and not is_amount(kpi.numerator):
        raise KpiError(
            f"{path}: key {name}.winsorize: the numerator {kpi.numerator!r} is at most 1 per session: leave the key out"
        )
    return kpi


def is_amount(term: str) -> bool:
    """Whether a session can count for more than 1 in a term."""
    field, conditions = _parse(term)
    return not conditions and field != _SESSIONS


def terms_of(kpis: Mapping[str, Kpi], caps: Mapping[str, float]) -> tuple[Term, ...]:
    """The terms of KPIs and the covariates of CUPED, each once, and one for each KPI with a limit.

    What the limits are changes no number of terms, so that a job can go on with its state under others.
    """
    terms = dict.fromkeys(Term(text) for kpi in kpis.values() for text in (kpi.numerator, kpi.denominator))
    capped = [Term(kpi.numerator, caps[name]) for name, kpi in kpis.items() if name in caps]
    return *terms, *capped, *(term for term in map(Term, _COVARIATES) if term not in terms)


def caps_of(kpis: Mapping[str, Kpi], sessions: pd.DataFrame) -> dict[str, float]:
    """What a session counts for at most in the numerator of each winsorised KPI, by the percentile of the sessions.

    Only sessions count in which the numerator is not 0. With fewer than LEAST_CAPPING of them, the KPI has no limit.
    """
    caps = {}
    for name, kpi in kpis.items():
        if kpi.winsorize is not None:
            amounts = values(kpi.numerator, sessions)
            amounts = amounts[amounts != 0]
            if len(amounts) >= LEAST_CAPPING:
                caps[name] = float(np.quantile(amounts, kpi.winsorize, method="lower"))
    return caps


def sql_sum(term: str) -> str:
    """The sum of a numerator or denominator over rows of sessions, as SQL.

    >>> sql_sum("add_to_carts > 0 and purchases = 0")
    'CAST(SUM(CASE WHEN add_to_carts > 0 AND purchases = 0 THEN 1 ELSE 0 END) AS DOUBLE)'
    """
    return f"CAST(SUM({sql_value(term)}) AS DOUBLE)"


def sql_value(term: str) -> str:
    """A session's contribution to a numerator or denominator, as SQL.

    >>> sql_value("duration_s")
    '(ended_at - started_at) / 1000.0'
    """
    field, conditions = _parse(term)
    if conditions:
        met = " AND ".join(" ".join(condition) for condition in conditions)
        return f"CASE WHEN {met} THEN 1 ELSE 0 END"
    values_of = {_SESSIONS: "1", _DURATION: "(ended_at - started_at) / 1000.0", _TOP_SCORE: "COALESCE(top_score, 0)"}
    return values_of.get(field, field)


def sql_term(term: Term) -> str:
    """A session's contribution to a term, as SQL.

    >>> sql_term(Term("revenue", 250.0))
    'LEAST(CAST(revenue AS DOUBLE), 250.0)'
    """
    value = f"CAST({sql_value(term.text)} AS DOUBLE)"
    return value if term.cap is None else f"LEAST({value}, {term.cap!r})"


def term_values(term: Term, sessions: pd.DataFrame) -> np.ndarray:
    """The contribution of each of n sessions to a term, float64[n]."""
    amounts = values(term.text, sessions).to_numpy(float)
    return amounts if term.cap is None else np.minimum(amounts, term.cap)


def values(term: str, sessions: pd.DataFrame) -> pd.Series:
    """The contribution of each of n sessions to a numerator or denominator, float64[n]."""
    field, conditions = _parse(term)
    if conditions:
        met = pd.Series(True, sessions.index)
        for name, operator, number in conditions:
            met &= _OPERATORS[operator](sessions[name], int(number))
        return met.astype(float)
    if field == _SESSIONS:
        return pd.Series(1.0, sessions.index)
    if field == _DURATION:
        return (sessions["ended_at"] - sessions["started_at"]) / 1000
    if field == _TOP_SCORE:  # sessions without scores have none
        return sessions.get(_TOP_SCORE, pd.Series(0.0, sessions.index)).astype(float).fillna(0.0)
    return sessions[field].astype(float)


_OPERATORS = {"=": pd.Series.eq, ">": pd.Series.gt, ">=": pd.Series.ge, "<": pd.Series.lt, "<=": pd.Series.le}


def _parse(term: str) -> tuple[str | None, list[tuple[str, str, str]]]:
    """Parse a term into a field without conditions, or into conditions without a field. Raises KpiError."""
    if term in (*FIELDS, _SESSIONS, _DURATION, *_COVARIATES):
        return term, []
    conditions = []
    for text in term.split(" and "):
        compared = _COMPARED.fullmatch(text.strip())
        if compared is None or compared[1] not in FIELDS:
            terms = ", ".join((*FIELDS, _SESSIONS, _DURATION))
            raise KpiError(
                f"expected one of {terms}, or conditions such as `purchases > 0 and pages = 1`, got {term!r}"
            )
        conditions.append(compared.groups())
    return None, conditions
