"""The kinds of models, behind one interface: XGBoost, which serves; LightGBM; and logistic regression, the baseline.

`fit` takes rows with weights, and where given other rows to stop early by. Equal arguments give equal models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import lightgbm
import numpy as np
import optuna
import xgboost
from scipy.special import expit, logit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from udfs.model import OBJECTIVE

EPSILON = 1e-7
TEACHER_ROWS = 200_000
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


class Model(Protocol):
    """A fitted model."""

    rounds: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities float64[n]."""


class Family(Protocol):
    """A kind of model."""

    name: str
    boosts: bool  # in rounds, of which there can be too many
    defaults: Mapping[str, float]

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        """Parameters to try: the bounds of the search."""

    def fit(self, train: Sample, fitting: Fitting, stop_by: Sample | None = None) -> Model: ...


def _information(train: Sample) -> float:
    """The sum of w p (1 - p), which a leaf's minimum is a share of: so it fits little data as well as much."""
    rate = np.average(train.labels, weights=train.weight)
    return float(train.weight.sum() * rate * (1 - rate))


def _of_the_library(parameters: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in parameters.items() if name not in _NOT_OF_THE_LIBRARY}


class XGBoostModel:
    def __init__(self, booster: xgboost.Booster):
        self.booster = booster
        self.rounds = booster.num_boosted_rounds()

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(features, missing=np.nan).astype(np.float64)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """What each feature adds to the logit, float32[n, k + 1], the base last: Shapley values of the trees.

        Lundberg and others, From local explanations to global understanding with explainable AI for trees, 2020.
        """
        matrix = xgboost.DMatrix(features, feature_names=self.booster.feature_names, missing=np.nan)
        return self.booster.predict(matrix, pred_contribs=True)


class XGBoostFamily:
    """Shallow trees that each see a few features: events of a user are much alike, so there is less to learn from than
    the number of rows says.

    For the same reason a share of each label is what logistic regression makes of it, `taught_labels`.
    """

    name = "xgboost"
    boosts = True
    defaults = {
        "max_depth": 3,
        "learning_rate": 0.05,
        "min_child_share": 0.012,
        "subsample": 0.8,
        "colsample_bynode": 0.15,
        "reg_lambda": 20.0,
        "max_bin": 128,
        "teacher_share": 0.6,
    }

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        return {
            "max_depth": trial.suggest_int("max_depth", 2, 6),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
            "min_child_share": trial.suggest_float("min_child_share", 0.0005, 0.1, log=True),
            "subsample": trial.suggest_float("subsample", 0.4, 0.9),
            "colsample_bynode": trial.suggest_float("colsample_bynode", 0.05, 0.5, log=True),
            "reg_lambda": trial.suggest_float("reg_lambda", 1, 100, log=True),
            "max_bin": trial.suggest_categorical("max_bin", [16, 64, 128, 256]),
            "teacher_share": trial.suggest_float("teacher_share", 0.0, 0.9),
        }

    def fit(self, train: Sample, fitting: Fitting, stop_by: Sample | None = None) -> XGBoostModel:
        names, bins = list(fitting.names), int(fitting.parameters["max_bin"])
        common = {"feature_names": names, "missing": np.nan, "nthread": fitting.threads, "max_bin": bins}
        labels = taught_labels(train, fitting)
        matrix = xgboost.QuantileDMatrix(train.features, labels, weight=train.weight, **common)
        parameters = {
            **_of_the_library(fitting.parameters),
            "min_child_weight": fitting.parameters["min_child_share"] * _information(train),
            "objective": OBJECTIVE,
            "eval_metric": "logloss",
            "tree_method": "hist",
            "base_score": float(np.clip(np.average(train.labels, weights=train.weight), EPSILON, 1 - EPSILON)),
            "seed": fitting.seed,
            "nthread": fitting.threads,
        }
        if any(fitting.monotone):
            parameters["monotone_constraints"] = tuple(fitting.monotone)
        if stop_by is None:
            return XGBoostModel(xgboost.train(parameters, matrix, fitting.rounds))
        held_out = xgboost.QuantileDMatrix(
            stop_by.features, stop_by.labels, weight=stop_by.weight, ref=matrix, **common
        )
        booster = xgboost.train(
            parameters,
            matrix,
            fitting.rounds,
            evals=[(held_out, "held_out")],
            early_stopping_rounds=fitting.patience,
            verbose_eval=False,
        )
        return XGBoostModel(booster[: booster.best_iteration + 1])


class LightGBMModel:
    def __init__(self, booster: lightgbm.Booster, threads: int):
        self.booster = booster
        self.rounds = booster.current_iteration()
        self._threads = threads

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.booster.predict(features, num_threads=self._threads)


