"""A user's page: the history, features and score that the job had, and what the score is made of."""

import json
import math
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dashboard import app
from dashboard.user.explanation import explain, load_model
from dashboard.user.lookup import FIRST_STEP, Budget, find_records, partition_of
from dashboard.user.page import UserPage, Users
from dashboard.wording import value_text
from tests.support.bundles import make_bundle
from tests.support.fake_kafka import KeptTopics, Record
from tests.support.own_features import declared, own_bundle
from tests.support.published import publish_clicks
from tests.support.sample_records import sample, sample_fields
from training.data.dataset import ANY_TIME, arrange, read_clicks
from udfs.contracts.clicks import ClickDecoder
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout, OwnColumn
from udfs.features.declaration_file import STANDARD, population
from udfs.mapping.topic import ClickTopic
from udfs.models.bundle import load_bundle
from udfs.population.stored_tables import StoredTables
from udfs.rollout.plan import Rollout
from udfs.serving.deployment import Deployment, Options
from udfs.serving.deployment import load_model as load_served
from udfs.serving.population import Population, PopulationColumns

NOW = 1_800_000_000_000
TOPICS = {"clicks": "clicks", "scores": "scores", "profiles": "profiles"}


def records(values: list[tuple[str, dict]]) -> list[Record]:
    return [
        Record(0, offset, NOW + offset * 1_000, user.encode(), json.dumps(value).encode())
        for offset, (user, value) in enumerate(values)
    ]


def clicks(count: int) -> list[tuple[str, dict]]:
    return [
        (
            user := f"u{number % 3}",
            {"user_id": user, "event_name": "view_item", "event_time": NOW + number * 1_000, "item_id": f"i{number}"},
        )
        for number in range(count)
    ]


def served_scores(bundle, sent: list[tuple[str, dict]], decode=None, layout=STANDARD_LAYOUT) -> list[tuple[str, dict]]:
    """What the job says of clicks: by its own deployment, from histories that grow event by event.

    `decode` packs a click.
    """
    rollout = Rollout(salt="s", champion=bundle.manifest.version)
    deployment = Deployment(rollout, {rollout.champion: load_served(bundle, Options())}, layout=layout)
    history: dict[str, bytes] = {}
    first: dict[str, int] = {}
    seen: dict[str, int] = {}
    scores = []
    for offset, (user, click) in enumerate(sent):
        payload = json.dumps(click).encode()
        event = decode(payload) if decode else ClickDecoder().decode([payload], [NOW + offset * 1_000]).events[0]
        history[user] = (history.get(user, b"") + event)[-64 * layout.dtype.itemsize :]
        seen[user], first[user] = seen.get(user, 0) + 1, min(first.get(user, click["event_time"]), click["event_time"])
        scored = deployment.score([user], [history[user]], np.array([seen[user]]), np.array([first[user]]), [None])
        scores.append((user, sample_fields("scores", user_id=user, score=float(scored.score[0]), source_offset=offset)))
    return scores


@pytest.fixture
def users_of(tmp_path, monkeypatch):
    def make_users(
        duplicates_within_ms: int = 0,
        follow_logins: bool = False,
        layout=STANDARD_LAYOUT,
        tables: StoredTables | None = None,
        **topics: list[Record],
    ) -> Users:
        monkeypatch.setattr(
            "dashboard.user.page.open_reader",
            lambda _: nullcontext(KeptTopics(**{name: {0: kept} for name, kept in topics.items()})),
        )
        clicks = ClickTopic(layout=layout)
        bundle = tmp_path / "v1"
        return Users({}, TOPICS, clicks, 64, duplicates_within_ms, None, bundle, follow_logins, tables)

    make_bundle(tmp_path, "v1")
    return make_users


def test_the_score_computed_again_is_the_one_in_the_topic(users_of, tmp_path):
    sent = clicks(300)
    users = users_of(clicks=records(sent), scores=records(served_scores(load_bundle(tmp_path / "v1", 64), sent)))
    page = users.find("u1")
    assert page.seen == 100
    assert len(page.events) == 64
    assert page.chosen == page.events[0]
    assert page.explanation.again == page.explanation.score
    older = users.find("u1", (0, page.events[9].offset))
    assert older.chosen == page.events[9]
    assert older.explanation.agrees
    assert not page.cautions


def test_a_user_whose_clicks_pour_in_during_the_lookup_has_scores(users_of, tmp_path, monkeypatch):
    sent = [("bot", click | {"user_id": "bot"}) for _, click in clicks(400)]
    both = [records(sent), records(served_scores(load_bundle(tmp_path / "v1", 64), sent))]
    kept = KeptTopics(clicks={0: both[0][:200]}, scores={0: both[1][:190]})
    users = users_of()
    monkeypatch.setattr("dashboard.user.page.open_reader", lambda _: nullcontext(kept))
    read = kept.read

    def read_while_more_come(*arguments):
        stretch = read(*arguments)
        kept.topics |= {"clicks": {0: both[0]}, "scores": {0: both[1]}}
        return stretch

    monkeypatch.setattr(kept, "read", read_while_more_come)
    page = users.find("bot")
    assert page.seen == 200
    assert page.chosen == page.events[10]
    assert page.explanation.agrees


