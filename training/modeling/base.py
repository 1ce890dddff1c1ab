"""What a kind of model is: how it is fitted, and what a fitted one can be asked.

`fit` takes rows with weights, and where given other rows to stop early by. Equal arguments give equal models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import optuna
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

EPSILON = 1e-7
_NOT_OF_THE_LIBRARY = ("min_child_share", "teacher_share")


@dataclass(frozen=True)
class Sample:
    """n rows to fit: features float32[n, k] with NaN for missing, labels bool[n], weight float[n]."""

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray


@dataclass(frozen=True)
class Fitting:
    """What fitting needs beside the rows. `monotone` says per feature 1 (up), -1 (down) or 0."""

    names: Sequence[str]
    parameters: Mapping[str, float]
    rounds: int = 400  # of boosting, at most
    patience: int = 40  # rounds without gain before it stops
    monotone: Sequence[int] = ()
    seed: int = 1
    threads: int = 2


@dataclass(frozen=True)
class Calibration:
    """logit(p') = slope logit(p) + shift (Platt, Probabilistic outputs for support vector machines, 1999)."""

    slope: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        return expit(self.slope * logit(np.clip(probability, EPSILON, 1 - EPSILON)) + self.shift)


def fit_calibration(probability: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Calibration:
    """The calibration with the least log loss on held-out probabilities; never one that turns the order around."""
    position = logit(np.clip(probability, EPSILON, 1 - EPSILON)).reshape(-1, 1)
    fitted = LogisticRegression(C=np.inf).fit(position, labels, sample_weight=weight)
    slope, shift = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Calibration(slope, shift) if slope > 0 else Calibration()


class FittedModel(Protocol):
    """A fitted model."""

    rounds: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities float64[n]."""


class ServedModel(FittedModel, Protocol):
    """A fitted model that a bundle can have."""

    file: str  # what it is called there, of MODEL_FILES
    names: tuple[str, ...]  # of its k features

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """What each feature adds to the logit, float[n, k + 1], the base last (udfs/models/attributions.py)."""

    def calibrated(self, calibration: Calibration) -> "ServedModel":
        """The model whose own probabilities are the calibrated ones, so that serving need not know of calibration."""

    def content(self) -> bytes:
        """The file."""

    def splits(self) -> list[np.ndarray]:
        """For each feature the values that it is split at, float32, each once."""


class Family(Protocol):
    """A kind of model."""

    name: str
    boosts: bool  # in rounds, of which there can be too many
    defaults: Mapping[str, float]

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        """Parameters to try: the bounds of the search."""

    def fit(self, train: Sample, fitting: Fitting, stop_by: Sample | None = None) -> FittedModel: ...


def information(train: Sample) -> float:
    """The sum of w p (1 - p), which a leaf's minimum is a share of: so it fits little data as well as much."""
    rate = np.average(train.labels, weights=train.weight)
    return float(train.weight.sum() * rate * (1 - rate))


def library_parameters(parameters: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in parameters.items() if name not in _NOT_OF_THE_LIBRARY}


def split_values(nodes: pd.DataFrame, feature: str, split: str, names: Sequence[str]) -> list[np.ndarray]:
    """Out of a table of nodes, whose columns are named, what `ServedModel.splits` gives."""
    by_feature = dict(list(nodes.groupby(feature)[split]))
    return [np.unique(by_feature.get(name, ())).astype(np.float32) for name in names]
