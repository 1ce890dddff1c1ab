"""`intent features explain`: a user's vector is that of training and of the job, from files and from topics."""

import json
import math
import re
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from intent.cli import main
from intent.features.user_events import JobRules
from jobs.common.settings import click_topic, load_settings
from tests.support.bundles import make_bundle
from tests.support.fake_kafka import KeptTopics, Record
from tests.support.journeys import arrivals, journeys
from tests.support.published import publish_clicks
from tests.support.sample_records import sample_fields
from tests.unit.training.data.test_preparation import archive
from training.data.decoded import ACCEPTED
from training.data.examples import load_examples
from training.data.preparation import Preparation, prepare
from training.simulation.clickstream import Simulation, simulate
from udfs.config.durations import duration_ms
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.features.declaration_file import STANDARD, load_declaration
from udfs.mapping.topic import ClickTopic
from udfs.measurement.labels import Label
from udfs.models.bundle import ENDPOINT_FILE, EXPORT_FILE, XGBOOST_FILE
from udfs.models.remote import Endpoint

CONF = Path(__file__).parents[4] / "conf" / "local.yaml"
NOW = 1_767_600_000_000
#: Every event is an example, and its label is known at once.
ALL = Label(events=("purchase",), horizon="1 ms", rows=EVENT_KINDS)
PREPARATION = Preparation(ALL, workers=1, duplicates_within_ms=3_600_000)
ANY_DELAY = ("--conf", CONF, "--set", "decode.max_behind=9999d")


