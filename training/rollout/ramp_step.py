"""Current ramp step of a challenger: when it was entered, and experiment results since then."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd

from training.experiments.comparison import Report, compare
from training.rollout.guardrails import GuardrailError, check_known, guardrails_at
from udfs.measurement.design import Experiment
from udfs.measurement.kpis import Kpi
from udfs.rollout.experiments import ExperimentError, find_experiment, read_entries
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry

#: How long before an experiment its users' history begins: older behavior says little of today's.
HISTORY = timedelta(days=14)


def held_since(registry: Registry, version: str) -> datetime:
    """The time since which a version has had its role and share, with the same champion, by the ledger."""
    newest = registry.newest()
    since, role = newest.at, _role(newest.rollout, version)
    for number in reversed(registry.numbers()):
        entry = registry.entry(number) if number < newest.number else None
        if entry is None:
            continue
        if _role(entry.rollout, version) != role:
            break
        since = entry.at
    return since


def _role(rollout: Rollout, version: str) -> tuple[str, float, str]:
    for challenger in rollout.challengers:
        if challenger.version == version:
            return "challenger", challenger.share, rollout.champion
    return "shadow" if version in rollout.shadows else "", 0.0, rollout.champion


def step_experiment(registry: Registry, version: str) -> Experiment:
    """The experiment on a challenger at its current step; what was before its first step is history.

    Raises GuardrailError when the champion has no users to compare with.
    """
    since_ms = int(held_since(registry, version).timestamp() * 1000)
    try:
        whole = find_experiment(read_entries(registry), "challenger", "champion", version)
    except ExperimentError:
        stretches = ()
    else:
        stretches = tuple(stretch for stretch in whole.stretches if stretch.start_ms >= since_ms)
    if not stretches or stretches[-1].end_ms is not None:
        raise GuardrailError(f"the champion has no users to compare {version} with: leave the step's guardrails out")
    return replace(whole, stretches=stretches)


def sessions_since(registry: Registry, version: str) -> datetime:
    """The time from which on sessions tell of a challenger's step, its users' history included."""
    return datetime.fromtimestamp(step_experiment(registry, version).history_until_ms / 1000, UTC) - HISTORY


def step_report(registry: Registry, version: str, sessions: pd.DataFrame, kpis: Mapping[str, Kpi]) -> Report:
    """Compare a challenger with the champion on the sessions of its current step, by the guardrails of the step.

    Raises GuardrailError for a guardrail on an unknown KPI, and when the champion has no users to compare with.
    """
    rollout = registry.newest().rollout
    share = next(part.share for part in rollout.challengers if part.version == version)
    guardrails = guardrails_at(rollout, share)
    check_known(kpis, guardrails)
    return compare(sessions, kpis, step_experiment(registry, version), guardrails)
