"""SQL function of the experiment job: the verdict on two arms."""

from collections.abc import Iterator, Mapping, Sequence

from pyflink.table import DataTypes
from pyflink.table.udf import TableFunction, udtf

from udfs.contracts.outputs import ExperimentResult
from udfs.contracts.sql_types import sql_types
from udfs.measurement.experiment import ArmStatistics, KpiResult, judge
from udfs.measurement.kpis import Kpi

#: The SQL types of the record's fields that the verdict provides; the job adds the others, which come first.
VERDICT_TYPES = {
    name: kind for name, kind in sql_types(ExperimentResult).items() if name not in ("at", "treatment", "baseline")
}


class JudgeArms(TableFunction):
    """Emits a row for each KPI from the sums of two arms, array<double> each, in the order of ArmStatistics.of_sums."""

    def __init__(self, treatment: str, baseline: str, kpis: Mapping[str, Kpi], shares: Mapping[str, float] | None):
        self._names = treatment, baseline
        self._kpis = dict(kpis)
        self._shares = shares

    def eval(self, *sums: Sequence[float]) -> Iterator[tuple]:
        arms = [
            ArmStatistics.of_sums(name, arm_sums, list(self._kpis))
            for name, arm_sums in zip(self._names, sums, strict=True)
        ]
        verdict = judge(*arms, self._kpis, self._shares)
        for name in self._kpis:
            effect = _columns_of(verdict.findings.get(name))
            yield name, *verdict.users.values(), *effect, verdict.sample_ratio_p, verdict.action.value, verdict.decision

    def as_udtf(self):
        """The function as a PyFlink UDTF, for a table environment."""
        return udtf(self, result_types=[getattr(DataTypes, kind)() for kind in VERDICT_TYPES.values()])


def _columns_of(finding: KpiResult | None) -> tuple:
    """The columns of a KPI's result, from treatment_value to guardrail."""
    if finding is None:
        return *[None] * 6, False, False, None
    effect = finding.effect
    values = effect.treatment, effect.baseline, effect.difference, effect.low, effect.high, effect.p_value
    return *values, finding.is_better, finding.is_worse, finding.guardrail
