"""The drill: users change, drift raises an alarm, a model is retrained, passes its gates and is the better one live."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from tests.support.e2e.pipeline import Pipeline
from tools.demo.day.models import STEADY_FEATURES
from tools.stack.flink_client import wait_for
from training import promote
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.sources import click_records
from training.modeling.settings import Training
from training.retraining.run import retrain
from training.retraining.run_store import newest_run
from training.retraining.scheduler import Watch
from training.retraining.settings import RETRAINING_FILE, Recipe, load_recipe
from training.rollout.shadow_quality import ShadowQuality, shadow_quality
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.examples import simulated_examples
from training.simulation.traffic import HOUR_MS
from udfs.contracts.outputs import Outcome, ShadowScores
from udfs.kafka.reading import read_topic
from udfs.rollout.registry import Registry

pytestmark = pytest.mark.e2e

CHAMPION = "before"
SHIFT_HOUR, RETRAIN_HOUR, LAST_HOUR = 6, 18, 24
SHOP = Simulation(users=1_500, hours=LAST_HOUR, seed=22, profile_share=0.0)
TRAINING = Training(
    model="xgboost",
    features=STEADY_FEATURES,
    rounds=40,
    folds=2,
    repeats=0,
    prune=False,
    compare=(),
    threads=1,
)
WAIT_SECONDS = 120
PROBE = {"user_id": "nobody", "event_name": "page_view", "event_time": SHOP.start_ms + RETRAIN_HOUR * HOUR_MS}
TOPICS = ("drift", "model_quality", "outcomes", "shadow_scores", "sessions")


@pytest.fixture
def registry(tmp_path) -> Registry:
    """With a champion that learned from users as they were."""
    before = simulate(replace(SHOP, seed=21))
    trained = train_model(simulated_examples(before), TRAINING, version=CHAMPION)
    write_bundle(tmp_path / CHAMPION, trained.manifest, trained.files)
    uri = str(tmp_path / "registry")
    for command in (["stage", str(tmp_path / CHAMPION)], ["start", CHAMPION, "--champion", "--why", "the first one"]):
        assert promote.main([*command, "--registry", uri]) == 0
    return Registry(uri)


@pytest.fixture
def recipe(pipeline, registry, tmp_path):
    """A factory of recipes to retrain by what a pipeline has archived and told."""

    def make(pipe: Pipeline) -> Recipe:
        training = tmp_path / "training.yaml"
        training.write_bytes(msgspec.yaml.encode(TRAINING))
        archive = pipe.archive_of("clicks").parent
        topics = [f"topics.{role}={getattr(pipe.settings.topics, role)}" for role in TOPICS]
        return load_recipe(
            RETRAINING_FILE,
            [
                *(f"registry={registry.uri}", f"work={tmp_path / 'work'}", f"training={training}"),
                *(f"data.archive={archive}", "data.history=12 h", "data.newest=3 h", "gates.positive_users=20"),
                *("triggers.drift_windows=2", "triggers.quality_scores=1000000"),  # drift alone may start it
                *(*topics, f"kafka.bootstrap.servers={pipe.stack.bootstrap_servers}"),
            ],
        )

    return make


def test_when_users_change_a_model_is_retrained_and_is_the_better_one_live(pipeline, recipe, registry):
    stream = simulate(replace(SHOP, shift_at=SHIFT_HOUR))
    pipe = pipeline(
        *("job.parallelism=1", f"model.registry={registry.uri}", "model.poll=1 s", "feature_log.user_share=1.0"),
        *("drift.window=3 h", "drift.slide=30 min", "drift.alarm=0.15", "model.shadow_budget=5 s"),
    )
    pipe.start()
    for job in ("jobs.archive_clicks", "jobs.measure_outcomes", "jobs.watch_drift"):
        pipe.start_other(job)
    lines: list[str] = []
    watch = Watch(recipe(pipe), True, retrain, read_topic, lines.append)

    play(pipe, stream, 0, SHIFT_HOUR)
    shift_ms = SHOP.start_ms + SHIFT_HOUR * HOUR_MS
    wait_for(lambda: windows(pipe, shift_ms - HOUR_MS // 2), WAIT_SECONDS, "drift of the time before the change")
    watch.look(datetime.now(UTC))
    assert newest_run(registry) is None, lines

    play(pipe, stream, SHIFT_HOUR, RETRAIN_HOUR)
    pipe.wait_until_archived("clicks")
    wait_for(lambda: windows(pipe, SHOP.start_ms + (RETRAIN_HOUR - 1) * HOUR_MS), WAIT_SECONDS, "drift after it")
    watch.look(datetime.now(UTC))
    run = newest_run(registry)
    assert run is not None, lines
    assert run.state == "passed", lines
    assert run.trigger.startswith("drift alarm in 2 windows")
    assert registry.newest().rollout.shadows == (run.version,)

    wait_for(lambda: serves(pipe, run.version), WAIT_SECONDS, f"{run.version} to score in shadow")
    play(pipe, stream, RETRAIN_HOUR, LAST_HOUR)
    pipe.wait_until_consumed("clicks")
    last_ms = int(stream.events["time_ms"].max())
    wait_for(lambda: newest_outcome_ms(pipe) >= last_ms - HOUR_MS, WAIT_SECONDS, "what came of the clicks")
    quality = live_quality(pipe, run.version)
    assert quality.difference.value > 0, quality


def play(pipe: Pipeline, stream: Clickstream, first_hour: float, last_hour: float) -> None:
    """Send what arrives in these hours, stamped with its own time."""
    begin, end = (SHOP.start_ms + hour * HOUR_MS for hour in (first_hour, last_hour))
    pipe.send("clicks", click_records(stream.between(begin, end).clicks()))


def windows(pipe: Pipeline, since_ms: int) -> list[dict]:
    """What is told of drift in windows that end then or later."""
    return [window for window in pipe.read("drift") if window["window_end"] >= since_ms]


def serves(pipe: Pipeline, version: str) -> bool:
    """Whether a shadow has scored; clicks of somebody else keep coming until it has."""
    pipe.send("clicks", [(b"nobody", msgspec.json.encode(PROBE), None)])
    return any(version in record["shadow_versions"] for record in pipe.read("shadow_scores"))


def newest_outcome_ms(pipe: Pipeline) -> int:
    return max((outcome["event_time"] for outcome in pipe.read("outcomes")), default=0)


def live_quality(pipe: Pipeline, version: str) -> ShadowQuality:
    """The live AUC of the new model beside the champion's, on the clicks that both have scored."""
    outcomes = msgspec.convert(pipe.read("outcomes"), list[Outcome])
    scores = msgspec.convert(pipe.read("shadow_scores"), list[ShadowScores])
    found = shadow_quality(outcomes, scores, version, CHAMPION)
    assert found is not None
    return found
