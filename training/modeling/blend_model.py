"""A blend: the weighted mean of the logits of XGBoost and logistic regression.

Their mistakes differ: the regression varies less with the users that it is fitted to, and trees find what is not
additive. A mean of logits stays a sum of what the features add, so it is explained as its parts are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.special import expit

from training.modeling.calibration import Calibration
from training.modeling.family import FitRows, Fitting, ModelFamily
from training.modeling.logistic_model import LogisticFamily, LogisticModel
from training.modeling.xgboost_model import XGBoostFamily, XGBoostModel
from udfs.models.blend import BlendFile, weighted_mean
from udfs.models.bundle import BLEND_FILE

if TYPE_CHECKING:
    import optuna


class BlendModel:
    file = BLEND_FILE

    def __init__(self, trees: XGBoostModel, regression: LogisticModel, trees_weight: float):
        self.trees, self.regression, self.trees_weight = trees, regression, trees_weight
        self.rounds = trees.rounds
        self.names = trees.names

    def predict(self, features: np.ndarray) -> np.ndarray:
        logits = self.trees.logit(features), self.regression.logit(features)
        return expit(weighted_mean(self.trees_weight, *logits))

    def contributions(self, features: np.ndarray) -> np.ndarray:
        parts = self.trees.contributions(features), self.regression.contributions(features)
        return weighted_mean(self.trees_weight, *parts)

    def calibrated(self, calibration: Calibration) -> "BlendModel":
        """Return the model with a calibration folded into both parts, which scales their mean as it scales them."""
        return BlendModel(
            self.trees.calibrated(calibration), self.regression.calibrated(calibration), self.trees_weight
        )

    def content(self) -> bytes:
        parts = BlendFile(
            format=1, trees_weight=self.trees_weight, regression=self.regression.parts, trees=self.trees.content()
        )
        return msgspec.json.format(msgspec.json.encode(parts), indent=1)

    def splits(self) -> list[np.ndarray]:
        return self.trees.splits()


class BlendFamily:
    """XGBoost and logistic regression with the parameters of each, and `trees_weight`, from 0 to 1.

    The trees stop early by their own loss.
    """

    name = "blend"
    boosts = True
    reads_events = False
    defaults: Mapping[str, float] = {**XGBoostFamily.defaults, **LogisticFamily.defaults, "trees_weight": 0.5}

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
        return {
            **XGBoostFamily().suggest(trial),
            **LogisticFamily().suggest(trial),
            "trees_weight": trial.suggest_float("trees_weight", 0.0, 1.0),
        }

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> BlendModel:
        trees, regression = (
            family.fit(train, _of(family, fitting), eval_rows) for family in (XGBoostFamily(), LogisticFamily())
        )
        return BlendModel(trees, regression, fitting.parameters["trees_weight"])


def _of(family: ModelFamily, fitting: Fitting) -> Fitting:
    """The fitting with the parameters that a family knows."""
    return replace(fitting, parameters={name: fitting.parameters[name] for name in family.defaults})
