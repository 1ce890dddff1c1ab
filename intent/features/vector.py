"""The features of a user at an event, with a model's score and what the features contribute to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dashboard.user.explanation import TOLERANCE, ExplainedModel, load_model
from dashboard.wording import value_text
from intent.features.user_events import JobRules, Place, UserEvents, newest_row
from training.data.dataset import Dataset, arrange
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration
from udfs.models.bundle import Bundle
from udfs.models.remote import RemoteError


@dataclass(frozen=True)
class FeatureValue:
    """A feature, its value at the event, and what it adds to the logit of the score, where that is known."""

    name: str
    value: float
    text: str
    unit: str
    description: str
    added: float | None = None


@dataclass(frozen=True)
class ModelScore:
    """The score of a bundle's model."""

    version: str
    label: str
    score: float | None  # None if it is remote and does not answer
    base: float | None  # before anything is known of the user; None if it is remote
    served: float | None = None  # what the job scored, where that is known


@dataclass(frozen=True)
class Vector:
    """The features at one event of a user."""

    user_id: str
    event_name: str
    time_ms: int
    place: Place
    lifetime_events: int  # up to this one
    history_events: int
    features: Sequence[FeatureValue]  # the strongest contributions first, else as in the declaration
    model: ModelScore | None
    cautions: Sequence[str]


def vector_of(
    user_id: str,
    events: UserEvents,
    rules: JobRules,
    until_ms: int | None,
    declaration: Declaration,
    bundle: Bundle | None = None,
) -> Vector:
    """The features of a declaration, or of a bundle's model, at the user's newest event not later than a time, if one
    is given. Raises NoEventError."""
    dataset = arrange(events.clicks, events.updates, rules.history_length, rules.duplicates_within_ms)
    row = newest_row(dataset, user_id, until_ms)
    position = int(dataset.positions[row])
    cautions = list(events.cautions)
    is_unknown = not dataset.profiles["known"][row]
    if events.has_newest_profile_only and is_unknown and events.updates.profiles["known"].any():
        cautions.append("the user's profile is newer than the event; what it was before is not known here")
    if bundle is None:
        computer, model, added = FeatureComputer(None, rules.history_length, declaration), None, {}
        matrix = _row(dataset, computer, row)
    else:
        explained = load_model(bundle, declaration.layout)
        computer = explained.scorer.features
        matrix = _row(dataset, computer, row)
        added, base = _contributions(explained, matrix)
        score, problem = _score(explained, matrix)
        served = _served(events, bundle.manifest.version, events.places[position])
        model = ModelScore(bundle.manifest.version, explained.label, score, base, served)
        cautions += [note for note in (problem, _difference(score, served)) if note]
    features = [
        FeatureValue(
            name,
            value,
            value_text(declaration, name, value),
            declaration[name].unit,
            declaration[name].description,
            added.get(name),
        )
        for name, value in zip(computer.names, matrix[0].tolist())
    ]
    return Vector(
        user_id,
        events.names[position],
        int(dataset.records["time_ms"][row]),
        events.places[position],
        int(dataset.lifetime_events[row]),
        min(int(dataset.ends[row] - dataset.starts[row]), rules.history_length),
        sorted(features, key=lambda feature: -abs(feature.added or 0.0)),
        model,
        cautions,
    )


def _row(dataset: Dataset, computer: FeatureComputer, row: int) -> np.ndarray:
    return dataset.features(computer, slice(row, row + 1))


def _contributions(model: ExplainedModel, matrix: np.ndarray) -> tuple[dict[str, float], float | None]:
    """What each feature adds to the logit of the score, by name, and the probability that they start from."""
    if model.contributions is None:
        return {}, None
    *added, base_logit = model.contributions(matrix)[0].tolist()
    return dict(zip(model.scorer.features.names, added)), float(1 / (1 + np.exp(-base_logit)))


def _score(model: ExplainedModel, matrix: np.ndarray) -> tuple[float | None, str]:
    """The score, or None and the reason."""
    try:
        return float(model.scorer.predict(matrix)[0]), ""
    except RemoteError as error:
        return None, f"the model gave no score: {error}"


def _difference(score: float | None, served: float | None) -> str:
    """That the job's score is another one; empty if it is not, or one is not known."""
    if score is None or served is None or abs(score - served) <= TOLERANCE:
        return ""
    return f"the job scored this event {served:.6f} with the same model, so it had a different history or profile"


def _served(events: UserEvents, version: str, place: Place) -> float | None:
    """The job's score of an event by a model."""
    by_place = {
        (score.source_partition, score.source_offset): score.score
        for score in events.scores
        if score.model_version == version
    }
    return by_place.get((place.get("partition"), place.get("offset")))
