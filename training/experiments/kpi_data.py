"""Which KPIs sessions can say anything about."""

from collections.abc import Iterable, Mapping

import pandas as pd

from udfs.measurement.kpis import Kpi, values


def without_data(sessions: pd.DataFrame, kpis: Mapping[str, Kpi], names: Iterable[str]) -> dict[str, str]:
    """Those of the named KPIs that have no data in n sessions, each with the term that is 0 in all of them.

    A relative effect needs a numerator and a denominator above 0. Otherwise it is 0/0, however many sessions follow.
    """
    terms = {}
    for name in names:
        for term in (kpis[name].denominator, kpis[name].numerator):
            if not (values(term, sessions) > 0).any():
                terms[name] = term
                break
    return terms
