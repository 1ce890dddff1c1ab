"""From the training rows to one fitted model: the steps of training/modeling/model_selection.py in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.modeling.base import Calibration, Fitting, ServedModel
from training.modeling.families import FAMILIES
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
    """A fitted model, and how it came about."""

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
    everything: TrainingRows, names: Sequence[str], training: Training, report: Callable[[str], None]
) -> Fit:
    """Search, cross-validate, prune, calibrate, and fit what came of it on all rows; `names` are of their features."""
    family, columns = FAMILIES[training.model], [list(names).index(name) for name in training.names]
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
    unpruned = None
    if training.prune:
        report("pruning features")
        whole = crossed
        kept, crossed, tried = prune(family, data, fitting, whole, importance, report)
        if len(kept) < len(columns):
            unpruned = sorted(whole.models, key=lambda model: model.rounds)[len(whole.models) // 2]
        chosen, monotone = ([of_all[at] for at in kept] for of_all in (fitting.names, fitting.monotone))
        fitting = replace(fitting, names=chosen, monotone=monotone)
        columns, data = [columns[at] for at in kept], data.columns(kept)
    calibration, gain = Calibration(), None
    if training.calibrate:
        calibration, gain = choose_calibration(data, crossed, training.seed)
    report(f"fitting {crossed.rounds} trees of {len(columns)} features")
    model = family.fit(data.sample(), replace(fitting, rounds=crossed.rounds)).calibrated(calibration)
    return Fit(model, columns, data, fitting, crossed, importance, tried, unpruned, calibration, gain)


def _auc(data: TrainingRows, crossed: CrossValidated) -> float:
    return scored(data, crossed.probability).roc_auc_of_all()