def test_a_score_of_clicks_in_a_partition_that_is_gone_is_no_error(users_of):
    score = records([("u1", sample_fields("scores", source_partition=7))])
    assert users_of(clicks=records(clicks(30)), scores=score).find("u1").seen == 10


def test_a_user_whose_newest_events_have_no_score_is_told_so(users_of, tmp_path, shown):
    sent = clicks(300)
    scores = served_scores(load_bundle(tmp_path / "v1", 64), sent)[:30]
    page = users_of(clicks=records(sent), scores=records(scores)).find("u1")
    assert "No score for the events shown was found" in shown(page)


@pytest.fixture
def shown():
    """What a page looks like in a browser, as one line of text."""
    loader = FileSystemLoader(Path(app.__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)

    def show(page: UserPage) -> str:
        data = {"status": {"now": NOW}}
        html = environment.get_template("user.html").render(
            result=page, problem="", asked="", data=data, pages=app.PAGES, page="user"
        )
        return " ".join(re.sub("<[^>]*>", " ", html).split())

    return show


def test_a_job_with_own_columns_shows_profiles_and_explains_models_that_know_none(users_of, tmp_path):
    sent = clicks(30)
    scores = served_scores(load_bundle(tmp_path / "v1", 64), sent)
    layout = EventLayout((("quiz_completed", 100),), (OwnColumn("plan", "category", "plan", 1, names=("pro",)),))
    profile = records([("u1", {"user_id": "u1", "country": "DE", "membership_tier": "gold"})])
    page = users_of(layout=layout, clicks=records(sent), scores=records(scores), profiles=profile).find("u1")
    assert page.profile["country"] == "DE"
    assert page.explanation.agrees


def test_a_model_that_needs_other_events_is_not_explained(users_of, tmp_path):
    sent = clicks(30)
    scores = served_scores(load_bundle(tmp_path / "v1", 64), sent)
    shutil.rmtree(tmp_path / "v1")
    own_bundle(tmp_path, "v1", declared(tmp_path))
    for _, score in scores:
        score["model_version"] = "v1"
    page = users_of(clicks=records(sent), scores=records(scores)).find("u1")
    assert page.explanation is None
    assert "its features need the kind of event quiz_completed" in page.problem


OF_OTHERS = ("category_purchase_rate", "category_share")


def of_others(page: UserPage) -> list[str]:
    """The values of the features that look at other users."""
    return [value for name, value, _ in page.explanation.features if name in OF_OTHERS]


@pytest.fixture
def of_the_population(users_of, tmp_path):
    """Users whose scores come from a model of what the population did, and its tables; all else is as given."""
    declaration, sent = population(), clicks(60)
    for number, (_, click) in enumerate(sent):
        click["item_category"] = f"c{number % 4}"
    payloads = [json.dumps(click).encode() for _, click in sent]
    topic, hour = ClickTopic(ANY_TIME, layout=declaration.layout), declaration.layout.publication.every_ms
    publish_clicks(str(tmp_path / "tables"), topic, payloads, [NOW - 2 * hour] * len(sent))
    shutil.rmtree(tmp_path / "v1")
    own_bundle(tmp_path, "v1", declaration, (*OF_OTHERS, "events_24h"))

    columns = PopulationColumns(Population(str(tmp_path / "tables")), declaration.layout)
    sent_at = {payload: NOW + offset * 1_000 for offset, payload in enumerate(payloads)}

    def decode(payload: bytes) -> bytes:
        decoded = topic.decoder().decode([payload], [sent_at[payload]])
        return columns.fill(decoded.events, decoded.user_ids, [sent_at[payload]])[0]

    scores = served_scores(load_bundle(tmp_path / "v1", 64), sent, decode, declaration.layout)

    def make(tables: StoredTables | None) -> Users:
        return users_of(layout=declaration.layout, tables=tables, clicks=records(sent), scores=records(scores))

    return make


def test_a_score_that_looks_at_other_users_is_explained_with_what_the_job_knew_of_them(of_the_population, tmp_path):
    page = of_the_population(StoredTables(str(tmp_path / "tables"), population().layout)).find("u1")
    assert page.explanation.agrees
    assert "missing" not in of_others(page)
    assert not page.cautions


@pytest.mark.parametrize(
    ("directory", "caution"),
    [
        (None, "Features of the population have no values here, because population.dir is not known"),
        ("none", "Features of the population have no values here: population.dir has no tables."),
    ],
)
def test_without_the_tables_the_page_names_what_is_missing(of_the_population, tmp_path, directory, caution):
    tables = None if directory is None else StoredTables(str(tmp_path / directory), population().layout)
    page = of_the_population(tables).find("u1")
    assert [each for each in page.cautions if each.startswith(caution)]
    assert set(of_others(page)) == {"missing"}


def test_events_that_were_sent_before_are_shown_but_do_not_count(users_of, tmp_path, shown):
    sent = clicks(90)
    for number, (_, click) in enumerate(sent):
        click["event_id"] = f"e{number}"
    once = served_scores(load_bundle(tmp_path / "v1", 64), sent)
    again = [(user, click) for user, click in sent[-30:] if user == "u1"]
    users = users_of(duplicates_within_ms=60_000, clicks=records(sent + again), scores=records(once))
    page = users.find("u1")
    assert (page.seen, page.repeated) == (30, 10)
    assert [event.was_sent_before for event in page.events] == [True] * 10 + [False] * 30
    assert [event.score is None for event in page.events] == [True] * 10 + [False] * 30
    assert page.chosen == page.events[10]
    assert page.explanation.agrees
    assert "30 accepted events, 10 more sent again and left out; the latest 40 are shown below" in shown(page)
    assert shown(page).count("sent again: does not count") == 10
    left_out = users.find("u1", (0, page.events[0].offset))
    assert left_out.chosen == page.events[0]
    assert left_out.explanation is None
    assert "This event was sent before" in left_out.problem


def test_where_each_event_counts_none_was_sent_before(users_of, shown):
    twice = [(user, click | {"event_id": "e"}) for user, click in clicks(6)] * 2
    page = users_of(clicks=records(twice), scores=[]).find("u1")
    assert (page.seen, page.repeated) == (4, 0)
    assert "sent again" not in shown(page)


@pytest.mark.parametrize(
    ("anonymous_id", "follow_logins", "has_caution"),
    [("d-7", True, True), ("d-7", False, False), ("u1", True, False), (" ", True, False), (None, True, False)],
)
def test_a_user_who_logged_in_has_a_history_that_is_not_here(
    users_of, tmp_path, shown, anonymous_id, follow_logins, has_caution
):
    sent = clicks(30)
    sent[4][1]["anonymous_id"] = anonymous_id
    scores = served_scores(load_bundle(tmp_path / "v1", 64), sent)
    users = users_of(60_000, follow_logins, clicks=records(sent), scores=records(scores))
    page = users.find("u1")
    assert bool(page.cautions) == has_caution
    assert ("To see the visitor&#39;s events, look up d-7." in shown(page)) == has_caution
    assert not users.find("u2").cautions


def test_a_score_that_was_given_for_something_else_is_told(users_of):
    scores = records([("u0", sample_fields("scores", score=0.999, decision=True, source_offset=0))])
    assert not users_of(clicks=records(clicks(1)), scores=scores).find("u0").explanation.agrees


def test_a_model_that_is_not_there_is_told(users_of):
    scores = records([("u0", sample_fields("scores", score=0.9, model_version="v7", source_offset=0))])
    page = users_of(clicks=records(clicks(1)), scores=scores).find("u0")
    assert page.explanation is None
    assert "v7" in page.problem


def test_a_user_whom_the_topics_do_not_know_has_an_empty_page(users_of):
    page = users_of(clicks=records(clicks(3)), scores=[]).find("nobody")
    assert not page.events
    assert page.chosen is None


def test_reasons_and_the_rest_add_up_to_the_score(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path, "v1"), 64)
    accepted = read_clicks([json.dumps(click).encode() for user, click in clicks(30) if user == "u1"])
    dataset = arrange(accepted)
    told = explain(load_model(bundle, STANDARD_LAYOUT), dataset, 9, sample("scores", score=0.5))
    logit = math.log(told.base / (1 - told.base)) + sum(reason.added for reason in told.reasons) + told.rest
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(told.again, abs=1e-6)


