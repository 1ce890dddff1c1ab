"""A deployment: the loaded models of a rollout, the arms of users, and the scores of a batch."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.contracts.packed_events import read_histories
from udfs.contracts.profiles import NO_PROFILE, PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration, merged
from udfs.features.declaration_file import STANDARD
from udfs.features.user_slots import UserSlots
from udfs.models.backends import EngineName, Predict, Scorer, build_engine
from udfs.models.bundle import Bundle, BundleError, Manifest, check_layout
from udfs.models.circuit_breaker import PAUSE_S, Breaker
from udfs.models.remote import RemoteError
from udfs.rollout.assignment import CHAMPION, CONTROL, arms, assign, eligible_rows, propensities
from udfs.rollout.plan import Rollout, check_rules, rollout_features
from udfs.rollout.rules import matches
from udfs.serving.shadows import Shadows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options that all served models share."""

    threshold: float = 0.5  # a score at or above it decides to act
    engine: EngineName = "auto"
    threads: int = 1
    shadow_budget_s: float = 0.02


@dataclass(frozen=True)
class LoadedModel:
    """A bundle's model, warmed up and checked."""

    manifest: Manifest
    predict: Predict
    declaration: Declaration = STANDARD
    breaker: Breaker = field(default_factory=Breaker)  # of a remote one


def load_model(bundle: Bundle, options: Options, must_answer: bool = True) -> LoadedModel:
    """Load a model and check its scores. Raises BundleError if they are not the expected ones.

    An unreachable remote model raises RemoteError or, unless it `must_answer`, is loaded without the check.
    """
    try:
        return LoadedModel(bundle.manifest, build_engine(bundle, options.engine, options.threads), bundle.declaration)
    except RemoteError as error:
        if must_answer:
            raise
        log.warning("not checked: %s", error)
        return LoadedModel(bundle.manifest, Scorer(bundle).predict, bundle.declaration)


@dataclass(frozen=True)
class ScoredEvents:
    """The scores of a batch of n events."""

    score: np.ndarray  # float32[n]
    decision: np.ndarray  # bool[n]: in control the rule's, elsewhere the score's
    arm: np.ndarray  # int64[n], position in the deployment's `arms`
    version: np.ndarray  # object[n], of the model that computed the score: the arm's, or its fallback
    features: np.ndarray  # float32[n, all that any model or rule needs]
    shadows: dict[str, np.ndarray] = field(default_factory=dict)  # float32[n] by version