@pytest.fixture
def explain(capsys):
    """Run the command; returns its exit code, output and error."""

    def run(*arguments) -> tuple[int, str, str]:
        code = main(["features", "explain", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def explained(explain):
    """The JSON object of a user."""

    def run(*arguments) -> dict:
        code, printed, error = explain(*arguments, "--json")
        assert (code, error) == (0, "")
        return json.loads(printed)

    return run


def click(number: int, user: str = "u1", **fields) -> dict:
    fields = {"event_name": "view_item", "item_id": f"i{number % 5}", "price": number + 1.0} | fields
    return {"user_id": user, "event_time": NOW + number * 60_000} | fields


def write(path: Path, records: list) -> Path:
    path.write_text("".join(record if isinstance(record, str) else json.dumps(record) + "\n" for record in records))
    return path


def values_of(found: dict) -> bytes:
    values = [math.nan if feature["value"] is None else feature["value"] for feature in found["features"]]
    return np.array(values, np.float32).tobytes()


def assert_as_in_training(clicks: list[dict], partitions: int, examples, explained, *arguments) -> None:
    """Some events have the features that they have as examples."""
    offsets, times, click_at = Counter(), Counter(), {}
    for one in clicks:  # as `archive` does
        partition = sum(one["user_id"].encode()) % partitions
        click_at[partition, offsets[partition]] = one
        offsets[partition] += 1
        times[one["user_id"], one["event_time"]] += 1
    checked = 0
    for row in np.random.default_rng(1).permutation(len(examples)).tolist():
        place = int(examples.partition[row]), int(examples.offset[row])
        user, time_ms = click_at[place]["user_id"], click_at[place]["event_time"]
        if times[user, time_ms] == 1 and checked < 12:
            found = explained(user, "--at", time_ms, *arguments)
            assert (found["partition"], found["offset"]) == place
            assert values_of(found) == examples.features[row].tobytes()
            checked += 1
    assert checked == 12


def test_an_archive_gives_the_vectors_of_training(tmp_path, explained):
    stream = simulate(Simulation(users=40, hours=12, seed=8, late_share=0.1))
    clicks = list(stream.clicks())
    archive(tmp_path / "clicks" / "day=2026-01-05" / "part-0.parquet", clicks, stream.arrival_ms)
    updates = [profile["updated_at"] for profile in stream.profiles]
    archive(tmp_path / "profiles" / "part-0.parquet", stream.profiles, updates)
    directories, _ = prepare(tmp_path / "clicks", tmp_path / "out", PREPARATION, tmp_path / "profiles")
    where = ("--clicks", tmp_path / "clicks", "--profiles", tmp_path / "profiles")
    assert_as_in_training(clicks, 3, load_examples(directories), explained, *where, *ANY_DELAY)


@pytest.mark.slow
def test_an_archive_gives_what_training_sees_of_other_users_if_the_tables_are_known(tmp_path, explained):
    clicks = journeys(np.random.default_rng(3), 120)
    for one in clicks:
        one["item_category"] = one.get("item_id", "none")
    payloads, arrival_ms = [json.dumps(one).encode() for one in clicks], arrivals(clicks)
    archive(tmp_path / "clicks" / "part-0.parquet", clicks, arrival_ms, partitions=2)
    declared = write(tmp_path / "mine.yaml", ["extends: population\n"])
    following = replace(PREPARATION, follow_logins=True, declaration=load_declaration(declared))
    directories, _ = prepare(tmp_path / "clicks", tmp_path / "out", following)
    topic = ClickTopic(ACCEPTED, layout=following.declaration.layout)
    publish_clicks(str(tmp_path / "tables"), topic, payloads, arrival_ms.tolist())
    settings = (f"clicks.declaration={declared}", f"population.dir={tmp_path / 'tables'}", "clicks.follow_logins=true")
    where = ("--clicks", tmp_path / "clicks", *ANY_DELAY, *(part for each in settings for part in ("--set", each)))
    examples = load_examples(directories)
    assert np.isfinite(examples.features[:, examples.names.index("category_share")]).any()
    assert_as_in_training(clicks, 2, examples, explained, *where)

    found = explained("ada", *where[:2], "--declaration", declared)
    assert any("population.dir is not known" in caution for caution in found["notes"])


@pytest.mark.parametrize("seed", [1, 2])
def test_logins_are_followed_as_in_training_if_the_job_follows_them(tmp_path, explained, seed):
    clicks = journeys(np.random.default_rng(seed), 120)
    archive(tmp_path / "clicks" / "part-0.parquet", clicks, arrivals(clicks), partitions=2)
    following = replace(PREPARATION, follow_logins=True, history_length=20)
    directories, _ = prepare(tmp_path / "clicks", tmp_path / "out", following)
    settings = ("--set", "clicks.follow_logins=true", "--set", "state.history_length=20")
    where = ("--clicks", tmp_path / "clicks", *ANY_DELAY, *settings)
    assert_as_in_training(clicks, 2, load_examples(directories), explained, *where)


def test_a_file_gives_the_vectors_of_training_in_the_order_of_the_events(tmp_path, explained):
    clicks = [click(number, event_id=f"e{number // 2}") for number in (3, 1, 2, 0)]
    path = write(tmp_path / "clicks.jsonl", ["no json\n", *clicks])
    directories, _ = prepare(path, tmp_path / "out", PREPARATION)
    examples = load_examples(directories)
    found = explained("u1", "--clicks", path, "--at", NOW + 2 * 60_000)
    assert (found["file"], found["record"]) == ("clicks.jsonl", 4)
    assert (found["lifetime_events"], found["event_time"]) == (2, "2026-01-05T08:02:00.000Z")
    assert values_of(found) == examples.features[examples.time_ms == NOW + 2 * 60_000].tobytes()


def topics_of(monkeypatch, **topics: list[Record]) -> None:
    kept = KeptTopics(**{name: {0: records} for name, records in topics.items()})
    monkeypatch.setattr("intent.features.topic_events.open_reader", lambda _: nullcontext(kept))


def records_of(values: list[dict], user: str = "u1") -> list[Record]:
    return [
        Record(0, offset, value.get("event_time", NOW), user.encode(), json.dumps(value).encode())
        for offset, value in enumerate(values)
    ]


def test_topics_give_the_vectors_of_the_archive(tmp_path, monkeypatch, explained):
    clicks = [click(number) for number in range(80)]
    profile = {"user_id": "u1", "country": "DE", "membership_tier": "gold"}
    archive(tmp_path / "clicks" / "part-0", clicks, [one["event_time"] for one in clicks], partitions=1)
    archive(tmp_path / "profiles" / "part-0", [profile], [NOW], partitions=1)
    topics_of(monkeypatch, clicks=records_of(clicks), profiles=records_of([profile]))
    where = ("--clicks", tmp_path / "clicks", "--profiles", tmp_path / "profiles")
    for at in (NOW + 7 * 60_000 + 1, NOW + 10**9):
        from_topics = explained("u1", "--at", at, "--conf", CONF)
        assert from_topics == explained("u1", "--at", at, *where)
        assert from_topics["notes"] == []
    assert from_topics["history_events"] == 64
    assert {feature["text"] for feature in from_topics["features"]} >= {"gold", "DE", "1 event", "yes"}


def test_a_model_has_the_strongest_contributions_first(tmp_path, monkeypatch, explain, explained):
    bundle = make_bundle(tmp_path, "v1")
    clicks = [click(0), click(1), click(60), click(61)]
    topics_of(monkeypatch, clicks=records_of(clicks))
    found = explained("u1", "--conf", CONF, "--bundle", bundle)
    parts = [feature["contribution"] for feature in found["features"]]
    model = found["model"]
    assert sorted(map(abs, parts), reverse=True) == list(map(abs, parts))
    logit = math.log(model["base"] / (1 - model["base"])) + sum(parts)
    assert model["score"] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
    assert (model["version"], model["served"]) == ("v1", None)
    text = explain("u1", "--conf", CONF, "--bundle", bundle)[1]
    assert (
        f"score of model v1 (purchase by the same user within 30 min after the event): {model['score']:.6f}; " in text
    )
    assert re.search(r"^name +value +odds +description$", text, re.MULTILINE)
    assert [line.split()[0] for line in text.split("\n\n")[1].splitlines()[1:]] == [
        feature["name"] for feature in found["features"]
    ]


def test_the_score_in_the_topic_is_compared(tmp_path, monkeypatch, explained):
    bundle, clicks = make_bundle(tmp_path, "v1"), [click(0), click(1)]
    topics_of(monkeypatch, clicks=records_of(clicks))
    score = explained("u1", "--conf", CONF, "--bundle", bundle)["model"]["score"]
    for served, version, notes in ((score, "v1", 0), (0.999, "v1", 1), (0.999, "v2", 0)):
        fields = sample_fields("scores", user_id="u1", score=served, model_version=version, source_offset=1)
        topics_of(monkeypatch, clicks=records_of(clicks), scores=records_of([fields]))
        found = explained("u1", "--conf", CONF, "--bundle", bundle)
        assert found["model"]["served"] == (served if version == "v1" else None)
        assert len(found["notes"]) == notes


def test_a_remote_model_that_does_not_answer_leaves_the_features(tmp_path, explained):
    endpoint = msgspec.json.encode(Endpoint(url="http://127.0.0.1:1", model="m"))
    bundle = make_bundle(tmp_path, "v1", changes={XGBOOST_FILE: None, EXPORT_FILE: None, ENDPOINT_FILE: endpoint})
    found = explained("u1", "--clicks", write(tmp_path / "c.jsonl", [click(0)]), "--bundle", bundle)
    assert (found["model"]["score"], found["model"]["base"]) == (None, None)
    assert "the model gave no score: http://127.0.0.1:1/v2/models/m: " in found["notes"][0]
    assert not any("contribution" in feature for feature in found["features"])


def test_tiles_and_own_columns_are_as_in_training(tmp_path, explained):
    declaration = write(
        tmp_path / "own.yaml",
        ["columns: {margin: {type: number, scale: 10}}\nfeatures:\n  own:\n"
         "    margins: {value: 'sum(margin, over=30d, by=1d)', unit: currency, doc: margins of a month}\n"
         "    margin: {value: mean(margin), unit: currency, doc: mean margin}\n"],
    )  # fmt: skip
    clicks = [click(number, margin=number / 10) for number in range(150)]
    archive(tmp_path / "clicks" / "part-0", clicks, [one["event_time"] for one in clicks], partitions=1)
    declared = replace(PREPARATION, declaration=load_declaration(declaration))
    examples = load_examples(prepare(tmp_path / "clicks", tmp_path / "out", declared)[0])
    where = ("--clicks", tmp_path / "clicks", "--declaration", declaration)
    assert_as_in_training(clicks, 1, examples, explained, *where)


def test_own_kinds_are_those_of_the_declaration(tmp_path, explained):
    declaration = write(
        tmp_path / "own.yaml",
        ["kinds: {quiz: 100}\nfeatures: {own: {kind: {value: now.kind, unit: code, doc: kind}, quizzes: "
         "{value: 'count(kind == quiz)', unit: events, doc: quizzes}}}\n"],
    )  # fmt: skip
    path = write(tmp_path / "clicks.jsonl", [click(0, event_name="quiz"), click(1, event_name="quiz")])
    found = explained("u1", "--clicks", path, "--declaration", declaration)
    assert [(feature["name"], feature["text"]) for feature in found["features"]] == [
        ("kind", "quiz"),
        ("quizzes", "2 events"),
    ]
    (note,) = explained("u1", "--clicks", path, "--declaration", declaration, "--conf", CONF)["notes"]
    assert note.startswith("the job does not have the kind of event quiz with code 100: set clicks.declaration in ")


def test_a_mapping_makes_clicks_of_a_foreign_file(tmp_path, explained):
    path = write(tmp_path / "clicks.csv", [f"who,what,when\nu1,view_item,{NOW}\n"])
    columns = "columns: {user_id: who, event_name: what, event_time: when}\n"
    mapping = write(tmp_path / "mapping.yaml", [columns + "time_format: epoch_ms\n"])
    assert explained("u1", "--clicks", path, "--mapping", mapping)["event_name"] == "view_item"


def test_the_text_names_the_event_and_describes_each_feature(tmp_path, explain):
    path = write(tmp_path / "clicks.jsonl", [click(0, user="u\x1b[2J", event_name="\x1b]0;x")])
    code, printed, _ = explain("u\x1b[2J", "--clicks", path)
    head, table = printed.rstrip("\n").split("\n\n")
    assert code == 0
    assert printed.replace("\n", "").isprintable()
    assert "at 2026-01-05T08:00:00.000Z (file clicks.jsonl, record 1)" in head
    assert "events of the user: 1, of which the history has 1" in head
    rows = [re.split("  +", line) for line in table.splitlines()]
    assert rows[0] == ["name", "value", "description"]
    assert [name for name, _, _ in rows[1:]] == list(STANDARD.names)
    assert ["price", "1.00"] not in rows
    assert next(row for row in rows if row[0] == "since_cart_add_s")[1] == "missing"


def test_what_the_lookup_did_not_read_is_noted(monkeypatch, explained):
    clicks = [click(0), click(1, anonymous_id="d-7"), click(2, event_name="")]
    profile = {"user_id": "u1", "country": "DE"}
    late = [Record(0, 0, NOW + 10**9, b"u1", json.dumps(profile).encode())]
    topics_of(monkeypatch, clicks=records_of(clicks), profiles=late)
    monkeypatch.setattr("dashboard.user.page.MAX_RECORDS", 3)
    notes = explained("u1", "--conf", CONF, "--set", "clicks.follow_logins=true")["notes"]
    assert [note.split(" ")[:4] for note in notes] == [
        ["clicks", "are", "read", "back"],
        ["the", "user", "was", "the"],
        ["the", "user's", "profile", "is"],
    ]
    assert "the anonymous visitor d-7 before a login" in notes[1]


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (
            ["u2", "--clicks", "FILE"],
            1,
            "FILE: no event of user u2 among 2 accepted clicks; others are, for example, u1",
        ),
        (
            ["u1", "--clicks", "FILE", "--at", "1000"],
            1,
            "--at 1970-01-01T00:00:01.000Z: the first event of user u1 is at",
        ),
        (
            ["u1", "--clicks", "FILE", "--at", "2026-01-05T07:59"],
            1,
            "--at 2026-01-05T07:59:00.000Z: the first event of",
        ),
        (["u1", "--clicks", "FILE", "--at", "9" * 40], 0, ""),
        (["u1", "--clicks", "FILE", "--at", "yesterday"], 2, "--at yesterday: expected a duration such as 10 min, or"),
        (["u1", "--clicks", "FILE", "--at", "-1"], 2, "--at -1: expected a duration such as 10 min, or"),
        (["u1", "--clicks", "EMPTY"], 2, "EMPTY: no file in it"),
        (["u1", "--clicks", "EMPTY/none"], 2, "EMPTY/none: no such file or directory"),
        (["u1", "--clicks", "BAD"], 2, "BAD: no click accepted of 2 records: 1 invalid_json, 1 empty_field ("),
        (["u1", "--clicks", "BLANK"], 2, "BLANK: no click accepted of 0 records: it is empty"),
        (["u1", "--clicks", "FILE", "--profiles", "EMPTY"], 2, "EMPTY: no file in it"),
        (["u1", "--clicks", "FILE", "--bundle", "EMPTY"], 2, "EMPTY/manifest.json: cannot be read"),
        (["u1", "--clicks", "FILE", "--declaration", "BAD"], 2, "BAD: cannot be read"),
        (["u1", "--clicks", "FILE", "--conf", "EMPTY/none"], 2, "EMPTY/none: no such file"),
        (["u1"], 2, "Either --clicks or --conf is required."),
        (["u1", "--conf", "x", "--profiles", "FILE"], 2, "--profiles requires --clicks."),
        (["u1", "--conf", "x", "--mapping", "FILE"], 2, "--mapping requires --clicks."),
        (["u1", "--clicks", "FILE", "--set", "a.b=c"], 2, "--set requires --conf."),
        (["u1", "--clicks", "FILE", "--bundle", "x", "--declaration", "y"], 2, "--declaration and --bundle can't be"),
        ([], 2, "Missing argument 'USER'."),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(tmp_path, explain, arguments, code, error):
    (tmp_path / "empty").mkdir()
    places = {
        "FILE": write(tmp_path / "clicks.jsonl", [click(0), click(1), "[]\n"]),
        "EMPTY": tmp_path / "empty",
        "BAD": write(tmp_path / "bad.jsonl", ["{\n", json.dumps({"user_id": ""}) + "\n"]),
        "BLANK": write(tmp_path / "blank.jsonl", ["\n"]),
    }

    def placed(text: str) -> str:
        return re.sub("FILE|EMPTY|BAD|BLANK", lambda match: str(places[match[0]]), text)

    found, printed, said = explain(*map(placed, arguments))
    assert (found, bool(printed), said.count("\n")) == (code, code == 0, 1 if code else 0)
    assert said.removeprefix("features: ").removeprefix("features explain: ").startswith(placed(error))


@pytest.mark.parametrize(
    ("topics", "error"),
    [
        ({}, "topic clicks: it does not exist; `intent topics` creates it, or correct topics.clicks"),
        ({"clicks": records_of([click(0)], "u2")}, "topic clicks: no record of user u1 among 1 in partition 0; check"),
        (
            {"clicks": records_of([click(0, event_name="")] * 3)},
            "topic clicks: all 3 records of user u1 are rejected: 3 empty_field; `intent peek dead_letters --user u1`",
        ),
        (
            {"clicks": records_of([click(0, user="device")])},
            "topic clicks: no record of user u1 among 1 in partition 0",
        ),
    ],
)
def test_a_user_whom_the_topics_do_not_know_is_named(monkeypatch, explain, topics, error):
    topics_of(monkeypatch, **topics)
    code, printed, said = explain("u1", "--conf", CONF)
    assert (code, printed, said.count("\n")) == (1, "", 1)
    assert said.startswith(f"features: {error}")


def test_an_archive_without_rows_is_refused(tmp_path, explain):
    archive(tmp_path / "a" / "part-0", [click(0)], [NOW])
    pq.write_table(pq.read_table(tmp_path / "a" / "part-0").slice(0, 0), tmp_path / "a" / "part-0")
    code, _, error = explain("u1", "--clicks", tmp_path / "a")
    assert (code, error) == (2, f"features: {tmp_path}/a: no click accepted of 0 records: it is empty\n")


def test_the_rules_without_settings_are_those_of_the_settings_that_come_along():
    settings, rules = load_settings(CONF), JobRules()
    assert rules.topic == click_topic(settings)
    assert rules.history_length == settings.state.history_length
    assert rules.duplicates_within_ms == duration_ms(settings.clicks.duplicates_within)
    assert rules.follow_logins == settings.clicks.follow_logins
