"""The job that measures sessions, on a mini cluster: sessions and KPIs equal a slow, obvious computation."""

import json
from collections.abc import Collection
from pathlib import Path
from zlib import crc32

import pandas as pd
import pytest

from jobs.common.event_time import click_tables
from jobs.common.settings import session_settings
from jobs.common.submission import table_environment
from jobs.common.tables import KAFKA_METADATA, columns, create_table
from jobs.measure_sessions import kafka_tables, measure_sessions, score_columns
from tests.flink.conftest import files, json_line, read_json_lines, settings_of
from tests.support.repeats import with_repeats
from tools.trials.sessions import GAP_MS, expected_sessions
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.outputs import KpiValue, Session
from udfs.measurement.kpis import load_kpis, values

pytestmark = pytest.mark.flink

NOW = 1_800_000_000_000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
KPIS = load_kpis(Path(__file__).parents[2] / "conf" / "kpis.yaml")


@pytest.fixture
def measure(bundle_directory, tmp_path):
    """Run the job over given clicks and scores; returns what it wrote, by table."""

    def run(clicks: list[dict], scores: list[dict], *overrides: str) -> dict[str, list[dict]]:
        one_try = ("sessions.parallelism=1", "flink.restart-strategy.type=none", "decode.max_behind=36500 d")
        settings = session_settings(settings_of(bundle_directory, *one_try, *overrides))
        tables = table_environment(settings)
        lines = {
            "clicks": [json_line(number, None, json.dumps(click).encode(), NOW) for number, click in enumerate(clicks)],
            "timed_scores": [json.dumps(score) + "\n" for score in scores],
        }
        definitions = {
            "timed_scores": score_columns(settings),
            "sessions": columns(Session),
            "kpis": columns(KpiValue),
        }
        for name, text in lines.items():
            (tmp_path / name).write_text("".join(text))
        for statement in click_tables(settings, files(tmp_path / "clicks"), dict.fromkeys(KAFKA_METADATA, "")):
            tables.execute_sql(statement)
        for name, defined in definitions.items():
            tables.execute_sql(create_table(name, defined, files(tmp_path / name)))
        measure_sessions(tables, settings, KPIS).execute().wait()
        return {name: read_json_lines(tmp_path / name) for name in ("sessions", "kpis")}

    return run


def simulated_clicks() -> list[dict]:
    stream = simulate(Simulation(users=80, hours=8, seed=9, late_share=0.05))
    slots = ("top", "bottom", None)
    clicks = [
        click | ({"creative_slot": slot} if (slot := slots[number % 3]) and "promotion" in click["event_name"] else {})
        for number, click in enumerate(stream.clicks())
    ]
    for click in clicks[::3]:
        click.pop("device_category", None)
    for click in clicks[::7]:
        click["device_category"] = "Smart TV"
    for number, click in enumerate(clicks[::25]):
        click |= {"event_name": "purchase", "value": 10.0 + number}
        click.pop("creative_slot", None)
    return clicks


def arm_of(user: str) -> str:
    return ("champion", "challenger", "control")[crc32(user.encode()) % 3]


def scores_of(clicks: list[dict], positions: Collection[int] | None = None) -> list[dict]:
    """Scores of all clicks, or of those at the given positions."""
    return [
        {
            "user_id": click["user_id"],
            "event_time": click["event_time"],
            "arm": arm_of(click["user_id"]),
            "model_version": "v1",
            "score": position % 89 / 100,
            "source_partition": 0,
            "source_offset": position,
        }
        for position, click in enumerate(clicks)
        if positions is None or position in positions
    ]


def top_score(scores: list[dict], session) -> float:
    return max(
        score["score"]
        for score in scores
        if score["user_id"] == session.user_id and session.started_at <= score["event_time"] <= session.ended_at
    )


