"""Rows of users in; scores, feature vectors and shadows' scores out."""

import json
import pickle
import struct
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.support.bundles import files_of, make_bundle
from tests.support.contracts import broken
from tests.support.examples import examples
from tests.support.fake_operator import FakeOperator, Memory, Record, read_records, rows_of
from tests.unit.udfs.serving.test_deployment import OPTIONS, deployment, enter
from training.rollout.transitions import add_shadow, first
from udfs.contracts.clicks import Click, pack_click
from udfs.contracts.identifiers import hash_id
from udfs.contracts.profiles import Profile, pack_profile
from udfs.features.user_slots import EVENT_ROW, LOGIN_ROW, PROFILE_ROW, new_head, ring_bytes
from udfs.models.backends import Scorer
from udfs.models.bundle import Bundle, load_bundle
from udfs.rollout.assignment import in_sample
from udfs.rollout.plan import Challenger, Control, Rollout
from udfs.rollout.registry import Registry
from udfs.rollout.rules import Rule
from udfs.serving import deployment as deployment_module
from udfs.serving.bootstrap import Serving, serving_bundle, serving_registry
from udfs.serving.deployment import Deployment, Options
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import SharedMemory
from udfs.workers.score import FEATURE_LOG, SCORES, SHADOW_SCORES, ScoreClicks

NOW = 1_700_000_000_000
HISTORY_LENGTH = 64
SLOTS = {"slot_count": 16, "new_head": new_head(), "body_bytes": ring_bytes(HISTORY_LENGTH)}
BUDGET_MS, WITHIN_MS = 100, 60_000
PATIENT = Options(engine="native", shadow_budget_s=60)
EVERYBODY, NOBODY = 1.0, 0.0
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Bundle]:
    directory = tmp_path_factory.mktemp("bundles")
    return {version: load_bundle(make_other(directory, version), HISTORY_LENGTH) for version in ("v1", "v2")}


def make_other(directory: Path, version: str) -> Path:
    """A bundle whose model is not that of the others."""
    return make_bundle(directory, version, changes=files_of(int(version[1:])))


def event_row(user: str, at: int = 0, event_id: str | None = None, record_ms=None, partition=0, offset=0, **fields):
    """A row as a decode operator writes it, laid out by hand."""
    packed = pack_click(Click(user, fields.pop("event_name", "view_item"), NOW + at, event_id=event_id, **fields))
    key, found_id = user.encode(), (event_id or "").encode()
    record_ms = NOW + at if record_ms is None else record_ms
    has_id = event_id is not None
    head = struct.pack("<iBBHiqq", len(key), EVENT_ROW, has_id, len(key), partition, offset, record_ms)
    return head + packed + found_id + key


def profile_row(user: str, **fields) -> bytes:
    key = user.encode()
    head = struct.pack("<iBBHiqq", len(key), PROFILE_ROW, 0, len(key), 0, 0, NOW)
    return head + pack_profile(Profile(user, **fields)) + bytes(24) + key


def user_of(row: bytes) -> str:
    return row[-struct.unpack_from("<i", row)[0] :].decode()


class Scoring:
    """A handler that was opened over slots which nobody evicts, and its metrics."""

    def __init__(self, directory: Path, serving: Serving, user_share: float = NOBODY):
        Memory(directory / "memory", **SLOTS)
        memory = SharedMemory(directory / "memory")
        self.handler = pickle.loads(pickle.dumps(ScoreClicks(serving, user_share, BUDGET_MS, WITHIN_MS)))
        self.slots: dict[str, int] = {}
        self._metrics, self._values = Metrics(memory.metrics), memory.metrics
        self._declared: list[str] = []
        self.handler.open(memory, self._metrics.group())

    def __call__(self, *rows: bytes) -> list[Record]:
        slots = [self.slots.setdefault(user_of(row), len(self.slots)) for row in rows]
        records = read_records(b"".join(self.handler.process(rows_of(list(rows), slots))))
        roles = {SCORES: "scores", FEATURE_LOG: "feature_log", SHADOW_SCORES: "shadow_scores"}
        for output, role in roles.items():
            assert broken(role, [record.value for record in records if record.output == output]) == []
        return records

    @property
    def metrics(self) -> dict[str, int]:
        """Those that are not 0, by their lines."""
        self._metrics.update_gauges()
        self._declared += self._metrics.take_declared()
        return {line: value for line, value in zip(self._declared, self._values.tolist()) if value}


