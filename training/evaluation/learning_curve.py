"""The learning curve: the AUC on new users, by the number of users that a model is fitted to.

Several folds are held out in turn. Intervals are those of training/evaluation/repeated.py: they include the variance
of training. The gain of the last doubling is paired by user.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from training.evaluation.repeated import clipped_to_shares, fold_figures, resampled_estimate
from training.evaluation.rivals import fit_rival
from training.modeling.family import FittedModel
from training.modeling.metrics import METRICS, Estimate
from training.modeling.model_selection import Log, TrainingRows, scored
from training.modeling.pipeline import Fit
from training.modeling.settings import Training

SHARES = (0.25, 0.5, 1.0)  # of the training users
#: Of all folds, at most so many are held out: each of them takes models of its own.
FOLDS = 5
REPLICATES = 100
#: The model that is drawn beside the one that was chosen, if the settings compare with it.
SIMPLER = "logistic"
_AUC = {"roc_auc": METRICS["roc_auc"]}
#: Fits a model, given the share of the users, the number of the fold held out, the rows to fit and those of the fold.
_FitModel = Callable[[float, int, np.ndarray, np.ndarray], FittedModel]


@dataclass(frozen=True)
class CurvePoint:
    """The AUC of models that were fitted to a share of the users: the mean of the folds."""

    share: float
    rows: int  # the mean number of rows that they were fitted to
    seen: float  # AUC on these rows
    held_out: Estimate  # AUC on the users of the fold held out


@dataclass(frozen=True)
class LearningCurve:
    """The points of each model, by its family, and what the last doubling of the users gained the chosen one."""

    folds: int
    points: dict[str, tuple[CurvePoint, ...]]
    last_doubling: Estimate | None  # of the AUC on users held out; None with fewer than two points


def measure_learning_curve(
    fit: Fit, train_rows: TrainingRows, features: Sequence[str], training: Training, log: Log
) -> LearningCurve:
    """Fit the chosen family, and the simpler one with all `features`, to growing shares of the training users.

    The features and parameters of the chosen model are those that all users chose. A share in which a fold has one
    class only has no point.
    """
    data, chosen = fit.data, fit.selection.family.name
    numbers = np.unique(data.fold)
    place = np.random.default_rng(training.seed).random(int(data.user.max()) + 1)[data.user]
    fitters = _fitters(fit, train_rows, features, training)
    held_out = [np.flatnonzero(data.fold == number) for number in numbers[:FOLDS]]
    subsets = {
        share: [np.flatnonzero((data.fold != number) & (place < share)) for number in numbers[:FOLDS]]
        for share in SHARES
    }
    shares = [share for share, parts in subsets.items() if all(_has_both(data.labels[rows]) for rows in parts)]
    if not shares:
        return LearningCurve(len(held_out), dict.fromkeys(fitters, ()), None)
    parts, seen = [], []
    for fold, test_rows in enumerate(held_out):
        log(f"    learning curve: fold {fold + 1} of {len(held_out)}")
        scores, aucs = {}, {}
        for (name, (fit_model, own)), share in product(fitters.items(), shares):
            model = fit_model(share, fold, subsets[share][fold], test_rows)
            scores[name, share] = scored(own.rows(test_rows), model.predict(own.features[test_rows]))
            aucs[name, share] = own.auc(subsets[share][fold], model)
        parts.append(scores)
        seen.append(aucs)
    estimates, last_doubling = _estimates(parts, chosen, shares, len(numbers), training.seed)
    points = {
        name: tuple(
            CurvePoint(
                share,
                int(np.mean([len(rows) for rows in subsets[share]])),
                float(np.mean([aucs[name, share] for aucs in seen])),
                estimates[name, share],
            )
            for share in shares
        )
        for name in fitters
    }
    return LearningCurve(len(held_out), points, last_doubling)


def _fitters(
    fit: Fit, train_rows: TrainingRows, features: Sequence[str], training: Training
) -> dict[str, tuple[_FitModel, TrainingRows]]:
    """By family: a function that fits its model, and the rows with the features that it takes."""
    data, chosen = fit.data, fit.selection.family
    fitting = replace(fit.fitting, rounds=training.rounds)

    def fit_chosen(share: float, fold: int, rows: np.ndarray, test_rows: np.ndarray) -> FittedModel:
        if share == 1 and fit.selection.unpruned is None:
            return fit.selection.crossed.models[fold]  # the same rows, features and parameters
        return chosen.fit(data.fit_rows(rows), fitting, data.fit_rows(test_rows, balanced=False))

    def fit_simpler(_share: float, _fold: int, rows: np.ndarray, _test_rows: np.ndarray) -> FittedModel:
        return fit_rival(SIMPLER, train_rows.rows(rows), features, training)

    fitters = {chosen.name: (fit_chosen, data)}
    if SIMPLER in training.compare and chosen.name != SIMPLER:
        fitters[SIMPLER] = (fit_simpler, train_rows)
    return fitters


def _has_both(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())


def _estimates(
    parts: Sequence[dict], chosen: str, shares: Sequence[float], folds: int, seed: int
) -> tuple[dict[tuple[str, float], Estimate], Estimate | None]:
    """The AUC by model and share, and the difference of the chosen model's last two."""
    names = list(parts[0])
    values = fold_figures(parts, measures=_AUC)[:, :, 0]
    users = max(int(scores.users[-1]) for part in parts for scores in part.values()) + 1
    rng = np.random.default_rng(seed)
    draws = np.array([fold_figures(parts, rng.poisson(1.0, users), _AUC)[:, :, 0] for _ in range(REPLICATES)])

    def test_share(share: float) -> float:
        """The users that are tested per user trained on."""
        return 1 / (share * (folds - 1))

    estimates = clipped_to_shares(
        {name: resampled_estimate(values[:, at], draws[:, :, at], test_share(name[1])) for at, name in enumerate(names)}
    )
    if len(shares) < 2:
        return estimates, None
    more, fewer = names.index((chosen, shares[-1])), names.index((chosen, shares[-2]))
    # Of the two models, the one that is trained on fewer users varies more.
    of_fewer = test_share(shares[-2])
    gain = resampled_estimate(values[:, more] - values[:, fewer], draws[:, :, more] - draws[:, :, fewer], of_fewer)
    return estimates, gain
