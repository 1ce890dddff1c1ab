"""XGBoost, fitted to distilled labels."""

import json
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from training.modeling.calibration import EPSILON, Calibration
from training.modeling.distillation import distilled_labels
from training.modeling.family import FitRows, Fitting, information, library_parameters, split_values
from udfs.models.attributions import xgboost_contributions
from udfs.models.bundle import XGBOOST_FILE
from udfs.models.lean_xgboost import xgboost
from udfs.models.xgboost_ubjson import OBJECTIVE

if TYPE_CHECKING:
    import optuna


class XGBoostModel:
    file = XGBOOST_FILE

    def __init__(self, booster: xgboost.Booster):
        self.booster = booster
        self.rounds = booster.num_boosted_rounds()
        self.names = tuple(booster.feature_names)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.booster.inplace_predict(features, missing=np.nan).astype(np.float64)

    def logit(self, features: np.ndarray) -> np.ndarray:
        """The logits float32[n]."""
        return self.booster.inplace_predict(features, missing=np.nan, predict_type="margin")

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return xgboost_contributions(self.booster, features)

    def calibrated(self, calibration: Calibration) -> "XGBoostModel":
        """Return the model with a calibration folded into its trees.

        The margin is the sum of leaves and of the base score's logit: all are scaled, and the base is shifted.
        """
        if calibration == Calibration():
            return self
        content = json.loads(bytes(self.booster.save_raw("json")))
        learner = content["learner"]
        base = float(learner["learner_model_param"]["base_score"].strip("[]"))
        shifted = float(expit(calibration.slope * logit(base) + calibration.shift))
        learner["learner_model_param"]["base_score"] = f"[{shifted:.9E}]"
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
    """Shallow trees with a few features per node.

    A user's events are alike, so the data holds less information than the number of rows suggests. For the same reason
    the trees learn from `distilled_labels`: each label is mixed with the prediction of a logistic regression.
    """

    name = "xgboost"
    boosts = True
    reads_events = False
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

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
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

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> XGBoostModel:
        return train.fitted_once((self.name, fitting.key, eval_rows), lambda: self._fit(train, fitting, eval_rows))

    def _fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None) -> XGBoostModel:
        bins = int(fitting.parameters["max_bin"])
        common = {"missing": np.nan, "nthread": fitting.threads}
        matrix = train.once(
            ("binned", bins),
            lambda: xgboost.QuantileDMatrix(train.features, weight=train.weight, max_bin=bins, **common),
        )
        matrix.set_label(distilled_labels(train, fitting))
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
        if eval_rows is None:
            return _named(xgboost.train(parameters, matrix, fitting.rounds), fitting)
        # Not binned: XGBoost takes several times as long to score binned rows, which it does in every round.
        held_out = eval_rows.once(
            "matrix", lambda: xgboost.DMatrix(eval_rows.features, eval_rows.labels, weight=eval_rows.weight, **common)
        )
        booster = xgboost.train(
            parameters,
            matrix,
            fitting.rounds,
            evals=[(held_out, "held_out")],
            early_stopping_rounds=fitting.patience,
            verbose_eval=False,
        )
        return _named(booster[: booster.best_iteration + 1], fitting)


def _named(booster: xgboost.Booster, fitting: Fitting) -> XGBoostModel:
    """The model with the names of its features. Matrices have none: they would be compared in every round."""
    booster.feature_names = list(fitting.names)
    return XGBoostModel(booster)
