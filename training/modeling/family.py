"""The interfaces of model families and fitted models.

`ModelFamily.fit` takes rows with weights and, optionally, other rows for early stopping. Equal arguments give equal
models.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import pandas as pd

from training.modeling.calibration import Calibration
from udfs.features.declaration import Declaration

if TYPE_CHECKING:
    import optuna

#: Parameters of this project, which the libraries do not know.
_OWN_PARAMETERS = ("min_child_share", "teacher_share")


_Fitted = TypeVar("_Fitted")


@dataclass
class Cost:
    """What a step of the training cost: trees and regressions fitted, and the rows that each was fitted to, added up.

    A blend is two models, and trees with a teacher take a regression too. What models have in common counts once.
    """

    models: int = 0
    rows: int = 0

    def add(self, other: "Cost") -> None:
        self.models += other.models
        self.rows += other.rows


@dataclass(frozen=True, eq=False)
class FitRows:
    """n rows to fit: features float32[n, k] with NaN for missing, labels bool[n], weight float[n].

    Families have parts in common: a blend's trees and regression are candidates themselves, and its regression may be
    the teacher of the trees. `once` and `fitted_once` make each part once for the same rows. Models add to `cost`.
    """

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    cost: Cost = field(default_factory=Cost)
    _made: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: Hashable, make: Callable[[], _Fitted]) -> _Fitted:
        """What `make` returned when it was first called for an equal key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def fitted_once(self, key: Hashable, fit: Callable[[], _Fitted]) -> _Fitted:
        """As `once`, for a model that is fitted to the rows."""

        def counted() -> _Fitted:
            self.cost.add(Cost(1, len(self.labels)))
            return fit()

        return self.once(key, counted)


@dataclass(frozen=True)
class Fitting:
    """The arguments of a fit other than the rows. `monotone` has 1 (up), -1 (down) or 0 per feature."""

    names: Sequence[str]
    parameters: Mapping[str, float]
    rounds: int = 400  # maximum number of boosting rounds
    patience: int = 40  # rounds without gain before early stopping
    monotone: Sequence[int] = ()
    seed: int = 1
    threads: int = 2

    @property
    def key(self) -> Hashable:
        """Equal for equal arguments."""
        parts = tuple(sorted(self.parameters.items())), tuple(self.names), tuple(self.monotone)
        return (*parts, self.rounds, self.patience, self.seed, self.threads)


class FittedModel(Protocol):
    """A fitted model."""

    rounds: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities float64[n]."""


class ServedModel(FittedModel, Protocol):
    """A fitted model that a bundle can contain."""

    file: str  # its file name in the bundle, one of MODEL_FILES
    names: tuple[str, ...]  # of its k features

    def contributions(self, features: np.ndarray) -> np.ndarray:
        """Contributions of the features to the logit, float[n, k + 1], the base last (udfs/models/attributions.py)."""

    def calibrated(self, calibration: Calibration) -> "ServedModel":
        """Return a model whose own probabilities are calibrated, so that serving needs no calibration step."""

    def content(self) -> bytes:
        """The content of the model's file."""

    def splits(self) -> list[np.ndarray]:
        """The distinct split values of each feature, float32."""


class ModelFamily(Protocol):
    """A kind of model, such as XGBoost."""

    name: str
    boosts: bool  # fits in rounds, whose number early stopping chooses
    reads_events: bool  # whether its features are the codes of events; if not, it takes all others
    defaults: Mapping[str, float]

    def suggest(self, trial: "optuna.Trial") -> dict[str, float]:
        """Suggest parameters for a trial, within the bounds of the search."""

    def fit(self, train: FitRows, fitting: Fitting, eval_rows: FitRows | None = None) -> FittedModel:
        """Fit a model; with `eval_rows`, stop early by the loss on them."""


def columns_for(family: ModelFamily, names: Sequence[str], declaration: Declaration) -> list[int]:
    """The columns of named features that a family takes: of those declared, codes of events or all others.

    Rows may have more features than are declared: those of a champion that a training is compared with.
    """
    return [
        column
        for column, name in enumerate(names)
        if name in declaration and declaration[name].is_event_code == family.reads_events
    ]


def information(train: FitRows) -> float:
    """The sum of w p (1 - p). The minimum of a leaf is a share of it, so that it suits data of any size."""
    rate = np.average(train.labels, weights=train.weight)
    return float(train.weight.sum() * rate * (1 - rate))


def library_parameters(parameters: Mapping[str, float]) -> dict[str, float]:
    """The parameters that the library knows. Whole numbers are integers: it refuses a `max_depth` of 4.0."""
    return {
        name: int(value) if float(value).is_integer() else value
        for name, value in parameters.items()
        if name not in _OWN_PARAMETERS
    }


def split_values(nodes: pd.DataFrame, feature: str, split: str, names: Sequence[str]) -> list[np.ndarray]:
    """The split values of each feature, as in `ServedModel.splits`, from a table of nodes with the columns named."""
    by_feature = dict(list(nodes.groupby(feature)[split]))
    return [np.unique(by_feature.get(name, ())).astype(np.float32) for name in names]
