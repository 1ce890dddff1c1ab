"""Model selection: cross-validation by user, search, pruning, calibration. None of it sees the holdout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna

from training.data.examples import Examples
from training.modeling.calibration import Calibration, fit_calibration
from training.modeling.family import FitRows, FittedModel, Fitting, ModelFamily
from training.modeling.metrics import METRICS, Estimate, LabelledScores, difference

PRUNED_SIZES = (64, 48, 32, 24, 16, 12, 8)
SEARCH_ROWS = 200_000
IMPORTANCE_ROWS = 50_000

Log = Callable[[str], None]


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold predictions."""

    probability: np.ndarray  # float64[n]
    rounds: int  # the median of the folds
    models: list[FittedModel]
    training_auc: float  # the mean on the rows that the models were fitted to


@dataclass(frozen=True)
class TrainingRows:
    """The rows to train with, in a few arrays: features float32[n, k] and the fold of each row, int64[n]."""

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    user: np.ndarray
    fold: np.ndarray
    balance: float

    @classmethod
    def of(cls, examples: Examples, rows: np.ndarray, fold: np.ndarray, balance: float) -> "TrainingRows":
        return cls(
            examples.features[rows], examples.labels[rows], examples.weight[rows], examples.user[rows], fold, balance
        )

    def columns(self, columns: Sequence[int]) -> "TrainingRows":
        return replace(self, features=np.ascontiguousarray(self.features[:, columns]))

    def rows(self, rows: np.ndarray) -> "TrainingRows":
        names = ("features", "labels", "weight", "user", "fold")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def fit_rows(self, rows: np.ndarray | slice = slice(None), balanced: bool = True) -> FitRows:
        """Rows to fit, by default with weights that balance active and inactive users."""
        weight = self.weight[rows]
        if balanced:
            weight = weight * balanced_weight(self.user[rows], weight, self.balance)
        return FitRows(self.features[rows], self.labels[rows], weight)

    def auc(self, rows: np.ndarray, model: FittedModel) -> float:
        """The model's AUC on some of the rows."""
        return _roc_auc(self.labels[rows], model.predict(self.features[rows]), self.weight[rows])


def balanced_weight(user: np.ndarray, weight: np.ndarray, balance: float) -> np.ndarray:
    """Factors, 1 on average, by which a user with a total weight n counts as n to the power of 1 - balance."""
    _, code = np.unique(user, return_inverse=True)
    total = np.bincount(code, weight)[code]
    factor = total**-balance
    return factor / np.average(factor, weights=weight)


def cross_validate(family: ModelFamily, data: TrainingRows, fitting: Fitting) -> CrossValidated:
    """Fit a model for each fold, on all other folds; it stops early by the loss on the fold held out."""
    probability = np.empty(len(data.labels))
    models, training_aucs = [], []
    for number in np.unique(data.fold):
        held_out = np.flatnonzero(data.fold == number)
        train_rows = np.flatnonzero(data.fold != number)
        model = family.fit(data.fit_rows(train_rows), fitting, data.fit_rows(held_out, balanced=False))
        probability[held_out] = model.predict(data.features[held_out])
        training_aucs.append(data.auc(train_rows, model))
        models.append(model)
    rounds = int(np.median([model.rounds for model in models]))
    return CrossValidated(probability, rounds, models, float(np.mean(training_aucs)))


def scored(rows: TrainingRows | Examples, probability: np.ndarray) -> LabelledScores:
    """The rows with their probabilities, float[n], ready to be measured."""
    return LabelledScores(rows.labels, probability, rows.weight, rows.user)


def search(
    family: ModelFamily, data: TrainingRows, fitting: Fitting, trials: int, seed: int, log: Log
) -> Mapping[str, float]:
    """Search the parameters with the least log loss on held-out users, among the defaults and a number of trials."""
    if len(data.labels) > SEARCH_ROWS:
        data = data.rows(np.sort(np.random.default_rng(seed).choice(len(data.labels), SEARCH_ROWS, replace=False)))

    def loss(name: str, parameters: Mapping[str, float]) -> float:
        measured = scored(data, cross_validate(family, data, replace(fitting, parameters=parameters)).probability)
        log_loss = measured.log_loss(measured.weight)
        log(f"    {name}: log loss {log_loss:.5f}")
        return log_loss

    def try_out(trial: optuna.Trial) -> float:
        return loss(f"trial {trial.number + 1} of {trials}", family.suggest(trial))

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(try_out, n_trials=trials)
    return study.best_params if study.best_value < loss("defaults", fitting.parameters) else fitting.parameters


