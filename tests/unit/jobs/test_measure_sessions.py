"""What the session job's SQL says of sessions, run by SQLite; tests/flink runs the whole job."""

import re
import sqlite3
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from jobs.common.settings import load_settings, session_settings
from jobs.measure_sessions import measure_sessions
from udfs.measurement.kpis import load_kpis

CONF = Path(__file__).parents[3] / "conf"
HOUR_MS = 3_600_000
CLOSED = [
    # arm, events, started_at, ended_at
    ("champion", 30, 1_000, 61_000),
    ("champion", 2_000, 1_000, HOUR_MS + 999),
    (None, 100, 1_000, 1_000),
    (None, 3_998, 0, HOUR_MS),
]


def statements(*overrides: str) -> tuple[list[str], list[str]]:
    """The views and the insertions of the job."""
    tables = MagicMock()
    settings = session_settings(load_settings(CONF / "local.yaml", overrides, {}))
    measure_sessions(tables, settings, load_kpis(CONF / "kpis.yaml"))
    inserted = tables.create_statement_set().add_insert_sql
    return [[call.args[0] for call in calls.call_args_list] for calls in (tables.execute_sql, inserted)]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], [(0, "champion"), (1, "bot"), (1, "bot"), (0, None)]),
        (["bots.min_gap=null"], [(0, "champion"), (1, "bot"), (0, None), (0, None)]),
        (["bots.min_gap=null", "bots.events_per_hour=null"], [(0, "champion"), (0, "champion"), (0, None), (0, None)]),
    ],
)
def test_a_session_of_a_bot_is_marked_and_counts_in_no_arm(overrides, expected):
    views, _ = statements(*overrides)
    (judged,) = (view for view in views if "VIEW judged_sessions" in view)
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE closed_sessions (arm TEXT, events, started_at, ended_at)")
        database.executemany("INSERT INTO closed_sessions VALUES (?, ?, ?, ?)", CLOSED)
        database.execute(judged)
        assert database.execute("SELECT is_bot, counted_as FROM judged_sessions").fetchall() == expected


SCORE_COLUMNS = "user_id, happened, event_time, arm, model_version, score, propensity"
OF_ACTIONS = "user_id, happened, event_time, event_name, event_key, page, revenue, device"


def closed(actions: list[tuple], scores: list[tuple]) -> dict[str, tuple]:
    """The device, the highest score, arm and propensity of each user's session, given times and devices, and scores.

    All that a user does is one session: SQLite has no windows of time.
    """
    views, _ = statements()
    (view,) = (view for view in views if "VIEW closed_sessions" in view)
    with sqlite3.connect(":memory:") as database:
        database.create_function("LPAD", 3, lambda text, width, fill: str(text).rjust(width, fill))
        database.create_function("SPLIT_INDEX", 3, lambda text, by, at: None if text is None else text.split(by)[at])
        database.create_function("SESSION", 2, lambda time, gap: 0)
        database.create_function("SESSION_ROWTIME", 2, lambda time, gap: 0)
        database.execute(f"CREATE TABLE actions ({OF_ACTIONS})")
        database.execute(f"CREATE TABLE timed_scores ({SCORE_COLUMNS})")
        database.executemany(
            "INSERT INTO actions VALUES (?, 0, ?, 'page_view', NULL, NULL, 0.0, ?)",
            [(user, time, device) for user, time, device in actions],
        )
        database.executemany("INSERT INTO timed_scores VALUES (?, 0, ?, ?, 'v1', ?, ?)", scores)
        database.execute(re.sub(r"INTERVAL ('.*?') DAY TO SECOND\(3\)", r"\1", view))
        rows = database.execute("SELECT user_id, device, top_score, arm, propensity FROM closed_sessions").fetchall()
    return {user: rest for user, *rest in rows}


def test_a_session_has_the_first_device_the_highest_score_and_the_first_scores_arm_and_propensity():
    actions = [
        *[("late", 1_000_000_000_000, "mobile"), ("late", 999_999_999_999, "tablet"), ("late", 900_000_000_000, None)],
        *[("unknown", 5, None), ("unscored", 5, "desktop")],
    ]
    scores = [
        *[("late", 7, "challenger", 0.25, 0.1), ("late", 6, "champion", 0.75, 0.8625)],
        ("unknown", 5, "control", 0.0, None),
    ]
    assert closed(actions, scores) == {
        "late": ["tablet", 0.75, "champion", 0.8625],
        "unknown": [None, 0.0, "control", None],
        "unscored": ["desktop", None, None, None],
    }
    assert closed([], scores) == {}


def test_kpis_are_summed_by_what_sessions_count_as():
    (_, kpis) = statements()[1]
    grouped = r"FROM judged_sessions GROUP BY TUMBLE\(closed, INTERVAL '1' (\w+)\), counted_as\n"
    assert re.findall(rf"counted_as AS arm,.*?{grouped}", kpis, re.DOTALL) == ["MINUTE", "HOUR"]
