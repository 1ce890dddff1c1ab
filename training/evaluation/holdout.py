"""What the report tells of a fitted model: measured on the holdout, and beside other kinds of models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.data.examples import Examples
from training.evaluation.rule_baseline import RuleBaseline, measure_rule
from training.modeling.base import Calibration, FittedModel, Fitting
from training.modeling.families import FAMILIES
from training.modeling.metrics import (
    METRICS,
    Estimate,
    calibration_table,
    difference,
    estimate,
    gain_table,
    threshold_table,
)
from training.modeling.model_selection import Pruning, TrainingRows, cross_validate, learning_curve, scored
from training.modeling.pipeline import Fit
from training.modeling.settings import Training
from udfs.measurement.labels import Label


@dataclass(frozen=True)
class Evaluation:
    """All that the report tells."""

    model: str  # its kind, of FAMILIES
    label: str
    rows: dict[str, int]
    users: dict[str, int]
    metrics: dict[str, Estimate]  # on the holdout
    best_possible_auc: float | None
    cross_validated_auc: float
    training_auc: float
    compared: dict[str, dict[str, Estimate]]  # metrics of the other kinds of models, on the holdout
    differences: dict[str, dict[str, Estimate]]  # by which the model is better than those
    rule: RuleBaseline | None
    gains: list[dict]
    calibration: list[dict]
    calibration_gain: Estimate | None
    calibrated_by: Calibration
    thresholds: list[dict]
    benefit: float  # of acting on a positive
    cost: float  # of acting
    importance: list[tuple[str, float]]
    pruning: list[Pruning]
    learning_curve: list[dict]
    parameters: dict[str, float]
    rounds: int
    unused: list[str]  # features with one value, or none
    holdout: Examples
    probability: np.ndarray  # float64[holdout rows]
    contributions: np.ndarray  # float[holdout rows, features + 1], in logits; the last one is the base


def evaluate(
    fit: Fit,
    everything: TrainingRows,
    left: Examples,
    matrix: np.ndarray,
    training: Training,
    label: Label,
    best_possible_auc: float | None,
) -> Evaluation:
    """Measure the model on the holdout, which is `matrix` in its columns, and others to compare it with."""
    probability = fit.model.predict(matrix)
    measured = scored(left, probability)
    rivals = {
        name: scored(left, _rival(name, everything, left.names, training).predict(left.features))
        for name in training.compare
    }
    return Evaluation(
        model=training.model,
        label=str(label),
        rows={"training": len(everything.labels), "holdout": len(left)},
        users={"training": len(np.unique(everything.user)), "holdout": len(np.unique(left.user))},
        metrics=estimate(measured),
        best_possible_auc=best_possible_auc,
        cross_validated_auc=fit.cross_validated_auc,
        training_auc=fit.crossed.training_auc,
        compared={name: estimate(rival) for name, rival in rivals.items()},
        differences={name: difference(measured, rival) for name, rival in rivals.items()},
        rule=None if training.rule is None else measure_rule(training.rule, left, measured),
        gains=gain_table(measured),
        calibration=calibration_table(measured),
        calibration_gain=fit.calibration_gain,
        calibrated_by=fit.calibration,
        thresholds=threshold_table(measured, training.benefit, training.cost),
        benefit=training.benefit,
        cost=training.cost,
        importance=sorted(zip(training.names, fit.importance.tolist()), key=lambda entry: -entry[1]),
        pruning=fit.pruning,
        learning_curve=learning_curve(FAMILIES[training.model], fit.data, fit.fitting, training.seed),
        parameters=dict(fit.fitting.parameters),
        rounds=fit.model.rounds,
        unused=_unused(everything.features, left.names),
        holdout=left,
        probability=probability,
        contributions=fit.model.contributions(matrix),
    )


def _rival(name: str, everything: TrainingRows, features: Sequence[str], training: Training) -> FittedModel:
    """A model to compare with: all features, the defaults of its kind, as many rounds as cross-validation says."""
    family = FAMILIES[name]
    fitting = Fitting(
        features, family.defaults, training.rounds, training.patience, seed=training.seed, threads=training.threads
    )
    if family.boosts:
        fitting = replace(fitting, rounds=cross_validate(family, everything, fitting).rounds)
    return family.fit(everything.sample(), fitting)


def _unused(features: np.ndarray, of_all: Sequence[str]) -> list[str]:
    """The features that have one value, or none."""
    names = []
    for column, name in enumerate(of_all):
        values = features[:, column]
        values = values[~np.isnan(values)]
        if not len(values) or values.min() == values.max():
            names.append(name)
    return names


def manifest_metrics(evaluation: Evaluation, buyers: int) -> dict[str, float]:
    """What the manifest tells of it; `buyers` of the holdout have a positive label."""
    metrics = {}
    for name in METRICS:
        found = evaluation.metrics[name]
        metrics |= {f"test_{name}": found.value, f"test_{name}_low": found.low, f"test_{name}_high": found.high}
    metrics |= {
        "test_events": evaluation.rows["holdout"],
        "test_positive_users": buyers,
        "cross_validated_auc": evaluation.cross_validated_auc,
        "rounds": evaluation.rounds,
    }
    if evaluation.best_possible_auc is not None:
        metrics["best_possible_test_auc"] = evaluation.best_possible_auc
    return metrics