@pytest.fixture
def scoring(tmp_path) -> Iterator:
    """Opens handlers, and closes them in the end."""
    opened = []

    def open_one(serving: Serving, user_share: float = NOBODY) -> Scoring:
        directory = tmp_path / f"scoring-{len(opened)}"
        directory.mkdir()
        opened.append(Scoring(directory, serving, user_share))
        return opened[-1]

    yield open_one
    for one in opened:
        one.handler.close()


def serving_of(bundles: dict[str, Bundle], rollout: Rollout, options: Options = OPTIONS) -> Serving:
    return Serving(rollout, {version: bundles[version] for version in rollout.versions}, options)


def read(records: list[Record], output: int = SCORES) -> list[dict]:
    """The records of an output, with scores as a reader has them: the decimals may be more or fewer."""
    found = [json.loads(record.value) for record in records if record.output == output]
    return [one | {"score": np.float32(one["score"])} for one in found]


@dataclass
class Whole:
    """Whole histories, for Deployment.score."""

    of: dict[str, list[bytes]] = field(default_factory=dict)
    profiles: dict[str, bytes] = field(default_factory=dict)
    vectors: list[bytes] = field(default_factory=list)  # of the events in turn

    def score(self, serving: Deployment, *rows: bytes) -> list[dict]:
        """What of the scores depends on the model, for the events among the rows."""
        return [self._take(serving, user_of(row), row) for row in rows if row[4] == EVENT_ROW or self._update(row)]

    def _take(self, serving: Deployment, user: str, row: bytes) -> dict:
        history = self.of.setdefault(user, [])
        history.append(row[28:68])
        first_seen = min(struct.unpack_from("<q", event)[0] for event in history)
        lifetime, first_seen = np.array([len(history)]), np.array([first_seen])
        scored = serving.score([user], [b"".join(history)], lifetime, first_seen, [self.profiles.get(user)])
        version = scored.version[0]
        self.vectors.append(serving.vectors(version, scored.features).tobytes())
        return {
            "user_id": user,
            "score": scored.score[0],
            "decision": bool(scored.decision[0]),
            "arm": serving.arms[scored.arm[0]].name,
            "model_version": version,
            "propensity": serving.propensity(scored.arm[0], version),
        }

    def _update(self, row: bytes) -> bool:
        self.profiles[user_of(row)] = row[28:44]
        return False


def of_model(score: dict) -> dict:
    return {name: score[name] for name in ("user_id", "score", "decision", "arm", "model_version", "propensity")}


#: Everything that depends on the user, their profile and their history.
MIXED = Rollout(
    salt="s",
    champion="v1",
    control=Control(share=0.3, at_most=0.3),
    challengers=(Challenger(version="v2", share=0.4, at_most=0.4, start=0.3),),
    rule=Rule(any=("lifetime_events >= 3",)),
    eligible=Rule(any=("country == DE",)),
)


@pytest.fixture(scope="module")
def mixed(bundles) -> Deployment:
    return deployment(bundles, MIXED)


users = st.sampled_from("abcdefg")
any_rows = st.one_of(
    st.builds(event_row, users, st.integers(-1_000, 1_000), event_name=st.sampled_from(["view_item", "search"])),
    st.builds(event_row, users, st.integers(-9_000_000, 9_000_000)),
    st.builds(lambda user, country: profile_row(user, country=country), users, st.sampled_from(["DE", "FR"])),
)


