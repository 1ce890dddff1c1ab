"""Model selection: cross-validation by user, search, pruning, calibration. None of it sees the holdout."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna

from training.data.examples import Examples
from training.modeling.calibration import Calibration, fit_calibration
from training.modeling.family import Cost, FitRows, FittedModel, Fitting, ModelFamily
from training.modeling.metrics import METRICS, Estimate, LabelledScores, difference

PRUNED_SIZES = (64, 32, 16, 8)
SEARCH_ROWS = 200_000
IMPORTANCE_ROWS = 50_000

Log = Callable[[str], None]  # takes lines of progress


@dataclass(frozen=True)
class CrossValidated:
    """Out-of-fold predictions."""

    probability: np.ndarray  # float64[n]
    rounds: int  # the median of the folds
    models: list[FittedModel]
    training_auc: float  # the mean on the rows that the models were fitted to


def typical_model(crossed: CrossValidated) -> FittedModel:
    """The model of one fold, with the median of the rounds."""
    return sorted(crossed.models, key=lambda model: model.rounds)[len(crossed.models) // 2]


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

    def some_users(self, limit: int, seed: int) -> "TrainingRows":
        """The rows of as many users, chosen at random, as have about `limit` rows; all, if there are no more."""
        if len(self.labels) <= limit:
            return self
        place = np.random.default_rng(seed).random(int(self.user.max()) + 1)[self.user]
        return self.rows(np.flatnonzero(place < limit / len(self.labels)))

    def folds_with_one_class(self) -> list[int]:
        """The folds without a positive or without a negative: nothing can be measured on them."""
        positives, rows = np.bincount(self.fold, self.labels), np.bincount(self.fold)
        return [number for number in np.unique(self.fold).tolist() if positives[number] in (0, rows[number])]

    def fit_rows(
        self, rows: np.ndarray | slice = slice(None), balanced: bool = True, cost: Cost | None = None
    ) -> FitRows:
        """Rows to fit, by default with weights that balance active and inactive users; fits add to `cost`."""
        weight = self.weight[rows]
        if balanced:
            weight = weight * balanced_weight(self.user[rows], weight, self.balance)
        return FitRows(self.features[rows], self.labels[rows], weight, Cost() if cost is None else cost)

    def auc(self, rows: np.ndarray, model: FittedModel) -> float:
        """The model's AUC on some of the rows."""
        return _roc_auc(self.labels[rows], model.predict(self.features[rows]), self.weight[rows])


def balanced_weight(user: np.ndarray, weight: np.ndarray, balance: float) -> np.ndarray:
    """Factors, 1 on average, by which a user with a total weight n counts as n to the power of 1 - balance."""
    _, code = np.unique(user, return_inverse=True)
    total = np.bincount(code, weight)[code]
    factor = total**-balance
    return factor / np.average(factor, weights=weight)


def cross_validate(
    family: ModelFamily,
    data: TrainingRows,
    fitting: Fitting,
    columns: Sequence[Sequence[int]] | None = None,
    cost: Cost | None = None,
) -> CrossValidated:
    """Fit a model for each fold, on all other folds; it stops early by the loss on the fold held out.

    With `columns`, each fold's model has only these features; `cost` is added to.
    """
    return cross_validate_all([(family, fitting)], data, columns, cost)[0]


def cross_validate_all(
    candidates: Sequence[tuple[ModelFamily, Fitting]],
    data: TrainingRows,
    columns: Sequence[Sequence[int]] | None = None,
    cost: Cost | None = None,
) -> list[CrossValidated]:
    """`cross_validate` for each of the candidates, on the same rows: parts that they have in common are fitted once."""
    probability = np.empty((len(candidates), len(data.labels)))
    models: list[list[FittedModel]] = [[] for _ in candidates]
    training_aucs: list[list[float]] = [[] for _ in candidates]
    for place, number in enumerate(np.unique(data.fold)):
        mine = data if columns is None else data.columns(columns[place])
        held_out, train_rows = np.flatnonzero(data.fold == number), np.flatnonzero(data.fold != number)
        train, eval_rows = mine.fit_rows(train_rows, cost=cost), mine.fit_rows(held_out, balanced=False)
        for row, (family, fitting) in enumerate(candidates):
            my_fitting = fitting if columns is None else narrowed(fitting, columns[place])
            model = family.fit(train, my_fitting, eval_rows)
            probability[row, held_out] = model.predict(eval_rows.features)
            training_aucs[row].append(mine.auc(train_rows, model))
            models[row].append(model)
        del train, eval_rows  # and what was made of them, before the rows of the next fold are copied
    return [
        CrossValidated(each, int(np.median([model.rounds for model in fitted])), fitted, float(np.mean(aucs)))
        for each, fitted, aucs in zip(probability, models, training_aucs)
    ]


def narrowed(fitting: Fitting, columns: Sequence[int]) -> Fitting:
    """The fitting of some of the features."""
    monotone = [fitting.monotone[column] for column in columns] if len(fitting.monotone) else ()
    return replace(fitting, names=[fitting.names[column] for column in columns], monotone=monotone)


def scored(rows: TrainingRows | Examples, probability: np.ndarray) -> LabelledScores:
    """The rows with their probabilities, float[n], ready to be measured."""
    return LabelledScores(rows.labels, probability, rows.weight, rows.user)


