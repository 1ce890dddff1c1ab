from pathlib import Path

import pandas as pd
import pytest

from training.experiments.kpi_data import without_data
from udfs.measurement.kpis import FIELDS, Kpi, load_kpis

KPIS = load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml")


def sessions(*counts: dict) -> pd.DataFrame:
    """Sessions of 30 s in which all counts but the given ones are 0."""
    times = {"started_at": 1_000, "ended_at": 31_000}
    return pd.DataFrame([dict.fromkeys(FIELDS, 0) | times | of for of in counts])


def test_a_kpi_needs_a_numerator_and_a_denominator_above_0_in_some_session():
    found = without_data(sessions({"purchases": 1}, {"view_promotions": 3}), KPIS, KPIS)
    assert found == {
        "click_through_rate": "select_promotions",
        "engagement_rate": "view_promotions > 0 and select_promotions > 0",
        "bounce_rate": "pages = 1",
        "revenue_per_session": "revenue",
        "add_to_cart_rate": "add_to_carts > 0",
        "abandonment_rate": "add_to_carts > 0",
        "form_completion_rate": "form_starts",
    }


@pytest.mark.parametrize("pages", [0, 2])
def test_only_the_named_kpis_are_looked_at(pages):
    some = sessions({"pages": pages}, {"purchases": 1, "pages": pages})
    assert without_data(some, KPIS, ["conversion_rate"]) == {}
    assert without_data(some, KPIS, ["conversion_rate", "bounce_rate"]) == {"bounce_rate": "pages = 1"}


def test_numerator_and_denominator_may_be_in_different_sessions():
    ratio = Kpi(formula="a / b", numerator="form_submits", denominator="form_starts", direction="up")
    assert without_data(sessions({"form_submits": 1}, {"form_starts": 1}), {"forms": ratio}, ["forms"]) == {}


def test_no_sessions_have_no_data():
    assert without_data(sessions({})[:0], KPIS, KPIS).keys() == KPIS.keys()