@examples(50)
@given(batches=st.lists(st.lists(any_rows, min_size=1, max_size=9), max_size=6))
def test_scores_are_those_of_the_deployment_on_the_whole_histories(bundles, mixed, batches, tmp_path_factory):
    score, whole = Scoring(tmp_path_factory.mktemp("scoring"), serving_of(bundles, MIXED)), Whole()
    for rows in batches:
        assert [of_model(one) for one in read(score(*rows))] == whole.score(mixed, *rows)


def test_a_score_says_of_which_event_it_is_and_when_it_was_made(bundles, scoring):
    score = scoring(serving_bundle(bundles["v1"], OPTIONS))
    before = time.time_ns() // 1_000_000
    records = score(
        event_row("zoë", 5, "é1", NOW + 700, 3, 2**40, event_name="add_to_cart"),
        event_row("ada", 6, None, NOW + 700, 0, 7, event_name="spun_the_wheel"),
        event_row("ada", 7, "", NOW + 700, 0, 8),
    )
    after = time.time_ns() // 1_000_000
    assert [(record.output, record.key.decode()) for record in records] == [
        (SCORES, user) for user in ("zoë", "ada", "ada")
    ]
    scores = read(records)
    assert all(before <= one["scored_at"] <= after for one in scores)
    assert [
        (
            one["user_id"],
            one["event_id"],
            one["event_name"],
            one["event_time"],
            one["source_partition"],
            one["source_offset"],
        )
        for one in scores
    ] == [
        ("zoë", "é1", "add_to_cart", NOW + 5, 3, 2**40),
        ("ada", None, "other", NOW + 6, 0, 7),
        ("ada", "", "view_item", NOW + 7, 0, 8),
    ]


def test_a_profile_has_no_score_and_counts_from_its_place_in_the_batch_on(bundles, scoring):
    everybody = replace(MIXED, control=Control(share=1, at_most=1), challengers=())
    score = scoring(serving_of(bundles, everybody))
    assert score(profile_row("bob", country="DE")) == []
    records = score(
        event_row("ada"), profile_row("ada", country="DE"), event_row("ada"), profile_row("ada"), event_row("ada")
    )
    assert [one["arm"] for one in read(records)] == ["not_eligible", "control", "not_eligible"]
    assert [one["arm"] for one in read(score(event_row("bob")))] == ["control"]
    assert score.metrics["counter\tscored"] == 4


# Feature vectors


def test_the_vectors_that_models_were_given_are_logged_of_the_sampled_users_alone(bundles, mixed, scoring):
    share = 0.5
    score = scoring(serving_of(bundles, MIXED), share)
    names = [f"user-{number}" for number in range(8)]
    sampled = {user for user in names if in_sample(user, share)}
    assert 0 < len(sampled) < len(names)
    rows = [profile_row(user, country="DE") for user in names]
    kinds = [kind for kind in ("view_item", "search", "view_item", "search") for _ in names]
    for number, (user, kind) in enumerate(zip(names * 4, kinds)):
        rows.append(event_row(user, number * number, f"e{number}", offset=number, event_name=kind))
    whole = Whole()
    whole.score(mixed, *rows)
    records = score(*rows)
    scores = {one["source_offset"]: one for one in read(records)}
    logged = read(records, FEATURE_LOG)
    assert Counter(one["user_id"] for one in logged) == dict.fromkeys(sampled, 4)
    assert {one["model_version"] for one in logged} == {"v1", "v2"}
    keys = [record.key.decode() for record in records if record.output == FEATURE_LOG]
    assert keys == [one["user_id"] for one in logged]
    for one in logged:
        bundle = bundles[one["model_version"]]
        assert one.pop("feature_schema_hash") == bundle.manifest.feature_schema_hash
        vector = b64decode(one.pop("features"))
        assert vector == whole.vectors[one["source_offset"]]
        assert Scorer(bundle).predict(np.frombuffer(vector, "<f4")[None])[0] == one["score"]
        assert one.items() <= scores[one["source_offset"]].items()
    assert len({one["score"] for one in logged}) > 2


