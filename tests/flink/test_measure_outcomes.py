"""The job that measures outcomes, on a mini cluster: every score gets the label that training would give it."""

import json
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from jobs.common.event_time import click_tables
from jobs.common.settings import outcome_settings
from jobs.common.submission import table_environment
from jobs.common.tables import KAFKA_METADATA, columns, create_table
from jobs.measure_outcomes import kafka_tables, measure_outcomes, score_columns
from tests.flink.conftest import files, json_line, read_json_lines, settings_of
from tests.support.repeats import with_repeats
from training.data.dataset import read_clicks
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.outputs import ModelQuality, Outcome
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.measurement.labels import LABELS_FILE, Label, find_label, label_events
from udfs.measurement.quality import MEASURES

pytestmark = pytest.mark.flink

LABELS = Path(__file__).parents[2] / "conf" / LABELS_FILE
NOW = 1_800_000_000_000
ONE_TRY = ("job.parallelism=1", "outcomes.parallelism=1", "flink.restart-strategy.type=none")


def run_job(
    bundle_directory: Path, directory: Path, clicks: list[dict], scores: list[dict], label: Label, *overrides: str
) -> dict[str, list[dict]]:
    """Run the job over given clicks and scores, in files of a directory; returns what it wrote, by table."""
    settings = outcome_settings(settings_of(bundle_directory, *ONE_TRY, "decode.max_behind=36500 d", *overrides))
    tables = table_environment(settings)
    (directory / "due_scores").write_text("".join(json.dumps(score) + "\n" for score in scores))
    definitions = score_columns(settings, label)
    tables.execute_sql(create_table("due_scores", definitions, files(directory / "due_scores")))
    (directory / "clicks").write_text("".join(json_line(0, None, json.dumps(click).encode(), NOW) for click in clicks))
    for statement in click_tables(settings, files(directory / "clicks"), dict.fromkeys(KAFKA_METADATA, "")):
        tables.execute_sql(statement)
    sinks = {"outcomes": Outcome, "model_quality": ModelQuality}
    for name, record in sinks.items():
        tables.execute_sql(create_table(name, columns(record), files(directory / f"{name}.out")))
    measure_outcomes(tables, settings, label).execute().wait()
    return {name: read_json_lines(directory / f"{name}.out") for name in sinks}


@pytest.fixture
def measure(bundle_directory, tmp_path):
    """Run the job over given clicks and scores; returns what it wrote, by table."""
    return partial(run_job, bundle_directory, tmp_path)


def score_of(click: dict, number: int) -> dict:
    """A score as the topic has it, with a value that follows from the click."""
    return {
        "user_id": click["user_id"],
        "event_id": click["event_id"],
        "event_name": click["event_name"] if click["event_name"] in EVENT_KINDS else "other",
        "event_time": click["event_time"],
        "score": (crc32(click["event_id"].encode()) % 997) / 997,
        "decision": number % 2 == 0,
        "arm": ("champion", "challenger")[sum(map(ord, click["user_id"])) % 2],
        "model_version": "v1",
        "scored_at": click["event_time"],
        "source_partition": 0,
        "source_offset": number,
    }


@pytest.mark.parametrize("name", ["converted", "abandoned", "engaged", "deep_visit"])
def test_every_score_gets_the_label_that_training_computes(measure, name):
    label = find_label(name, LABELS)
    stream = simulate(replace(Simulation(users=60, hours=6, seed=3), late_share=0.05))
    clicks = list(stream.clicks())
    for number, click in enumerate(clicks):  # or too few are positive
        click["event_name"] = "purchase" if number % 25 == 0 else "page_view" if number % 3 else click["event_name"]
    scores = [score_of(click, number) for number, click in enumerate(clicks)]
    repeated = [*scores, *scores[::50]]  # as at-least-once delivery may
    sent, _ = with_repeats(clicks)
    written = measure(sent, repeated, label, "event_time.lateness=1 d")

    data = read_clicks([json.dumps(click).encode() for click in clicks])
    positive, _ = label_events(label, data.user, data.records)
    found = {outcome["source_offset"]: outcome for outcome in written["outcomes"]}
    assert len(written["outcomes"]) == len(found) == len(clicks)
    assert 0 < positive.sum() < len(clicks)
    assert [found[number]["label"] for number in range(len(clicks))] == positive.tolist()
    assert all(
        outcome["evaluated"] == (outcome["event_name"] in label.scored_events)
        and outcome["matured_at"] == outcome["event_time"] + label.horizon_ms
        for outcome in written["outcomes"]
    )

    expected = defaultdict(list)
    for outcome in written["outcomes"]:
        if outcome["evaluated"]:
            minute = outcome["event_time"] // 60_000 * 60_000
            expected[minute, outcome["model_version"], outcome["arm"]].append((outcome["score"], outcome["label"]))
    assert len(written["model_quality"]) == len(expected)
    for row in written["model_quality"]:
        score, label_ = map(np.array, zip(*expected[row["event_minute"], row["model_version"], row["arm"]]))
        for measure_name, function in MEASURES.items():
            wanted = function(score.astype(np.float32).astype(float), label_)
            assert row[measure_name] == (wanted if wanted is None else pytest.approx(wanted, rel=1e-9)), row


