"""The job on a mini cluster: what goes in comes out scored, logged or as a dead letter."""

import json
from base64 import b64decode
from random import Random

import numpy as np
import pytest
import yaml

from tests.support.journeys import arrivals, journeys
from tests.support.own_features import DECLARATION, NAMES, own_bundle, write_declaration
from tests.support.published import publish_clicks
from tests.support.random_declarations import random_file
from tests.unit.training.data.test_preparation import archive
from training.data.dataset import arrange, read_clicks
from training.data.examples import load_examples
from training.data.preparation import Preparation, prepare
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.contracts.clicks import ClickLimits
from udfs.contracts.event_layout import EventLayout
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import STANDARD, load_declaration
from udfs.mapping.topic import ClickTopic
from udfs.measurement.labels import Label
from udfs.models.backends import Scorer
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.flink

NOW = 1_800_000_000_000


def click(user: str, number: int, **fields) -> tuple[bytes, bytes, int]:
    time_ms = NOW + number * 1_000
    value = {
        "user_id": user,
        "event_id": f"{user}-{number}",
        "event_name": "view_item",
        "event_time": time_ms,
        **fields,
    }
    return user.encode(), json.dumps(value).encode(), time_ms


def with_own(clicks: list[dict], layout: EventLayout) -> list[dict]:
    """The clicks, some of them of the layout's own kinds and with its own columns."""
    random = np.random.default_rng(2)
    kinds, changed = [name for name, _ in layout.own_kinds], []
    made = {
        "number": lambda column: float(random.integers(900)) / 100,
        "category": lambda column: str(random.choice([*column.names, "another"])),
        "identifier": lambda column: f"c{random.integers(3)}",
    }
    for click_ in clicks:
        fields = {}
        if kinds and click_["event_name"] == "view_item" and random.random() < 0.3:
            fields["event_name"] = str(random.choice(kinds))
        for column in layout.own_columns:
            if random.random() < 0.7:
                fields[column.field] = made[column.type](column)
        changed.append(click_ | fields)
    return changed


def features_by_event(written: dict) -> dict[str, dict[str, float]]:
    return {
        entry["event_id"]: dict(zip(STANDARD.names, np.frombuffer(b64decode(entry["features"]), np.float32).tolist()))
        for entry in written["feature_log"]
    }


ACCEPTED = [
    *(click("ada", number, price=number) for number in range(100)),
    *(click("bob", number) for number in range(7)),
]
BAD = [(b"k", b"{", NOW), (b"k", None, NOW), (b"k", b"\xff\x00", NOW)]
COMPARED = [click(f"user{number % 3}", number, item_id=f"i{number % 5}", price=number / 3)[1] for number in range(200)]
FIRST_COMPARED = len(ACCEPTED) + len(BAD)
PROFILES = [(b"ada", b'{"user_id": "ada", "country": "DE", "membership_tier": "gold"}', NOW)] * 3 + [(b"x", b"[]", NOW)]


@pytest.fixture(scope="module")
def written(run_job) -> dict[str, list[dict]]:
    """What the job writes of all these at once: each run takes seconds to start."""
    compared = [(None, payload, NOW) for payload in COMPARED]
    return run_job(ACCEPTED + BAD + compared, PROFILES, ("model.engine=native",))


def letters_of(written: dict[str, list[dict]], topic: str) -> list[dict]:
    letters = (letter for letter in written["dead_letters"] if letter["topic"] == topic)
    return sorted(letters, key=lambda letter: letter["offset"])


def test_every_accepted_click_is_scored_once_and_every_other_is_a_dead_letter(written):
    scores = written["scores"]
    bad = range(len(ACCEPTED), FIRST_COMPARED)
    accepted = [offset for offset in range(FIRST_COMPARED + len(COMPARED)) if offset not in bad]
    assert sorted(score["source_offset"] for score in scores) == accepted
    assert {score["model_version"] for score in scores} == {"test-model"}
    assert all(score["decision"] == (score["score"] >= 0.2) for score in scores)

    assert {letter["topic"] for letter in written["dead_letters"]} == {"clicks", "profiles"}
    letters = letters_of(written, "clicks")
    assert [(letter["offset"], letter["reason"]) for letter in letters] == [
        (107, "invalid_json"),
        (108, "empty_record"),
        (109, "invalid_utf8"),
    ]
    originals = [None if letter["original"] is None else b64decode(letter["original"]) for letter in letters]
    assert originals == [b"{", None, b"\xff\x00"]
    assert all(letter["partition"] == 0 and letter["message"] for letter in letters)


