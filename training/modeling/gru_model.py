"""A GRU over the codes of a user's last events: a sequence model as a challenger of the trees.

PyTorch trains it and is needed for nothing else: training/modeling/gru_fitting.py, imported when a model is fitted.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from training.modeling.calibration import Calibration
from training.modeling.family import FitRows, Fitting
from udfs.models.bundle import GRU_FILE
from udfs.models.gru import Gru, GruFile

if TYPE_CHECKING:
    import optuna

#: What installs PyTorch, in the versions of the extra `sequence` in setup.py.
INSTALL = "pip install 'torch>=2.4,<3'"


def is_torch_installed() -> bool:
    return find_spec("torch") is not None


class GruModel:
    """A fitted GRU. It scores with the code that checks it when it serves, and needs nothing of PyTorch."""

    file = GRU_FILE

    def __init__(self, parts: GruFile, names: tuple[str, ...], rounds: int):
        self.parts, self.names, self.rounds = parts, names, rounds
        self._gru = Gru(parts)

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self._gru.predict(features)

    def contributions(self, features: np.ndarray) -> np.ndarray:
        return self._gru.contributions(features)

    def calibrated(self, calibration: Calibration) -> "GruModel":
        """Return the model with a calibration folded into its output weights."""
        weights = calibration.slope * self.parts.weights("output_weights").astype(np.float64)
        parts = msgspec.structs.replace(
            self.parts,
            output_weights=weights.astype("<f4").tobytes(),
            output_bias=calibration.slope * self.parts.output_bias + calibration.shift,
        )
        return GruModel(parts, self.names, self.rounds)

    def content(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.parts), indent=1)

    def splits(self) -> list[np.ndarray]:
        return [np.empty(0, np.float32) for _ in self.names]


class GruFamily:
    """A GRU with embeddings of `width` numbers and a state of `hidden` ones.

    A round is some thousand rows (training/modeling/gru_fitting.py). It does not keep to `monotone`, whose features it
    does not have.
    """

    name = "gru"
    boosts = True
    reads_events = True
    defaults = {"width": 16, "hidden": 24, "learning_rate": 0.003, "dropout": 0.2}

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
        return {
            "width": trial.suggest_int("width", 8, 32, step=8),
            "hidden": trial.suggest_int("hidden", 8, 48, step=8),
            "learning_rate": trial.suggest_float("learning_rate", 5e-4, 2e-2, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> GruModel:
        from training.modeling.gru_fitting import fit_gru  # loading PyTorch takes seconds, and it is an extra

        def fit() -> GruModel:
            parts, rounds = fit_gru(train, fitting, eval_rows)
            return GruModel(parts, tuple(fitting.names), rounds)

        return train.fitted_once((self.name, fitting.key, eval_rows), fit)
