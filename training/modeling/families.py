"""The kinds of models: XGBoost and LightGBM, of which one serves, and logistic regression, the baseline."""

import json
from dataclasses import replace

import numpy as np
import optuna
import xgboost
from scipy.special import expit, logit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from training.modeling.base import (
    EPSILON,
    Calibration,
    Family,
    Fitting,
    Sample,
    information,
    library_parameters,
    split_values,
)
from training.modeling.lightgbm_model import LightGBMFamily
from udfs.models.attributions import xgboost_contributions
from udfs.models.bundle import MODEL_FILE, OBJECTIVE

TEACHER_ROWS = 200_000


class XGBoostModel:
    file = MODEL_FILE

    def __init__(self, booster: xgboost.Booster):
        self.booster = booster
        self.rounds = booster.num_boosted_rounds()
        self.names = tuple(booster.feature_names)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(features, missing=np.nan).astype(np.float64)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return xgboost_contributions(self.booster, features)

    def calibrated(self, calibration: Calibration) -> "XGBoostModel":
        """The margin is the sum of leaves and of the base score's logit: all are scaled, and the base is shifted."""
        if calibration == Calibration():
            return self
        content = json.loads(bytes(self.booster.save_raw("json")))
        learner = content["learner"]
        base = float(learner["learner_model_param"]["base_score"].strip("[]"))
        moved = float(expit(calibration.slope * logit(base) + calibration.shift))
        learner["learner_model_param"]["base_score"] = f"[{moved:.9E}]"
        for tree in learner["gradient_booster"]["model"]["trees"]:
            for node, child in enumerate(tree["left_children"]):
                if child == -1:
                    tree["split_conditions"][node] *= calibration.slope
                    tree["base_weights"][node] *= calibration.slope
        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(content).encode()))
        return XGBoostModel(booster)

    def content(self) -> bytes:
        return bytes(self.booster.save_raw("ubj"))

    def splits(self) -> list[np.ndarray]:
        table = self.booster.trees_to_dataframe()
        return split_values(table[table["Feature"] != "Leaf"], "Feature", "Split", self.names)


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
            **library_parameters(fitting.parameters),
            "min_child_weight": fitting.parameters["min_child_share"] * information(train),
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
