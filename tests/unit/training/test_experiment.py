"""Experiments, from session records to a decision."""

import gzip
import json
import re
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from training.data.rows import SourceError
from training.experiment import main, read_sessions
from training.experiments.comparison import compare
from training.experiments.report import html, notes, record, text
from udfs.contracts.outputs import ExperimentAction
from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.measurement.kpis import load_kpis
from udfs.rollout.plan import Challenger, Control, Rollout
from udfs.rollout.registry import ENTRY_FORMAT, Entry, entry_file, seal

CONF = Path(__file__).parents[3] / "conf"
KPIS = load_kpis(CONF / "kpis.yaml")
START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
EMPTY = dict.fromkeys(
    ("view_promotions", "select_promotions", "begin_checkouts", "form_starts", "form_submits", "add_to_carts"), 0
)
FAIR = {"champion": 0.5, "challenger": 0.5}
VERSIONS = {"champion": "v1", "challenger": "v2", "control": "v1"}
STATED = ["--start", "2026-03-01T00:00:00Z", "--shares", "challenger=0.5", "champion=0.5"]
EXPERIMENT = Experiment(
    ExperimentArm("challenger", "v2"), ExperimentArm("champion", "v1"), (Stretch(START_MS, None, 0.5, 0.5),), START_MS
)


def sessions_of(users: int, rates: dict[str, float], seed: int = 1, start_ms: int = START_MS) -> list[dict]:
    """Sessions in which arms buy at their rates."""
    rng = np.random.default_rng(seed)
    rows = []
    for arm, rate in rates.items():
        for user in range(users):
            for number in range(1 + rng.poisson(1)):
                bought = int(rng.random() < rate)
                start = start_ms + HOUR_MS * number
                times = {"started_at": start, "ended_at": start + int(rng.integers(1_000, 90_000))}
                counts = EMPTY | {"events": 5, "pages": int(rng.integers(1, 5)), "purchases": bought}
                who = {"user_id": f"{arm}{user}", "arm": arm, "model_version": VERSIONS[arm], "is_bot": False}
                rows.append(who | times | counts | {"revenue": 20.0 * bought})
    return rows


def written(directory: Path, rows: list[dict]) -> list[str]:
    """The options that read these sessions."""
    path = directory / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return ["--sessions", str(path)]


def ledger(directory: Path, *rollouts: tuple[int, Rollout]) -> list[str]:
    """The options that read a ledger in which these rollouts came into force, in ms since 1970."""
    (directory / "registry" / "ledger").mkdir(parents=True)
    for number, (at_ms, rollout) in enumerate(rollouts, 1):
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
        entry = Entry(
            format=ENTRY_FORMAT, number=number, at=at, by="me", command=("start",), why="test", rollout=rollout
        )
        path = directory / "registry" / "ledger" / entry_file(number)
        path.write_bytes(seal(msgspec.json.encode(entry)))
    return ["--registry", str(directory / "registry")]


def rollout(version: str = "v2", share: float = 0.5, champion: str = "v1") -> Rollout:
    challenger = Challenger(version=version, share=share, at_most=0.9, start=0.05)
    rule = {"any": ["cart_adds_30m >= 1"]}
    return msgspec.convert(
        {
            "salt": "salt",
            "champion": champion,
            "control": msgspec.to_builtins(Control(share=0.05, at_most=0.05)),
            "challengers": [msgspec.to_builtins(challenger)],
            "rule": rule,
        },
        Rollout,
    )


