"""Planning by recorded sessions: the KPIs as they are, and the users that the steps of a rollout take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.experiments.comparison import cell_sums
from training.experiments.wording import no_data_text
from udfs.measurement.cell_sums import Columns
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.effects import NoEffectError, Ratio, measure_effect
from udfs.measurement.kpis import Kpi, Term, caps_of, terms_of
from udfs.measurement.power import users_for_guardrail
from udfs.rollout.plan import Rollout

#: All users are in one arm, the baseline of an experiment that has always run.
_ALONE = Experiment(ExperimentArm("none"), ExperimentArm("all"), (Stretch(0, None, 0.5, 0.5),), 0)


@dataclass(frozen=True)
class KpiData:
    """A KPI of recorded sessions; without data, the reason."""

    value: float = 0.0
    relative_variance: float = 0.0  # of one user, as in udfs.measurement.power
    no_data: str | None = None


def kpi_data(sessions: pd.DataFrame, kpis: Mapping[str, Kpi]) -> dict[str, KpiData]:
    """What n sessions of people say of each KPI, with numerators limited as in a report."""
    caps = caps_of(kpis, sessions)
    terms = terms_of(kpis, caps)
    count = len(sessions)
    sums = cell_sums(sessions, _ALONE, terms, np.zeros(count, int), np.ones(count, int))
    sums.products[0, 0] = sums.products[1, 1]  # an arm of users who are like them
    found = {}
    for name, kpi in kpis.items():
        ratio = Ratio(terms.index(Term(kpi.numerator, caps.get(name))), terms.index(Term(kpi.denominator)))
        try:
            effect = measure_effect(sums, Columns(len(terms)), ratio)
        except NoEffectError as error:
            found[name] = KpiData(no_data=no_data_text(kpi, str(error)))
        else:
            # Both arms have a half of the variance and of the users.
            per_user = effect.variance / 2 * (effect.users / 2)
            found[name] = KpiData(effect.baseline, per_user / effect.baseline**2)
    return found


def step_lines(
    rollout: Rollout, kpis: Mapping[str, Kpi], data: Mapping[str, KpiData], users_per_day: float, power: float
) -> Iterator[str]:
    """For each guardrail of each step, how long a harmless challenger takes to pass it, or why it never does."""
    compared = 1 - rollout.control.share
    for step in rollout.steps:
        for name, margin in step.guardrails.items():
            opening = f"step at {100 * step.share:g}%, {name} at most {100 * margin:g}% worse"
            if name not in kpis:
                yield f"{opening}: not a KPI; expected one of {', '.join(kpis)}"
            elif data[name].no_data:
                yield f"{opening}: {data[name].no_data}; leave this guardrail out, or ramps will need --force"
            elif margin == 0:
                yield f"{opening}: never held, however many users: give it a margin above 0"
            elif step.share >= compared:
                yield f"{opening}: never held, the champion has no users left to compare with"
            else:
                users = users_for_guardrail(
                    margin, data[name].relative_variance, step.share / compared, power, kpis[name].direction
                )
                yield f"{opening}: {users:,} users of both arms, {users / (users_per_day * compared):,.1f} days"
