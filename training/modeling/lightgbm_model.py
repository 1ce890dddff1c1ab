"""LightGBM with float32 thresholds, so that its export can be exact."""

import re
from typing import TYPE_CHECKING

import numpy as np

from training.modeling.calibration import Calibration
from training.modeling.family import FitRows, Fitting, information, library_parameters, split_values
from udfs.models.attributions import lightgbm_contributions
from udfs.models.bundle import LIGHTGBM_FILE

if TYPE_CHECKING:
    import lightgbm
    import optuna

_ZERO = np.float32(1e-35)  # LightGBM's kZeroThreshold


class LightGBMModel:
    file = LIGHTGBM_FILE

    def __init__(self, booster: "lightgbm.Booster", threads: int):
        self.booster = booster
        self.rounds = booster.num_trees()
        self.names = tuple(booster.feature_name())
        self._threads = threads

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.booster.predict(features, num_threads=self._threads)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return lightgbm_contributions(self.booster, features, self._threads)

    def calibrated(self, calibration: Calibration) -> "LightGBMModel":
        """Return the model with a calibration folded into its trees.

        The margin is the sum of the leaves: all are scaled, and those of the first tree are shifted too.
        """
        if calibration == Calibration():
            return self
        import lightgbm

        booster = lightgbm.Booster(model_str=self.booster.model_to_string())
        for number, tree in enumerate(booster.dump_model()["tree_info"]):
            for leaf in range(tree["num_leaves"]):
                scaled = calibration.slope * booster.get_leaf_output(number, leaf)
                booster.set_leaf_output(number, leaf, scaled + (calibration.shift if number == 0 else 0.0))
        return LightGBMModel(booster, self._threads)

    def content(self) -> bytes:
        return self.booster.model_to_string().encode()

    def splits(self) -> list[np.ndarray]:
        table = self.booster.trees_to_dataframe()
        return split_values(table[table["left_child"].notna()], "split_feature", "threshold", self.names)


class LightGBMFamily:
    """Small trees with a few features per node, as in `XGBoostFamily`, but fitted to the labels themselves."""

    name = "lightgbm"
    boosts = True
    reads_events = False
    defaults = {
        "num_leaves": 8,
        "learning_rate": 0.05,
        "min_child_share": 0.012,
        "bagging_fraction": 0.8,
        "feature_fraction_bynode": 0.15,
        "lambda_l2": 20.0,
    }

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
        return {
            "num_leaves": trial.suggest_int("num_leaves", 4, 64, log=True),
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
            "min_child_share": trial.suggest_float("min_child_share", 0.0005, 0.1, log=True),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.4, 0.9),
            "feature_fraction_bynode": trial.suggest_float("feature_fraction_bynode", 0.05, 0.5, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1, 100, log=True),
        }

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> LightGBMModel:
        return train.fitted_once((self.name, fitting.key, eval_rows), lambda: self._fit(train, fitting, eval_rows))

    def _fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None) -> LightGBMModel:
        import lightgbm

        parameters = {
            **library_parameters(fitting.parameters),
            "min_sum_hessian_in_leaf": fitting.parameters["min_child_share"] * information(train),
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
        if eval_rows is None:
            return LightGBMModel(exact_in_float32(lightgbm.train(parameters, data, fitting.rounds)), fitting.threads)
        held_out = data.create_valid(eval_rows.features, eval_rows.labels, weight=eval_rows.weight)
        booster = lightgbm.train(
            parameters,
            data,
            fitting.rounds,
            valid_sets=[held_out],
            callbacks=[lightgbm.early_stopping(fitting.patience, verbose=False)],
        )
        return LightGBMModel(exact_in_float32(booster), fitting.threads)


def float32_threshold(threshold: float) -> np.float32:
    """The float32 t for which x <= t holds for the same float32 x for which LightGBM goes left at a threshold.

    That is the largest float32 that is not above the threshold; but LightGBM takes values from -_ZERO to _ZERO for 0.
    """
    if abs(threshold) <= float(_ZERO):
        return _ZERO if threshold >= 0 else np.nextafter(-_ZERO, np.float32(-np.inf))
    limits = np.finfo(np.float32)
    nearest = np.float32(np.clip(threshold, limits.min, limits.max))
    if float(nearest) <= threshold:  # as float64: NumPy compares a float32 with a Python number as float32
        return nearest
    with np.errstate(over="ignore"):
        return np.nextafter(nearest, np.float32(-np.inf))


def exact_in_float32(booster: "lightgbm.Booster") -> "lightgbm.Booster":
    """The booster up to its best iteration, with float32 thresholds and the same predictions for float32 rows.

    LightGBM's own thresholds are float64; an export has the nearest float32, which may be above or below.
    """

    import lightgbm

    def rounded(match: re.Match) -> str:
        return "threshold=" + " ".join(repr(float(float32_threshold(float(value)))) for value in match[1].split())

    text = booster.model_to_string(num_iteration=booster.best_iteration)
    text = re.sub("^threshold=(.*)$", rounded, text, flags=re.MULTILINE)
    # The sizes in bytes have changed; without them, LightGBM searches for the start of each tree.
    return lightgbm.Booster(model_str=re.sub("^tree_sizes=.*\n", "", text, flags=re.MULTILINE))
