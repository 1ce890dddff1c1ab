"""Models that are fitted only to be compared with: all features, and the defaults of their kind."""

from collections.abc import Sequence
from dataclasses import replace

from training.modeling.families import FAMILIES
from training.modeling.family import Cost, FittedModel, Fitting
from training.modeling.model_selection import TrainingRows, cross_validate
from training.modeling.settings import Training


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
    fitting = Fitting(
        features, family.defaults, training.rounds, training.patience, seed=training.seed, threads=training.threads
    )
    if family.boosts:
        rounds = cross_validate(family, rows if folded is None else folded, fitting, cost=cost).rounds
        fitting = replace(fitting, rounds=rounds)
    return family.fit(rows.fit_rows(cost=cost), fitting)
