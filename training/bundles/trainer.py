"""Training of a model on examples, and its evaluation on a holdout that no earlier step has seen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from training.bundles.drift_reference import Sampling, reference_distributions, warm_up_rows
from training.bundles.provenance import git_commit, library_versions, window_of
from training.bundles.writer import describe_model
from training.data.examples import Examples
from training.data.split import checked, split_at, split_by_time, split_by_user, user_folds
from training.evaluation.holdout import Evaluation, evaluate, manifest_metrics
from training.evaluation.repeated import Repeated, repeated_cross_validation
from training.modeling.family import ServedModel
from training.modeling.model_selection import Log, TrainingRows, scored
from training.modeling.onnx_export import certify, export
from training.modeling.pipeline import Fit, select_and_fit
from training.modeling.settings import Training
from udfs.features.declaration_file import to_json
from udfs.measurement.drift import JUDGED_ROWS, REFERENCE_FILE, Reference
from udfs.measurement.labels import CONVERTED, Label
from udfs.models.bundle import EXPORT_FILE, FEATURES_FILE, GRU_FILE, WARM_UP_FILE, Manifest, find_model_file


@dataclass(frozen=True)
class TrainedModel:
    """A manifest and the files it lists, as `write_bundle` takes them, and the evaluation."""

    manifest: Manifest
    files: dict[str, bytes]
    evaluation: Evaluation = field(repr=False)
    unwatched: tuple[str, ...] = ()  # features for which drift monitoring has too few independent rows
    #: The model that the evaluation is of, if it is another one: it was not fitted to the holdout.
    measured: "TrainedModel | None" = field(default=None, repr=False)
    unpruned: ServedModel | None = field(default=None, repr=False)  # with all features, of one fold
    #: Of each family that was chosen among, the model of one fold.
    tried: Mapping[str, ServedModel] = field(default_factory=dict, repr=False)

    @property
    def model(self) -> bytes:
        return self.files[find_model_file(self.files)]


DEFAULTS = Training()
FIRST_NAMES = 3  # of a list that the report has in full


def train_model(
    examples: Examples,
    training: Training = DEFAULTS,
    label: Label = CONVERTED,
    propensity: np.ndarray | None = None,
    version: str | None = None,
    log: Log = lambda line: None,
    holdout_from_ms: int | None = None,
) -> TrainedModel:
    """Train on some of the examples, whose features include those of the settings, and evaluate on the holdout.

    With `refit: all`, the model returned is then fitted to all examples, and `measured` is the one that was evaluated.
    The holdout has the events from `holdout_from_ms` on; without it the settings choose. `propensity` float64[examples]
    is the true probability of the label, if known; the evaluation then has the best possible AUC. `log` is called with
    lines of progress. Raises SplitError when a part lacks a class.
    """
    # With another number of threads a sum is added up in another order, and the bytes would depend on the machine.
    with threadpool_limits(training.threads):
        return _train(examples, training, label, propensity, version, log, holdout_from_ms)


def _train(
    examples: Examples,
    training: Training,
    label: Label,
    propensity: np.ndarray | None,
    version: str | None,
    log: Log,
    holdout_from_ms: int | None,
) -> TrainedModel:
    rows, holdout_rows = _split(examples, training, label, log, holdout_from_ms)
    fold = user_folds(examples, rows, training.folds, training.seed)
    for number in range(training.folds):
        checked(examples, rows[fold == number], f"fold {number + 1} of {training.folds}")
    train_rows = TrainingRows.of(examples, rows, fold, training.balance)
    fit = select_and_fit(train_rows, examples.names, training, log)

    is_by_user = holdout_from_ms is None and training.holdout == "user"
    pools = (np.arange(len(examples)),) * 2 if is_by_user else (rows, holdout_rows)
    repeated = _measure_repeatedly(examples, *pools, training, log)
    log("measuring on the holdout")
    holdout = examples.take(holdout_rows)
    matrix = np.ascontiguousarray(holdout.features[:, fit.columns])
    best_possible = None if propensity is None else scored(holdout, propensity[holdout_rows]).roc_auc_of_all()
    evaluation = evaluate(fit, train_rows, holdout, matrix, training, label, best_possible, repeated, log)
    if evaluation.unused:
        log(f"features with one value or none in this data: {len(evaluation.unused)}, named in the report")
    metrics = manifest_metrics(evaluation, _positive_users(examples, holdout_rows))
    is_refit = training.refit == "all"
    model, fitted, fitted_features, measured = fit.model, rows, fit.data.features, None
    if is_refit:
        log(f"fitting the model to serve to all {len(examples)} events, the holdout among them")
        measured = _measured(fit, examples, rows, training, label, metrics, evaluation)
        fitted, fitted_features = np.arange(len(examples)), np.ascontiguousarray(examples.features[:, fit.columns])
        everything = TrainingRows(
            fitted_features,
            examples.labels,
            examples.weight,
            examples.user,
            np.zeros(len(examples), np.int64),
            training.balance,
        )
        model = fit.refit(everything)
    content = model.content()
    exported = export(model.file, content, len(fit.columns))
    certificate = certify(model.predict, exported, matrix, model.splits())
    names = fit.fitting.names
    files = {
        model.file: content,
        EXPORT_FILE: exported,
        REFERENCE_FILE: reference_distributions(
            training.declared,
            names,
            fitted_features,
            Sampling.of(examples, fitted),
            # Of the model that has not seen the holdout: a refitted one scores its own training rows differently.
            evaluation.probability,
            Sampling.of(holdout),
        ),
        FEATURES_FILE: to_json(training.declared),
        WARM_UP_FILE: warm_up_rows(names, matrix, model.predict(matrix), training.seed),
    }
    unwatched = msgspec.json.decode(files[REFERENCE_FILE], type=Reference).unjudged
    if unwatched:
        log(_unwatched_line(unwatched))
    manifest = describe_model(
        files,
        names,
        training.history_length,
        label,
        window_of(examples.time_ms[fitted]),
        metrics,
        version,
        rows=evaluation.rows | ({"refit": len(fitted)} if is_refit else {}),
        seed=training.seed,
        libraries=library_versions(*(["torch"] if model.file == GRU_FILE else [])),
        git_commit=git_commit(),
        export={name: float(value) for name, value in asdict(certificate).items()},
    )
    selection = fit.selection
    return TrainedModel(manifest, files, evaluation, tuple(unwatched), measured, selection.unpruned, selection.tried)


def _unwatched_line(names: Sequence[str]) -> str:
    """The line about the features, one or more, that drift monitoring does not watch."""
    first = ", ".join(names[:FIRST_NAMES]) + (", ..." if len(names) > FIRST_NAMES else "")
    return (
        f"features without drift monitoring: {len(names)} ({first}), as they have fewer than {JUDGED_ROWS} independent "
        "rows; named in the report"
    )


def _measured(
    fit: Fit,
    examples: Examples,
    rows: np.ndarray,
    training: Training,
    label: Label,
    metrics: Mapping[str, float],
    evaluation: Evaluation,
) -> TrainedModel:
    """The model that was evaluated, with what it takes to score: it is compared with others, and never serves."""
    files = {fit.model.file: fit.model.content(), FEATURES_FILE: to_json(training.declared)}
    window = window_of(examples.time_ms[rows])
    names = fit.fitting.names
    manifest = describe_model(files, names, training.history_length, label, window, metrics, rows=evaluation.rows)
    return TrainedModel(manifest, files, evaluation)


def _measure_repeatedly(
    examples: Examples, train_pool: np.ndarray, test_pool: np.ndarray, training: Training, log: Log
) -> Repeated | str:
    """The repeated estimate of the whole training, on new users, or why there is none."""
    if not training.repeats:
        return "`repeats` is 0"
    log(f"measuring the whole training on new users: {training.repeats} times in {training.folds} folds of users")
    repeated = repeated_cross_validation(examples, train_pool, test_pool, training, log)
    if isinstance(repeated, str):
        log(f"this can't be measured: {repeated}")
    else:
        log(f"    {repeated.cost.models} models fitted")
    return repeated


def _split(
    examples: Examples, training: Training, label: Label, log: Log, holdout_from_ms: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train with and the rows of the holdout."""
    if holdout_from_ms is not None:
        rows, holdout = split_at(examples, holdout_from_ms, label.horizon_ms)
    elif training.holdout == "user":
        rows, holdout = split_by_user(examples, training.holdout_share, training.seed)
    else:
        rows, holdout = split_by_time(examples, training.holdout_share, label.horizon_ms)
    for name, part in (("training", rows), ("holdout", holdout)):
        rate = np.average(examples.labels[part], weights=examples.weight[part])
        users = _positive_users(examples, part)
        log(f"{name}: {len(part)} events, {rate:.2%} positive, of {users} users with a positive")
    return rows, holdout


def _positive_users(examples: Examples, rows: np.ndarray) -> int:
    """The number of users with a positive label, on which the accuracy of an AUC depends more than on the events."""
    return len(np.unique(examples.user[rows][examples.labels[rows]]))
