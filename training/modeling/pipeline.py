"""The fitting pipeline: the steps of training/modeling/model_selection.py in order, from training rows to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.modeling.calibration import Calibration
from training.modeling.choice import CHOICE_ROWS, Choice, Chosen, choose
from training.modeling.family import Cost, FittedModel, Fitting, ModelFamily, ServedModel, columns_for
from training.modeling.metrics import Estimate
from training.modeling.model_selection import (
    IMPORTANCE_ROWS,
    CrossValidated,
    Log,
    Pruning,
    TrainingRows,
    choose_calibration,
    cross_validate,
    permutation_importance,
    prune,
    scored,
    typical_model,
)
from training.modeling.settings import Training, TrainingError

#: Rows of a fold that the importance of events is measured on: a sequence model takes much longer than trees.
EVENT_IMPORTANCE_ROWS = 500


@dataclass(frozen=True)
class Selection:
    """What the rows were used to choose: a family, its arguments, and features. No model is fitted to all rows yet."""

    family: ModelFamily
    columns: list[int]  # of all features
    fitting: Fitting  # with the rounds of cross-validation
    data: TrainingRows  # of these columns
    crossed: CrossValidated
    choice: Choice
    names: list[str]  # of the features before pruning
    importance: np.ndarray  # float64[k], likewise
    pruning: list[Pruning]
    unpruned: ServedModel | None  # a fold's model of all features, where some were pruned
    cost: Cost
    tried: dict[str, FittedModel]  # of each family that was chosen among, one fold's model


@dataclass(frozen=True)
class Fit:
    """A fitted model and the selection that led to it."""

    model: ServedModel
    selection: Selection
    calibration: Calibration
    calibration_gain: Estimate | None

    @property
    def columns(self) -> list[int]:
        return self.selection.columns

    @property
    def data(self) -> TrainingRows:
        return self.selection.data

    @property
    def fitting(self) -> Fitting:
        return self.selection.fitting

    @property
    def cross_validated_auc(self) -> float:
        return _auc(self.data, self.selection.crossed)

    def refit(self, rows: TrainingRows) -> ServedModel:
        """Fit the selected model to other rows, which have its features only, and keep its calibration."""
        return self.selection.family.fit(rows.fit_rows(), self.fitting).calibrated(self.calibration)


def select_and_fit(train_rows: TrainingRows, names: Sequence[str], training: Training, log: Log) -> Fit:
    """Choose a model and its features, fit it to all rows, and calibrate it.

    `names` are the feature names of `train_rows`. `log` is called with lines of progress.
    """
    selection = select(train_rows, names, training, log)
    calibration, gain = Calibration(), None
    if training.calibrate:
        calibration, gain = choose_calibration(selection.data, selection.crossed, training.seed)
    unit = "rounds over" if selection.family.reads_events else "trees of"
    rounds = f"{selection.fitting.rounds} {unit} " if selection.family.boosts else ""
    log(f"fitting {selection.family.name}: {rounds}{len(selection.columns)} features")
    model = selection.family.fit(selection.data.fit_rows(), selection.fitting).calibrated(calibration)
    return Fit(model, selection, calibration, gain)


def select(
    train_rows: TrainingRows,
    names: Sequence[str],
    training: Training,
    log: Log,
    families: Sequence[ModelFamily] | None = None,
    importance_rows: int = IMPORTANCE_ROWS,
) -> Selection:
    """Choose family, parameters and features by cross-validation on the rows, which have folds.

    `families` are by default those of the settings, the simplest first.
    """
    columns = [list(names).index(name) for name in training.names]
    data = train_rows.columns(columns)
    fitting = Fitting(
        names=training.names,
        parameters={},
        rounds=training.rounds,
        patience=training.patience,
        monotone=[{"up": 1, "down": -1}.get(training.monotone.get(name), 0) for name in training.names],
        seed=training.seed,
        threads=training.threads,
    )
    families = training.candidates if families is None else families
    kinds = ", ".join(family.name for family in families)
    log(f"cross-validating {kinds}: {len(columns)} features, {len(np.unique(data.fold))} folds")
    some = data.some_users(CHOICE_ROWS, training.seed)
    taken = [columns_for(family, training.names, training.declared) for family in families]
    for family, mine in zip(families, taken):
        if not mine:
            raise TrainingError(f"key features: they have none that {family.name} takes")
    chosen = choose(families, some, fitting, training.parameters, training.trials, log, taken)
    fitting, crossed, cost = chosen.fitting, chosen.crossed, replace(chosen.choice.cost)
    _log_choice(chosen, log)
    is_whole = some is data
    if len(chosen.columns) < len(columns):
        columns, data = [columns[column] for column in chosen.columns], data.columns(chosen.columns)
    names = list(fitting.names)
    if chosen.family.reads_events:
        importance_rows = min(importance_rows, EVENT_IMPORTANCE_ROWS)
    if not is_whole:
        log(f"cross-validating {chosen.family.name} on all rows")
        crossed = cross_validate(chosen.family, data, fitting, cost=cost)
    importance = permutation_importance(data, crossed, training.seed, importance_rows)
    tried: list[Pruning] = []
    unpruned = None
    if training.prune and not chosen.family.reads_events:  # a sequence without some of its events is another one
        log("pruning features")
        whole = crossed
        kept, fitting, crossed, tried = prune(
            chosen.family, data, fitting, whole, importance, log, cost, importance_rows
        )
        if len(kept) < len(columns):
            unpruned = typical_model(whole)
        columns, data = [columns[column] for column in kept], data.columns(kept)
    fitting = replace(fitting, rounds=crossed.rounds)
    return Selection(
        chosen.family, columns, fitting, data, crossed, chosen.choice, names, importance, tried, unpruned, cost,
        chosen.tried,
    )  # fmt: skip


def _log_choice(chosen: Chosen, log: Log) -> None:
    choice = chosen.choice
    if len(choice.candidates) > 1:
        log(
            f"chose {chosen.family.name}, the simplest within one standard error of the best AUC: "
            + ", ".join(f"{one.family} {one.auc.value:.4f} ({one.behind.value:+.4f})" for one in choice.candidates)
            + f"; {choice.cost.models} models fitted to choose"
        )


def _auc(data: TrainingRows, crossed: CrossValidated) -> float:
    return scored(data, crossed.probability).roc_auc_of_all()
