"""Training a model on examples, and measuring it on a holdout that nothing before has looked at."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import yaml
from msgspec import Meta

from training.bundle import describe_model
from training.dataset import arrange, read_clicks, read_profiles
from training.evaluate import (
    METRICS,
    Estimate,
    calibration_table,
    difference,
    estimate,
    gain_table,
    threshold_table,
)
from training.examples import Examples, make_examples
from training.fitting import (
    CrossValidated,
    Data,
    Pruning,
    choose_calibration,
    cross_validate,
    learning_curve,
    permutation_importance,
    prune,
    scored,
    search,
)
from training.labels import CONVERTED, Label
from training.models import FAMILIES, Calibration, Fitting, Model, XGBoostModel, fold_in
from training.onnx_export import certify, export_xgboost, split_values
from training.reference import reference_distributions, warm_up_rows
from training.simulate import Clickstream
from training.split import checked, split_by_time, split_by_user, user_folds
from udfs.features import FEATURE_NAMES, FeatureComputer, find_columns
from udfs.model import MODEL_FILE, Manifest, TrainingWindow
from udfs.overrides import parse_value, split_override

ONNX_FILE = "model.onnx"
REFERENCE_FILE = "reference.json"
WARM_UP_FILE = "warm_up.json"
LIBRARIES = ("xgboost-cpu", "onnx", "onnxruntime", "numpy", "scikit-learn")

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0, lt=1)]


class TrainingError(ValueError):
    """Settings or data that no model can be trained with. The message is one line and says what to do."""


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to train; conf/training.yaml says what each key means. Equal settings and data give equal models."""

    compare: tuple[Literal["logistic", "lightgbm"], ...] = ("logistic",)
    features: tuple[str, ...] = ()
    history_length: Positive = 64
    monotone: dict[str, Literal["up", "down"]] = {}
    holdout: Literal["user", "time"] = "user"
    holdout_share: Share = 0.2
    folds: Annotated[int, Meta(ge=2, le=20)] = 5
    balance: Annotated[float, Meta(ge=0, le=1)] = 0.5
    rounds: Positive = 400
    patience: Positive = 40
    parameters: dict[str, float] = {}
    trials: Annotated[int, Meta(ge=0, le=1000)] = 0
    prune: bool = True
    calibrate: bool = True
    negative_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    max_rows: Positive = 1_000_000
    seed: Annotated[int, Meta(ge=0)] = 1
    threads: Positive = 2
    benefit: Annotated[float, Meta(gt=0)] = 1.0
    cost: Annotated[float, Meta(ge=0)] = 0.1

    @property
    def names(self) -> tuple[str, ...]:
        return self.features or FEATURE_NAMES


