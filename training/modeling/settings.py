"""The settings of a training: conf/training.yaml, checked as a whole."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from training.data.preparation import Preparation
from training.modeling.families import CANDIDATES, FAMILIES
from training.modeling.family import ModelFamily
from training.modeling.gru_model import INSTALL, GruFamily, is_torch_installed
from udfs.config.durations import Duration, duration_ms
from udfs.config.overrides import parse_value, split_override
from udfs.config.reading import read_yaml
from udfs.config.text import one_line
from udfs.features.declaration import Declaration, with_event_codes
from udfs.features.declaration_file import STANDARD, DeclarationError, FeatureFile, declaration_of, read_file, to_json
from udfs.measurement.bots import Bots
from udfs.measurement.labels import Label
from udfs.rollout.plan import RolloutError, load_rule
from udfs.rollout.rules import Rule, rule_features

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]

AUTO = "auto"
#: The most events that a sequence model reads: its cost grows with them.
MOST_EVENTS_READ = 64
#: Families that can serve, and the choice among some of them (training/modeling/families.py).
Model = Literal["auto", "xgboost", "lightgbm", "logistic", "blend", "gru"]


#: Whether a value is allowed, and the rule in words.
_Rule = tuple[Callable[[float], bool], str]


def _whole(least: int, most: int) -> _Rule:
    return lambda value: value in range(least, most + 1), f"a whole number from {least} to {most}"


_ABOVE_0: _Rule = (lambda value: 0 < value < float("inf"), "above 0")
_AT_LEAST_0: _Rule = (lambda value: 0 <= value < float("inf"), "at least 0")
_SHARE: _Rule = (lambda value: 0 <= value <= 1, "from 0 to 1")
_POSITIVE_SHARE: _Rule = (lambda value: 0 < value <= 1, "above 0 and at most 1")

#: The rules of parameters. Libraries check theirs too, but only when all data has been read.
_BOUNDS: dict[str, _Rule] = {
    "C": _ABOVE_0,
    "trees_weight": _SHARE,
    "width": _whole(1, 256),
    "hidden": _whole(1, 256),
    "dropout": (lambda value: 0 <= value < 1, "from 0 to below 1"),
    "learning_rate": _ABOVE_0,
    "max_depth": _whole(1, 32),
    "max_bin": _whole(2, 65_536),
    "num_leaves": _whole(2, 131_072),
    "min_child_share": _SHARE,
    "teacher_share": _SHARE,
    "subsample": _POSITIVE_SHARE,
    "colsample_bynode": _POSITIVE_SHARE,
    "bagging_fraction": _POSITIVE_SHARE,
    "feature_fraction_bynode": _POSITIVE_SHARE,
    "reg_lambda": _AT_LEAST_0,
    "lambda_l2": _AT_LEAST_0,
}


class TrainingError(ValueError):
    """Settings or data that no model can be trained with. The message is one line with a remedy."""


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The settings, described in conf/training.yaml. Equal settings and data give equal models."""

    model: Model = "auto"
    sequence: bool = False
    compare: tuple[Literal["logistic", "lightgbm", "xgboost", "blend", "gru"], ...] = ("logistic",)
    declaration: FeatureFile | None = None
    features: tuple[str, ...] = ()
    history_length: Positive = 64
    duplicates_within: Duration = "1 h"
    follow_logins: bool = False
    bots: Bots | None = Bots()
    monotone: dict[str, Literal["up", "down"]] = {}
    holdout: Literal["user", "time"] = "user"
    holdout_share: Share = 0.2
    folds: Annotated[int, Meta(ge=2, le=20)] = 5
    repeats: Annotated[int, Meta(ge=0, le=20)] = 1
    refit: Literal["all", "training"] = "all"
    balance: Annotated[float, Meta(ge=0, le=1)] = 0.5
    rounds: Positive = 400
    patience: Positive = 40
    parameters: dict[str, float] = {}
    trials: Annotated[int, Meta(ge=0, le=1000)] = 0
    prune: bool = True
    calibrate: bool = True
    negative_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    max_rows: Positive = 1_000_000
    rule: Rule | None = None
    seed: Annotated[int, Meta(ge=0)] = 1
    threads: Positive = 2
    benefit: Annotated[float, Meta(gt=0)] = 1.0
    cost: Annotated[float, Meta(ge=0)] = 0.1

    @property
    def duplicates_within_ms(self) -> int:
        return duration_ms(self.duplicates_within)

    def preparation(self, label: Label, declaration: Declaration, **more: Any) -> Preparation:
        """How clicks are prepared for a training; `more` are other arguments of Preparation."""
        return Preparation(
            label,
            declaration,
            history_length=self.history_length,
            duplicates_within_ms=self.duplicates_within_ms,
            follow_logins=self.follow_logins,
            bots=self.bots,
            workers=self.threads,
            **more,
        )

    @cached_property
    def declared(self) -> Declaration:
        """The declaration of the features, with those of a sequence model if there is to be one."""
        declared = STANDARD if self.declaration is None else declaration_of(self.declaration)
        return with_event_codes(declared, self.events_read) if self.has_sequence_model else declared

    @property
    def candidates(self) -> list[ModelFamily]:
        """The families to choose from, the simplest first: one, unless `model` leaves the choice open."""
        if self.model != AUTO:
            return [FAMILIES[self.model]]
        return [FAMILIES[name] for name in (*CANDIDATES, *([GruFamily.name] if self.sequence else []))]

    @property
    def has_sequence_model(self) -> bool:
        """Whether a sequence model is trained, to serve or to compare with."""
        return self.sequence or GruFamily.name in (self.model, *self.compare)

    @property
    def events_read(self) -> int:
        """How many events of a user a sequence model reads."""
        return min(self.history_length, MOST_EVENTS_READ)

    @property
    def names(self) -> tuple[str, ...]:
        """The features that models may have; the codes of events are those of sequence models alone."""
        if not self.features:
            return self.declared.names
        codes = [feature.name for feature in self.declared.features if feature.is_event_code]
        return (*self.features, *(name for name in codes if name not in self.features))


