"""What serves: arms and decisions of a batch, shadows that can't hold it up, changes followed between batches."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.bundles import NAMES, files_of, make_bundle
from tests.support.own_features import declared, own_bundle
from training.rollout.ledger import append
from training.rollout.transitions import add_shadow, first, start
from udfs.contracts.packed_events import EVENT
from udfs.contracts.profiles import PROFILE, Profile, pack_profile
from udfs.features.user_slots import EVENT_ROW, PROFILE_ROW, USER_ROW, UserSlots
from udfs.models.backends import Scorer
from udfs.models.bundle import BundleError, load_bundle
from udfs.models.circuit_breaker import FAILURES, PAUSE_S
from udfs.rollout.assignment import CONTROL, assign
from udfs.rollout.plan import Challenger, Control, Rollout, RolloutError
from udfs.rollout.registry import Registry
from udfs.rollout.rules import Rule
from udfs.serving.bootstrap import Serving, follow, serving_registry
from udfs.serving.deployment import Deployment, Options, load_model
from udfs.serving.poller import Poller
from udfs.serving.shadows import Shadows

NOW = 1_700_000_000_000
OPTIONS = Options(engine="native")
USERS = [f"u{number}" for number in range(400)]
CARTED = Rule(any=("lifetime_events >= 2",))


@pytest.fixture
def bundles(tmp_path: Path) -> dict:
    """Bundles of different models."""
    return {
        version: load_bundle(make_bundle(tmp_path, version, changes=files_of(int(version[1:]))), 64)
        for version in ("v1", "v2", "v3")
    }


def deployment(bundles: dict, rollout: Rollout, options: Options = OPTIONS) -> Deployment:
    return Deployment(rollout, {version: load_model(bundle, options) for version, bundle in bundles.items()}, options)


def scored(serving: Deployment, lifetime_events: int = 1):
    n = len(USERS)
    return serving.score(
        USERS, [bytes(EVENT.itemsize)] * n, np.full(n, lifetime_events), np.zeros(n, np.int64), [None] * n
    )


def test_everybody_has_the_champion_where_there_is_nobody_else(bundles):
    serving = deployment(bundles, first("v1"))
    found = scored(serving)
    assert {serving.arms[arm].version for arm in found.arm} == {"v1"}
    assert found.score.tobytes() == Scorer(bundles["v1"]).predict(serving.vectors("v1", found.features)).tobytes()
    assert np.array_equal(found.decision, found.score >= 0.5)


def test_rows_taken_into_slots_are_scored_as_whole_histories_are(bundles):
    serving = deployment(
        bundles, replace_rollout(challengers=(Challenger(version="v2", share=0.5, at_most=0.5, start=0.2),))
    )
    profile = pack_profile(Profile("u", country="DE"))
    rows = np.zeros(5 * len(USERS), USER_ROW)
    rows["kind"] = EVENT_ROW
    rows["event"]["time_ms"] = np.arange(len(rows)) * 1_000
    rows["kind"][: len(USERS)] = PROFILE_ROW
    rows["profile"][: len(USERS)] = np.frombuffer(profile, PROFILE)
    slots = np.arange(len(rows), dtype=np.int32) % len(USERS)
    features, _ = serving.append(rows, slots, UserSlots.empty(len(USERS), 64), 0)
    found = serving.score_features(lambda: USERS, features[-len(USERS) :])
    histories = [rows["event"][slots == slot][1:].tobytes() for slot in range(len(USERS))]
    first_seen = rows["event"]["time_ms"][len(USERS) : 2 * len(USERS)].copy()
    whole = serving.score(USERS, histories, np.full(len(USERS), 4), first_seen, [profile] * len(USERS))
    assert found.features.tobytes() == whole.features.tobytes()
    assert found.score.tobytes() == whole.score.tobytes()
    for name in ("decision", "arm", "version"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    assert len(set(found.arm)) == 3


def test_each_user_is_scored_by_the_model_of_their_arm(bundles):
    rollout = replace_rollout(challengers=(Challenger(version="v2", share=0.5, at_most=0.5, start=0.2),))
    serving = deployment(bundles, rollout)
    found = scored(serving)
    assert np.array_equal(found.arm, assign(rollout, USERS, np.ones(len(USERS), bool)))
    for arm in np.unique(found.arm):
        rows = found.arm == arm
        version = serving.arms[arm].version
        expected = Scorer(bundles[version]).predict(serving.vectors(version, found.features[rows]))
        assert found.score[rows].tobytes() == expected.tobytes()
    assert len(set(found.score.tolist())) == 2  # all users have equal events: only the model differs


@pytest.mark.parametrize(("events", "decision"), [(1, False), (2, True)])
def test_in_control_the_rule_decides(bundles, events, decision):
    found = scored(deployment(bundles, replace_rollout()), events)
    in_control = found.arm == CONTROL
    assert in_control.any()
    assert (found.decision[in_control] == decision).all()


SAME_NAME = """
extends: standard
kinds: {quiz_completed: 100}
features:
  own:
    quizzes: {value: "count(kind == quiz_completed)", unit: events, doc: quizzes}
