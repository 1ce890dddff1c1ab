"""The tutorial's report, as it is printed, is right on the sessions that the tutorial's two replays make."""

import re
import shlex
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import training.experiment
from jobs.ops.replay.__main__ import shift_text
from training.experiment import main
from training.experiments.sessions import read_sessions
from udfs.measurement.kpis import FIELDS

PROJECT = Path(__file__).parents[2]
TUTORIAL = (PROJECT / "docs" / "tutorial.md").read_text()
COMMAND = shlex.split(re.search(r"^intent experiment (report .*)$", TUTORIAL, re.MULTILINE)[1])
START = datetime.fromisoformat(COMMAND[COMMAND.index("--start") + 1])
START_MS = int(START.timestamp() * 1000)
WEEK_MS = 7 * 86_400_000
#: The file's events are of four days, and were recorded some weeks before those of the second replay.
SPAN_MS, WEEKS = 4 * 86_400_000, 20


def replayed(first_ms: int, arms: dict[str, float], versions: dict[str, str]) -> pd.DataFrame:
    """Sessions of the file's users, always the same but for time, arm and version: nobody reacts to a model."""
    rng = np.random.default_rng(1)
    users = 4_000
    user = np.repeat(np.arange(users), 1 + rng.poisson(0.5, users))
    started = np.concatenate([[0], np.sort(rng.integers(0, SPAN_MS, len(user) - 1))])
    bought = rng.random(len(user)) < 0.05
    counts = {"pages": 1 + rng.poisson(1, len(user)), "purchases": bought * 1, "revenue": bought * 20.0, "events": 5}
    place = np.random.default_rng(2).random(users)
    arm = np.array(list(arms))[np.searchsorted(np.cumsum(list(arms.values())), place)][user]
    times = {"started_at": first_ms + started, "ended_at": first_ms + started + 60_000}
    who = {"user_id": [f"u{number}" for number in user], "arm": arm, "model_version": [versions[name] for name in arm]}
    return pd.DataFrame(dict.fromkeys(FIELDS, 0) | counts | who | times | {"is_bot": False})


@pytest.fixture
def topic(tmp_path, monkeypatch) -> Path:
    """A directory for the records of topic `sessions`, in a place with the project's settings."""
    (tmp_path / "conf").symlink_to(PROJECT / "conf")
    monkeypatch.chdir(tmp_path)
    records = tmp_path / "sessions"
    records.mkdir()
    monkeypatch.setattr(training.experiment, "read_topic_sessions", lambda properties, topic: read_sessions(records))
    before = replayed(
        START_MS - WEEKS * WEEK_MS,
        {"control": 0.05, "champion": 0.95},
        {"control": "first", "champion": "first"},
    )
    before.to_json(records / "first.jsonl", orient="records", lines=True)
    after = replayed(
        START_MS,
        {"control": 0.05, "challenger": 0.5, "champion": 0.45},
        {"control": "first", "champion": "first", "challenger": "second"},
    )
    after.to_json(records / "second.jsonl", orient="records", lines=True)
    return records


def test_the_report_of_the_tutorial_says_keep_running(topic, capsys):
    assert main(COMMAND) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Keep running: no significant difference yet.")
    assert "challenger second vs. champion first, since " in printed
    assert "users were in both arms" not in printed
    assert "The numbers of users match the shares" in printed
    assert (topic.parent / "build" / "experiment" / "report.html").exists()


def test_the_start_in_the_report_is_the_one_that_the_second_replay_prints():
    first_ms = START_MS - WEEKS * WEEK_MS
    printed = shift_text(first_ms, first_ms + SPAN_MS, WEEKS * WEEK_MS)
    assert printed.split("--start ")[1] == COMMAND[COMMAND.index("--start") + 1]


def test_with_the_start_of_the_first_replay_the_arms_would_not_be_alike(topic, capsys):
    """Its sessions would decide the arm: the champion's, for nearly all users."""
    early = datetime.fromtimestamp((START_MS - WEEKS * WEEK_MS) / 1000, START.tzinfo).isoformat()
    assert main([early if text == COMMAND[COMMAND.index("--start") + 1] else text for text in COMMAND]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Fix first: sample ratio mismatch")
    assert "users were in both arms" in printed


def test_the_dashboard_shows_the_same_experiment():
    settings = re.search(r"^experiments:\n  start: (\S+)\n  shares: \{(.*)\}$", TUTORIAL, re.MULTILINE)
    assert settings[1] == COMMAND[COMMAND.index("--start") + 1]
    shares = COMMAND[COMMAND.index("--shares") + 1 :][:2]
    assert settings[2].replace(": ", "=").split(", ") == shares