def test_nobodys_vectors_are_logged_where_nobody_is_sampled(bundles, scoring):
    score = scoring(serving_bundle(bundles["v1"], OPTIONS), NOBODY)
    assert {record.output for record in score(*(event_row(user) for user in "abcdefg"))} == {SCORES}


# Shadows


def test_shadows_say_what_they_would_have_scored(bundles, scoring):
    rollout = add_shadow(first("v1"), "v2")
    score = scoring(serving_of(bundles, rollout, PATIENT), EVERYBODY)
    records = score(
        *(event_row(user, 90 * number, f"{user}{number}", offset=number) for number, user in enumerate("abcab"))
    )
    told, scores, vectors = (read(records, output) for output in (SHADOW_SCORES, SCORES, FEATURE_LOG))
    assert [record.key.decode() for record in records if record.output == SHADOW_SCORES] == list("abcab")
    for shadow, one, vector in zip(told, scores, vectors, strict=True):
        features = np.frombuffer(b64decode(vector["features"]), "<f4")[None]
        assert shadow.pop("shadow_versions") == ["v2"]
        found = shadow.pop("shadow_scores")
        assert found == Scorer(bundles["v2"]).predict(features).tolist()
        assert found != [one["score"]]
        assert shadow.items() <= one.items()


@pytest.fixture
def v2_is_late(monkeypatch) -> Iterator[None]:
    """The model v2 has no scores before the end of the test."""
    predict, over = Deployment._predict, Event()

    def predict_late(deployment: Deployment, version: str, features: np.ndarray) -> np.ndarray:
        if version == "v2":
            over.wait()
        return predict(deployment, version, features)

    monkeypatch.setattr(Deployment, "_predict", predict_late)
    yield
    over.set()


def test_a_batch_whose_shadows_come_late_has_its_scores_without_theirs(bundles, scoring, v2_is_late):
    hasty = Options(engine="native", shadow_budget_s=0)
    score = scoring(serving_of(bundles, add_shadow(first("v1"), "v2"), hasty))
    missed_before = score.metrics.get("gauge\tshadow_batches_missed", 0)
    batches = [score(*(event_row(user, number) for user in "abcdefg")) for number in range(50)]
    assert all(len(read(records)) == 7 for records in batches)
    missed = sum(not read(records, SHADOW_SCORES) for records in batches)
    assert score.metrics.get("gauge\tshadow_batches_missed", 0) - missed_before == missed > 0


# What serves


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    for version in ("v1", "v2", "v3"):
        make_other(tmp_path / "registry" / "bundles", version)
    registry = Registry(str(tmp_path / "registry"))
    enter(registry, 1, first("v1"))
    return registry


def test_what_is_newest_serves_from_the_next_batch_on_and_histories_stay(registry, bundles, scoring):
    score = scoring(serving_registry(registry.uri, HISTORY_LENGTH, OPTIONS, poll_s=0.005))
    old, new = (deployment({version: bundles[version]}, first(version)) for version in ("v1", "v2"))
    whole, rows = Whole(), [event_row(user, 1_000) for user in "abca"]
    assert [of_model(one) for one in read(score(*rows))] == whole.score(old, *rows)
    assert served(score) == {"v1": 1, "ledger_entry": 1}
    enter(registry, 2, first("v2"))

    def version_of_a_batch() -> str:
        found = [of_model(one) for one in read(score(*rows))]
        version = found[0]["model_version"]
        assert found == whole.score(new if version == "v2" else old, *rows)
        return version

    wait_for(version_of_a_batch, lambda version: version == "v2")
    assert served(score) == {"v2": 1, "ledger_entry": 2}
    assert "gauge\tmodels_refused" not in score.metrics
    assert score.metrics["counter\tevent_to_score_ms_bucket\tversion=v2\tle=+Inf"] == len(rows)