def permutation_importance(data: TrainingRows, crossed: CrossValidated, seed: int) -> np.ndarray:
    """The AUC lost on held-out rows when a feature's values are shuffled among them: float64[k].

    It is the mean over the folds (Breiman, Random forests, 2001, section 10).
    """
    rng = np.random.default_rng(seed)
    lost = np.zeros(data.features.shape[1])
    for number, model in zip(np.unique(data.fold), crossed.models):
        rows = np.flatnonzero(data.fold == number)
        if len(rows) > IMPORTANCE_ROWS:
            rows = np.sort(rng.choice(rows, IMPORTANCE_ROWS, replace=False))
        features, labels, weight = data.features[rows], data.labels[rows], data.weight[rows]
        if labels.all() or not labels.any():
            continue
        whole = _roc_auc(labels, model.predict(features), weight)
        for column in range(features.shape[1]):
            kept = features[:, column].copy()
            features[:, column] = rng.permutation(kept)
            lost[column] += whole - _roc_auc(labels, model.predict(features), weight)
            features[:, column] = kept
    return lost / len(crossed.models)


def _roc_auc(labels: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> float:
    """The AUC of rows, for each of many features: scikit-learn's spends milliseconds on checking its arguments."""
    return LabelledScores(labels, probability, weight, np.zeros(len(labels), np.int64)).roc_auc_of_all()


@dataclass(frozen=True)
class Pruning:
    """A number of features that was tried, and the difference of its model from the best one on held-out users."""

    features: int
    auc: Estimate
    average_precision: Estimate
    accepted: bool


def prune(
    family: ModelFamily, data: TrainingRows, fitting: Fitting, whole: CrossValidated, importance: np.ndarray, log: Log
) -> tuple[list[int], Fitting, CrossValidated, list[Pruning]]:
    """Find the fewest features, by importance, whose model is within a standard error of the best one tried.

    The rule of one standard error (Breiman and others, Classification and regression trees, 1984, section 3.4.3), here
    of the difference on the same held-out users, in AUC and in average precision. Returns the columns, in the order of
    the features, their fitting and cross-validation, and the numbers of features that were tried.
    """
    ranked = np.argsort(-importance, kind="stable")
    tried = {len(importance): (list(range(len(importance))), fitting, whole)}
    measured = {len(importance): scored(data, whole.probability)}
    for size in (size for size in PRUNED_SIZES if size < len(importance)):
        kept = sorted(ranked[:size].tolist())
        narrowed = replace(
            fitting,
            names=[fitting.names[column] for column in kept],
            monotone=[fitting.monotone[column] for column in kept],
        )
        crossed = cross_validate(family, data.columns(kept), narrowed)
        tried[size] = kept, narrowed, crossed
        measured[size] = scored(data, crossed.probability)
        log(f"    {size} features: AUC {measured[size].roc_auc_of_all():.4f}")
    best = max(measured.values(), key=LabelledScores.roc_auc_of_all)
    steps = []
    for size, pruned in measured.items():
        change = difference(pruned, best)
        accepted = all(estimate.value >= -estimate.standard_error for estimate in change.values())
        steps.append(Pruning(size, change["roc_auc"], change["average_precision"], accepted))
    return *tried[min(step.features for step in steps if step.accepted)], steps


def choose_calibration(data: TrainingRows, crossed: CrossValidated, seed: int) -> tuple[Calibration, Estimate]:
    """Fit a calibration, used only if it lowers the log loss of held-out users, and measure by how much."""
    corrected = np.empty(len(crossed.probability))
    for number in np.unique(data.fold):
        held_out, train_rows = data.fold == number, data.fold != number
        fitted = fit_calibration(crossed.probability[train_rows], data.labels[train_rows], data.weight[train_rows])
        corrected[held_out] = fitted(crossed.probability[held_out])
    log_loss = {"log_loss": METRICS["log_loss"]}
    saved = difference(scored(data, crossed.probability), scored(data, corrected), log_loss, seed)["log_loss"]
    fitted = fit_calibration(crossed.probability, data.labels, data.weight)
    return (fitted if saved.value > 0 else Calibration()), saved


def learning_curve(
    family: ModelFamily, data: TrainingRows, fitting: Fitting, seed: int, shares=(0.25, 0.5, 1.0)
) -> list[dict]:
    """AUC on training users and on held-out users, by share of the training users; the first fold is held out."""
    held_out = np.flatnonzero(data.fold == data.fold[0])
    train_rows = np.flatnonzero(data.fold != data.fold[0])
    place = np.random.default_rng(seed).random(int(data.user.max()) + 1)[data.user[train_rows]]
    points = []
    for share in shares:
        subset = train_rows[place < share]
        if data.labels[subset].all() or not data.labels[subset].any():
            continue
        model = family.fit(data.fit_rows(subset), fitting, data.fit_rows(held_out, balanced=False))
        aucs = {"seen": data.auc(subset, model), "held_out": data.auc(held_out, model)}
        points.append({"share": share, "rows": len(subset), **aucs})
    return points
