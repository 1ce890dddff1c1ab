"""Current ramp step of a challenger: when it was entered, and experiment results since then."""

from collections.abc import Mapping
from datetime import datetime

import pandas as pd

from training.experiments.comparison import Report, compare
from training.rollout.guardrails import GuardrailError
from udfs.measurement.kpis import Kpi
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry


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


def step_report(
    rollout: Rollout, version: str, since: datetime, sessions: pd.DataFrame, kpis: Mapping[str, Kpi]
) -> Report:
    """Compare the challenger with the champion on sessions that began in the step.

    Earlier ones are left out, also as history: the challenger has acted in some. Raises GuardrailError when sessions
    can't distinguish the challenger from another one, or an arm has too few users.
    """
    others = [part.version for part in rollout.challengers if part.version != version]
    if others:
        raise GuardrailError(f"sessions do not distinguish {version} from {others[0]}: run one challenger at a time")
    share = rollout.challengers[0].share
    shares = {"challenger": share, "champion": 1 - rollout.control.share - share}
    current = sessions[sessions["started_at"] >= since.timestamp() * 1000]
    try:
        return compare(current, dict(kpis), "challenger", "champion", None, shares if shares["champion"] > 0 else None)
    except ValueError as error:
        raise GuardrailError(f"sessions since {since:%Y-%m-%d %H:%M} UTC: {error}") from None