BUYING = find_label("purchase within 10 min", LABELS)
VIEW = {"event_name": "view_item", "event_time": NOW, "event_id": "view"}
BOUGHT = {"event_name": "purchase", "event_time": NOW + 5_000}
#: Clicks that the score job rejects. They come first: if one moved the time, all others would be late.
REJECTED = [
    BOUGHT | {"user_id": {}},
    BOUGHT | {"user_id": "of rejected clicks", "event_time": NOW + 10**15},
    BOUGHT | {"user_id": "of rejected clicks", "event_time": 10**300},
    BOUGHT | {"user_id": "of rejected clicks", "event_time": "soon"},
    BOUGHT | {"user_id": "of rejected clicks", "price": -1},
    BOUGHT | {"user_id": "of rejected clicks", "item_id": "x" * 300},
    {"event_time": NOW + 86_400_000},
]
#: Purchases as the decoder accepts them, by user.
FORMS = {
    "float": BOUGHT | {"event_time": NOW + 5_000.0},
    "text": BOUGHT | {"event_time": str(NOW + 5_000)},
    "nan": {"custom": float("nan")} | BOUGHT,
    "surrogate": {"search_term": "gift \ud83d"} | BOUGHT,
    "after": BOUGHT | {"custom": float("inf")},
}
#: Times of purchases, by user, and whether they are outcomes of a score at NOW.
MOMENTS = {"same moment": (NOW, False), "last": (NOW + 600_000, True), "too late": (NOW + 600_001, False)}


@pytest.fixture(scope="module")
def labels(bundle_directory, tmp_path_factory) -> dict[str, bool]:
    """The label of a score at NOW of each user, after all these clicks at once: each run takes seconds to start."""
    purchases = FORMS | {user: BOUGHT | {"event_time": time_ms} for user, (time_ms, _) in MOMENTS.items()}
    clicks = [*REJECTED]
    for user, purchase in purchases.items():
        clicks += [VIEW | {"user_id": user}, {"user_id": user} | purchase]
    clicks[-1]["anonymous_id"] = clicks[-3]["anonymous_id"] = "before login"  # logins are not followed
    users = [*purchases, "of rejected clicks", "before login"]
    scores = [score_of(VIEW | {"user_id": user}, number) for number, user in enumerate(users)]
    outcomes = run_job(bundle_directory, tmp_path_factory.mktemp("labels"), clicks, scores, BUYING)["outcomes"]
    assert len(outcomes) == len(users)
    return {outcome["user_id"]: outcome["label"] for outcome in outcomes}


def test_an_outcome_counts_in_the_last_millisecond_of_the_horizon_and_not_in_the_score_s_own(labels):
    assert {user: labels[user] for user in MOMENTS} == {user: counts for user, (_, counts) in MOMENTS.items()}
    assert not labels["before login"]


def test_a_click_that_the_score_job_rejects_is_no_outcome_and_moves_no_time(labels):
    assert not labels["of rejected clicks"]
    assert labels["last"]


def test_a_purchase_in_any_form_that_the_decoder_accepts_is_an_outcome(labels):
    assert {user: labels[user] for user in FORMS} == dict.fromkeys(FORMS, True)


def test_an_outcome_after_a_login_is_one_of_the_scores_before_it(measure):
    """This run also counts what is sent again."""
    start = NOW - 3_600_000
    view = {"event_name": "view_item", "event_time": start}
    bought = {"event_name": "purchase", "event_time": start + 5_000, "event_id": "e1", "transaction_id": "t1"}
    again = bought | {"event_time": NOW, "event_id": "e2"}
    clicks = [
        view | {"user_id": "cookie 1", "anonymous_id": "cookie 1"},
        bought | {"user_id": "ada", "anonymous_id": "cookie 1"},
        bought | {"user_id": "cookie 2", "anonymous_id": "cookie 2"},
        bought | {"user_id": "eve", "anonymous_id": ""},
        again | {"user_id": "eve"},
    ]
    scored = [(user, time_ms) for user in ("cookie 1", "ada", "cookie 2", "eve", "bob") for time_ms in (start, NOW - 1)]
    scores = [
        score_of(view | {"user_id": user, "event_time": time_ms, "event_id": "view"}, number)
        for number, (user, time_ms) in enumerate(scored)
    ]
    written = measure(clicks, scores, BUYING, "clicks.follow_logins=true", "clicks.duplicates_within=0 s")
    found = {(outcome["user_id"], outcome["event_time"]) for outcome in written["outcomes"] if outcome["label"]}
    assert len(written["outcomes"]) == len(scored)
    assert found == {(user, start) for user in ("cookie 1", "ada", "cookie 2", "eve")} | {("eve", NOW - 1)}


def test_each_click_is_read_once(bundle_directory):
    overrides = ("clicks.mapping=conf/mappings/segment.yaml", "clicks.follow_logins=true")
    settings = outcome_settings(settings_of(bundle_directory, *overrides))
    label = find_label("converted", LABELS)
    tables = table_environment(settings)
    for statement in kafka_tables(settings, label):
        tables.execute_sql(statement)
    plan = measure_outcomes(tables, settings, label).explain().rpartition("== Optimized Execution Plan ==")[2]
    assert plan.count("read_amounts(") == plan.count("OverAggregate(") == 1
