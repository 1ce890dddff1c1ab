"""Guardrails in the steps of a rollout file: whether their KPIs are defined, and whether sessions have data on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from training.experiments.kpi_data import without_data
from udfs.measurement.kpis import Kpi
from udfs.rollout.plan import RolloutError, Step


def guarded_kpis(steps: Sequence[Step]) -> tuple[str, ...]:
    """The names of the KPIs that the steps have guardrails on, each once."""
    return tuple(dict.fromkeys(name for step in steps for name in step.guardrails))


def check_names(file: Path, steps: Sequence[Step], kpis: Mapping[str, Kpi], kpis_file: Path) -> None:
    """Raises RolloutError for a guardrail on a KPI that is not defined."""
    for step in steps:
        unknown = [name for name in step.guardrails if name not in kpis]
        if unknown:
            raise RolloutError(
                f"{file}: key steps: the step at {step.share:g} has a guardrail on {' and '.join(unknown)}, which "
                f"{kpis_file} does not define; expected one of {', '.join(kpis)}"
            )


def data_lines(sessions: pd.DataFrame, kpis: Mapping[str, Kpi], names: Sequence[str]) -> list[str]:
    """A warning for each of the named KPIs that has no data in n sessions of people, or one line that all have some."""
    people = sessions[~sessions["is_bot"].to_numpy(bool)]
    if people.empty:
        return ["there are no sessions yet that show whether the KPIs of the guardrails have data"]
    warnings = [
        f"{name} has no data in {len(people)} sessions (no session has {_met(term)}): leave its guardrail out of "
        "the steps, or every ramp will need --force"
        for name, term in without_data(people, kpis, names).items()
    ]
    return warnings or [f"the KPIs of all guardrails have data in {len(people)} sessions"]


def _met(term: str) -> str:
    """The condition of a term, in words.

    >>> _met("pages = 1"), _met("revenue")
    ('`pages = 1`', '`revenue > 0`')
    """
    return f"`{term}`" if " " in term else f"`{term} > 0`"