def test_a_model_that_is_refused_is_counted_and_the_old_one_goes_on(registry, tmp_path, scoring):
    score = scoring(serving_registry(registry.uri, HISTORY_LENGTH, OPTIONS, poll_s=0.005))
    model = tmp_path / "registry" / "bundles" / "v3" / "model.ubj"
    model.write_bytes(model.read_bytes()[:-10])
    enter(registry, 2, first("v3"))
    wait_for(lambda: score.metrics, lambda metrics: "gauge\tmodels_refused" in metrics)
    assert {one["model_version"] for one in read(score(event_row("ada")))} == {"v1"}
    assert served(score) == {"v1": 1, "ledger_entry": 1}


def test_arms_and_rules_that_need_other_features_are_taken_over_as_well(registry, scoring):
    enter(registry, 2, add_shadow(first("v1"), "v2"))
    score = scoring(serving_registry(registry.uri, HISTORY_LENGTH, PATIENT, poll_s=0.005))
    assert len(read(score(event_row("ada")), SHADOW_SCORES)) == 1
    enter(registry, 3, replace(MIXED, challengers=(Challenger(version="v3", share=0.7, at_most=0.7, start=0.3),)))
    rows = [
        profile_row("ada", country="DE"),
        event_row("ada"),
    ]  # in control or with the challenger, as soon as there are
    records = wait_for(lambda: score(*rows), lambda records: read(records)[0]["arm"] != "champion")
    assert read(records, SHADOW_SCORES) == []
    assert served(score) == {"v1": 1, "v3": 1, "ledger_entry": 3}


def test_no_batch_waits_for_a_model_that_is_being_loaded(registry, scoring, monkeypatch):
    load, loading, go_on = deployment_module.load_model, Event(), Event()

    def load_slowly(bundle: Bundle, *arguments):
        if bundle.manifest.version == "v2":
            loading.set()
            go_on.wait(TIMEOUT_S)
        return load(bundle, *arguments)

    monkeypatch.setattr(deployment_module, "load_model", load_slowly)
    score = scoring(serving_registry(registry.uri, HISTORY_LENGTH, OPTIONS, poll_s=0.005))
    enter(registry, 2, first("v2"))
    try:
        assert loading.wait(TIMEOUT_S)
        assert {one["model_version"] for one in read(score(event_row("ada")))} == {"v1"}
    finally:
        go_on.set()
    wait_for(lambda: read(score(event_row("ada"))), lambda found: found[0]["model_version"] == "v2")


def wait_for(look: Callable, is_there: Callable):
    """What is found as soon as it is what was waited for."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while not is_there(found := look()):
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
    return found


def served(score: Scoring) -> dict[str, int]:
    """The gauges that tell what serves: models by version, and the ledger's entry."""
    gauges = {line.split("\t", 1)[1]: value for line, value in score.metrics.items() if line.startswith("gauge")}
    models = {name.rpartition("=")[2]: value for name, value in gauges.items() if name.startswith("model\tversion=")}
    return models | {"ledger_entry": gauges["ledger_entry"]}


def test_scores_are_counted_and_timed_by_version(bundles, scoring):
    score = scoring(serving_bundle(bundles["v1"], OPTIONS))
    now = time.time_ns() // 1_000_000
    score(*(event_row("ada", record_ms=now - age) for age in (0, 150, 700, 20_000)), profile_row("ada"))
    found = score.metrics
    version = "\tversion=v1"
    assert found["counter\tscored"] == found["gauge\tbatch_size"] == 4
    assert found[f"counter\tevent_to_score_ms_bucket{version}\tle=+Inf"] == 4
    assert found[f"counter\tevent_to_score_ms_bucket{version}\tle=10000"] >= 3
    assert found.get(f"counter\tevent_to_score_ms_bucket{version}\tle=100", 0) <= 1
    assert found[f"counter\tevent_to_score_ms_over_budget{version}"] >= 3
    assert found[f"counter\tevent_to_score_ms_sum{version}"] >= 20_850
    assert found["counter\tpredict_ms_bucket\tle=+Inf"] == 1
    assert found[f"gauge\tmodel{version}"] == 1
    assert found[f"gauge\tmodel_created_seconds{version}"] == int(bundles["v1"].manifest.created_at.timestamp())
    score(event_row("ada"))
    assert score.metrics["counter\tscored"] == 5
    assert score.metrics["gauge\tbatch_size"] == 1


