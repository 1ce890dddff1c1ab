"""What serves at a moment: the models of a rollout, which user gets which, and the scores of a batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from udfs.engines import EngineName, Predict, build_engine
from udfs.features import FeatureComputer
from udfs.history import read_histories
from udfs.model import Bundle, Manifest
from udfs.profiles import NO_PROFILE, PROFILE
from udfs.rollout import CHAMPION, CONTROL, Rollout, arms, assign, eligible_rows, rollout_features
from udfs.rules import matches
from udfs.shadows import Shadows


@dataclass(frozen=True)
class Options:
    """How models serve, whichever they are."""

    threshold: float = 0.5  # a score at or above it decides to act
    engine: EngineName = "auto"
    threads: int = 1
    shadow_budget_s: float = 0.02


@dataclass(frozen=True)
class Model:
    """A bundle's model, warmed up and checked."""

    manifest: Manifest
    predict: Predict


def load_model(bundle: Bundle, options: Options) -> Model:
    """Raises BundleError when the model doesn't give the scores that it has to."""
    return Model(bundle.manifest, build_engine(bundle, options.engine, options.threads))


@dataclass(frozen=True)
class Scored:
    """What came of a batch of n events."""

    score: np.ndarray  # float32[n]
    decision: np.ndarray  # bool[n]: in control the rule's, elsewhere the score's
    arm: np.ndarray  # int64[n], position in the deployment's `arms`
    features: np.ndarray  # float32[n, all that any model or rule needs]
    shadows: dict[str, np.ndarray] = field(default_factory=dict)  # float32[n] by version


class Deployment:
    """The models of a rollout, loaded and warmed up. A row depends on its own arguments only, whatever batch it is in
    (but for the last digits of a score, where `auto` takes the faster engine for a batch's size)."""

    def __init__(self, rollout: Rollout, models: Mapping[str, Model], options: Options = Options()):
        """`models` by version, all that the rollout names."""
        self.rollout = rollout
        self.arms = arms(rollout)
        self.arm_names = np.array([arm.name for arm in self.arms], object)
        self.arm_versions = np.array([arm.version for arm in self.arms], object)
        self.manifests = [models[arm.version].manifest for arm in self.arms]  # of each arm's model
        self._threshold = np.float32(options.threshold)
        needed = [*(models[version].manifest.features for version in rollout.versions), rollout_features(rollout)]
        self._names = tuple(dict.fromkeys(name for names in needed for name in names))
        self._features = FeatureComputer(self._names, models[rollout.champion].manifest.history_length)
        self._columns = {version: self._columns_of(models[version].manifest) for version in rollout.versions}
        self._predict = {version: models[version].predict for version in rollout.versions}
        self.shadows = None
        if rollout.shadows:
            self.shadows = Shadows(
                {version: self._scorer(version) for version in rollout.shadows}, options.shadow_budget_s
            )
        self.score(["anyone"], [bytes(32)], np.ones(1, np.int64), np.zeros(1, np.int64), [None])  # compile, warm up

    def vectors(self, version: str, features: np.ndarray) -> np.ndarray:
        """The feature vectors float32[n, k] of a model, out of rows of all features."""
        columns = self._columns[version]
        return features if columns is None else np.ascontiguousarray(features[:, columns])

    def score(
        self,
        user_ids: Sequence[str],
        histories: Sequence[bytes],
        lifetime_events: np.ndarray,
        first_seen_ms: np.ndarray,
        profiles: Sequence[bytes | None],
    ) -> Scored:
        """Score the last event of each of n histories.

        `lifetime_events` int64[n] counts the user's events, this one included; `first_seen_ms` int64[n] is the time of
        the earliest one; a user without a profile has None.
        """
        records, starts, ends = read_histories(histories)
        packed = b"".join([NO_PROFILE if profile is None else profile for profile in profiles])
        features = self._features.compute(
            records, starts, ends, lifetime_events, first_seen_ms, np.frombuffer(packed, PROFILE)
        )
        if self.shadows is not None:
            self.shadows.begin(features)
        arm = self._assign(user_ids, features)
        score = self._score(arm, features)
        decision = score >= self._threshold
        if self.rollout.control.share:
            in_control = np.flatnonzero(arm == CONTROL)
            decision[in_control] = matches(self.rollout.rule, self._names, features[in_control])
        return Scored(score, decision, arm, features, {} if self.shadows is None else self.shadows.scores())

    @property
    def shadow_batches_missed(self) -> int:
        """Batches that went without the scores of the shadows."""
        return 0 if self.shadows is None else self.shadows.missed

    def close(self) -> None:
        """Let go of the threads of the shadows."""
        if self.shadows is not None:
            self.shadows.close()

    def _columns_of(self, manifest: Manifest) -> np.ndarray | None:
        """Where a model's features are among all; None when it has all of them in order."""
        columns = np.array([self._names.index(name) for name in manifest.features])
        return None if np.array_equal(columns, np.arange(len(self._names))) else columns

    def _scorer(self, version: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda features: self._predict[version](self.vectors(version, features))

    def _assign(self, user_ids: Sequence[str], features: np.ndarray) -> np.ndarray:
        if not self.rollout.challengers and not self.rollout.control.share:
            return np.full(len(user_ids), CHAMPION)
        return assign(self.rollout, user_ids, eligible_rows(self.rollout, self._names, features))

    def _score(self, arm: np.ndarray, features: np.ndarray) -> np.ndarray:
        if not self.rollout.challengers:
            return self._scorer(self.rollout.champion)(features)
        score = np.empty(len(arm), np.float32)
        versions = list(self._predict)
        version = np.array([versions.index(one.version) for one in self.arms])[arm]
        for number in np.unique(version):
            rows = np.flatnonzero(version == number)
            score[rows] = self._scorer(versions[number])(features[rows])
        return score


class Deployer:
    """Makes the deployment of a rollout; models that serve already are taken over as they are."""

    def __init__(self, find_bundle: Callable[[str], Bundle], options: Options):
        self._find_bundle, self._options = find_bundle, options
        self._models: dict[str, Model] = {}

    def __call__(self, rollout: Rollout) -> Deployment:
        """Raises what `find_bundle` raises, and BundleError."""
        models = {
            version: self._models.get(version) or load_model(self._find_bundle(version), self._options)
            for version in rollout.versions
        }
        deployment = Deployment(rollout, models, self._options)
        self._models = models
        return deployment