class Deployment:
    """The models of a rollout, loaded and warmed up.

    A row depends on its own arguments only, not on the rest of its batch (except for the last digits of a score, where
    the engine `auto` picks the faster one for a batch's size).
    """

    def __init__(
        self,
        rollout: Rollout,
        models: Mapping[str, LoadedModel],
        options: Options = Options(),
        fallback: str | None = None,
        layout: EventLayout = STANDARD_LAYOUT,
    ):
        """Take `models` by version, all that the rollout names, and the local `fallback` for remote ones that fail; and
        the layout of the events.

        Raises RolloutError for a rule that is not about the champion's features.
        """
        self.rollout = rollout
        self.fallback = fallback
        self.fallbacks = 0  # events that it has scored
        self._models = models
        self.arms = arms(rollout)
        self.arm_names = np.array([arm.name for arm in self.arms], object)
        self.arm_versions = np.array([arm.version for arm in self.arms], object)
        self._propensities = propensities(rollout)
        self._threshold = np.float32(options.threshold)
        self._declaration = models[rollout.champion].declaration  # rules are about its features
        check_rules(rollout, self._declaration)
        declaration, renamed = merged(self._declaration, [model.declaration for model in models.values()])
        needed = {
            version: [names[name] for name in model.manifest.features]
            for (version, model), names in zip(models.items(), renamed)
        }
        self._names = tuple(dict.fromkeys(chain(*needed.values(), rollout_features(rollout))))
        self._features = FeatureComputer(
            self._names, models[rollout.champion].manifest.history_length, declaration, layout
        )
        self._columns = {version: self._columns_of(names) for version, names in needed.items()}
        self.shadows = None
        if rollout.shadows:
            shadows = {version: partial(self._predict, version) for version in rollout.shadows}
            self.shadows = Shadows(shadows, options.shadow_budget_s)
        self.score(
            ["anyone"], [bytes(layout.dtype.itemsize)], np.ones(1, np.int64), np.zeros(1, np.int64), [None]
        )  # compile, warm up
        if self.shadows is not None:
            self.shadows.missed = 0

    def specialise(self) -> None:
        """Compile the features that the models and rules need alone: see FeatureComputer.specialise."""
        self._features.specialise()

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
    ) -> ScoredEvents:
        """Score the last event of each of n histories.

        `lifetime_events` int64[n] counts the user's events, this one included; `first_seen_ms` int64[n] is the time of
        the earliest one; a user without a profile has None.
        """
        records, starts, ends = read_histories(histories, self._features.event)
        packed = b"".join([NO_PROFILE if profile is None else profile for profile in profiles])
        features = self._features.compute(
            records, starts, ends, lifetime_events, first_seen_ms, np.frombuffer(packed, PROFILE)
        )
        return self.score_features(lambda: user_ids, features)

    def append(
        self, rows: np.ndarray, slots: np.ndarray, users: UserSlots, duplicates_within_ms: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Append rows to the slots of their users; returns all features of the events, like FeatureComputer.append."""
        return self._features.append(rows, slots, users, duplicates_within_ms)

    def score_features(self, assignment_ids: Callable[[], Sequence[str]], features: np.ndarray) -> ScoredEvents:
        """Score n events, given all their features float32[n, k], as `append` returns them.

        `assignment_ids` gives the ids by which users are assigned to arms, mostly their own. It is called only if the
        rollout assigns different models to users.
        """
        if self.shadows is not None:
            self.shadows.begin(features)
        arm = self._assign(assignment_ids, features)
        score, version = self._score(arm, features)
        decision = score >= self._threshold
        if self.rollout.control.share:
            in_control = np.flatnonzero(arm == CONTROL)
            decision[in_control] = matches(self.rollout.rule, self._names, features[in_control], self._declaration)
        return ScoredEvents(
            score, decision, arm, version, features, {} if self.shadows is None else self.shadows.scores()
        )

    def propensity(self, arm: int, version: str) -> float | None:
        """The probability of being put into an arm, given its number; None where a fallback stood in for its model."""
        return self._propensities[arm] if version == self.arms[arm].version else None

    @property
    def versions(self) -> set[str]:
        """The versions of all loaded models, including a fallback."""
        return set(self._models)

    @property
    def shadow_batches_missed(self) -> int:
        """The number of batches without scores of the shadows."""
        return 0 if self.shadows is None else self.shadows.missed

    def close(self) -> None:
        """End the threads of the shadows."""
        if self.shadows is not None:
            self.shadows.close()

    def _columns_of(self, names: Sequence[str]) -> np.ndarray | None:
        """The columns of a model's features among all features; None if it has all of them in order."""
        columns = np.array([self._names.index(name) for name in names])
        return None if np.array_equal(columns, np.arange(len(self._names))) else columns

    def manifest(self, version: str) -> Manifest:
        return self._models[version].manifest

    def _predict(self, version: str, features: np.ndarray) -> np.ndarray:
        return self._models[version].predict(self.vectors(version, features))

    def _assign(self, assignment_ids: Callable[[], Sequence[str]], features: np.ndarray) -> np.ndarray:
        if not self.rollout.challengers and not self.rollout.control.share:
            return np.full(len(features), CHAMPION)
        return assign(
            self.rollout, assignment_ids(), eligible_rows(self.rollout, self._names, features, self._declaration)
        )

    def _score(self, arm: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score and version of each row."""
        version = self.arm_versions[arm]
        if not self.rollout.challengers:
            return self._score_by(self.rollout.champion, features, version, slice(None)), version
        score = np.empty(len(arm), np.float32)
        for model_version in set(version):
            rows = np.flatnonzero(version == model_version)
            score[rows] = self._score_by(model_version, features[rows], version, rows)
        return score, version

    def _score_by(self, name: str, features: np.ndarray, version: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
        """Scores by a model, or by the fallback, whose version is then written into these rows."""
        model = self._models[name]
        if not model.manifest.is_remote:
            return self._predict(name, features)
        if model.breaker.is_closed:
            try:
                scores = self._predict(name, features)
            except RemoteError as error:
                if model.breaker.failed():
                    log.warning("%s pauses for %.0f s, %s stands in: %s", name, PAUSE_S, self.fallback, error)
            else:
                model.breaker.succeeded()
                return scores
        version[rows] = self.fallback
        self.fallbacks += len(features)
        return self._predict(self.fallback, features)


class Deployer:
    """Builds the deployment of a rollout; models that are already loaded are reused."""

    def __init__(
        self,
        find_bundle: Callable[[str], Bundle],
        find_fallback: Callable[[Rollout], str | None],
        options: Options,
        layout: EventLayout = STANDARD_LAYOUT,
    ):
        """Take functions that find a bundle by version, and the local model that is the fallback for remote ones; and
        the layout of the events that the job keeps."""
        self._find_bundle, self._find_fallback, self._options = find_bundle, find_fallback, options
        self._layout = layout
        self._models: dict[str, LoadedModel] = {}

    def __call__(self, rollout: Rollout, must_answer: bool = True) -> Deployment:
        """Build a deployment.

        Raises errors of `find_bundle`, BundleError, RolloutError, and RemoteError if models must answer.
        """
        models = {version: self._load(version, must_answer) for version in rollout.versions}
        acting = {arm.version for arm in arms(rollout)}
        fallback = None
        if any(models[version].manifest.is_remote for version in acting):
            fallback = self._find_fallback(rollout)
            if fallback is None:
                raise BundleError(f"{', '.join(sorted(acting))}: a remote model needs a local one to stand in for it")
            models[fallback] = models.get(fallback) or self._load(fallback, must_answer)
        deployment = Deployment(rollout, models, self._options, fallback, self._layout)
        self._models = models
        return deployment

    def _load(self, version: str, must_answer: bool) -> LoadedModel:
        if version in self._models:
            return self._models[version]
        bundle = self._find_bundle(version)
        check_layout(bundle, self._layout)
        return load_model(bundle, self._options, must_answer)
