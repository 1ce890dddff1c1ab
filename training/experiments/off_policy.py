"""What a KPI would have been under another policy, from session records: see `udfs.measurement.off_policy`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.experiments.wording import no_data_text, time_text
from udfs.measurement.effects import NoEffectError
from udfs.measurement.kpis import Kpi, Term, caps_of, term_values
from udfs.measurement.off_policy import Logged, PolicyValue, policy_value

DAY_MS = 86_400_000
#: The arms whose models decide for the eligible users.
MODEL_ARMS = ("champion", "challenger")


class PolicyError(ValueError):
    """A policy that sessions say nothing of; the message is one line with a remedy."""


@dataclass(frozen=True)
class Estimate:
    """A KPI under a policy and as it was, in the time in which all versions of the policy acted."""

    found: PolicyValue
    served: float  # by the arms with a model, in the same time
    from_ms: int
    until_ms: int


def estimate(
    sessions: pd.DataFrame, name: str, kpi: Kpi, policy: Mapping[str, float], start_ms: int | None = None
) -> Estimate:
    """Estimate a KPI had these versions decided, with these shares of the eligible users outside control.

    Sessions of bots are left out, and those before `start_ms`. Raises PolicyError.
    """
    keep = ~sessions["is_bot"].to_numpy(bool) & sessions["arm"].isin(MODEL_ARMS).to_numpy()
    if start_ms is not None:
        keep &= sessions["started_at"].to_numpy() >= start_ms
    served = sessions[keep]
    from_ms, until_ms = _common_time(served, policy)
    served = served[served["started_at"].between(from_ms, until_ms)]
    _check_days(served, policy, from_ms, until_ms)
    cap = caps_of({name: kpi}, served).get(name)
    numerator, denominator = (term_values(term, served) for term in (Term(kpi.numerator, cap), Term(kpi.denominator)))
    version = pd.Categorical(served["model_version"], categories=list(policy)).codes
    counts = version >= 0
    logged = Logged(
        user=pd.factorize(served["user_id"][counts])[0],
        version=version[counts],
        propensity=served["propensity"].to_numpy(float)[counts],
        numerator=numerator[counts],
        denominator=denominator[counts],
    )
    try:
        found = policy_value(logged, policy)
    except NoEffectError as error:
        raise PolicyError(f"{name}: {no_data_text(kpi, str(error))}") from None
    return Estimate(found, float(numerator.sum() / denominator.sum()), from_ms, until_ms)


def lines(found: Estimate, name: str, policy: Mapping[str, float]) -> list[str]:
    """An estimate as text."""
    value = found.found
    who = ", ".join(f"{version} {share:.1%}" for version, share in policy.items())
    return [
        f"{name} with {who}: {value.value:.4f} ({value.low:.4f} to {value.high:.4f})",
        f"as served: {found.served:.4f}",
        f"from {time_text(found.from_ms)} to {time_text(found.until_ms)}: {value.users:,} users, who tell as much as "
        f"{value.effective_users:,.0f} of equal weight",
    ]


def _common_time(served: pd.DataFrame, policy: Mapping[str, float]) -> tuple[int, int]:
    """From the first session of the version that came last, until the last session of the one that left first."""
    began = served.groupby("model_version")["started_at"].agg(["min", "max"])
    for version in policy:
        if version not in began.index:
            had = ", ".join(began.index) or "none"
            raise PolicyError(f"{version} never acted in these sessions; there acted {had}")
    of_policy = began.loc[list(policy)]
    from_ms, until_ms = int(of_policy["min"].max()), int(of_policy["max"].min())
    if from_ms > until_ms:
        late, gone = of_policy["min"].idxmax(), of_policy["max"].idxmin()
        raise PolicyError(
            f"{gone} acted until {time_text(until_ms)} and {late} from {time_text(from_ms)} on: a policy needs "
            "versions that acted at the same time"
        )
    return from_ms, until_ms


def _check_days(served: pd.DataFrame, policy: Mapping[str, float], from_ms: int, until_ms: int) -> None:
    """Raises PolicyError for a day in between on which a version of the policy did not act."""
    days = np.arange(from_ms // DAY_MS + 1, until_ms // DAY_MS)
    for version in policy:
        acted = served.loc[served["model_version"] == version, "started_at"] // DAY_MS
        missing = np.setdiff1d(days, acted)
        if len(missing):
            raise PolicyError(
                f"{version} did not act on {time_text(int(missing[0]) * DAY_MS)[:10]}: give a --start after that day"
            )
