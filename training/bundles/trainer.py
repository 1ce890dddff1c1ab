"""Training a model on examples, and measuring it on a holdout that nothing before has looked at."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from threadpoolctl import threadpool_limits

from training.bundles.provenance import git_commit, library_versions, window_of
from training.bundles.reference import Sampling, reference_distributions, warm_up_rows
from training.bundles.writer import describe_model
from training.data.examples import Examples
from training.data.split import checked, split_at, split_by_time, split_by_user, user_folds
from training.evaluation.holdout import Evaluation, evaluate, manifest_metrics
from training.modeling.base import ServedModel
from training.modeling.model_selection import TrainingRows, scored
from training.modeling.onnx_export import certify, export
from training.modeling.pipeline import select_and_fit
from training.modeling.settings import Training
from udfs.measurement.drift import REFERENCE_FILE
from udfs.measurement.labels import CONVERTED, Label
from udfs.models.bundle import EXPORT_FILE, WARM_UP_FILE, Manifest, find_model_file


@dataclass(frozen=True)
class TrainedModel:
    """A manifest and the files it lists, as `write_bundle` takes them, and what came of the evaluation."""

    manifest: Manifest
    files: dict[str, bytes]
    evaluation: Evaluation = field(repr=False)
    unpruned: ServedModel | None = field(default=None, repr=False)  # with all features, of one fold

    @property
    def model(self) -> bytes:
        return self.files[find_model_file(self.files)]


DEFAULTS = Training()


def train_model(
    examples: Examples,
    training: Training = DEFAULTS,
    label: Label = CONVERTED,
    propensity: np.ndarray | None = None,
    version: str | None = None,
    report: Callable[[str], None] = lambda line: None,
    holdout_from_ms: int | None = None,
) -> TrainedModel:
    """Train on some of the examples, whose features include those of the settings, and evaluate on the others.

    The others are those from `holdout_from_ms` on; without it the settings choose. `propensity` float64[examples] is
    the true chance of the label, where it is known; then the best AUC that was possible is told. `report` is told of
    progress, a line at a time. Raises SplitError when a part lacks a class.
    """
    # With another number of threads a sum is added up in another order, and the bytes would depend on the machine.
    with threadpool_limits(training.threads):
        return _train(examples, training, label, propensity, version, report, holdout_from_ms)


def _train(
    examples: Examples,
    training: Training,
    label: Label,
    propensity: np.ndarray | None,
    version: str | None,
    report: Callable[[str], None],
    holdout_from_ms: int | None,
) -> TrainedModel:
    rows, holdout = _split(examples, training, label, report, holdout_from_ms)
    fold = user_folds(examples, rows, training.folds, training.seed)
    for number in range(training.folds):
        checked(examples, rows[fold == number], f"fold {number + 1} of {training.folds}")
    everything = TrainingRows.of(examples, rows, fold, training.balance)
    fit = select_and_fit(everything, examples.names, training, report)

    report("measuring on the holdout")
    left = examples.take(holdout)
    matrix = np.ascontiguousarray(left.features[:, fit.columns])
    best_possible = None if propensity is None else scored(left, propensity[holdout]).roc_auc_of_all()
    evaluation = evaluate(fit, everything, left, matrix, training, label, best_possible)
    if evaluation.unused:
        report(f"features with one value or none in this data: {len(evaluation.unused)}, named in the report")
    model = fit.model.content()
    exported = export(fit.model.file, model, len(fit.columns))
    certificate = certify(fit.model.predict, exported, matrix, fit.model.splits())
    names = fit.fitting.names
    files = {
        fit.model.file: model,
        EXPORT_FILE: exported,
        REFERENCE_FILE: reference_distributions(
            names, fit.data.features, Sampling.of(examples, rows), evaluation.probability, Sampling.of(left)
        ),
        WARM_UP_FILE: warm_up_rows(names, matrix, evaluation.probability, training.seed),
    }
    manifest = describe_model(
        files,
        names,
        training.history_length,
        label,
        window_of(examples.time_ms[rows]),
        manifest_metrics(evaluation, _buyers(examples, holdout)),
        version,
        rows=evaluation.rows,
        seed=training.seed,
        libraries=library_versions(),
        git_commit=git_commit(),
        export={name: float(value) for name, value in asdict(certificate).items()},
    )
    return TrainedModel(manifest, files, evaluation, fit.unpruned)


def _split(
    examples: Examples, training: Training, label: Label, report: Callable[[str], None], holdout_from_ms: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train with, and rows of the holdout."""
    if holdout_from_ms is not None:
        rows, holdout = split_at(examples, holdout_from_ms, label.horizon_ms)
    elif training.holdout == "user":
        rows, holdout = split_by_user(examples, training.holdout_share, training.seed)
    else:
        rows, holdout = split_by_time(examples, training.holdout_share, label.horizon_ms)
    for name, part in (("training", rows), ("holdout", holdout)):
        rate = np.average(examples.labels[part], weights=examples.weight[part])
        report(f"{name}: {len(part)} events, {rate:.2%} positive, of {_buyers(examples, part)} users with a positive")
    return rows, holdout


def _buyers(examples: Examples, rows: np.ndarray) -> int:
    """How many users have a positive label: what an AUC's accuracy depends on, more than the number of events."""
    return len(np.unique(examples.user[rows][examples.labels[rows]]))