def test_the_job_scores_the_features_that_training_computes(written, bundle_directory):
    bundle = load_bundle(bundle_directory, 64)
    data = arrange(read_clicks(COMPARED))
    expected = data.features(FeatureComputer(bundle.manifest.features, 64))
    scores = Scorer(bundle).predict(expected)
    row_of = {FIRST_COMPARED + position: row for row, position in enumerate(data.positions.tolist())}
    logged = [entry for entry in written["feature_log"] if entry["source_offset"] >= FIRST_COMPARED]
    assert len(logged) == len(COMPARED)
    for entry in logged:
        row = row_of[entry["source_offset"]]
        assert b64decode(entry["features"]) == expected[row].tobytes()
        assert np.float32(entry["score"]) == scores[row]
        assert entry["feature_schema_hash"] == bundle.manifest.feature_schema_hash


def random_declaration(seed: int) -> str:
    """A random feature file with own kinds and columns."""
    while True:
        content = random_file(Random(seed), features=15)
        if content.get("kinds") and content.get("columns"):
            return yaml.safe_dump(content, allow_unicode=True)
        seed += 100


OWN = {
    "standard features": None,
    "features of a shop's own": DECLARATION,
    "random features": random_declaration(1),
    "other random features": random_declaration(2),
}


@pytest.mark.parametrize("declaration", OWN.values(), ids=OWN)
def test_events_count_once_and_histories_go_on_after_a_login_as_in_training(run_job, tmp_path, declaration):
    clicks = journeys(np.random.default_rng(1), 150)
    overrides = ["clicks.follow_logins=true", "model.engine=native"]
    declared, names = STANDARD, None
    if declaration is not None:
        path = write_declaration(tmp_path, declaration)
        declared = load_declaration(path)
        names = NAMES if declaration == DECLARATION else declared.names
        clicks = with_own(clicks, declared.layout)
        overrides += [f"clicks.declaration={path}", f"model.bundle={own_bundle(tmp_path, 'own', declared, names)}"]
    arrival_ms = arrivals(clicks)
    records = [(None, json.dumps(one).encode(), int(time)) for one, time in zip(clicks, arrival_ms)]
    written = run_job(records, overrides=tuple(overrides))
    kinds = {name for name, _ in declared.layout.own_kinds}
    assert kinds <= {score["event_name"] for score in written["scores"]}
    logged = {entry["source_offset"]: b64decode(entry["features"]) for entry in written["feature_log"]}
    assert len(logged) == len(written["scores"]) < len(clicks)

    archive(tmp_path / "clicks" / "part-0.parquet", clicks, arrival_ms, partitions=1)
    preparation = Preparation(
        Label(events=("purchase",), horizon="10 min"),
        declared,
        features=names,
        duplicates_within_ms=3_600_000,
        follow_logins=True,
    )
    examples = load_examples(prepare(tmp_path / "clicks", tmp_path / "out", preparation)[0])
    assert len(examples) > 100
    if declaration == DECLARATION:
        assert [name for name, column in zip(NAMES, examples.features.T) if len(np.unique(column)) == 1] == []
    for offset, features in zip(examples.offset.tolist(), examples.features):
        assert logged[offset] == features.tobytes()


def test_what_other_users_did_is_in_the_scored_features_as_in_training(run_job, tmp_path):
    path = write_declaration(tmp_path, "extends: population\npopulation: {every: 30m, half_life: 2h}\n")
    declared = load_declaration(path)
    stream = simulate(Simulation(users=50, hours=4, seed=8, late_share=0.1, profile_share=0.0))
    payloads = [json.dumps(one).encode() for one in stream.clicks()]
    arrival_ms = stream.arrival_ms.tolist()
    any_time = ClickLimits(max_behind_ms=10**13, max_ahead_ms=10**13)
    publish_clicks(str(tmp_path / "tables"), ClickTopic(any_time, layout=declared.layout), payloads, arrival_ms)
    bundle = own_bundle(tmp_path, "own", declared, declared.names)
    overrides = (f"clicks.declaration={path}", f"population.dir={tmp_path / 'tables'}", f"model.bundle={bundle}")
    written = run_job([(None, *one) for one in zip(payloads, arrival_ms)], overrides=overrides)

    logged = {entry["source_offset"]: b64decode(entry["features"]) for entry in written["feature_log"]}
    wanted = simulated_examples(stream, declaration=declared)
    column = wanted.features[:, wanted.names.index("category_purchase_rate")]
    assert np.isfinite(column).sum() > 80
    for offset, features in zip(wanted.offset.tolist(), wanted.features):
        assert logged[offset] == features.tobytes()


def test_a_profile_emits_no_score_and_is_that_of_its_user_alone(written):
    assert len(written["scores"]) == len(ACCEPTED) + len(COMPARED)
    assert [letter["reason"] for letter in letters_of(written, "profiles")] == ["not_an_object"]
    assert features_by_event(written)["bob-1"]["profile_known"] == 0


def test_only_the_sampled_users_are_logged(run_job):
    clicks = [click(f"user{number}", number) for number in range(400)]
    logged = {entry["user_id"] for entry in run_job(clicks, overrides=("feature_log.user_share=0.25",))["feature_log"]}
    assert 60 < len(logged) < 140
