"""KPIs are read, checked and computed as conf/kpis.yaml says."""

from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from udfs.measurement.kpis import LEAST_CAPPING, KpiError, Term, caps_of, load_kpis, term_values, terms_of, values

SHIPPED = Path(__file__).parents[4] / "conf" / "kpis.yaml"
SESSIONS = pd.DataFrame(
    {
        "started_at": [0, 10_000],
        "ended_at": [0, 70_000],
        "pages": [1, 4],
        "add_to_carts": [0, 2],
        "purchases": [0, 0],
        "revenue": [0.0, 12.5],
    }
)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("sessions", [1, 1]),
        ("revenue", [0, 12.5]),
        ("duration_s", [0, 60]),
        ("pages = 1", [1, 0]),
        ("add_to_carts > 0 and purchases = 0", [0, 1]),
        ("pages >= 4", [0, 1]),
    ],
)
def test_a_term_says_what_each_session_adds(term, expected):
    assert values(term, SESSIONS).tolist() == expected


def test_the_shipped_kpis_are_those_that_the_product_promises():
    assert {
        "click_through_rate",
        "conversion_rate",
        "bounce_rate",
        "revenue_per_session",
        "add_to_cart_rate",
        "form_completion_rate",
        "abandonment_rate",
        "engagement_rate",
        "session_duration_s",
    } == set(load_kpis(SHIPPED))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rate: {formula: f, numerator: visits, denominator: sessions, direction: up}",
            "key rate.numerator: expected one of",
        ),
        (
            "rate: {formula: f, numerator: revenue, denominator: pages == 1, direction: up}",
            "key rate.denominator: expected",
        ),
        ("rate: {formula: f, numerator: revenue, denominator: sessions, direction: left}", "key rate.direction"),
        (
            "rate: {formula: f, numerator: revenue, denominator: sessions, direction: up, limit: 1}",
            "key rate.limit: unknown key",
        ),
        (
            "rate: {formula: f, numerator: revenue, denominator: sessions, direction: up, guardrail: 2}",
            "key rate.guardrail",
        ),
        (
            "rate: {formula: f, numerator: purchases > 0, denominator: sessions, direction: up, winsorize: 0.99}",
            "key rate.winsorize: the numerator 'purchases > 0' is at most 1 per session: leave the key out",
        ),
        (
            "rate: {formula: f, numerator: revenue, denominator: sessions, direction: up, winsorize: 1}",
            "key rate.winsorize",
        ),
        (
            "Rate!: {formula: f, numerator: revenue, denominator: sessions, direction: up}",
            "the name may only contain a-z",
        ),
    ],
)
def test_a_kpi_that_can_not_be_used_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "kpis.yaml"
    path.write_text(text)
    with pytest.raises(KpiError, match="kpis.yaml") as raised:
        load_kpis(path)
    assert message in str(raised.value)


def paying(count: int, free: int = 0) -> pd.DataFrame:
    """Sessions with a revenue of 1, 2, 3 and so on, and some without any."""
    return pd.DataFrame({"revenue": np.concatenate([np.zeros(free), np.arange(count) + 1.0])})


def test_the_shipped_limit_is_a_percentile_of_the_sessions_with_revenue():
    kpis = load_kpis(SHIPPED)
    assert [name for name, kpi in kpis.items() if kpi.winsorize is not None] == ["revenue_per_session"]
    assert caps_of(kpis, paying(1_000, free=9_000)) == {"revenue_per_session": 990.0}
    assert caps_of(kpis, paying(LEAST_CAPPING - 1, free=9_000)) == {}


def test_the_values_of_limits_change_no_number_of_terms():
    kpis = dict.fromkeys(("one", "other"), load_kpis(SHIPPED)["revenue_per_session"])
    unknown, equal, different = ({"one": inf, "other": inf}, {"one": 9.0, "other": 9.0}, {"one": 9.0, "other": 8.0})
    assert len({len(terms_of(kpis, caps)) for caps in (unknown, equal, different)}) == 1


def test_a_limit_is_a_term_of_its_own_beside_the_one_without():
    kpis = {"revenue_per_session": load_kpis(SHIPPED)["revenue_per_session"]}
    plain = Term("revenue"), Term("sessions")
    assert terms_of(kpis, {}) == (*plain, Term("top_score"))
    assert terms_of(kpis, {"revenue_per_session": 2.0}) == (*plain, Term("revenue", 2.0), Term("top_score"))
    assert term_values(Term("revenue"), paying(3)).tolist() == [1, 2, 3]
    assert term_values(Term("revenue", 2.0), paying(3)).tolist() == [1, 2, 2]
