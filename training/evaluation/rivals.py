"""Models that are fitted only to be compared with: all features of their kind, and its defaults."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.modeling.families import FAMILIES
from training.modeling.family import Cost, FittedModel, Fitting, columns_for
from training.modeling.model_selection import TrainingRows, cross_validate
from training.modeling.settings import Training


@dataclass(frozen=True)
class _OfColumns:
    """A model that takes some of the features."""

    model: FittedModel
    columns: Sequence[int]

    @property
    def rounds(self) -> int:
        return self.model.rounds

    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(np.ascontiguousarray(features[:, self.columns]))


def fit_rival(
    name: str,
    rows: TrainingRows,
    features: Sequence[str],
    training: Training,
    folded: TrainingRows | None = None,
    cost: Cost | None = None,
) -> FittedModel:
    """Fit a model of the family `name` to all rows; the rounds are those of cross-validation.

    `folded` are the rows to cross-validate on, by default all of them.
    """
    family = FAMILIES[name]
    columns = columns_for(family, features, training.declared)
    if is_partial := len(columns) < len(features):
        features, rows = [features[column] for column in columns], rows.columns(columns)
        folded = None if folded is None else folded.columns(columns)
    fitting = Fitting(
        features, family.defaults, training.rounds, training.patience, seed=training.seed, threads=training.threads
    )
    if family.boosts:
        rounds = cross_validate(family, rows if folded is None else folded, fitting, cost=cost).rounds
        fitting = replace(fitting, rounds=rounds)
    model = family.fit(rows.fit_rows(cost=cost), fitting)
    return _OfColumns(model, columns) if is_partial else model
