"""Experiments, from session records to a decision."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from training.experiment import main, read_sessions
from training.experiments.comparison import compare
from training.experiments.report import html
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.kpis import load_kpis

KPIS = load_kpis(Path(__file__).parents[3] / "conf" / "kpis.yaml")
EMPTY = dict.fromkeys(
    ("view_promotions", "select_promotions", "begin_checkouts", "form_starts", "form_submits", "add_to_carts"), 0
)
FAIR = {"champion": 0.5, "challenger": 0.5}


def sessions_of(users: int, rates: dict[str, float], seed: int = 1) -> list[dict]:
    """Sessions in which arms buy at their rates."""
    rng = np.random.default_rng(seed)
    rows = []
    for arm, rate in rates.items():
        for user in range(users):
            for number in range(1 + rng.poisson(1)):
                bought = int(rng.random() < rate)
                start = 1_000_000 * number
                times = {"started_at": start, "ended_at": start + int(rng.integers(1_000, 90_000))}
                counts = EMPTY | {"events": 5, "pages": int(rng.integers(1, 5)), "purchases": bought}
                rows.append({"user_id": f"{arm}{user}", "arm": arm, **times, **counts, "revenue": 20.0 * bought})
    return rows


@pytest.mark.parametrize(
    ("rate", "action", "opening"),
    [
        (0.3, ExperimentAction.SHIP, "Ship challenger: conversion rate"),
        (0.05, ExperimentAction.STOP, "Stop challenger: conversion rate"),
        (0.15, ExperimentAction.KEEP_RUNNING, "Keep running: no significant difference"),
    ],
)
def test_a_better_arm_is_shipped_a_worse_one_stopped_and_equal_ones_kept_running(rate, action, opening):
    sessions = sessions_of(5_000, {"champion": 0.15, "challenger": rate})
    wide = {name: msgspec.structs.replace(kpi, guardrail=kpi.guardrail and 0.2) for name, kpi in KPIS.items()}
    report = compare(pd.DataFrame(sessions), wide, "challenger", "champion")
    assert report.action == action
    assert report.decision.startswith(opening), report.decision


def test_a_better_arm_waits_until_its_guardrails_hold():
    sessions = sessions_of(300, {"champion": 0.1, "challenger": 0.4})
    report = compare(pd.DataFrame(sessions), KPIS, "challenger", "champion")
    assert report.action == ExperimentAction.KEEP_RUNNING
    assert report.decision.startswith("Keep running: conversion rate")
    assert "guardrails are inconclusive for bounce rate" in report.decision


def test_kpis_and_money_are_those_of_an_obvious_computation():
    sessions = pd.DataFrame(sessions_of(300, {"champion": 0.2, "challenger": 0.3}))
    report = compare(sessions, KPIS, "challenger", "champion")
    by_arm = sessions.groupby("arm")
    conversion = by_arm["purchases"].apply(lambda purchases: (purchases > 0).mean())
    revenue = by_arm["revenue"].mean()
    assert report.findings["conversion_rate"].effect.treatment == pytest.approx(conversion["challenger"])
    assert report.findings["bounce_rate"].effect.baseline == pytest.approx(
        by_arm["pages"].apply(lambda pages: (pages == 1).mean())["champion"]
    )
    brought = (revenue["challenger"] - revenue["champion"]) * by_arm.size()["challenger"]
    assert report.money[0] == pytest.approx(brought, abs=0.01)
    assert "click_through_rate" not in report.findings  # nobody saw a promotion


def test_nothing_is_told_of_a_kpi_that_few_users_have():
    """By chance all of them may be alike in both arms: there is no variance then, and no doubt."""
    rows = sessions_of(200, FAIR)
    for row in rows[:3] + rows[-3:]:
        row |= {"view_promotions": 1, "select_promotions": int(row["arm"] == "challenger")}
    report = compare(pd.DataFrame(rows), KPIS, "challenger", "champion")
    assert "click_through_rate" not in report.findings
    assert "conversion_rate" in report.findings
    assert report.action == ExperimentAction.KEEP_RUNNING


def test_missing_users_come_before_any_effect():
    sessions = pd.DataFrame(sessions_of(500, {"champion": 0.1, "challenger": 0.4}))
    kept = sessions[~sessions["user_id"].isin([f"challenger{user}" for user in range(120)])]
    report = compare(kept, KPIS, "challenger", "champion", shares=FAIR)
    assert report.action == ExperimentAction.FIX_FIRST
    assert report.decision.startswith("Fix first: sample ratio mismatch")
    assert compare(sessions, KPIS, "challenger", "champion", shares=FAIR).action != ExperimentAction.FIX_FIRST


def test_a_user_of_two_arms_counts_in_the_first():
    rows = sessions_of(50, {"champion": 0.2, "challenger": 0.2})
    moved = rows[-1] | {"user_id": "champion0", "started_at": 10**9, "ended_at": 10**9, "revenue": 1e9}
    report = compare(pd.DataFrame([*rows, moved]), KPIS, "challenger", "champion")
    assert report.users == {"challenger": 50, "champion": 50}
    assert report.money[2] < 1e9


def test_the_command_writes_a_page_that_begins_with_the_decision(tmp_path, capsys):
    lines = map(json.dumps, sessions_of(200, {"champion": 0.2, "challenger": 0.2}))
    (tmp_path / "sessions.jsonl").write_text("\n".join(lines))
    arguments = ["--sessions", str(tmp_path / "sessions.jsonl")]
    assert main(["report", *arguments, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert printed.splitlines()[0] in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["users"] == {"challenger": 200, "champion": 200}
    assert main(["plan", *arguments, "--effect", "0.1"]) == 0
    assert "power of 80%" in capsys.readouterr().out


def test_history_begins_before_the_start_however_it_is_written(tmp_path, capsys):
    (tmp_path / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions_of(200, FAIR))))
    printed = []
    for start in ("1000000", "1970-01-01T01:16:40+01:00"):
        assert main(["report", "--sessions", str(tmp_path), "--start", start]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    later = sum(row["started_at"] >= 1_000_000 for row in sessions_of(200, FAIR))
    assert sum(map(int, re.findall(r"(\d+) sessions", printed[0]))) == later


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "bootstrap.servers",
            "--kafka bootstrap.servers: expected KEY=VALUE, such as bootstrap.servers=localhost:9092",
        ),
        ("bootstrap.server=b:9092", "--kafka bootstrap.server: unknown key; did you mean bootstrap.servers?"),
        ("sasl.jaas.config=secret", "a secret on the command line shows in the process list"),
        ("sasl.jaas.config=${NOT_SET}", "--kafka sasl.jaas.config: environment variable NOT_SET is not set"),
    ],
)
def test_a_client_property_that_cannot_be_used_is_named(capsys, text, told):
    assert main(["report", "--topic", "sessions", "--kafka", text]) == 2
    assert told in capsys.readouterr().err


def test_a_page_escapes_what_comes_from_records():
    rows = [row | {"arm": row["arm"].replace("challenger", "<b>")} for row in sessions_of(60, FAIR)]
    assert b"<b>" not in html(compare(pd.DataFrame(rows), KPIS, "<b>", "champion"))


@pytest.mark.parametrize(
    ("line", "told"),
    [("{", "sessions.jsonl: line 2"), ('{"user_id": 7}', "line 2: Expected `str`, got `int` - at `$.user_id`")],
)
def test_a_bad_record_is_named(tmp_path, capsys, line, told):
    good = json.dumps(sessions_of(1, FAIR)[0])
    (tmp_path / "sessions.jsonl").write_text(f"{good}\n{line}\n")
    assert main(["report", "--sessions", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


def test_parquet_is_read_like_lines(tmp_path):
    rows = sessions_of(5, FAIR)
    pd.DataFrame(rows).to_parquet(tmp_path / "part.parquet")
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet, lines = read_sessions(tmp_path / "part.parquet"), read_sessions(tmp_path / "lines.jsonl")
    pd.testing.assert_frame_equal(parquet, lines)


def test_an_arm_that_is_not_there_is_named(tmp_path, capsys):
    (tmp_path / "sessions.jsonl").write_text("\n".join(map(json.dumps, sessions_of(5, {"champion": 0.5}))))
    assert main(["report", "--sessions", str(tmp_path)]) == 2
    assert "arm challenger has 0 users" in capsys.readouterr().err
