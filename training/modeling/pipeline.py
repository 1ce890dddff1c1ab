"""The fitting pipeline: the steps of training/modeling/model_selection.py in order, from training rows to a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.modeling.calibration import Calibration
from training.modeling.families import FAMILIES
from training.modeling.family import Fitting, ServedModel
from training.modeling.metrics import Estimate
from training.modeling.model_selection import (
    CrossValidated,
    Pruning,
    TrainingRows,
    choose_calibration,
    cross_validate,
    permutation_importance,
    prune,
    scored,
    search,
)
from training.modeling.settings import Training


@dataclass(frozen=True)
class Fit:
    """A fitted model and the results of the steps that led to it."""

    model: ServedModel
    columns: list[int]  # of all features
    data: TrainingRows  # of these columns
    fitting: Fitting
    crossed: CrossValidated
    importance: np.ndarray  # of the features before pruning
    pruning: list[Pruning]
    unpruned: ServedModel | None  # a fold's model of all features, where some were pruned
    calibration: Calibration
    calibration_gain: Estimate | None

    @property
    def cross_validated_auc(self) -> float:
        return _auc(self.data, self.crossed)


def select_and_fit(
    train_rows: TrainingRows, names: Sequence[str], training: Training, log: Callable[[str], None]
) -> Fit:
    """Run search, cross-validation, pruning and calibration, then refit on all rows.

    `names` are the feature names of `train_rows`. `log` is called with lines of progress.
    """
    family, columns = FAMILIES[training.model], [list(names).index(name) for name in training.names]
    data = train_rows.columns(columns)
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
        log(f"searching parameters: {training.trials} trials of {training.folds} folds")
        best = search(family, data, fitting, training.trials, training.seed, log)
        fitting = replace(fitting, parameters={**best, **training.parameters})
    log(f"cross-validating {len(columns)} features in {training.folds} folds")
    crossed = cross_validate(family, data, fitting)
    log(f"    AUC {_auc(data, crossed):.4f}" + (f" with {crossed.rounds} trees" if family.boosts else ""))
    importance = permutation_importance(data, crossed, training.seed)
    tried: list[Pruning] = []
    unpruned = None
    if training.prune:
        log("pruning features")
        whole = crossed
        kept, fitting, crossed, tried = prune(family, data, fitting, whole, importance, log)
        if len(kept) < len(columns):
            unpruned = sorted(whole.models, key=lambda model: model.rounds)[len(whole.models) // 2]
        columns, data = [columns[column] for column in kept], data.columns(kept)
    calibration, gain = Calibration(), None
    if training.calibrate:
        calibration, gain = choose_calibration(data, crossed, training.seed)
    log(f"fitting {f'{crossed.rounds} trees of ' if family.boosts else ''}{len(columns)} features")
    model = family.fit(data.fit_rows(), replace(fitting, rounds=crossed.rounds)).calibrated(calibration)
    return Fit(model, columns, data, fitting, crossed, importance, tried, unpruned, calibration, gain)


def _auc(data: TrainingRows, crossed: CrossValidated) -> float:
    return scored(data, crossed.probability).roc_auc_of_all()
