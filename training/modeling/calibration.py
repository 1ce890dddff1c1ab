"""Calibration of probabilities."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

EPSILON = 1e-7


@dataclass(frozen=True)
class Calibration:
    """logit(p') = slope logit(p) + shift (Platt, Probabilistic outputs for support vector machines, 1999)."""

    slope: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        return expit(self.slope * logit(np.clip(probability, EPSILON, 1 - EPSILON)) + self.shift)


def fit_calibration(probability: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Calibration:
    """Fit the calibration with the least log loss on held-out probabilities; never one that reverses their order."""
    from sklearn.linear_model import LogisticRegression

    position = logit(np.clip(probability, EPSILON, 1 - EPSILON)).reshape(-1, 1)
    fitted = LogisticRegression(C=np.inf).fit(position, labels, sample_weight=weight)
    slope, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Calibration(slope, shift) if slope > 0 else Calibration()
