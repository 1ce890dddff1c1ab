"""The registry decides who serves, while clicks flow: what the topics say of it afterwards."""

import time
from base64 import b64decode
from collections import Counter, defaultdict
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from tests.support.e2e.pipeline import Pipeline, positions
from tools.stack import flink_client
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.modeling.settings import Training
from training.promote import main
from training.rollout.ledger import append, next_entry
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.models.backends import Scorer
from udfs.models.bundle import load_bundle
from udfs.rollout.assignment import arms, assign
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry

pytestmark = pytest.mark.e2e

RATE = 125
USERS = [f"u{number}" for number in range(250)]
ROLLOUT = """
salt: e2e
champion: test-model
control: {share: 0.1, at_most: 0.1}
rule: {all: ["lifetime_events >= 3"]}
"""


@pytest.fixture
def challenger(run_directory) -> Path:
    """A bundle of another model than the champion's."""
    examples = simulated_examples(simulate(Simulation(users=500, hours=12, seed=8)))
    settings = Training(model="xgboost", rounds=10, folds=2, repeats=0, prune=False, compare=(), threads=1)
    trained = train_model(examples, settings, version="challenger")
    write_bundle(run_directory / "challenger", trained.manifest, trained.files)
    return run_directory / "challenger"


class Served:
    """A registry under a running job, and what has been entered there."""

    def __init__(self, uri: str, pipe: Pipeline):
        self.registry = Registry(uri)
        self._pipe = pipe
        self.rollouts: list[Rollout] = []

    def promote(self, *arguments: str) -> None:
        """Change who serves, and wait until all users have what is theirs then."""
        self.enter(*arguments)
        self.wait()

    def enter(self, *arguments: str) -> None:
        assert main([*arguments, "--registry", self.registry.uri]) == 0
        self.rollouts.append(self.registry.rollout()[1])

    def wait(self) -> None:
        expected = arms_of(self.rollouts[-1])
        flink_client.wait_for(
            lambda: {score["user_id"]: arm_of(score) for score in in_order(self._pipe)} == expected,
            60,
            f"all users to have what is theirs of {self.rollouts[-1]}",
            poll_seconds=1,
        )


def arms_of(rollout: Rollout) -> dict[str, tuple[str, str]]:
    """Arm and version of each user."""
    found = assign(rollout, USERS, np.ones(len(USERS), bool))
    return {user: arms(rollout)[arm][:2] for user, arm in zip(USERS, found)}


def arm_of(score: dict) -> tuple[str, str]:
    return score["arm"], score["model_version"]


def in_order(pipe: Pipeline) -> list[dict]:
    return sorted(pipe.read("scores"), key=lambda score: score["source_offset"])


def test_a_challenger_goes_from_shadow_to_half_of_the_users_and_back(
    pipeline, flowing, bundle_directory, challenger, tmp_path
):
    uri = str(tmp_path / "registry")
    for bundle in (bundle_directory, challenger):
        assert main(["stage", str(bundle), "--registry", uri]) == 0
    (tmp_path / "rollout.yaml").write_text(ROLLOUT)
    pipe = pipeline(
        *("delivery.guarantee=exactly-once", "job.parallelism=2", "feature_log.user_share=1.0"),
        *(f"model.registry={uri}", "model.poll=1 s", "model.engine=native", "model.shadow_budget=5 s"),
    )
    served = Served(uri, pipe)
    served.enter("apply", str(tmp_path / "rollout.yaml"), "--why", "the first one")
    pipe.start()
    clicks = flowing(pipe, RATE, USERS)

    served.wait()
    served.promote("shadow", "challenger", "--why", "retrained")
    pipe.read("shadow_scores", at_least=2 * RATE)
    served.promote("start", "challenger", "--share", "0.05", "--at-most", "0.5", "--force", "--why", "looks right")
    small = served.registry.newest().number
    served.promote("ramp", "challenger", "--share", "0.5", "--why", "nothing worse")
    spoil(served.registry, tmp_path)
    pipe.wait_for_more_scores(5 * RATE)
    served.promote("rollback", "--to", str(small), "--why", "conversion fell")
    clicks.stop()

    accepted = {(record.partition, record.offset) for record in pipe.read_records("clicks")}
    pipe.wait_until_consumed("clicks")
    scores = pipe.read("scores", at_least=len(accepted))
    assert Counter(positions(scores)) == Counter(accepted)

    seen = defaultdict(list)
    for score in in_order(pipe):
        seen[score["user_id"]].append(score)
    entered = [arms_of(rollout) for rollout in served.rollouts]
    for user, of_user in seen.items():
        assert without_repeats(map(arm_of, of_user)) == without_repeats(assigned[user] for assigned in entered), user
        for number, score in enumerate(of_user, 1):
            by_model = score["score"] >= 0.2
            assert score["decision"] == (number >= 3 if score["arm"] == "control" else by_model)

    check_scores(pipe, {path: load_bundle(path, 64) for path in (bundle_directory, challenger)})


def spoil(registry: Registry, directory: Path) -> None:
    """All that must change nothing: half an entry, one that names a damaged bundle, a registry that is not there."""
    ledger = Path(registry.uri) / "ledger"
    number, rollout = registry.rollout()
    half = (ledger / f"{number:08}.json").read_bytes()[:-40]
    (ledger / f"{next_entry(registry):08}.json").write_bytes(half)
    damaged = Path(registry.uri) / "bundles" / "damaged"
    damaged.mkdir()
    for file in (Path(registry.uri) / "bundles" / "challenger").iterdir():
        content = file.read_bytes().replace(b'"challenger"', b'"damaged"')
        (damaged / file.name).write_bytes(content[:-10] if file.suffix == ".ubj" else content)
    worse = Rollout(salt=rollout.salt, champion="damaged")
    append(registry, next_entry(registry), worse, by="test", command=("test",), why="a writer without checks")
    away = directory / "elsewhere"
    Path(registry.uri).rename(away)
    time.sleep(3)  # some polls
    away.rename(registry.uri)


def without_repeats(values) -> list:
    return [value for value, _ in groupby(values)]


def check_scores(pipe: Pipeline, bundles: dict) -> None:
    """Each score is what its model gives for the logged vector; and so are the scores of shadows."""
    scorers = {bundle.manifest.version: Scorer(bundle) for bundle in bundles.values()}
    logged = pipe.read("feature_log")
    vectors = np.stack([np.frombuffer(b64decode(entry["features"]), np.float32) for entry in logged])
    row_of = {position: row for row, position in enumerate(positions(logged))}
    expected = {version: scorer.predict(vectors) for version, scorer in scorers.items()}
    scores, shadows = pipe.read("scores"), pipe.read("shadow_scores")
    assert row_of.keys() == set(positions(scores))
    for score, position in zip(scores, positions(scores)):
        assert np.float32(score["score"]) == expected[score["model_version"]][row_of[position]]
    assert {tuple(shadow["shadow_versions"]) for shadow in shadows} == {("challenger",)}
    assert {shadow["model_version"] for shadow in shadows} == {"test-model"}
    for shadow, position in zip(shadows, positions(shadows)):
        assert np.float32(shadow["shadow_scores"][0]) == expected["challenger"][row_of[position]]
