"""Logistic regression: a model to serve, the baseline of the others, and the teacher in distillation."""

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.special import expit

from training.modeling.calibration import Calibration
from training.modeling.family import FitRows, Fitting
from udfs.models.bundle import LOGISTIC_FILE
from udfs.models.regression import Indicator, Regression, RegressionFile, Term, calibrated

if TYPE_CHECKING:
    import optuna
    from sklearn.pipeline import Pipeline

MAX_ITERATIONS = 500


class LogisticModel:
    """A fitted regression. It scores with the code that serves it, and needs nothing of scikit-learn's."""

    file = LOGISTIC_FILE
    rounds = 0  # it does not boost

    def __init__(self, parts: RegressionFile):
        self.parts = parts
        self.names = parts.names
        self._regression = Regression(parts)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._regression.predict(features)

    def logit(self, features: np.ndarray) -> np.ndarray:
        """The logits float64[n]."""
        return self._regression.logit(features)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return self._regression.contributions(features)

    def calibrated(self, calibration: Calibration) -> "LogisticModel":
        """Return the model with a calibration folded into its coefficients."""
        return LogisticModel(calibrated(self.parts, calibration.slope, calibration.shift))

    def content(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.parts), indent=1)

    def splits(self) -> list[np.ndarray]:
        return [np.empty(0, np.float32) for _ in self.names]


class LogisticFamily:
    """Logistic regression on features in signed log scale, as most are times, counts and money.

    A missing value is replaced by the feature's median and marked by an indicator. The coefficient of a monotone
    feature has the sign that the setting asks for, or is 0. What a missing value adds is not constrained.
    """

    name = "logistic"
    boosts = False
    reads_events = False
    defaults = {"C": 0.01}

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
        return {"C": trial.suggest_float("C", 1e-4, 1, log=True)}

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> LogisticModel:
        return train.fitted_once((self.name, fitting.key), lambda: self._fit(train, fitting))

    def _fit(self, train: FitRows, fitting: Fitting) -> LogisticModel:
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler

        preparation = make_pipeline(
            FunctionTransformer(signed_log),
            SimpleImputer(strategy=_median, add_indicator=True, keep_empty_features=True),
            StandardScaler(),
        )
        matrix = preparation.fit_transform(train.features)
        inverse_penalty = fitting.parameters["C"]
        if any(fitting.monotone):
            signs = np.zeros(matrix.shape[1])
            signs[: len(fitting.monotone)] = fitting.monotone  # those of the indicators come after the features
            coefficients, intercept = fit_with_signs(matrix, train.labels, train.weight, inverse_penalty, signs)
        else:
            fitted = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
            fitted.fit(matrix, train.labels, sample_weight=train.weight)
            coefficients, intercept = fitted.coef_[0], fitted.intercept_[0]
        return LogisticModel(_parts(fitting.names, preparation, coefficients, intercept))


def signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    return np.sign(values) * np.log1p(np.abs(values))


def _median(known: np.ndarray) -> float:
    """What scikit-learn's strategy "median" gives, 0 without any value; that one sorts a masked array, which took most
    of the time of a fit."""
    return float(np.median(known)) if len(known) else 0.0


def fit_with_signs(
    matrix: np.ndarray, labels: np.ndarray, weight: np.ndarray, inverse_penalty: float, signs: np.ndarray
) -> tuple[np.ndarray, float]:
    """Coefficients float64[k] and intercept with the least loss of scikit-learn's LogisticRegression, given signs.

    A coefficient must not be below 0 where its sign is 1, nor above 0 where it is -1; at 0 it is free. The loss is
    |coefficients|^2 / 2 + C sum of w log(1 + exp(-y logit)), with y = -1 or 1. It is convex, and so are the bounds:
    L-BFGS-B finds the minimum.
    """
    from scipy.optimize import minimize

    total = inverse_penalty * weight.sum()  # divides the loss, so that the tolerance suits any number of rows

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, intercept = point[:-1], point[-1]
        logit = matrix @ coefficients.astype(matrix.dtype) + intercept
        losses = np.logaddexp(0, np.where(labels, -logit, logit))
        value = coefficients @ coefficients / 2 + inverse_penalty * (weight @ losses)
        residual = inverse_penalty * weight * (expit(logit) - labels)
        slope = residual.astype(matrix.dtype) @ matrix + coefficients
        return value / total, np.append(slope, residual.sum()).astype(np.float64) / total

    bounds = [(0 if sign > 0 else None, 0 if sign < 0 else None) for sign in (*signs, 0)]
    start = np.zeros(len(bounds))
    options = {"maxiter": MAX_ITERATIONS, "gtol": 1e-6, "ftol": 64 * np.finfo(float).eps}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found[:-1], float(found[-1])


def _parts(names: list[str], preparation: "Pipeline", coefficients: np.ndarray, intercept: float) -> RegressionFile:
    """What a bundle's file has of a fitted regression. The columns are the features, then some of their indicators."""
    _, imputer, scaler = (step for _, step in preparation.steps)
    columns = [
        (float(mean), float(scale), float(coefficient))
        for mean, scale, coefficient in zip(scaler.mean_, scaler.scale_, coefficients, strict=True)
    ]
    marked = imputer.indicator_.features_.tolist()
    marks = {feature: Indicator(*column) for feature, column in zip(marked, columns[len(names) :], strict=True)}
    terms = [
        Term(name, float(median), *column, missing=marks.get(number))
        for number, (name, median, column) in enumerate(zip(names, imputer.statistics_, columns))
    ]
    return RegressionFile(format=1, transform="signed_log", intercept=float(intercept), features=tuple(terms))
