"""Guardrails of a challenger's ramp step, and the policy that starts, ramps and stops models by them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from training.experiments.comparison import Report
from training.rollout.shadow_quality import ShadowQuality
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.experiment import KpiResult
from udfs.measurement.kpis import KPIS_FILE, Kpi
from udfs.rollout.plan import Rollout, Step

Act = Literal["start", "ramp", "champion", "stop", "wait"]


class GuardrailError(ValueError):
    """A step whose guardrails do not hold, or are not known yet; `--force` overrides it."""


class RampDecision(NamedTuple):
    """The decision on a challenger, and the reason."""

    act: Act
    why: str


def guardrails_at(rollout: Rollout, share: float) -> Mapping[str, float]:
    """The guardrails of the step that a share has reached: the maximum loss per KPI, relative to the champion.

    Under a bandit, which knows no steps, there are none.
    """
    if rollout.bandit is not None:
        return {}
    reached = [step for step in rollout.steps if step.share <= share] or [Step(share=1.0)]
    return reached[-1].guardrails


def check_known(kpis: Mapping[str, Kpi], guardrails: Mapping[str, float]) -> None:
    """Raises GuardrailError for a guardrail on a KPI that is not defined."""
    unknown = sorted(guardrails.keys() - kpis.keys())
    if unknown:
        raise GuardrailError(
            f"the rollout has a guardrail on {unknown[0]}, which {KPIS_FILE} does not define: add it there, or correct "
            f"the rollout; {KPIS_FILE} has {', '.join(kpis)}"
        )


def refuse_unless_held(report: Report) -> None:
    """Raises GuardrailError naming each guardrail of the step that does not hold."""
    not_held = _texts(report, "open", "broken")
    if not_held:
        raise GuardrailError(f"the guardrails of this step do not hold: {'; '.join(not_held)}")
    if report.action == ExperimentAction.FIX_FIRST:
        raise GuardrailError(f"the guardrails of this step cannot be evaluated: {report.decision}")


def guardrail_text(name: str, finding: KpiResult) -> str:
    """A guardrail's state with the figures behind it."""
    if finding.effect is None:
        return (
            f"{name} has no data ({finding.no_data}): open; if it stays so, leave its guardrail out of the steps, by "
            "`intent promote apply`"
        )
    margin = f"may be worse by {finding.margin:.1%}: {finding.guardrail}"
    if finding.effect.relative is None:
        return f"{name} {finding.effect.difference:+.4g} on too small a baseline for an interval in percent, {margin}"
    value, low, high = finding.effect.relative
    return f"{name} {value:+.1%} ({low:+.1%} to {high:+.1%}), {margin}"


def _texts(report: Report, *states: str) -> list[str]:
    return [guardrail_text(name, found) for name, found in report.guardrails.items() if found.guardrail in states]


def decide_shadow(
    quality: ShadowQuality | None, elapsed_ms: int, shadow_for_ms: int, margin: float, positive_users: int
) -> RampDecision:
    """Decide whether to promote a shadow to challenger.

    Requires that `shadow_for_ms` has elapsed and that the live AUC is within `margin` of the champion's.
    """
    if elapsed_ms < shadow_for_ms:
        return RampDecision("wait", f"in shadow for {_hours(elapsed_ms)} of {_hours(shadow_for_ms)}")
    if quality is None or quality.positive_users < positive_users:
        users = 0 if quality is None else quality.positive_users
        return RampDecision(
            "wait", f"{users} users with a positive label scored by both models (at least {positive_users} required)"
        )
    if quality.difference.low >= -margin:
        return RampDecision("start", f"{quality}: not below by more than {margin:g}")
    if quality.difference.high < -margin:
        return RampDecision("stop", f"{quality}: below by more than {margin:g}")
    return RampDecision("wait", f"{quality}: may be below by more than {margin:g}")


def decide_step(report: Report, elapsed_ms: int, step_for_ms: int, is_last: bool) -> RampDecision:
    """Decide whether a challenger goes to its next step, or becomes champion after the last one.

    Requires that `step_for_ms` has elapsed and that all guardrails of the step hold. A challenger is stopped at once
    when the verdict on it says so.
    """
    if report.action == ExperimentAction.FIX_FIRST:
        return RampDecision("wait", report.decision)
    if report.action == ExperimentAction.STOP:
        return RampDecision("stop", "; ".join([report.decision, *_texts(report, "broken")]))
    if elapsed_ms < step_for_ms:
        return RampDecision("wait", f"at this step for {_hours(elapsed_ms)} of {_hours(step_for_ms)}")
    if still_open := _texts(report, "open"):
        return RampDecision("wait", "; ".join(still_open))
    return RampDecision(
        "champion" if is_last else "ramp", "; ".join(_texts(report, "held")) or "the step has no guardrails"
    )


def _hours(milliseconds: int) -> str:
    return f"{milliseconds / 3_600_000:.1f} h"