"""
OTHER_MEANING = SAME_NAME.replace("count(kind == quiz_completed)", "2 * count(kind == quiz_completed) + 1")
MODEL_FEATURES = ("quizzes", "event_kind", "session_events")


def test_models_with_different_declarations_serve_side_by_side_as_each_alone(tmp_path):
    declarations = {"v1": declared(tmp_path, SAME_NAME), "v2": declared(tmp_path, OTHER_MEANING)}
    bundles = {
        version: load_bundle(own_bundle(tmp_path, version, declaration, MODEL_FEATURES), 64)
        for version, declaration in declarations.items()
    } | {"v3": load_bundle(make_bundle(tmp_path, "v3"), 64)}
    layout = declarations["v1"].layout
    events = np.zeros(5, EVENT)
    events["kind"], events["time_ms"] = [100, 2, 100, 101, 100], NOW + np.arange(5) * 1_000
    histories = [events[:end].tobytes() for end in range(1, 6)]
    arguments = (["a", "b", "c", "d", "e"], histories, np.arange(1, 6), np.full(5, NOW), [None] * 5)

    def vectors_of(rollout: Rollout, version: str) -> np.ndarray:
        models = {name: load_model(bundles[name], OPTIONS) for name in rollout.versions}
        serving = Deployment(rollout, models, OPTIONS, layout=layout)
        found = serving.score(*arguments)
        serving.close()
        return serving.vectors(version, found.features)

    together = replace_rollout(
        rule=None,
        control=Control(),
        challengers=(Challenger(version="v2", share=0.5, at_most=0.5, start=0.2),),
        shadows=("v3",),
    )
    for version in ("v1", "v2", "v3"):
        alone = vectors_of(first(version), version)
        assert vectors_of(together, version).tobytes() == alone.tobytes()
    assert vectors_of(together, "v1")[:, 0].tolist() == [1, 1, 2, 2, 3]
    assert vectors_of(together, "v2")[:, 0].tolist() == [3, 3, 5, 5, 7]
    assert vectors_of(together, "v1")[:, 1].tolist() == [100, 2, 100, 0, 100]


def test_a_rule_may_be_about_a_feature_that_only_the_champion_has(tmp_path):
    bundle = load_bundle(own_bundle(tmp_path, "v1", declared(tmp_path, SAME_NAME), MODEL_FEATURES), 64)
    models = {"v1": load_model(bundle, OPTIONS)}
    rule = Rule(any=("event_kind == quiz_completed", "quizzes >= 1"))
    serving = Deployment(replace_rollout(rule=rule), models, OPTIONS, layout=bundle.declaration.layout)
    assert not scored(serving).decision.any()
    with pytest.raises(RolloutError, match="key rule: condition 'quizes >= 1': unknown feature quizes"):
        Deployment(replace_rollout(rule=Rule(any=("quizes >= 1",))), models, OPTIONS)


def test_a_model_about_events_that_the_job_does_not_have_is_refused_and_the_old_one_serves_on(tmp_path):
    declaration = declared(tmp_path)
    registry = Registry(str(tmp_path / "registry"))
    (tmp_path / "registry" / "bundles").mkdir(parents=True)
    make_bundle(tmp_path / "registry" / "bundles", "v1")
    own_bundle(tmp_path / "registry" / "bundles", "v2", declaration)
    append(registry, 1, first("v1"), by="me", command=("start",), why="test")
    poller = follow(serving_registry(registry.uri, 64, OPTIONS, poll_s=60))
    append(registry, 2, add_shadow(first("v1"), "v2"), by="me", command=("shadow",), why="test")
    poller.poll_once()
    assert (poller.number, poller.refused) == (1, 1)
    poller.stop()
    lacking = "v2: its features need the kind of event quiz_completed with code 100, which the job does not keep"
    with pytest.raises(BundleError, match=lacking):
        serving_registry(registry.uri, 64, OPTIONS, 60)
    assert serving_registry(registry.uri, 64, OPTIONS, 60, declaration.layout).number == 2


def replace_rollout(**changes) -> Rollout:
    fields = {"salt": "s", "champion": "v1", "control": Control(share=0.2, at_most=0.2), "rule": CARTED} | changes
    return Rollout(**fields)


def test_shadows_score_the_same_vectors_and_decide_nothing(bundles):
    alone = scored(deployment(bundles, first("v1")))
    serving = deployment(bundles, add_shadow(first("v1"), "v2"), replace(OPTIONS, shadow_budget_s=5.0))
    found = scored(serving)
    assert found.score.tobytes() == alone.score.tobytes()
    assert found.shadows["v2"].tobytes() == Scorer(bundles["v2"]).predict(found.features).tobytes()
    assert found.shadows["v2"].tobytes() != found.score.tobytes()
    serving.close()


def test_a_slow_shadow_costs_a_batch_its_budget_and_the_next_one_nothing():
    release = threading.Event()

    def slow(features: np.ndarray) -> np.ndarray:
        release.wait(10)
        return features[:, 0]

    shadows = Shadows({"slow": slow}, budget_s=0.01)
    for _ in range(2):
        shadows.begin(np.zeros((1, 3), np.float32))
        assert shadows.scores() == {}
    assert shadows.missed == 2
    release.set()
    shadows.close()


def test_a_shadow_that_fails_again_and_again_is_paused_and_then_tried_again():
    now, calls = [0.0], []

    def failing(_features: np.ndarray) -> np.ndarray:
        calls.append(now[0])
        raise ValueError("no such column")

    shadows = Shadows({"bad": failing}, budget_s=5.0, clock=lambda: now[0])
    for _ in range(FAILURES + 3):
        shadows.begin(np.zeros((1, 3), np.float32))
        assert shadows.scores() == {}
    assert len(calls) == FAILURES
    now[0] = PAUSE_S
    shadows.begin(np.zeros((1, 3), np.float32))
    assert shadows.scores() == {}
    assert calls[-1] == PAUSE_S
    shadows.close()


def test_what_cannot_be_built_is_refused_and_the_old_one_goes_on():
    def build(wanted: str) -> str:
        if wanted == "bad":
            raise ValueError("sha256 differs")
        return wanted.upper()

    wanted = [(1, "good")]
    poller = Poller(lambda: wanted[0], build, "GOOD", 1, interval_s=60)
    wanted[0] = (2, "bad")
    poller.poll_once()
    assert (poller.current, poller.number, poller.refused) == ("GOOD", 1, 1)
    wanted[0] = (3, "better")
    poller.poll_once()
    assert (poller.current, poller.number, poller.refused) == ("BETTER", 3, 1)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with three staged bundles, of which v1 serves."""
    for version in ("v1", "v2", "v3"):
        make_bundle(tmp_path / "registry" / "bundles", version)
    registry = Registry(str(tmp_path / "registry"))
    enter(registry, 1, first("v1"))
    return registry


