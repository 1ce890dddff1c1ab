"""KPIs are read, checked and computed as conf/kpis.yaml says."""

from pathlib import Path

import pandas as pd
import pytest

from udfs.measurement.kpis import KpiError, load_kpis, values

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
