"""Distillation: trees learn from labels that are mixed with the predictions of a logistic regression."""

from dataclasses import replace

import numpy as np

from training.modeling.family import FitRows, Fitting
from training.modeling.logistic_model import LogisticFamily

TEACHER_ROWS = 200_000


def distilled_labels(train: FitRows, fitting: Fitting) -> np.ndarray:
    """(1 - s) y + s p, float[n], of the labels y, the teacher's predictions p and the `teacher_share` s.

    The teacher is a logistic regression. Trees overfit few users sooner than a linear model does; p is free of the
    labels' noise, and y lets the trees go beyond the linear model (Hinton and others, Distilling the knowledge in a
    neural network, 2015). The teacher is not served.
    """
    share = fitting.parameters["teacher_share"]
    if not share:
        return train.labels
    subset = train
    if len(train.labels) > TEACHER_ROWS:
        rows = np.random.default_rng(fitting.seed).choice(len(train.labels), TEACHER_ROWS, replace=False)
        subset = FitRows(train.features[rows], train.labels[rows], train.weight[rows], train.cost)
    if subset.labels.all() or not subset.labels.any():
        return train.labels
    family = LogisticFamily()
    teacher = family.fit(subset, replace(fitting, parameters=family.defaults))
    return (1 - share) * train.labels + share * teacher.predict(train.features)
