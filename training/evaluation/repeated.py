"""Repeated, nested cross-validation by user: how the whole training does on new users, compared with other models.

All users are split into folds several times. Each fold is scored by a model whose family, `teacher_share`, features and
rounds were chosen, and which was then fitted, on the other folds alone. So the estimate is that of the procedure, not
of one model, and nothing that was chosen on users is judged by them (Varma and Simon, Bias in error estimation when
using cross-validation for model selection, 2006).

The interval of a figure accounts for two sources of variance, and is the wider of

- the corrected resampled t-interval (Nadeau and Bengio, Inference for the generalization error, 2003): from the
  variance of the J = repeats x folds figures, times 1 / J + test users / training users, because training sets
  overlap. It includes the variance of training, but rests on few figures;
- the bootstrap by user (training/modeling/metrics.py) of the mean of the J figures. It includes the variance of the
  tested users alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from scipy import stats

from training.data.examples import Examples
from training.data.split import SplitError, user_folds
from training.evaluation.rivals import fit_rival
from training.modeling.family import Cost, ModelFamily
from training.modeling.metrics import INTERVAL, RANKING, REPLICATES, Estimate, LabelledScores, Measure
from training.modeling.model_selection import Log, TrainingRows
from training.modeling.pipeline import Selection, select
from training.modeling.settings import Training

#: Inside each outer fold, choices are made on at most about this many rows and with at most this many folds, which
#: bounds the cost. The chosen model is then fitted to all rows of the other folds.
INNER_ROWS = 100_000
INNER_FOLDS = 3
INNER_IMPORTANCE_ROWS = 10_000

#: The name of the model that the procedure made, beside those of the families to compare with.
PROCEDURE = "procedure"

_Part = dict[str, LabelledScores]  # of one outer fold, by model


@dataclass(frozen=True)
class OuterFold:
    """What was chosen in one outer fold, and what came of it on its users."""

    repeat: int
    fold: int
    family: str
    features: int
    teacher_share: float | None
    auc: float
    auc_differences: dict[str, float]  # by the model compared with


@dataclass(frozen=True)
class Repeated:
    """The result of a repeated cross-validation. `metrics` and `differences` are means of the outer folds."""

    repeats: int
    folds: int
    users: int
    metrics: dict[str, Estimate]
    compared: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]  # of this procedure minus each of the others
    outer: tuple[OuterFold, ...]
    cost: Cost


def repeated_cross_validation(
    examples: Examples,
    train_pool: np.ndarray,
    test_pool: np.ndarray,
    training: Training,
    log: Log,
    families: Sequence[ModelFamily] | None = None,
) -> Repeated | str:
    """Measure the procedure of the settings on new users, `training.repeats` times in `training.folds` folds.

    Rows of `train_pool` train, rows of `test_pool` test: the same ones, or, for a holdout by time, those before and
    after it. No user is in both parts of a fold. Returns the reason, in words, where the data is too poor to measure.
    """
    pool = np.union1d(train_pool, test_pool)
    outer, parts, cost = [], [], Cost()
    for repeat in range(training.repeats):
        seed = training.seed + 1_000 * (repeat + 1)
        try:
            assigned = np.full(len(examples), -1, np.int64)
            assigned[pool] = user_folds(examples, pool, training.folds, seed)
            for fold in range(training.folds):
                train_rows = train_pool[assigned[train_pool] != fold]
                test_rows = test_pool[assigned[test_pool] == fold]
                _refuse_one_class(examples.labels[test_rows], f"fold {fold + 1} of {training.folds}")
                # With a seed of its own: the procedure's variance includes that of its random numbers.
                mine = replace(training, seed=seed + fold)
                selection, scores = _outer_fold(examples, train_rows, test_rows, mine, cost, families)
                parts.append(scores)
                aucs = {name: each.roc_auc_of_all() for name, each in scores.items()}
                outer.append(
                    OuterFold(
                        repeat + 1,
                        fold + 1,
                        selection.family.name,
                        len(selection.columns),
                        selection.fitting.parameters.get("teacher_share"),
                        aucs[PROCEDURE],
                        {name: aucs[PROCEDURE] - auc for name, auc in aucs.items() if name != PROCEDURE},
                    )
                )
                log(f"    repeat {repeat + 1}, fold {fold + 1}: {_line(outer[-1])}")
        except SplitError as error:
            return str(error)
    users = len(np.unique(examples.user[pool]))
    metrics = _estimates(parts, training.folds, training.seed)
    rivals = [name for name in parts[0] if name != PROCEDURE]
    return Repeated(
        repeats=training.repeats,
        folds=training.folds,
        users=users,
        metrics=metrics[PROCEDURE, None],
        compared={name: metrics[name, None] for name in rivals},
        differences={name: metrics[PROCEDURE, name] for name in rivals},
        outer=tuple(outer),
        cost=cost,
    )


def _outer_fold(
    examples: Examples,
    train_rows: np.ndarray,
    test_rows: np.ndarray,
    training: Training,
    cost: Cost,
    families: Sequence[ModelFamily] | None,
) -> tuple[Selection, _Part]:
    """Run the procedure on the training rows; score the test rows with its model and with those to compare with."""
    folds = min(training.folds, INNER_FOLDS)
    fold = user_folds(examples, train_rows, folds, training.seed)
    whole = TrainingRows.of(examples, train_rows, fold, training.balance)
    inner = whole.some_users(INNER_ROWS, training.seed)
    if inner.folds_with_one_class():
        raise SplitError(f"an inner fold of {folds} has one class only: use more users, or fewer folds")
    selection = select(inner, examples.names, training, _silent, families, INNER_IMPORTANCE_ROWS)
    cost.add(selection.cost)
    model = selection.family.fit(whole.columns(selection.columns).fit_rows(cost=cost), selection.fitting)
    features = examples.features[test_rows]
    predicted = {PROCEDURE: model.predict(np.ascontiguousarray(features[:, selection.columns]))}
    for name in training.compare:
        predicted[name] = fit_rival(name, whole, examples.names, training, inner, cost).predict(features)
    labels, weight, user = examples.labels[test_rows], examples.weight[test_rows], examples.user[test_rows]
    return selection, {name: LabelledScores(labels, scores, weight, user) for name, scores in predicted.items()}


def _silent(_line: str) -> None:
    pass


def _line(outer: OuterFold) -> str:
    differences = "".join(f", {gain:+.4f} to {name}" for name, gain in outer.auc_differences.items())
    return f"{outer.family}, {outer.features} features, AUC {outer.auc:.4f}{differences}"


def _refuse_one_class(labels: np.ndarray, name: str) -> None:
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise SplitError(f"{name} has {positives} positive labels among {len(labels)} events: both classes are needed")


def _estimates(parts: Sequence[_Part], folds: int, seed: int) -> dict[tuple[str, str | None], dict[str, Estimate]]:
    """The mean of each metric over the outer folds: by model, and by pair of models for their difference."""
    names = list(parts[0])
    values = fold_figures(parts)
    users = max(int(part[PROCEDURE].users[-1]) for part in parts) + 1
    rng = np.random.default_rng(seed)
    draws = np.array([fold_figures(parts, rng.poisson(1.0, users)) for _ in range(REPLICATES)])
    test_share = 1 / (folds - 1)  # users tested per user trained on

    def estimates(figures: np.ndarray, redrawn: np.ndarray) -> dict[str, Estimate]:
        return {
            metric: resampled_estimate(figures[:, place], redrawn[:, :, place], test_share)
            for place, metric in enumerate(RANKING)
        }

    found = {
        (name, None): clipped_to_shares(estimates(values[:, place], draws[:, :, place]))
        for place, name in enumerate(names)
    }
    ours, our_draws = values[:, [0]], draws[:, :, [0]]
    gains, gain_draws = ours - values, our_draws - draws
    found |= {
        (PROCEDURE, name): estimates(gains[:, place], gain_draws[:, :, place])
        for place, name in enumerate(names)
        if name != PROCEDURE
    }
    return found


def clipped_to_shares(estimates: Mapping[Any, Estimate]) -> dict[Any, Estimate]:
    """The estimates with intervals that end at 0 and 1, as AUC and average precision do."""
    return {
        name: Estimate(metric.value, *np.clip((metric.low, metric.high), 0.0, 1.0).tolist())
        for name, metric in estimates.items()
    }


def fold_figures(
    parts: Sequence[Mapping[Any, LabelledScores]],
    counts: np.ndarray | None = None,
    measures: Mapping[str, Measure] = RANKING,
) -> np.ndarray:
    """The metrics of each model on each part, float64[parts, models, metrics].

    With `counts` int64[users], each user counts that often.
    """

    def metrics(scores: LabelledScores) -> list[float]:
        weight = scores.weight if counts is None else scores.weight * counts[scores.users][scores.user]
        return [measure(scores, weight) for measure in measures.values()]

    return np.array([[metrics(scores) for scores in part.values()] for part in parts])


def resampled_estimate(figures: np.ndarray, draws: np.ndarray, test_share: float) -> Estimate:
    """The mean of the figures float64[J] of J outer folds, with the 95 % interval that the module describes.

    `draws` float64[replicates, J] are the figures with users redrawn; `test_share` is the number of users tested per
    user trained on. Undefined figures (NaN) are left out. With fewer than two others, the interval is undefined.
    """
    figures = figures[~np.isnan(figures)]
    value = float(figures.mean()) if len(figures) else float("nan")
    means = _means(draws)
    if len(figures) < 2 or not len(means):
        return Estimate(value, float("nan"), float("nan"))
    error = np.sqrt((1 / len(figures) + test_share) * figures.var(ddof=1))
    reach = float(stats.t.ppf(INTERVAL[1] / 100, len(figures) - 1) * error)
    low, high = np.percentile(means, INTERVAL)
    return Estimate(value, min(value - reach, float(low)), max(value + reach, float(high)))


def _means(draws: np.ndarray) -> np.ndarray:
    """The mean of each replicate's defined figures; replicates without any are left out."""
    defined = ~np.isnan(draws)
    counts = defined.sum(axis=1)
    return np.where(defined, draws, 0.0).sum(axis=1)[counts > 0] / counts[counts > 0]
