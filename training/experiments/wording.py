"""Words that reports, plans and refusals share."""

from datetime import UTC, datetime

import pandas as pd

from udfs.measurement.design import ExperimentArm
from udfs.measurement.kpis import Kpi


def arm_text(arm: ExperimentArm) -> str:
    """An arm with its version.

    >>> arm_text(ExperimentArm("champion", "v1"))
    'champion v1'
    """
    return " ".join(filter(None, arm))


def time_text(time_ms: int) -> str:
    """A time in ms since 1970, to the second, in the form that options take.

    >>> time_text(1772323200000)
    '2026-03-01T00:00:00Z'
    """
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def range_text(sessions: pd.DataFrame) -> str:
    """When the first and the last of n sessions began."""
    began = sessions["started_at"]
    return f"from {time_text(began.min())} to {time_text(began.max())}"


def no_data_text(kpi: Kpi, reason: str) -> str:
    """Why a KPI has no data, with the terms that the reason is about.

    >>> kpi = Kpi(formula="orders / sessions", numerator="purchases > 0", denominator="sessions", direction="up")
    >>> no_data_text(kpi, "the numerator is 0 in every session")
    'no data: the numerator `purchases > 0` is 0 in every session'
    """
    for part in ("numerator", "denominator"):
        reason = reason.replace(f"the {part}", f"the {part} `{getattr(kpi, part)}`")
    return f"no data: {reason}"
