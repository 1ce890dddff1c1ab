"""Recompute a score, and explain it by the contributions of the features."""

from dataclasses import dataclass

import numpy as np

from dashboard.wording import value_text
from training.data.dataset import Dataset
from udfs.contracts.event_layout import EventLayout
from udfs.contracts.outputs import Score
from udfs.features.declaration import Declaration
from udfs.models.attributions import Contributions, contributions_of, strongest
from udfs.models.backends import Scorer
from udfs.models.bundle import Bundle, check_layout

REASONS = 10
#: The difference allowed between engines and the export that one of them uses. A larger one means other inputs.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class ExplainedModel:
    """A bundle's model, ready to recompute and explain scores."""

    label: str
    declaration: Declaration
    scorer: Scorer
    contributions: Contributions | None  # None of a remote one


def load_model(bundle: Bundle, layout: EventLayout) -> ExplainedModel:
    """A bundle's model for events of a layout. Raises BundleError if it needs other events."""
    check_layout(bundle, layout)
    scorer = Scorer(bundle, layout=layout)
    return ExplainedModel(str(bundle.manifest.label), bundle.declaration, scorer, contributions_of(bundle))


@dataclass(frozen=True)
class Contribution:
    """The contribution of a feature to a score."""

    name: str
    meaning: str
    value: str
    added: float  # to the logit

    @property
    def odds(self) -> float:
        """The factor by which it multiplies the odds."""
        return float(np.exp(self.added))


@dataclass(frozen=True)
class Explanation:
    """A score in the topic, the recomputed score, and the contributions to it."""

    version: str
    label: str
    score: float
    again: float
    base: float | None  # the probability before anything is known of the user; None of a remote model
    reasons: list[Contribution]
    rest: float  # what all other features add to the logit
    features: list[tuple[str, str, str]]  # name, value, meaning

    @property
    def agrees(self) -> bool:
        return abs(self.score - self.again) <= TOLERANCE

    @property
    def rest_odds(self) -> float:
        return float(np.exp(self.rest))


def explain(model: ExplainedModel, dataset: Dataset, row: int, score: Score) -> Explanation:
    """Explain the score of the event in a row."""
    computer, declared = model.scorer.features, model.declaration
    matrix = dataset.features(computer, slice(row, row + 1))
    values = matrix[0].tolist()
    reasons, rest, base = [], 0.0, None
    if model.contributions is not None:
        *added, base_logit = model.contributions(matrix)[0].tolist()
        base = float(1 / (1 + np.exp(-base_logit)))
        value_of = dict(zip(computer.names, values))
        top = strongest(computer.names, np.array(added), REASONS)
        reasons = [
            Contribution(name, declared[name].description, value_text(declared, name, value_of[name]), part)
            for name, part in top
            if part
        ]
        rest = sum(added) - sum(reason.added for reason in reasons)
    return Explanation(
        score.model_version,
        model.label,
        score.score,
        float(model.scorer.predict(matrix)[0]),
        base,
        reasons,
        rest,
        [
            (name, value_text(declared, name, value), declared[name].description)
            for name, value in zip(computer.names, values)
        ],
    )
