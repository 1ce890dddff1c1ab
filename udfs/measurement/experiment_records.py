"""The records of topic `experiments` that say a verdict."""

from math import inf

from udfs.contracts.outputs import ExperimentResult
from udfs.measurement.experiment import KpiResult, Verdict


def result_records(verdict: Verdict, at_ms: int) -> list[ExperimentResult]:
    """A record for each KPI, at a time in ms since 1970; an infinite cap is none."""
    treatment, baseline = verdict.experiment.arms
    common = {
        "at": at_ms,
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
    return [
        ExperimentResult(
            **common,
            kpi=name,
            no_data=finding.no_data,
            cap=None if finding.cap == inf else finding.cap,
            is_better=finding.is_better,
            is_worse=finding.is_worse,
            guardrail=finding.guardrail,
            **_effect_fields(finding),
        )
        for name, finding in verdict.findings.items()
    ]


def _effect_fields(finding: KpiResult) -> dict[str, float | None]:
    """The fields of a KPI's effect; null without data."""
    effect = finding.effect
    relative = None if effect is None else effect.relative
    return {
        "treatment_value": effect and effect.treatment,
        "baseline_value": effect and effect.baseline,
        "difference": effect and effect.difference,
        "low": effect and effect.low,
        "high": effect and effect.high,
        "relative_difference": relative and relative.value,
        "relative_low": relative and relative.low,
        "relative_high": relative and relative.high,
        "p_value": effect and effect.p_value,
    }