def test_sessions_and_kpis_equal_those_of_a_batch_computation(measure):
    clicks = simulated_clicks()
    broken = [{"user_id": {}, "event_name": "purchase", "event_time": clicks[0]["event_time"], "value": 5}]
    deleted = scores_of([{"user_id": "of-deleted-clicks", "event_time": clicks[0]["event_time"]}])
    sent, positions = with_repeats(clicks)
    # The score job remembers fewer events: some of those that are sent again have scores of their own.
    scored = {*positions, *(number for number, click in enumerate(sent) if "creative_slot" in click)}
    scores = scores_of(sent, scored)
    written = measure([*sent, *broken], [*deleted, *scores], "event_time.lateness=1 d")
    wanted = expected_sessions(clicks, arm_of)
    wanted["top_score"] = [top_score(scores, session) for session in wanted.itertuples()]
    assert set(wanted["device"]) > {"mobile", "desktop", "smart tv", None}

    found = pd.DataFrame(written["sessions"])
    assert not found.pop("is_bot").any()
    assert set(found.pop("model_version")) == {"v1"}
    order = ["user_id", "started_at"]
    found = found[wanted.columns].sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted.sort_values(order).reset_index(drop=True), check_dtype=False, rtol=1e-6)

    rows = {
        (row["window"], row["window_start"], row["arm"], row["placement"], row["kpi"]): row for row in written["kpis"]
    }
    assert len(rows) == len(written["kpis"])
    expected = {}
    for window, size_ms in (("minute", MINUTE_MS), ("hour", 60 * MINUTE_MS)):
        starts = (wanted["ended_at"] + GAP_MS - 1) // size_ms * size_ms
        for (start, arm), sessions in wanted.groupby([starts, "arm"]):
            for name, kpi in KPIS.items():
                sums = values(kpi.numerator, sessions).sum(), values(kpi.denominator, sessions).sum()
                expected[window, start, arm, None, name] = sums
        placed = pd.DataFrame(click for click in clicks if "creative_slot" in click)
        placed["arm"] = placed["user_id"].map(arm_of)
        for (start, arm, slot), events in placed.groupby(
            [placed["event_time"] // size_ms * size_ms, "arm", "creative_slot"]
        ):
            names = events["event_name"]
            sums = (names == "select_promotion").sum(), (names == "view_promotion").sum()
            expected[window, start, arm, slot, "click_through_rate"] = sums
    assert rows.keys() == expected.keys()
    for key, (numerator, denominator) in expected.items():
        assert rows[key]["numerator"] == pytest.approx(numerator, rel=1e-6), key
        assert rows[key]["denominator"] == pytest.approx(denominator), key
        value = numerator / denominator if denominator else None
        assert rows[key]["value"] == (value if value is None else pytest.approx(value, rel=1e-6)), key


def test_sessions_of_bots_are_marked_and_count_apart_in_kpis(measure):
    def visit(user: str, *events: tuple[int, str]) -> list[dict]:
        return [
            {"user_id": user, "event_name": name, "event_time": NOW - HOUR_MS + time_ms, "creative_slot": "top"}
            for time_ms, name in events
        ]

    view, promotion = "page_view", "view_promotion"
    crawler = visit("crawler", (0, promotion), *((minute * MINUTE_MS, view) for minute in range(1, 12)))
    scraper = visit("scraper", *((number * 100, view) for number in range(5)))
    # On average faster than 1 s, but no five events within 4 s: a division with a fraction would mark it.
    human = visit("human", (0, promotion), *((time_ms, view) for time_ms in (400, 1_600, 2_800, 4_000, 4_400)))
    clicks = sorted([*crawler, *scraper, *human], key=lambda click: click["event_time"])
    scores = [score | {"arm": "champion"} for score in scores_of(clicks)]
    limits = ("bots.events_per_hour=12", "bots.paced_events=5", "bots.min_gap=1 s")
    written = measure(clicks, scores, *limits)
    assert {one["user_id"]: (one["is_bot"], one["arm"]) for one in written["sessions"]} == {
        "crawler": (True, "champion"),
        "scraper": (True, "champion"),
        "human": (False, "champion"),
    }
    hours = [row for row in written["kpis"] if row["window"] == "hour"]
    sessions = pd.DataFrame(row for row in hours if row["kpi"] == "conversion_rate")
    assert sessions.groupby("arm")["denominator"].sum().to_dict() == {"bot": 2, "champion": 1}
    placed = [row for row in hours if row["placement"] == "top"]
    assert [(row["arm"], row["denominator"]) for row in placed] == [("champion", 2)]


def test_mapped_clicks_count_once_and_find_their_scores(measure):
    """A failure makes the score job write clicks and scores again; a click has the position of its record.

    What the shop sends again counts again: this run does not look at ids.
    """
    shown = {"user_id": "ada", "event_name": "view_promotion", "event_time": NOW, "creative_slot": "top"}
    clicked = shown | {"event_name": "select_promotion", "event_time": NOW + 1_000}
    bought = {"user_id": "ada", "event_name": "purchase", "event_time": NOW + 2_000, "value": 50.0, "event_id": "e1"}
    last = {"user_id": "bob", "event_name": "page_view", "event_time": NOW + 7_200_000}
    clicks = [shown, clicked, bought, bought, last]
    mapped = [click | {"source_partition": 0, "source_offset": number} for number, click in enumerate(clicks)]
    again = [*mapped[:4], *mapped]
    by_no_id = ("clicks.mapping=conf/mappings/segment.yaml", "clicks.duplicates_within=0 s")
    written = measure(again, 2 * scores_of(clicks), *by_no_id)
    session = next(one for one in written["sessions"] if one["user_id"] == "ada")
    assert (session["events"], session["purchases"], session["revenue"]) == (4, 2, 100.0)
    assert (session["device"], session["top_score"]) == (None, 0.03)
    placed = [row for row in written["kpis"] if row["placement"] == "top" and row["window"] == "hour"]
    assert [(row["kpi"], row["arm"], row["numerator"], row["denominator"]) for row in placed] == [
        ("click_through_rate", arm_of("ada"), 1.0, 1.0)
    ]


def test_clicks_at_the_same_position_of_another_topic_count(measure):
    view = {"event_name": "page_view", "event_time": NOW, "source_partition": 0, "source_offset": 0}
    of_both = [view | {"user_id": "ada"}, view | {"user_id": "bob"}]
    written = measure(of_both, [], "clicks.mapping=conf/mappings/segment.yaml")
    assert {row["user_id"] for row in written["sessions"]} == {"ada", "bob"}


def test_each_click_is_read_once(bundle_directory):
    settings = session_settings(settings_of(bundle_directory, "clicks.mapping=conf/mappings/segment.yaml"))
    tables = table_environment(settings)
    for statement in kafka_tables(settings):
        tables.execute_sql(statement)
    plan = measure_sessions(tables, settings, KPIS).explain().rpartition("== Optimized Execution Plan ==")[2]
    assert plan.count("read_actions(") == plan.count("SessionGroupWindow(") == 1
