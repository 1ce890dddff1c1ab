"""Guardrails of a challenger's ramp step, and the policy that starts, ramps and stops models by them."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from training.experiments.comparison import Report
from training.rollout.shadow_quality import ShadowQuality
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.kpis import KPIS_FILE, Kpi
from udfs.rollout.plan import Rollout, Step

Act = Literal["start", "ramp", "champion", "stop", "wait"]


class GuardrailError(ValueError):
    """A step whose guardrails do not hold, or are not known yet; `--force` overrides it."""


class RampDecision(NamedTuple):
    """The decision on a challenger, and the reason."""

    act: Act
    why: str


class Checked(NamedTuple):
    """The state of a guardrail, open while the interval is inconclusive, and its figures as text."""

    state: Literal["held", "broken", "open"]
    words: str


def guardrails_at(rollout: Rollout, share: float) -> Mapping[str, float]:
    """The guardrails of the step that a share has reached: the maximum loss per KPI, relative to the champion."""
    reached = [step for step in rollout.steps if step.share <= share] or [Step(share=1.0)]
    return reached[-1].guardrails


def check_guardrails(report: Report, kpis: Mapping[str, Kpi], guardrails: Mapping[str, float]) -> dict[str, Checked]:
    """Check each KPI against its guardrail, by the interval of its relative effect.

    Raises GuardrailError for a guardrail on a KPI that is not defined.
    """
    unknown = sorted(guardrails.keys() - kpis.keys())
    if unknown:
        raise GuardrailError(
            f"the rollout has a guardrail on {unknown[0]}, which {KPIS_FILE} does not define: add it there, or correct "
            f"the rollout; {KPIS_FILE} has {', '.join(kpis)}"
        )
    return {name: _checked(report, name, kpis[name], worse) for name, worse in guardrails.items()}


def _checked(report: Report, name: str, kpi: Kpi, worse: float) -> Checked:
    finding = report.findings.get(name)
    if finding is None:
        return Checked("open", f"{name}: too few users say anything of it yet")
    value, low, high = finding.effect.relative
    words = f"{name} {value:+.1%} ({low:+.1%} to {high:+.1%}), may be worse by {worse:.1%}"
    worst, best = (low, high) if kpi.direction == "up" else (-high, -low)
    return Checked("held" if worst >= -worse else "broken" if best < -worse else "open", words)


def refuse_unless_held(report: Report, kpis: Mapping[str, Kpi], guardrails: Mapping[str, float]) -> None:
    """Raises GuardrailError naming each guardrail of the step that does not hold."""
    checked = check_guardrails(report, kpis, guardrails)
    not_held = [f"{check.words}: {check.state}" for check in checked.values() if check.state != "held"]
    if not_held:
        raise GuardrailError(f"the guardrails of this step do not hold: {'; '.join(not_held)}")
    if report.action == ExperimentAction.FIX_FIRST:
        raise GuardrailError(f"the guardrails of this step cannot be evaluated: {report.decision}")


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


def decide_step(
    report: Report,
    kpis: Mapping[str, Kpi],
    guardrails: Mapping[str, float],
    elapsed_ms: int,
    step_for_ms: int,
    is_last: bool,
) -> RampDecision:
    """Decide whether a challenger goes to its next step, or becomes champion after the last one.

    Requires that `step_for_ms` has elapsed and that all guardrails hold. A challenger is stopped at once when a
    guardrail is broken or a KPI got worse.
    """
    if report.action == ExperimentAction.FIX_FIRST:
        return RampDecision("wait", report.decision)
    checked = check_guardrails(report, kpis, guardrails)
    broken = [check.words for check in checked.values() if check.state == "broken"]
    worse = [name for name, result in report.findings.items() if result.is_worse or result.guardrail == "broken"]
    if broken or worse:
        return RampDecision("stop", "; ".join([*broken, *([f"got worse: {', '.join(worse)}"] if worse else [])]))
    if elapsed_ms < step_for_ms:
        return RampDecision("wait", f"at this step for {_hours(elapsed_ms)} of {_hours(step_for_ms)}")
    if still_open := [check.words for check in checked.values() if check.state == "open"]:
        return RampDecision("wait", f"open: {'; '.join(still_open)}")
    held = "; ".join(check.words for check in checked.values()) or "the step has no guardrails"
    return RampDecision("champion" if is_last else "ramp", f"held: {held}" if checked else held)


def _hours(milliseconds: int) -> str:
    return f"{milliseconds / 3_600_000:.1f} h"