def search(
    family: ModelFamily,
    data: TrainingRows,
    fitting: Fitting,
    trials: int,
    seed: int,
    log: Log,
    cost: Cost | None = None,
) -> Mapping[str, float]:
    """Search the parameters with the least log loss on held-out users, among the defaults and a number of trials."""
    if len(data.labels) > SEARCH_ROWS:
        data = data.rows(np.sort(np.random.default_rng(seed).choice(len(data.labels), SEARCH_ROWS, replace=False)))

    def loss(name: str, parameters: Mapping[str, float]) -> float:
        tried = replace(fitting, parameters=parameters)
        measured = scored(data, cross_validate(family, data, tried, cost=cost).probability)
        log_loss = measured.log_loss(measured.weight)
        log(f"    {name}: log loss {log_loss:.5f}")
        return log_loss

    def try_out(trial: optuna.Trial) -> float:
        return loss(f"trial {trial.number + 1} of {trials}", family.suggest(trial))

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(try_out, n_trials=trials)
    return study.best_params if study.best_value < loss("defaults", fitting.parameters) else fitting.parameters


def permutation_importance(
    data: TrainingRows, crossed: CrossValidated, seed: int, limit: int = IMPORTANCE_ROWS
) -> np.ndarray:
    """The AUC lost on held-out rows when a feature's values are shuffled among them: float64[k].

    It is the mean over the folds (Breiman, Random forests, 2001, section 10), of at most `limit` rows each.
    """
    rng = np.random.default_rng(seed)
    held_out = [np.flatnonzero(data.fold == number) for number in np.unique(data.fold)]
    lost = [_lost_without(data, rows, model, rng, limit) for rows, model in zip(held_out, crossed.models)]
    return np.mean(lost, axis=0)


def _lost_without(
    data: TrainingRows, rows: np.ndarray, model: FittedModel, rng: np.random.Generator, limit: int
) -> np.ndarray:
    """The AUC that a model loses on some of the rows when a feature is shuffled, float64[k]; 0 without both classes."""
    if len(rows) > limit:
        rows = np.sort(rng.choice(rows, limit, replace=False))
    features, labels, weight = data.features[rows], data.labels[rows], data.weight[rows]
    lost = np.zeros(features.shape[1])
    if labels.all() or not labels.any():
        return lost
    whole = _roc_auc(labels, model.predict(features), weight)
    for column in range(features.shape[1]):
        kept = features[:, column].copy()
        features[:, column] = rng.permutation(kept)
        lost[column] = whole - _roc_auc(labels, model.predict(features), weight)
        features[:, column] = kept
    return lost


def importance_without_fold(
    family: ModelFamily, data: TrainingRows, fitting: Fitting, number: int, limit: int, cost: Cost | None = None
) -> np.ndarray:
    """Permutation importance float64[k] that nothing in fold `number` has a part in.

    A model is fitted to half of the other users, and features are shuffled for the other half.
    """
    rng = np.random.default_rng([fitting.seed, number])
    is_fitted = rng.random(int(data.user.max()) + 1)[data.user] < 0.5
    others = data.fold != number
    train_rows, rows = np.flatnonzero(others & is_fitted), np.flatnonzero(others & ~is_fitted)
    if data.labels[train_rows].all() or not data.labels[train_rows].any():
        return np.zeros(data.features.shape[1])
    model = family.fit(data.fit_rows(train_rows, cost=cost), fitting)
    return _lost_without(data, rows, model, rng, limit)


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
    family: ModelFamily,
    data: TrainingRows,
    fitting: Fitting,
    whole: CrossValidated,
    importance: np.ndarray,
    log: Log,
    cost: Cost | None = None,
    limit: int = IMPORTANCE_ROWS,
) -> tuple[list[int], Fitting, CrossValidated, list[Pruning]]:
    """Find the fewest features, by importance, whose model is within a standard error of the best one tried.

    The rule of one standard error (Breiman and others, Classification and regression trees, 1984, section 3.4.3), here
    of the difference on the same held-out users, in AUC and in average precision. The model that is measured on a fold
    has the features that are the most important ones without that fold, or the same users would both choose the
    features and judge them. The features that are kept are those with the highest `importance`, float64[k], of all
    folds. Returns their columns, in the order of the features, their fitting, the cross-validation of that number of
    features, and the numbers of features that were tried.
    """
    features = len(importance)
    sizes = [size for size in PRUNED_SIZES if size < features]
    settled = replace(fitting, rounds=whole.rounds)
    by_fold = [
        importance_without_fold(family, data, settled, number, limit, cost) for number in np.unique(data.fold) if sizes
    ]
    every = list(range(features))
    crosses = {features: whole}
    measured = {features: scored(data, whole.probability)}
    for size in sizes:
        columns = [_strongest(ranking, size) for ranking in by_fold]
        crosses[size] = cross_validate(family, data, fitting, columns, cost)
        measured[size] = scored(data, crosses[size].probability)
        log(f"    {size} features: AUC {measured[size].roc_auc_of_all():.4f}")
    best = max(measured.values(), key=LabelledScores.roc_auc_of_all)
    steps = []
    for size, pruned in measured.items():
        change = difference(pruned, best)
        accepted = all(estimate.value >= -estimate.standard_error for estimate in change.values())
        steps.append(Pruning(size, change["roc_auc"], change["average_precision"], accepted))
    size = min(step.features for step in steps if step.accepted)
    kept = every if size == features else _strongest(importance, size)
    return kept, narrowed(fitting, kept), crosses[size], steps


def _strongest(importance: np.ndarray, size: int) -> list[int]:
    """The columns with the highest importance float64[k], in ascending order."""
    return sorted(np.argsort(-importance, kind="stable")[:size].tolist())


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