class LightGBMFamily:
    name = "lightgbm"
    boosts = True
    defaults = {
        "num_leaves": 8,
        "learning_rate": 0.05,
        "min_child_share": 0.012,
        "bagging_fraction": 0.8,
        "feature_fraction_bynode": 0.15,
        "lambda_l2": 20.0,
    }

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        return {
            "num_leaves": trial.suggest_int("num_leaves", 4, 64, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
            "min_child_share": trial.suggest_float("min_child_share", 0.0005, 0.1, log=True),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 0.9),
            "feature_fraction_bynode": trial.suggest_float("feature_fraction_bynode", 0.05, 0.5, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1, 100, log=True),
        }

    def fit(self, train: Sample, fitting: Fitting, stop_by: Sample | None = None) -> LightGBMModel:
        parameters = {
            **_of_the_library(fitting.parameters),
            "min_sum_hessian_in_leaf": fitting.parameters["min_child_share"] * _information(train),
            "objective": "binary",
            "metric": "binary_logloss",
            "bagging_freq": 1,
            "seed": fitting.seed,
            "num_threads": fitting.threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        if any(fitting.monotone):
            parameters["monotone_constraints"] = list(fitting.monotone)
        data = lightgbm.Dataset(train.features, train.labels, weight=train.weight, feature_name=list(fitting.names))
        if stop_by is None:
            return LightGBMModel(lightgbm.train(parameters, data, fitting.rounds), fitting.threads)
        held_out = data.create_valid(stop_by.features, stop_by.labels, weight=stop_by.weight)
        booster = lightgbm.train(
            parameters,
            data,
            fitting.rounds,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(fitting.patience, verbose=False)],
        )
        best = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
        return LightGBMModel(best, fitting.threads)


class LogisticModel:
    rounds = 1

    def __init__(self, pipeline: Pipeline):
        self.pipeline = pipeline

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.pipeline.predict_proba(features)[:, 1]


class LogisticFamily:
    """Features on a signed log scale, as most are times, counts and money; a missing one is its median, and a flag."""

    name = "logistic"
    boosts = False
    defaults = {"C": 0.01}

    def suggest(self, trial: optuna.Trial) -> dict[str, float]:
        return {"C": trial.suggest_float("C", 1e-4, 1, log=True)}

    def fit(self, train: Sample, fitting: Fitting, stop_by: Sample | None = None) -> LogisticModel:
        pipeline = make_pipeline(
            FunctionTransformer(signed_log),
            SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=fitting.parameters["C"], max_iter=500),
        )
        pipeline.fit(train.features, train.labels, logisticregression__sample_weight=train.weight)
        return LogisticModel(pipeline)


def taught_labels(train: Sample, fitting: Fitting) -> np.ndarray:
    """(1 - s) y + s p float[n]: y the labels, p what logistic regression says of the rows, s the `teacher_share`.

    Trees overfit few users sooner than a line does; p is free of the labels' noise, and y lets them go beyond the line
    (Hinton and others, Distilling the knowledge in a neural network, 2015). The teacher is not served.
    """
    share = fitting.parameters["teacher_share"]
    if not share:
        return train.labels
    some = train
    if len(train.labels) > TEACHER_ROWS:
        rows = np.random.default_rng(fitting.seed).choice(len(train.labels), TEACHER_ROWS, replace=False)
        some = Sample(train.features[rows], train.labels[rows], train.weight[rows])
    if some.labels.all() or not some.labels.any():
        return train.labels
    family = LogisticFamily()
    teacher = family.fit(some, replace(fitting, parameters=family.defaults))
    return (1 - share) * train.labels + share * teacher.predict(train.features)


def signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.sign(values) * np.log1p(np.abs(values))


FAMILIES: dict[str, Family] = {
    family.name: family for family in (XGBoostFamily(), LightGBMFamily(), LogisticFamily())
}  # fmt: skip


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


def fold_in(booster: xgboost.Booster, calibration: Calibration) -> xgboost.Booster:
    """The booster whose own probabilities are the calibrated ones, so that serving need not know of calibration.

    The margin is the sum of the leaves and of the base score's logit: all are scaled, and the base is shifted.
    """
    if calibration == Calibration():
        return booster
    content = json.loads(bytes(booster.save_raw("json")))
    learner = content["learner"]
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    moved = float(expit(calibration.slope * logit(base) + calibration.shift))
    learner["learner_model_param"]["base_score"] = f"[{moved:.9E}]"
    for tree in learner["gradient_booster"]["model"]["trees"]:
        for node, child in enumerate(tree["left_children"]):
            if child == -1:
                tree["split_conditions"][node] *= calibration.slope
                tree["base_weights"][node] *= calibration.slope
    calibrated = xgboost.Booster()
    calibrated.load_model(bytearray(json.dumps(content).encode()))
    return calibrated