def load_training(path: Path | None, overrides: Sequence[str] = ()) -> Training:
    """Read a YAML file and apply KEY=VALUE overrides. Raises TrainingError naming file, key and rule."""
    content, origin, beside = {}, "settings", dict.fromkeys(("declaration", "rule"), Path())
    if path is not None:
        origin = str(path)
        content = read_yaml(path, TrainingError) or {}
        if not isinstance(content, dict):
            raise TrainingError(f"{path}: expected keys such as folds:, got {type(content).__name__}")
        beside = dict.fromkeys(beside, path.parent)
    for override in overrides:
        key, value = split_override(override, "folds=3", TrainingError)
        content[key] = parse_value(value, f"--set {key}", TrainingError)
        if key in beside:
            beside[key] = Path()
    declared = STANDARD
    if content.get("declaration") is not None:
        file = _read_declaration(content["declaration"], beside["declaration"], origin)
        declared, content["declaration"] = declaration_of(file), msgspec.to_builtins(file)
    if content.get("rule") is not None:
        content["rule"] = msgspec.to_builtins(_read_rule(content["rule"], beside["rule"], origin, declared))
    try:
        training = msgspec.convert(content, Training)
        training.declared.find(
            (*training.features, *(name for name in training.monotone if name not in training.features))
        )
    except (msgspec.ValidationError, ValueError) as error:
        raise TrainingError(f"{origin}: {one_line(error)}") from None
    for name in training.monotone:
        if name not in training.names:
            raise TrainingError(f"{origin}: key monotone: {name} is not among the features")
    if training.has_sequence_model and not is_torch_installed():
        raise TrainingError(f"{origin}: a sequence model (gru) needs PyTorch: {INSTALL}")
    if training.sequence and training.model != AUTO:
        raise TrainingError(
            f"{origin}: key sequence: it adds a candidate to model: auto (got {training.model}): set model to auto "
            "or gru, or list gru under compare"
        )
    known = dict.fromkeys(name for family in training.candidates for name in family.defaults)
    if unknown := set(training.parameters) - set(known):
        raise TrainingError(
            f"{origin}: key parameters: unknown parameter {min(unknown)}; expected one of {', '.join(known)}"
        )
    for name, value in training.parameters.items():
        is_allowed, rule = _BOUNDS[name]
        if not is_allowed(value):
            raise TrainingError(f"{origin}: key parameters: {name} must be {rule} (got {value:g})")
    if training.model in training.compare:
        raise TrainingError(f"{origin}: key compare: {training.model} is the model itself: name other kinds")
    return training


def _read_declaration(written: Any, beside: Path, origin: str) -> FeatureFile:
    """The content of the declaration of features that the settings name."""
    if not isinstance(written, str):
        raise TrainingError(f"{origin}: key declaration: expected the path of a declaration, got {written!r}")
    try:
        return read_file(beside / written)
    except DeclarationError as error:
        raise TrainingError(f"{origin}: key declaration: {error}") from None


def _read_rule(written: Any, beside: Path, origin: str, declaration: Declaration) -> Rule:
    """The rule of the rollout file that the settings name."""
    if not isinstance(written, str):
        raise TrainingError(f"{origin}: key rule: expected the path of a rollout file, got {written!r}")
    try:
        return load_rule(beside / written, declaration)
    except RolloutError as error:
        raise TrainingError(f"{origin}: key rule: {error}") from None


def for_logged(training: Training, declaration: Declaration, names: Sequence[str], history_length: int) -> Training:
    """Limit the settings to features of a declaration that were logged.

    Raises TrainingError if the settings name one that was not.
    """
    for name in (*training.features, *training.monotone):
        if name not in names:
            raise TrainingError(f"feature {name} is not among the {len(names)} that were logged")
    for name in rule_features(training.rule) if training.rule else ():
        if name not in names:
            raise TrainingError(
                f"key rule: feature {name} is not among the {len(names)} that were logged: --set rule=null goes without"
            )
    file = msgspec.json.decode(to_json(declaration), type=FeatureFile)
    limited = replace(
        training, declaration=file, features=training.features or tuple(names), history_length=history_length
    )
    if lacking := [name for name in limited.names if name not in names]:
        raise TrainingError(
            f"feature {lacking[0]}, which a sequence model needs, is not among the {len(names)} that were logged: "
            "train it on --clicks alone"
        )
    return limited
