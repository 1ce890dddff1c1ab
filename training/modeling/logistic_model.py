"""Logistic regression: the baseline, and the teacher in distillation."""

import numpy as np
import optuna
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from training.modeling.family import FitRows, Fitting


class LogisticModel:
    rounds = 1

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.pipeline.predict_proba(features)[:, 1]


class LogisticFamily:
    """Logistic regression on features in signed log scale, as most are times, counts and money.

    A missing value is replaced by the feature's median and marked by an indicator.
    """

    name = "logistic"
    boosts = False
    defaults = {"C": 0.01}

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        return {"C": trial.suggest_float("C", 1e-4, 1, log=True)}

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> LogisticModel:
        pipeline = make_pipeline(
            FunctionTransformer(signed_log),
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=fitting.parameters["C"], max_iter=500),
        )
        pipeline.fit(train.features, train.labels, logisticregression__sample_weight=train.weight)
        return LogisticModel(pipeline)


def signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.sign(values) * np.log1p(np.abs(values))
