"""Estimates of other policies from session records, and the command that prints them."""

import json

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import asdict

from tests.support.sample_records import sample
from training.experiment import main
from training.experiments.off_policy import DAY_MS, PolicyError, estimate
from udfs.measurement.kpis import Kpi

KPI = Kpi(formula="orders / sessions", numerator="purchases > 0", denominator="sessions", direction="up")
NOON_MS = 1_800_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
RATES = {"v1": 0.1, "v2": 0.2, "v3": 0.4}


def log(*days: dict[str, float], users: int = 4_000, seed: int = 1) -> pd.DataFrame:
    """A session of each of the new users of a day, of whom the versions have these shares, and control 10 %."""
    rng = np.random.default_rng(seed)
    parts = []
    for day, shares in enumerate(days):
        arms = list(RATES), *[[shares.get(version, 0.0) for version in RATES]]
        version = rng.choice([*arms[0], "v1"], users, p=[*arms[1], 1 - sum(arms[1])])
        control = rng.random(users) < 0.1
        parts.append(
            pd.DataFrame(
                {
                    "user_id": [f"{day}-{user}" for user in range(users)],
                    "arm": np.where(control, "control", np.where(version == "v1", "champion", "challenger")),
                    "model_version": version,
                    "propensity": [0.9 * shares[one] for one in version],
                    "purchases": (rng.random(users) < [RATES[one] for one in version]).astype(int),
                    "started_at": NOON_MS + day * DAY_MS + rng.integers(0, 3_600_000, users),
                    "is_bot": False,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


THREE = {"v1": 0.5, "v2": 0.3, "v3": 0.2}


def test_a_policy_is_estimated_where_its_versions_acted_together():
    sessions = log({"v1": 1.0}, THREE, {"v1": 0.1, "v2": 0.1, "v3": 0.8}, {"v1": 0.5, "v2": 0.5})
    sessions.loc[sessions["arm"] == "control", "purchases"] = 1
    found = estimate(sessions, "conversion_rate", KPI, {"v2": 0.5, "v3": 0.5})
    assert found.from_ms // DAY_MS == NOON_MS // DAY_MS + 1
    assert found.until_ms // DAY_MS == NOON_MS // DAY_MS + 2
    assert found.found.low < 0.3 < found.found.high
    assert found.found.value == pytest.approx(0.3, abs=0.03)
    assert found.served == pytest.approx((0.05 + 0.06 + 0.08 + 0.01 + 0.02 + 0.32) / 2, abs=0.02)


def test_bots_do_not_count():
    sessions = log(THREE)
    bots = sessions.assign(is_bot=True, purchases=1, user_id="bot" + sessions["user_id"])
    assert estimate(pd.concat([sessions, bots]), "rate", KPI, {"v2": 1.0}) == estimate(
        sessions, "rate", KPI, {"v2": 1.0}
    )


@pytest.mark.parametrize(
    ("days", "policy", "message"),
    [
        ([THREE], {"v4": 1.0}, "v4 never acted in these sessions; there acted v1, v2, v3"),
        (
            [{"v1": 0.5, "v2": 0.5}, {"v1": 0.5, "v3": 0.5}],
            {"v2": 0.5, "v3": 0.5},
            "v2 acted until .* and v3 from .* on: a policy needs versions that acted at the same time",
        ),
        (
            [THREE, {"v1": 0.5, "v3": 0.5}, THREE],
            {"v2": 1.0},
            "v2 did not act on 2027-01-16: give a --start after that day",
        ),
        ([{"v1": 0.995, "v2": 0.005}], {"v2": 1.0}, "conversion_rate: no data: v2 had a propensity of 0.0045"),
    ],
)
def test_a_policy_of_which_the_log_says_nothing_is_refused(days, policy, message):
    with pytest.raises(PolicyError, match=message):
        estimate(log(*days), "conversion_rate", KPI, policy)


def test_a_start_leaves_out_the_time_before_propensities_were_logged():
    sessions = log(THREE, THREE)
    is_old = sessions["started_at"] < NOON_MS + DAY_MS // 2
    sessions.loc[is_old, "propensity"] = np.nan
    with pytest.raises(PolicyError, match=r"no data: \d+ of \d+ sessions of v2 have no propensity"):
        estimate(sessions, "conversion_rate", KPI, {"v2": 1.0})
    found = estimate(sessions, "conversion_rate", KPI, {"v2": 1.0}, NOON_MS + DAY_MS // 2)
    assert found.from_ms > NOON_MS + DAY_MS // 2


def test_a_few_sessions_of_a_model_that_stood_in_are_left_out():
    sessions = log(THREE)
    expected = estimate(sessions, "rate", KPI, {"v2": 1.0})
    stood_in = sessions[sessions["model_version"] == "v2"].head(3).assign(propensity=np.nan, user_id="x", purchases=1)
    found = estimate(pd.concat([sessions, stood_in]), "rate", KPI, {"v2": 1.0})
    assert found.found == expected.found


@pytest.fixture
def command(tmp_path, capsys):
    rows = [
        asdict(sample("sessions", ended_at=row["started_at"], **row)) | {"propensity": row["propensity"]}
        for row in log(THREE, users=1_000).to_dict("records")
    ]
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    def run(*arguments: str) -> tuple[int, str, str]:
        return main(["value", "--sessions", str(path), *arguments]), *capsys.readouterr()

    return run


def test_the_command_prints_the_estimate_and_what_it_is_made_of(command):
    code, out, _ = command("--policy", "v2=0.25", "v3=0.75")
    assert code == 0
    assert out.startswith("conversion_rate with v2 25.0%, v3 75.0%: 0.3")
    assert "as served: 0.2" in out
    assert "users, who tell as much as" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "v2=0.5"], "--policy: the shares must add up to 1, got 0.5"),
        (["--policy", "v2=0.5", "v2=0.5"], "--policy: a version is given twice"),
        (["--policy", "v2=2"], "v2: expected a share above 0 and at most 1"),
        (["--policy", "=1"], "expected VERSION=SHARE, or VERSION for all users, got =1"),
        (["--policy", "v2", "--kpi", "profit"], "--kpi profit: expected one of"),
        (["--policy", "v9"], "v9 never acted in these sessions"),
        ([], "--policy"),
    ],
)
def test_a_wrong_policy_is_refused_in_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err