def test_an_event_and_an_order_are_scored_once(bundles, scoring):
    score = scoring(serving_bundle(bundles["v1"], OPTIONS), EVERYBODY)
    rows = [
        event_row("ada", 0, "e1"),
        event_row("ada", 0, "e1"),
        event_row("bob", 0, "e1"),
        event_row("ada", WITHIN_MS - 1, "e1"),
        event_row("ada", WITHIN_MS, "e1"),
        event_row("ada", 1, "e2", event_name="purchase", transaction_id="t1"),
        event_row("ada", 9_000_000, "e3", event_name="purchase", transaction_id="t1"),
        event_row("ada", 2),
        event_row("ada", 2),
    ]
    scored = [0, 2, 4, 5, 7, 8]
    records = score(*rows)
    assert [one["event_time"] - NOW for one in read(records)] == [0, 0, WITHIN_MS, 1, 2, 2]
    assert len(read(records, FEATURE_LOG)) == len(scored)
    assert (score.metrics["counter\tscored"], score.metrics["counter\tduplicates"]) == (6, 3)
    assert score(rows[0]) == []
    assert score.metrics["counter\tduplicates"] == 4


def login_row(user: str, anonymous_id: str, events: int = 0, first_seen_ms: int = 0) -> bytes:
    key = user.encode()
    head = struct.pack("<iBBHiqq", len(key), LOGIN_ROW, 0, len(key), 0, 0, 0)
    return head + struct.pack("<Qqq16x", hash_id(anonymous_id), events, first_seen_ms) + key


def test_a_new_user_goes_on_with_the_arm_of_the_anonymous_one(bundles, scoring):
    rollout = replace(MIXED, eligible=None)
    score, again = scoring(serving_of(bundles, rollout)), scoring(serving_of(bundles, rollout))
    arms = set()
    for number in range(4):
        device, user, known = f"d{number}", f"new{number}", f"known{number}"
        (own,) = read(again(event_row(known)))
        found = read(
            score(
                event_row(known),
                login_row(device, device),
                event_row(device),
                login_row(user, device),
                event_row(user, 1),
                login_row(known, device),
                event_row(known, 1),
            )
        )
        assert [one["user_id"] for one in found] == [known, device, user, known]
        assert found[1]["arm"] == found[2]["arm"]
        assert found[0]["arm"] == found[3]["arm"] == own["arm"]
        arms.add(found[2]["arm"])
        assert read(score(event_row(user, 2)))[0]["arm"] == found[2]["arm"]
    assert len(arms) > 1


# In a process


@pytest.mark.slow
def test_a_worker_keeps_histories_in_the_memory_and_scores_from_it(bundles):
    serving, whole = deployment({"v1": bundles["v1"]}, first("v1")), Whole()
    rows = [event_row("ada", number * 1_000) for number in range(100)]
    handler = ScoreClicks(serving_bundle(bundles["v1"], OPTIONS), EVERYBODY, BUDGET_MS, WITHIN_MS)
    with FakeOperator(handler, max_rows=64, **SLOTS) as operator:
        records = [
            record for number in range(0, 100, 10) for record in operator.call(rows[number : number + 10], [5] * 10)
        ]
        memory = operator.memory.bytes[:]
        assert operator.hang_up() == 0
    assert [of_model(one) for one in read(records)] == whole.score(serving, *rows)
    assert len(read(records, FEATURE_LOG)) == 100
    assert b"".join(row[28:68] for row in rows[-HISTORY_LENGTH:]) in memory