def refusal(capsys, arguments: list[str], command: str = "report") -> str:
    """The one line in which a command is refused."""
    assert main([command, *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("rate", "action", "opening"),
    [
        (0.3, ExperimentAction.SHIP, "Ship challenger v2: conversion rate"),
        (0.05, ExperimentAction.STOP, "Stop challenger v2: conversion rate"),
        (0.15, ExperimentAction.KEEP_RUNNING, "Keep running: no significant difference"),
    ],
)
def test_a_better_arm_is_shipped_a_worse_one_stopped_and_equal_ones_kept_running(rate, action, opening):
    sessions = sessions_of(5_000, {"champion": 0.15, "challenger": rate})
    wide = {name: msgspec.structs.replace(kpi, guardrail=kpi.guardrail and 0.2) for name, kpi in KPIS.items()}
    report = compare(pd.DataFrame(sessions), wide, EXPERIMENT)
    assert report.action == action
    assert report.decision.startswith(opening), report.decision


def test_a_better_arm_waits_until_its_guardrails_hold():
    sessions = sessions_of(300, {"champion": 0.1, "challenger": 0.4})
    report = compare(pd.DataFrame(sessions), KPIS, EXPERIMENT)
    assert report.action == ExperimentAction.KEEP_RUNNING
    assert report.decision.startswith("Keep running: conversion rate")
    assert "guardrails are inconclusive for bounce rate" in report.decision


def test_kpis_and_money_are_those_of_an_obvious_computation():
    sessions = pd.DataFrame(sessions_of(300, {"champion": 0.2, "challenger": 0.3}))
    report = compare(sessions, KPIS, EXPERIMENT)
    by_arm = sessions.groupby("arm")
    conversion = by_arm["purchases"].apply(lambda purchases: (purchases > 0).mean())
    revenue = by_arm["revenue"].mean()
    assert report.findings["conversion_rate"].effect.treatment == pytest.approx(conversion["challenger"])
    assert report.findings["bounce_rate"].effect.baseline == pytest.approx(
        by_arm["pages"].apply(lambda pages: (pages == 1).mean())["champion"]
    )
    brought = (revenue["challenger"] - revenue["champion"]) * by_arm.size()["challenger"]
    assert report.money[0] == pytest.approx(brought, abs=0.01)


def test_nothing_is_told_of_a_kpi_that_few_users_have():
    """By chance all of them may be alike in both arms: there is no variance then, and no doubt."""
    rows = sessions_of(200, FAIR)
    for row in rows[:3] + rows[-3:]:
        row |= {"view_promotions": 1, "select_promotions": int(row["arm"] == "challenger")}
    report = compare(pd.DataFrame(rows), KPIS, EXPERIMENT)
    assert report.findings["click_through_rate"].effect is None
    assert report.findings["click_through_rate"].no_data.startswith("few users have most of the denominator")
    assert report.findings["conversion_rate"].effect
    assert report.action == ExperimentAction.KEEP_RUNNING


def test_missing_users_come_before_any_effect():
    sessions = pd.DataFrame(sessions_of(500, {"champion": 0.1, "challenger": 0.4}))
    kept = sessions[~sessions["user_id"].isin([f"challenger{user}" for user in range(150)])]
    report = compare(kept, KPIS, EXPERIMENT)
    assert report.action == ExperimentAction.FIX_FIRST
    assert report.decision.startswith("Fix first: sample ratio mismatch")
    assert "The numbers of users do not match the shares (p = " in text(report)
    assert compare(sessions, KPIS, EXPERIMENT).action != ExperimentAction.FIX_FIRST


def test_a_user_of_two_arms_counts_in_the_first_and_the_report_says_so():
    rows = sessions_of(50, {"champion": 0.2, "challenger": 0.2})
    moved = rows[-1] | {"user_id": "champion0", "started_at": START_MS + DAY_MS, "revenue": 1e9}
    report = compare(pd.DataFrame([*rows, moved | {"ended_at": START_MS + DAY_MS}]), KPIS, EXPERIMENT)
    assert report.users == {"challenger": 50, "champion": 50}
    assert report.money[2] < 1e9
    assert (
        "1 users were in both arms: each counts in the arm of the first session of a stretch, and 1 sessions in the "
        "other arm are dropped."
    ) in text(report)


def test_the_report_says_what_was_left_out():
    rows = sessions_of(60, FAIR | {"control": 0.5})
    other = [row | {"model_version": "v9"} for row in sessions_of(5, {"challenger": 0.5}, seed=2)]
    bots = [row | {"user_id": "bot", "is_bot": True} for row in rows[:7]]
    controlled = sum(row["arm"] == "control" for row in rows)
    report = compare(pd.DataFrame([*rows, *other, *bots]), KPIS, EXPERIMENT)
    assert f"Left out: 7 sessions of bots, {controlled + len(other)} of other arms and models." in text(report)


def test_stretches_are_shown_with_their_shares_and_users():
    stretches = Stretch(START_MS, START_MS + DAY_MS, 0.1, 0.85), Stretch(START_MS + DAY_MS, None, 0.5, 0.45)
    experiment = Experiment(*EXPERIMENT.arms, stretches, START_MS)
    rows = sessions_of(60, FAIR) + sessions_of(70, FAIR, start_ms=START_MS + DAY_MS)
    shown = text(compare(pd.DataFrame(rows), KPIS, experiment)).splitlines()
    assert "challenger v2 vs. champion v1, since 2026-03-01T00:00:00Z" in shown
    assert (
        "from 2026-03-01T00:00:00Z to 2026-03-02T00:00:00Z: challenger 10% (60 users), champion 85% (60 users)" in shown
    )
    assert "from 2026-03-02T00:00:00Z: challenger 50% (70 users), champion 45% (70 users)" in shown
    assert "A user of two stretches counts in each of them." in shown


def test_each_kpi_shows_its_values_its_doubt_and_its_guardrail():
    rows = sessions_of(400, {"champion": 0.2, "challenger": 0.2})
    shown = text(compare(pd.DataFrame(rows), KPIS, EXPERIMENT)).splitlines()
    lines = {line.split()[0]: line for line in shown if line.strip()}
    number, percent = r"\d+\.\d{4}", r"[+-]\d+\.\d%"
    assert re.fullmatch(
        rf"conversion_rate +{number} vs\. +{number}  {percent} \({percent} to {percent}\)  not significant, guardrail "
        r"inconclusive \(at most 10% worse\)",
        lines["conversion_rate"],
    )
    assert lines["click_through_rate"].split(maxsplit=1)[1] == (
        "no data: the denominator `view_promotions` is 0 in every session, of one arm or both"
    )
    capped = next(line for line in shown if "a session counts for at most" in line)
    assert "at most 20.00 (99th percentile); without this limit: " in capped


def test_a_baseline_that_may_be_0_has_no_relative_interval():
    rows = sessions_of(100, FAIR)
    for row in rows:
        row["purchases"] = int(row["user_id"] == "champion7" or row["user_id"].startswith("challenger1"))
    report = compare(pd.DataFrame(rows), KPIS, EXPERIMENT)
    assert report.findings["conversion_rate"].effect.relative is None
    assert "no relative interval yet  not significant, guardrail inconclusive" in text(report)
    assert b"no relative interval yet" in html(report)


def test_what_history_removed_stands_beside_the_difference_without_it():
    rng = np.random.default_rng(5)
    rows = []
    for user in range(400):
        taste, arm = rng.random(), ("champion", "challenger")[user % 2]
        for number, start in enumerate([START_MS - DAY_MS] * 10 + [START_MS + HOUR_MS] * 10):
            row = sessions_of(1, {arm: taste}, seed=1_000 * user + number, start_ms=start)[0]
            rows.append(row | {"user_id": f"u{user}"})
    finding = compare(pd.DataFrame(rows), KPIS, EXPERIMENT).findings["conversion_rate"]
    effect = finding.effect
    assert 0.3 < effect.variance_removed < 1
    assert notes(finding) == [
        f"history removed {effect.variance_removed:.0%} of the variance; without it: "
        f"{effect.treatment / effect.baseline - 1:+.1%}"
    ]


def test_the_command_writes_a_page_that_begins_with_the_decision_and_a_record(tmp_path, capsys):
    arguments = written(tmp_path, sessions_of(200, {"champion": 0.2, "challenger": 0.2}))
    assert main(["report", *arguments, *STATED, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert printed.splitlines()[0] in page
    for line in printed.split("\n\n")[1].splitlines():  # experiment and users
        assert line in page
    written_record = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)
    assert written_record["users"] == {"challenger": 200, "champion": 200}
    assert written_record["experiment"]["treatment"] == {"name": "challenger", "version": "v2"}
    assert written_record["stretches"][0]["stretch"]["treatment_share"] == 0.5
    assert written_record["findings"]["conversion_rate"]["effect"]["relative"].keys() == {"value", "low", "high"}
    assert "nan" not in printed + page


# Which experiment


def test_the_ledger_says_which_sessions_count_and_how_many_users_each_arm_should_have(tmp_path, capsys):
    """The sessions before the challenger would put half of its users into the champion's arm."""
    users = {"champion": 0.2, "challenger": 0.2}
    earlier = [
        row | {"arm": "champion", "model_version": "v1"} for row in sessions_of(300, users, start_ms=START_MS - DAY_MS)
    ]
    arguments = written(tmp_path, earlier + sessions_of(300, users))
    registry = ledger(
        tmp_path, (START_MS - 2 * DAY_MS, Rollout(salt="salt", champion="v1")), (START_MS, rollout(share=0.475))
    )
    assert main(["report", *arguments, *registry]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Keep running: no significant difference yet.")
    assert "challenger v2 vs. champion v1, since 2026-03-01T00:00:00Z" in printed
    assert "challenger 47.5% (300 users), champion 47.5% (300 users)" in printed


def test_the_version_that_the_ledger_changed_last_is_compared_unless_another_one_is_named(tmp_path, capsys):
    newer = [
        row | {"model_version": row["model_version"].replace("v2", "v3")}
        for row in sessions_of(70, FAIR, start_ms=START_MS + DAY_MS)
    ]
    arguments = written(tmp_path, sessions_of(60, FAIR) + newer)
    registry = ledger(tmp_path, (START_MS, rollout(share=0.475)), (START_MS + DAY_MS, rollout("v3", share=0.475)))
    assert main(["report", *arguments, *registry]) == 0
    assert "challenger v3 vs. champion v1, since 2026-03-02T00:00:00Z" in capsys.readouterr().out
    assert main(["report", *arguments, *registry, "--version", "v2"]) == 0
    printed = capsys.readouterr().out
    assert "challenger v2 vs. champion v1, since 2026-03-01T00:00:00Z" in printed
    assert "challenger: 60 users" in printed
    assert "the ledger has never had v9 as challenger" in refusal(capsys, [*arguments, *registry, "--version", "v9"])


def test_the_models_are_measured_against_control(tmp_path, capsys):
    arguments = written(tmp_path, sessions_of(60, {"champion": 0.2, "control": 0.2}))
    registry = ledger(tmp_path, (START_MS, rollout()))
    against_control = ["--treatment", "champion", "--baseline", "control"]
    assert main(["report", *arguments, *registry, *against_control]) == 0
    assert "champion v1 vs. control, since" in capsys.readouterr().out
    stated = ["--start", str(START_MS), "--shares", "champion=0.5", "control=0.5"]
    assert main(["report", *arguments, *stated, *against_control]) == 0
    assert "champion v1 vs. control, since" in capsys.readouterr().out


def test_earlier_sessions_are_history_however_the_start_is_written(tmp_path, capsys):
    rows = sessions_of(200, FAIR)
    arguments = written(tmp_path, rows)
    printed = []
    for start in (str(START_MS + HOUR_MS), "2026-03-01T02:00:00+01:00"):
        assert main(["report", *arguments, "--start", start, *STATED[2:]]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    later = sum(row["started_at"] >= START_MS + HOUR_MS for row in rows)
    assert sum(map(int, re.findall(r"(\d+) sessions\n", printed[0]))) == later


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give --registry URI, whose ledger has both, or, for sessions of a replay, --start TIME and --shares "
             "ARM=SHARE... (--start and --shares missing)"),
        (STATED[:2], "(--shares missing)"),
        (STATED[2:], "(--start missing)"),
        (["--registry", "r", *STATED], "--registry and --start can't be combined: the registry's ledger has it"),
        (["--registry", "r", "--baseline-version", "v1"], "--registry and --baseline-version can't be combined"),
        ([*STATED, "--treatment", "champion"], "arm champion cannot be compared with itself: choose two arms"),
        ([*STATED, "--treatment", "blue"], "'blue' is not one of 'challenger', 'champion', 'control'"),
        (["--start", "1772323200", *STATED[2:]],
         "expected milliseconds since 1970, got 1772323200: if these are seconds, append 000"),
        (["--start", "1772323200000000", *STATED[2:]], "if these are microseconds, drop the last 3 digits"),
        (["--start", "yesterday", *STATED[2:]], "expected 2026-05-01T08:00:00Z or milliseconds since 1970"),
        ([*STATED[:2], "--shares", "challenger=50", "champion=0.5"],
         "challenger: expected a share above 0 and at most 1, such as 0.5 for 50 %, got 50"),
        ([*STATED[:2], "--shares", "challenger=0", "champion=0.5"], "challenger: expected a share above 0"),
        ([*STATED[:2], "--shares", "challenger=nan", "champion=0.5"], "challenger: expected a share above 0"),
        ([*STATED[:2], "--shares", "challenger=half", "champion=0.5"], "challenger: expected a number such as 0.5"),
        ([*STATED[:2], "--shares", "blue=0.5"], "expected ARM=SHARE with an arm of challenger, champion, control"),
        ([*STATED, "champion=0.4"], "--shares: champion is given twice"),
        ([*STATED[:2], "--shares", "challenger=0.5"], "--shares: the share of champion is missing"),
        (["--start", "2026-04-01T00:00:00Z", *STATED[2:]], "is after all sessions, which are from 2026-03-01T00"),
    ],
)  # fmt: skip
def test_what_no_report_can_be_made_of_is_refused_in_a_line(tmp_path, capsys, arguments, told):
    assert told in refusal(capsys, [*written(tmp_path, sessions_of(5, FAIR)), *arguments])


def test_an_arm_that_is_not_there_is_named_with_those_that_are(tmp_path, capsys):
    arguments = written(tmp_path, sessions_of(5, {"champion": 0.5}))
    count = len(sessions_of(5, {"champion": 0.5}))
    assert refusal(capsys, [*arguments, *STATED]) == (
        "experiment: challenger has no session in the experiment, which began at 2026-03-01T00:00:00Z; its sessions "
        f"are of champion v1 ({count})\n"
    )


# Cases from shops


def test_without_purchases_or_pages_the_experiment_keeps_running(tmp_path, capsys):
    rows = sessions_of(300, FAIR)
    for row in rows:
        row |= {"purchases": 0, "pages": 0, "revenue": 0.0}
    assert main(["report", *written(tmp_path, rows), *STATED]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == (
        "Keep running: no significant difference yet. No data for the guardrails on conversion rate, bounce rate, "
        "revenue per session."
    )
    assert (
        "no data: the numerator `purchases > 0` is 0 in every session, guardrail no data (at most 10% worse)" in printed
    )
    assert "nan" not in printed


def test_equal_values_of_all_users_are_no_effect(tmp_path, capsys):
    """Orders of one price only: their average is the same in both arms, but for the rounding of sums."""
    rows = sessions_of(300, FAIR)
    for row in rows:
        row["revenue"] = 19.99 * row["purchases"]
    kpis = tmp_path / "kpis.yaml"
    kpis.write_text(
        "average_order_value: {formula: revenue / purchases, numerator: revenue, denominator: purchases,\n"
        "                      direction: up, guardrail: 0.02}"
    )
    assert main(["report", *written(tmp_path, rows), *STATED, "--kpis", str(kpis)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("No data: the sessions say nothing of any KPI yet.")
    assert "average_order_value    no data: all users have the same value" in printed


# Plans


def test_a_plan_tells_users_and_days_of_the_effect_and_of_the_steps(tmp_path, capsys):
    arguments = written(tmp_path, sessions_of(300, {"champion": 0.2, "challenger": 0.2}))
    rollout_file = tmp_path / "rollout.yaml"
    rollout_file.write_text("steps: [{share: 0.1, guardrails: {conversion_rate: 0.5, form_completion_rate: 0.1}}]")
    options = ["--effect", "0.1", "--rollout", str(rollout_file)]
    assert main(["plan", *arguments, *options]) == 0
    printed = capsys.readouterr().out
    assert "detecting a change of +10.0% with a power of 80%, as one of 4 KPIs, takes " in printed
    assert f"passes the steps of {rollout_file} with a power of 80%" in printed
    assert re.search(
        r"step at 10%, conversion_rate at most 50% worse: [\d,]+ users of both arms, [\d.,]+ days", printed
    )
    assert "form_completion_rate at most 10% worse: no data: the denominator `form_starts` is 0" in printed


def test_the_shipped_steps_are_planned_unless_another_file_is_named(tmp_path, capsys, monkeypatch):
    arguments = written(tmp_path, sessions_of(300, FAIR))
    monkeypatch.chdir(CONF.parent)
    assert main(["plan", *arguments, "--effect", "0.1"]) == 0
    assert "step at 1%, conversion_rate" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *arguments, "--effect", "0.1", "--kpis", str(CONF / "kpis.yaml")]) == 0
    assert "step" not in capsys.readouterr().out


def test_more_traffic_more_effect_and_less_power_take_fewer_days(tmp_path, capsys):
    arguments = written(tmp_path, sessions_of(300, FAIR))
    days = []
    for options in (["--traffic", "0.5"], [], ["--power", "0.5"], ["--power", "0.5", "--effect", "0.2"]):
        assert main(["plan", *arguments, "--effect", "0.1", *options]) == 0
        days.append(float(re.search(r"both arms: ([\d,.]+) days", capsys.readouterr().out)[1].replace(",", "")))
    assert all(before > after for before, after in pairwise(days))


def test_a_plan_leaves_out_bots(tmp_path, capsys):
    rows = sessions_of(100, FAIR)
    bots = [row | {"user_id": f"bot{number}", "is_bot": True} for number, row in enumerate(rows)]
    assert main(["plan", *written(tmp_path, rows + bots), "--effect", "0.1"]) == 0
    assert "for 200 users in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--traffic", "50"], "'--traffic': expected a share above 0 and at most 1, such as 0.5 for 50 %, got 50"),
        (["--traffic", "0"], "'--traffic': expected a share above 0 and at most 1"),
        (["--share", "1"], "'--share': expected a number above 0 and below 1"),
        (["--power", "80"], "'--power': expected a number above 0 and below 1"),
        (["--power", "nan"], "'--power': expected a number above 0 and below 1"),
        (["--effect", "0"], "'--effect': expected a number above -1 other than 0"),
        (["--effect", "-1"], "'--effect': expected a number above -1 other than 0"),
        (["--effect", "much"], "'--effect': expected a number such as 0.5, got 'much'"),
        (["--kpi", "mine"], "--kpi mine: expected one of click_through_rate, "),
        (["--kpi", "form_completion_rate"],
         "--kpi form_completion_rate: no data: the denominator `form_starts` is 0 in every session"),
        (["--rollout", "none.yaml"], "none.yaml"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_refused_in_a_line(tmp_path, capsys, options, told):
    arguments = written(tmp_path, sessions_of(50, FAIR))
    assert told in refusal(capsys, [*arguments, "--effect", "0.1", *options], "plan")


def test_too_few_users_and_a_single_moment_are_no_plan(tmp_path, capsys):
    few = written(tmp_path, sessions_of(5, FAIR))
    assert "the sessions are of 10 users, and a plan needs 30" in refusal(capsys, [*few, "--effect", "0.1"], "plan")
    at_once = written(tmp_path, [row | {"started_at": START_MS} for row in sessions_of(50, FAIR)])
    told = refusal(capsys, [*at_once, "--effect", "0.1"], "plan")
    assert "all sessions began at the same time, from 2026-03-01T00:00:00Z" in told


# Sources


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
    assert told in refusal(capsys, ["--topic", "sessions", *STATED, "--kafka", text])


def test_a_page_escapes_what_comes_from_records():
    experiment = Experiment(ExperimentArm("challenger", "<b>"), EXPERIMENT.baseline, EXPERIMENT.stretches, START_MS)
    rows = [row | {"model_version": row["model_version"].replace("v2", "<b>")} for row in sessions_of(60, FAIR)]
    report = compare(pd.DataFrame(rows), KPIS, experiment)
    assert b"<b>" not in html(report)
    assert b"&lt;b&gt;" in html(report)
    assert record(report)["experiment"]["treatment"]["version"] == "<b>"


@pytest.mark.parametrize(
    ("line", "told"),
    [("{", "sessions.jsonl: line 2"), ('{"user_id": 7}', "line 2: Expected `str`, got `int` - at `$.user_id`")],
)
def test_a_bad_record_is_named(tmp_path, capsys, line, told):
    arguments = written(tmp_path, sessions_of(1, {"champion": 0.0})[:1])
    with (tmp_path / "sessions.jsonl").open("a") as file:
        file.write(f"\n{line}\n")
    assert told in refusal(capsys, [*arguments, *STATED])


def test_no_sessions_are_refused(tmp_path, capsys):
    assert "sessions.jsonl: no sessions in it" in refusal(capsys, [*written(tmp_path, []), *STATED])


def test_parquet_is_read_like_lines(tmp_path):
    rows = sessions_of(5, FAIR)
    pd.DataFrame(rows).to_parquet(tmp_path / "part.parquet")
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet, lines = read_sessions(tmp_path / "part.parquet"), read_sessions(tmp_path / "lines.jsonl")
    pd.testing.assert_frame_equal(parquet, lines)


def test_a_directory_with_the_name_of_a_file_counts_once(tmp_path):
    rows = sessions_of(5, FAIR)
    part = tmp_path / "day.parquet" / "part-0.parquet"
    part.parent.mkdir()
    pd.DataFrame(rows).to_parquet(part)
    assert len(read_sessions(tmp_path)) == len(rows)


@pytest.mark.parametrize("name", ["sessions.jsonl.gz", "sessions.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, sessions_of(5, FAIR))).encode()))
    else:
        pd.DataFrame(sessions_of(5, FAIR)).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    with pytest.raises(SourceError, match=f"{name}: "):
        read_sessions(path)