def test_going_back_ends_at_the_budget_and_says_so():
    reader = KeptTopics(clicks={0: [Record(0, at, NOW + at, b"u" if at == 5 else b"v", b"") for at in range(60_000)]})
    found = find_records(reader, "clicks", 0, 60_000, b"u", Budget(FIRST_STEP, 60))
    assert (found.records, found.is_whole) == ([], False)
    assert reader.read_records == FIRST_STEP
    assert found.back_to_ms == NOW + 40_000
    whole = find_records(reader, "clicks", 0, 60_000, b"u", Budget(100_000, 60))
    assert [record.offset for record in whole.records] == [5]
    assert whole.is_whole


def test_a_key_is_where_kafkas_own_partitioner_puts_it():
    """Java: Utils.toPositive(Utils.murmur2("21".getBytes())) = 1173551340, of Kafka's UtilsTest -973932308."""
    assert partition_of(b"21", 10**9 + 7) == (-973932308 & 0x7FFFFFFF) % (10**9 + 7)


def test_values_are_in_words():
    assert value_text(STANDARD, "country", 1 + 26 * 3 + 4) == "DE"
    assert value_text(STANDARD, "membership_tier", 4.0) == "gold"
    assert value_text(STANDARD, "value", math.nan) == "missing"
    assert value_text(STANDARD, "since_cart_add_s", 7200.0) == "2 h"
    assert value_text(STANDARD, "first_visit", 1.0) == "yes"
