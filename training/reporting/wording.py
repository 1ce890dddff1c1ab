"""Figures and lists as text, for report and model card."""

from math import isfinite

from training.modeling.metrics import Estimate
from training.reporting.recommendation import ComparisonOutcome

OUTCOMES = {
    ComparisonOutcome.WORSE: "clearly worse",
    ComparisonOutcome.INCONCLUSIVE: "no clear difference",
    ComparisonOutcome.SAME: "the same kind of model",
    ComparisonOutcome.BETTER: "clearly better",
}

#: What each metric is called, and what it means.
MEANINGS = {
    "roc_auc": ("ROC-AUC", "how often a positive outranks a negative; 0.5 is chance, 1 is perfect"),
    "average_precision": (
        "Average precision",
        "precision over all thresholds; the positive rate is chance, 1 is perfect",
    ),
    "log_loss": ("Log loss", "error of the probabilities; lower is better"),
    "brier": ("Brier score", "mean squared error of the probabilities; lower is better"),
    "positive_rate": ("Positive rate", "share of events with a positive label"),
    "mean_probability": ("Mean score", "should be close to the positive rate"),
}


def number_text(value: float, digits: int = 3, sign: str = "") -> str:
    """A rounded figure; zero has no minus.

    >>> number_text(0.1234), number_text(-0.0001, 1), number_text(0.5, 2, "+"), number_text(float("nan"))
    ('0.123', '0.0', '+0.50', '–')
    """
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}" if isfinite(value) else "–"


def estimate_text(estimate: Estimate, digits: int = 3, sign: str = "") -> str:
    """A figure, and its interval if it has one.

    >>> estimate_text(Estimate(0.5, 0.4, 0.6), 2)
    '0.50 (0.40 to 0.60)'
    """
    value = number_text(estimate.value, digits, sign)
    return f"{value} ({interval_text(estimate, digits, sign)})" if isfinite(estimate.low) else value


def interval_text(estimate: Estimate, digits: int = 3, sign: str = "") -> str:
    """The interval of a figure; empty if it has none."""
    if not isfinite(estimate.low):
        return ""
    return f"{number_text(estimate.low, digits, sign)} to {number_text(estimate.high, digits, sign)}"