def enter(registry: Registry, number: int, rollout: Rollout) -> None:
    append(registry, number, rollout, by="test", command=("test",), why="test")


def test_a_worker_follows_the_registry_and_starts_with_what_is_newest(registry):
    serving = serving_registry(registry.uri, 64, OPTIONS, poll_s=60)
    enter(registry, 2, start(first("v1"), "v2", 0.5, 0.5))
    poller = follow(serving)
    assert poller.number == 2
    assert poller.current.rollout.versions == ("v1", "v2")
    enter(registry, 3, first("v3"))
    poller.poll_once()
    assert poller.current.rollout.versions == ("v3",)
    poller.stop()


def test_a_worker_serves_what_it_was_sent_with_when_the_registry_is_gone(registry, tmp_path):
    serving = serving_registry(registry.uri, 64, OPTIONS, poll_s=60)
    (tmp_path / "registry").rename(tmp_path / "elsewhere")
    poller = follow(serving)
    assert (poller.number, poller.refused) == (1, 1)
    assert poller.current.rollout.versions == ("v1",)
    poller.stop()


def test_a_bundle_that_was_changed_after_it_was_staged_is_refused(registry, tmp_path):
    poller = follow(serving_registry(registry.uri, 64, OPTIONS, poll_s=60))
    path = tmp_path / "registry" / "bundles" / "v2" / "model.ubj"
    path.write_bytes(path.read_bytes()[:-10])
    enter(registry, 2, add_shadow(first("v1"), "v2"))
    poller.poll_once()
    assert (poller.number, poller.refused) == (1, 1)
    poller.stop()


def test_serving_can_be_pickled(bundles):
    import pickle

    serving = Serving(first("v1"), {"v1": bundles["v1"]}, OPTIONS)
    assert pickle.loads(pickle.dumps(serving)).rollout == serving.rollout
    assert bundles["v1"].manifest.features == NAMES


def test_a_deployment_gets_a_kernel_of_its_own_in_the_thread_of_the_poller(bundles, monkeypatch):
    threads = []
    specialise = Deployment.specialise

    def tracked(serving: Deployment) -> None:
        threads.append(threading.current_thread().name)
        specialise(serving)

    monkeypatch.setattr(Deployment, "specialise", tracked)
    before = deployment(bundles, first("v1"))
    poller = follow(Serving(first("v1"), {"v1": bundles["v1"]}, OPTIONS))
    poller.stop()  # waits for the kernel that the thread is compiling
    assert threads == ["poller"]
    kernel = poller.current._features._compiled
    assert kernel.functions is not before._features._compiled.functions
    assert list(kernel.columns) == list(range(kernel.functions.COLUMNS)) == [0, 1, 2]
    assert scored(poller.current).features.tobytes() == scored(before).features.tobytes()


def test_a_kernel_that_can_not_be_made_leaves_the_one_that_serves(bundles, monkeypatch, caplog):
    def fail(_):
        raise MemoryError("no room")

    monkeypatch.setattr(Deployment, "specialise", fail)
    poller = follow(Serving(first("v1"), {"v1": bundles["v1"]}, OPTIONS))
    poller.stop()
    assert "entry 0 serves as it is: no room" in caplog.text
    assert len(scored(poller.current).score) == len(USERS)
