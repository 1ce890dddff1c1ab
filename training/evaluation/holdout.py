"""Evaluation of a fitted model on the holdout, and comparison with other kinds of models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.examples import Examples
from training.evaluation.learning_curve import LearningCurve, measure_learning_curve
from training.evaluation.repeated import Repeated
from training.evaluation.rivals import fit_rival
from training.evaluation.rule_baseline import RuleBaseline, measure_rule
from training.modeling.calibration import Calibration
from training.modeling.choice import Choice
from training.modeling.metrics import (
    METRICS,
    Estimate,
    calibration_table,
    difference,
    estimate,
    gain_table,
    threshold_table,
)
from training.modeling.model_selection import Log, Pruning, TrainingRows, scored
from training.modeling.pipeline import Fit
from training.modeling.settings import Training
from udfs.measurement.labels import Label


@dataclass(frozen=True)
class Evaluation:
    """The results that the report shows."""

    model: str  # its kind, of FAMILIES
    label: str
    rows: dict[str, int]
    users: dict[str, int]
    metrics: dict[str, Estimate]  # on the holdout
    best_possible_auc: float | None
    cross_validated_auc: float
    training_auc: float
    compared: dict[str, dict[str, Estimate]]  # metrics of the other kinds of models, on the holdout
    differences: dict[str, dict[str, Estimate]]  # this model minus each of those
    choice: Choice
    repeated: Repeated | str  # or why it was not measured
    rule: RuleBaseline | None
    gains: list[dict]
    calibration: list[dict]
    calibration_gain: Estimate | None
    calibrated_by: Calibration
    thresholds: list[dict]
    benefit: float  # of acting on a positive
    cost: float  # of acting
    importance: list[tuple[str, float]]
    single_auc: Estimate  # of the most important feature by itself, on the holdout, in the direction that ranks
    pruning: list[Pruning]
    learning_curve: LearningCurve
    parameters: dict[str, float]
    rounds: int
    unused: list[str]  # features with one value, or none
    holdout: Examples
    probability: np.ndarray  # float64[holdout rows]
    contributions: np.ndarray  # float[holdout rows, features + 1], in logits; the last one is the base


def evaluate(
    fit: Fit,
    train_rows: TrainingRows,
    holdout: Examples,
    matrix: np.ndarray,
    training: Training,
    label: Label,
    best_possible_auc: float | None,
    repeated: Repeated | str,
    log: Log,
) -> Evaluation:
    """Measure the model and those to compare it with on the holdout.

    `matrix` float32[rows, k] has the holdout's values of the model's k features. `repeated` is the repeated estimate of
    the whole training. `log` is called with lines of progress.
    """
    selection = fit.selection
    probability = fit.model.predict(matrix)
    measured = scored(holdout, probability)
    importance = sorted(zip(selection.names, selection.importance.tolist()), key=lambda entry: -entry[1])
    rivals = {
        name: scored(holdout, fit_rival(name, train_rows, holdout.names, training).predict(holdout.features))
        for name in training.compare
    }
    return Evaluation(
        model=selection.family.name,
        label=str(label),
        rows={"training": len(train_rows.labels), "holdout": len(holdout)},
        users={"training": len(np.unique(train_rows.user)), "holdout": len(np.unique(holdout.user))},
        metrics=estimate(measured),
        best_possible_auc=best_possible_auc,
        cross_validated_auc=fit.cross_validated_auc,
        training_auc=selection.crossed.training_auc,
        compared={name: estimate(rival) for name, rival in rivals.items()},
        differences={name: difference(measured, rival) for name, rival in rivals.items()},
        choice=selection.choice,
        repeated=repeated,
        rule=None if training.rule is None else measure_rule(training.rule, training.declared, holdout, measured),
        gains=gain_table(measured),
        calibration=calibration_table(measured),
        calibration_gain=fit.calibration_gain,
        calibrated_by=fit.calibration,
        thresholds=threshold_table(measured, training.benefit, training.cost),
        benefit=training.benefit,
        cost=training.cost,
        importance=importance,
        single_auc=_auc_of_feature(holdout, importance[0][0]),
        pruning=selection.pruning,
        learning_curve=measure_learning_curve(fit, train_rows, holdout.names, training, log),
        parameters=dict(fit.fitting.parameters),
        rounds=fit.model.rounds,
        unused=_unused(train_rows.features, holdout.names),
        holdout=holdout,
        probability=probability,
        contributions=fit.model.contributions(matrix),
    )


def _auc_of_feature(holdout: Examples, name: str) -> Estimate:
    """The AUC of ranking by one feature's values, or by their opposite; missing ones rank as their median."""
    values = holdout.features[:, holdout.names.index(name)].astype(np.float64)
    known = ~np.isnan(values)
    values = np.where(known, values, np.median(values[known]) if known.any() else 0.0)
    auc = {"roc_auc": METRICS["roc_auc"]}
    found = estimate(scored(holdout, values), auc)["roc_auc"]
    return found if not found.value < 0.5 else Estimate(1 - found.value, 1 - found.high, 1 - found.low)


def _unused(features: np.ndarray, names: Sequence[str]) -> list[str]:
    """The features with a single value or none."""
    unused = []
    for column, name in enumerate(names):
        values = features[:, column]
        values = values[~np.isnan(values)]
        if not len(values) or values.min() == values.max():
            unused.append(name)
    return unused


def manifest_metrics(evaluation: Evaluation, positive_users: int) -> dict[str, float]:
    """The metrics for the manifest; `positive_users` users of the holdout have a positive label."""
    metrics = {}
    for name in METRICS:
        metric = evaluation.metrics[name]
        metrics |= {f"test_{name}": metric.value, f"test_{name}_low": metric.low, f"test_{name}_high": metric.high}
    metrics |= {
        "test_events": evaluation.rows["holdout"],
        "test_positive_users": positive_users,
        "cross_validated_auc": evaluation.cross_validated_auc,
        "rounds": evaluation.rounds,
    }
    if not isinstance(evaluation.repeated, str):
        metrics |= _repeated_metrics(evaluation.repeated)
    if evaluation.best_possible_auc is not None:
        metrics["best_possible_test_auc"] = evaluation.best_possible_auc
    return metrics


def _repeated_metrics(repeated: Repeated) -> dict[str, float]:
    """The repeated estimates; those that are not defined are left out, as JSON has no NaN."""
    named = {f"repeated_{name}": metric for name, metric in repeated.metrics.items()}
    for rival, differences in repeated.differences.items():
        named |= {f"repeated_{name}_minus_{rival}": gain for name, gain in differences.items()}
    metrics = {"repeats": repeated.repeats, "repeated_folds": repeated.folds}
    for name, metric in named.items():
        metrics |= {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
