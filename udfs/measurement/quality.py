"""Quality measures of predicted probabilities, for a window of labelled scores."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

Measure = Callable[[np.ndarray, np.ndarray], float | None]


def roc_auc(score: np.ndarray, label: np.ndarray) -> float | None:
    """The area under the ROC curve; None where all labels are alike.

    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    return _at_most_1(roc_auc_score(label, score)) if _has_both(label) else None


def average_precision(score: np.ndarray, label: np.ndarray) -> float | None:
    """The mean of the precisions at each positive, from the highest score down; None where all labels are alike."""
    return _at_most_1(average_precision_score(label, score)) if _has_both(label) else None


def log_losses(score: np.ndarray, label: np.ndarray) -> float:
    """The mean logarithmic loss, in nats; the logarithm of 0 is that of the smallest positive double."""
    return float(log_loss(label, score, labels=[False, True]))


def mean_score(score: np.ndarray, _label: np.ndarray) -> float:
    """The mean score, which equals the positive rate if the scores are calibrated."""
    return float(score.mean())


def positive_rate(_score: np.ndarray, label: np.ndarray) -> float:
    """The share of positive labels."""
    return float(label.mean())


def scores(_score: np.ndarray, label: np.ndarray) -> int:
    """The number of scores."""
    return len(label)


#: By the names of the columns of topic `model_quality`.
MEASURES: dict[str, Measure] = {
    "scores": scores,
    "roc_auc": roc_auc,
    "average_precision": average_precision,
    "log_loss": log_losses,
    "mean_score": mean_score,
    "positive_rate": positive_rate,
}


def _at_most_1(measure: float) -> float:
    """Clamp to the 1 that the contract of model_quality allows: scikit-learn's sums of shares may round above it."""
    return min(float(measure), 1.0)


def _has_both(label: np.ndarray) -> bool:
    return bool(label.any()) and not label.all()