def load_training(path: Path | None, overrides: Sequence[str] = ()) -> Training:
    """Read a YAML file and lay KEY=VALUE overrides over it. Raises TrainingError naming file, key and rule."""
    content, origin = {}, "settings"
    if path is not None:
        origin = str(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise TrainingError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise TrainingError(f"{path}: want keys such as folds:, got {type(content).__name__}")
    for override in overrides:
        key, value = split_override(override, "folds=3", TrainingError)
        content[key] = parse_value(value, f"--set {key}", TrainingError)
    try:
        training = msgspec.convert(content, Training)
        find_columns((*training.features, *(name for name in training.monotone if name not in training.features)))
    except (msgspec.ValidationError, ValueError) as error:
        raise TrainingError(f"{origin}: {error}") from None
    for name in training.monotone:
        if name not in training.names:
            raise TrainingError(f"{origin}: key monotone: {name} is not among the features")
    unknown = set(training.parameters) - set(FAMILIES["xgboost"].defaults)
    if unknown:
        known = ", ".join(FAMILIES["xgboost"].defaults)
        raise TrainingError(f"{origin}: key parameters: {min(unknown)} is unknown, want {known}")
    return training


@dataclass(frozen=True)
class Evaluation:
    """All that the report tells."""

    label: str
    rows: dict[str, int]
    users: dict[str, int]
    metrics: dict[str, Estimate]  # on the holdout
    best_possible_auc: float | None
    cross_validated_auc: float
    training_auc: float
    compared: dict[str, dict[str, Estimate]]  # metrics of the other kinds of models, on the holdout
    differences: dict[str, dict[str, Estimate]]  # by which the model is better than those
    gains: list[dict]
    calibration: list[dict]
    calibration_gain: Estimate | None
    calibrated_by: Calibration
    thresholds: list[dict]
    importance: list[tuple[str, float]]
    pruning: list[Pruning]
    learning_curve: list[dict]
    parameters: dict[str, float]
    rounds: int
    unused: list[str]  # features with one value, or none
    holdout: Examples
    probability: np.ndarray  # float64[holdout rows]
    contributions: np.ndarray  # float32[holdout rows, features + 1], in logits; the last one is the base


@dataclass(frozen=True)
class TrainedModel:
    """A manifest and the files it lists, as `write_bundle` takes them, and what came of the evaluation."""

    manifest: Manifest
    files: dict[str, bytes]
    evaluation: Evaluation = field(repr=False)

    @property
    def model(self) -> bytes:
        return self.files[MODEL_FILE]


DEFAULTS = Training()


def train_model(
    examples: Examples,
    training: Training = DEFAULTS,
    label: Label = CONVERTED,
    propensity: np.ndarray | None = None,
    version: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedModel:
    """Train on some of the examples, whose features are all of `udfs.features`, and evaluate on the others.

    `propensity` float64[examples] is the true chance of the label, where it is known; then the best AUC that was
    possible is told. `report` is told of progress, a line at a time. Raises SplitError when a part lacks a class.
    """
    rows, holdout = _split(examples, training, label, report)
    fold = user_folds(examples, rows, training.folds, training.seed)
    for number in range(training.folds):
        checked(examples, rows[fold == number], f"fold {number + 1} of {training.folds}")
    everything = Data.of(examples, rows, fold, training.balance)
    fit = _fit(everything, training, report)

    report("measuring on the holdout")
    left = examples.take(holdout)
    matrix = np.ascontiguousarray(left.features[:, fit.columns])
    best_possible = None if propensity is None else scored(left, propensity[holdout]).roc_auc_of_all()
    evaluation = _evaluate(fit, everything, left, matrix, training, label, best_possible)
    model = bytes(fit.model.booster.save_raw("ubj"))
    exported = export_xgboost(model, len(fit.columns))
    certificate = certify(fit.model.predict, exported, matrix, split_values(fit.model.booster, len(fit.columns)))
    names = fit.fitting.names
    files = {
        MODEL_FILE: model,
        ONNX_FILE: exported,
        REFERENCE_FILE: reference_distributions(names, fit.data.features, fit.model.predict(fit.data.features)),
        WARM_UP_FILE: warm_up_rows(names, matrix, evaluation.probability, training.seed),
    }
    manifest = describe_model(
        files,
        names,
        training.history_length,
        str(label),
        _window(examples.time_ms[rows]),
        _manifest_metrics(evaluation, _buyers(examples, holdout)),
        version,
        rows=evaluation.rows,
        seed=training.seed,
        libraries={name: installed(name) for name in LIBRARIES},
        git_commit=_git_commit(),
        export={name: float(value) for name, value in asdict(certificate).items()},
    )
    return TrainedModel(manifest, files, evaluation)


def _split(
    examples: Examples, training: Training, label: Label, report: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train with, and rows of the holdout."""
    if training.holdout == "user":
        rows, holdout = split_by_user(examples, training.holdout_share, training.seed)
    else:
        rows, holdout = split_by_time(examples, training.holdout_share, label.horizon_ms)
    for name, part in (("training", rows), ("holdout", holdout)):
        rate = np.average(examples.labels[part], weights=examples.weight[part])
        report(f"{name}: {len(part)} events, {rate:.2%} positive, of {_buyers(examples, part)} users with a positive")
    return rows, holdout


@dataclass(frozen=True)
class _Fit:
    """A fitted model, and how it came about."""

    model: XGBoostModel
    columns: list[int]  # of all features
    data: Data  # of these columns
    fitting: Fitting
    crossed: CrossValidated
    importance: np.ndarray  # of the features before pruning
    pruning: list[Pruning]
    calibration: Calibration
    calibration_gain: Estimate | None


def _fit(everything: Data, training: Training, report: Callable[[str], None]) -> _Fit:
    """Search, cross-validate, prune, calibrate, and fit what came of it on all rows."""
    family, columns = FAMILIES["xgboost"], find_columns(training.names)
    data = everything.columns(columns)
    fitting = Fitting(
        names=training.names,
        parameters={**family.defaults, **training.parameters},
        rounds=training.rounds,
        patience=training.patience,
        monotone=[{"up": 1, "down": -1}.get(training.monotone.get(name), 0) for name in training.names],
        seed=training.seed,
        threads=training.threads,
    )
    if training.trials:
        report(f"searching parameters: {training.trials} trials of {training.folds} folds")
        found = search(family, data, fitting, training.trials, training.seed, report)
        fitting = replace(fitting, parameters={**found, **training.parameters})
    report(f"cross-validating {len(columns)} features in {training.folds} folds")
    crossed = cross_validate(family, data, fitting)
    report(f"    AUC {_auc(data, crossed):.4f} with {crossed.rounds} trees")
    importance = permutation_importance(data, crossed, training.seed)
    tried: list[Pruning] = []
    if training.prune:
        report("pruning features")
        kept, crossed, tried = prune(family, data, fitting, crossed, importance, report)
        names, monotone = ([of_all[at] for at in kept] for of_all in (fitting.names, fitting.monotone))
        fitting = replace(fitting, names=names, monotone=monotone)
        columns, data = [columns[at] for at in kept], data.columns(kept)
    calibration, gain = Calibration(), None
    if training.calibrate:
        calibration, gain = choose_calibration(data, crossed, training.seed)
    report(f"fitting {crossed.rounds} trees of {len(columns)} features")
    fitted = family.fit(data.sample(), replace(fitting, rounds=crossed.rounds))
    model = XGBoostModel(fold_in(fitted.booster, calibration))
    model.booster.feature_names = list(fitting.names)
    return _Fit(model, columns, data, fitting, crossed, importance, tried, calibration, gain)


def _evaluate(
    fit: _Fit,
    everything: Data,
    left: Examples,
    matrix: np.ndarray,
    training: Training,
    label: Label,
    best_possible_auc: float | None,
) -> Evaluation:
    """Measure the model on the holdout, which is `matrix` in its columns, and others to compare it with."""
    probability = fit.model.predict(matrix)
    measured = scored(left, probability)
    rivals = {
        name: scored(left, _rival(name, everything, training).predict(left.features)) for name in training.compare
    }
    return Evaluation(
        label=str(label),
        rows={"training": len(everything.labels), "holdout": len(left)},
        users={"training": len(np.unique(everything.user)), "holdout": len(np.unique(left.user))},
        metrics=estimate(measured),
        best_possible_auc=best_possible_auc,
        cross_validated_auc=_auc(fit.data, fit.crossed),
        training_auc=fit.crossed.training_auc,
        compared={name: estimate(rival) for name, rival in rivals.items()},
        differences={name: difference(measured, rival) for name, rival in rivals.items()},
        gains=gain_table(measured),
        calibration=calibration_table(measured),
        calibration_gain=fit.calibration_gain,
        calibrated_by=fit.calibration,
        thresholds=threshold_table(measured, training.benefit, training.cost),
        importance=sorted(zip(training.names, fit.importance.tolist()), key=lambda entry: -entry[1]),
        pruning=fit.pruning,
        learning_curve=learning_curve(FAMILIES["xgboost"], fit.data, fit.fitting, training.seed),
        parameters=dict(fit.fitting.parameters),
        rounds=fit.model.rounds,
        unused=_unused(everything.features),
        holdout=left,
        probability=probability,
        contributions=fit.model.contributions(matrix),
    )


def _rival(name: str, everything: Data, training: Training) -> Model:
    """A model to compare with: all features, the defaults of its kind, as many rounds as cross-validation says."""
    family = FAMILIES[name]
    fitting = Fitting(
        FEATURE_NAMES, family.defaults, training.rounds, training.patience, seed=training.seed, threads=training.threads
    )
    if family.boosts:
        fitting = replace(fitting, rounds=cross_validate(family, everything, fitting).rounds)
    return family.fit(everything.sample(), fitting)


def _auc(data: Data, crossed: CrossValidated) -> float:
    return scored(data, crossed.probability).roc_auc_of_all()


def _buyers(examples: Examples, rows: np.ndarray) -> int:
    """How many users have a positive label: what an AUC's accuracy depends on, more than the number of events."""
    return len(np.unique(examples.user[rows][examples.labels[rows]]))


def _unused(features: np.ndarray) -> list[str]:
    names = []
    for column, name in enumerate(FEATURE_NAMES):
        values = features[:, column]
        values = values[~np.isnan(values)]
        if not len(values) or values.min() == values.max():
            names.append(name)
    return names


def _manifest_metrics(evaluation: Evaluation, buyers: int) -> dict[str, float]:
    metrics = {}
    for name in METRICS:
        found = evaluation.metrics[name]
        metrics |= {f"test_{name}": found.value, f"test_{name}_low": found.low, f"test_{name}_high": found.high}
    metrics |= {
        "test_events": evaluation.rows["holdout"],
        "test_positive_users": buyers,
        "cross_validated_auc": evaluation.cross_validated_auc,
        "rounds": evaluation.rounds,
    }
    if evaluation.best_possible_auc is not None:
        metrics["best_possible_test_auc"] = evaluation.best_possible_auc
    return metrics


def _window(time_ms: np.ndarray) -> TrainingWindow:
    start, end = (datetime.fromtimestamp(int(time) / 1000, UTC) for time in (time_ms.min(), time_ms.max()))
    return TrainingWindow(start, end)


def _git_commit() -> str | None:
    """The commit of the code, None outside a checkout."""
    try:
        ran = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return ran.stdout.strip() if ran.returncode == 0 else None


def simulated_examples(stream: Clickstream, label: Label = CONVERTED, history_length: int = 64) -> Examples:
    """Examples of a simulated stream, by way of the bytes that Kafka would carry; `offset` numbers its events."""
    clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
    data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)), history_length)
    positions = np.arange(len(stream))
    computer = FeatureComputer(FEATURE_NAMES, history_length)
    return make_examples(data, label, computer, np.zeros(len(stream), np.int64), positions)
