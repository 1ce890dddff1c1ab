"""What the job that watches an experiment has to say of sessions in the end."""

import pytest

from training.experiments.comparison import Report


def expected_records(report: Report) -> dict[str, dict]:
    """The records of topic `experiments` by KPI, without their time, of a report that measures every KPI."""
    return {
        kpi: _nearly(
            treatment=report.treatment,
            baseline=report.baseline,
            kpi=kpi,
            treatment_users=report.users[report.treatment],
            baseline_users=report.users[report.baseline],
            treatment_value=found.effect.treatment,
            baseline_value=found.effect.baseline,
            difference=found.effect.difference,
            low=found.effect.low,
            high=found.effect.high,
            p_value=found.effect.p_value,
            is_better=found.is_better,
            is_worse=found.is_worse,
            guardrail=found.guardrail,
            sample_ratio_p=report.sample_ratio_p,
            action=report.action.value,
            decision=report.decision,
        )
        for kpi, found in report.findings.items()
    }


def _nearly(**values) -> dict:
    return {
        name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in values.items()
    }


def newest_records(records: list[dict]) -> dict[str, dict]:
    """The newest record of each KPI, without its time."""
    in_order = sorted(records, key=lambda record: record["at"])
    return {record["kpi"]: {name: value for name, value in record.items() if name != "at"} for record in in_order}
