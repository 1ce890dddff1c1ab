"""What the job that watches an experiment calls from SQL: the verdict on two arms."""

from collections.abc import Iterator, Mapping, Sequence

from pyflink.table import DataTypes
from pyflink.table.udf import TableFunction, udtf

from udfs.contracts.outputs import ExperimentResult
from udfs.contracts.sql_types import sql_types
from udfs.measurement.experiment import ArmStatistics, KpiResult, judge
from udfs.measurement.kpis import Kpi

#: The SQL types of the fields of a record that the verdict has; the job adds the others, which come first.
VERDICT_TYPES = {
    name: kind for name, kind in sql_types(ExperimentResult).items() if name not in ("at", "treatment", "baseline")
}


class JudgeArms(TableFunction):
    """A row for each KPI from the sums of two arms, array<double> each, in the order of Arm.of_sums."""

    def __init__(self, treatment: str, baseline: str, kpis: Mapping[str, Kpi], shares: Mapping[str, float] | None):
        self._names = treatment, baseline
        self._kpis = dict(kpis)
        self._shares = shares

    def eval(self, *sums: Sequence[float]) -> Iterator[tuple]:
        arms = [
            ArmStatistics.of_sums(name, of_arm, list(self._kpis))
            for name, of_arm in zip(self._names, sums, strict=True)
        ]
        verdict = judge(*arms, self._kpis, self._shares)
        for name in self._kpis:
            found = _columns_of(verdict.findings.get(name))
            yield name, *verdict.users.values(), *found, verdict.sample_ratio_p, verdict.action.value, verdict.decision

    def as_udtf(self):
        """The function as a table environment takes it."""
        return udtf(self, result_types=[getattr(DataTypes, kind)() for kind in VERDICT_TYPES.values()])


def _columns_of(finding: KpiResult | None) -> tuple:
    """From treatment_value to guardrail."""
    if finding is None:
        return *[None] * 6, False, False, None
    effect = finding.effect
    values = effect.treatment, effect.baseline, effect.difference, effect.low, effect.high, effect.p_value
    return *values, finding.is_better, finding.is_worse, finding.guardrail
