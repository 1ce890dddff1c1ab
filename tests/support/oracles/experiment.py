"""What the job that watches experiments has to say of sessions in the end."""

from math import inf

import pytest

from udfs.measurement.experiment import KpiResult, Verdict

#: The versions of both arms, and the KPI.
Key = tuple[str | None, str | None, str]


def expected_records(*verdicts: Verdict) -> dict[Key, dict]:
    """The records of topic `experiments` without their time, of verdicts on different experiments."""
    return {
        (verdict.experiment.treatment.version, verdict.experiment.baseline.version, kpi): _nearly(
            **_of_experiment(verdict), kpi=kpi, **_of_kpi(found)
        )
        for verdict in verdicts
        for kpi, found in verdict.findings.items()
    }


def _of_experiment(verdict: Verdict) -> dict:
    treatment, baseline = verdict.experiment.treatment, verdict.experiment.baseline
    return {
        "treatment": treatment.name,
        "baseline": baseline.name,
        "treatment_version": treatment.version,
        "baseline_version": baseline.version,
        "treatment_users": verdict.users[treatment.name],
        "baseline_users": verdict.users[baseline.name],
        "moved_users": verdict.moved_users,
        "sample_ratio_p": verdict.sample_ratio_p,
        "action": verdict.action.value,
        "decision": verdict.decision,
    }


def _of_kpi(found: KpiResult) -> dict:
    effect = found.effect
    relative = (None, None, None) if effect is None or effect.relative is None else effect.relative
    return {
        "no_data": found.no_data,
        "cap": None if found.cap in (None, inf) else found.cap,
        "treatment_value": effect and effect.treatment,
        "baseline_value": effect and effect.baseline,
        "difference": effect and effect.difference,
        "low": effect and effect.low,
        "high": effect and effect.high,
        "relative_difference": relative[0],
        "relative_low": relative[1],
        "relative_high": relative[2],
        "p_value": effect and effect.p_value,
        "is_better": found.is_better,
        "is_worse": found.is_worse,
        "guardrail": found.guardrail,
    }


def _nearly(**values) -> dict:
    return {
        name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in values.items()
    }


def newest_records(records: list[dict]) -> dict[Key, dict]:
    """The newest record of each experiment and KPI, without its time."""
    in_order = sorted(records, key=lambda record: record["at"])
    return {
        (record["treatment_version"], record["baseline_version"], record["kpi"]): {
            name: value for name, value in record.items() if name != "at"
        }
        for record in in_order
    }
