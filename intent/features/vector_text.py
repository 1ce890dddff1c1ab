"""A vector for people, as text, and for programs, as JSON."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict

from intent.features.tables import aligned
from intent.features.vector import ModelScore, Vector
from jobs.ops.peek.formatting import visible
from udfs.contracts.outputs import iso_time


def as_text(vector: Vector) -> str:
    """The event, the score if there is a model, and a line for each feature."""
    return "\n".join([*_head(vector), "", _table(vector)])


def as_json(vector: Vector) -> str:
    """The same as a JSON object in a line. A missing value is null; contributions are to the logit of the score."""
    features = [
        {
            "name": feature.name,
            "value": None if math.isnan(feature.value) else feature.value,
            "text": feature.text,
            "unit": feature.unit,
            "description": feature.description,
            **({} if feature.added is None else {"contribution": feature.added}),
        }
        for feature in vector.features
    ]
    return json.dumps(
        {
            "user_id": vector.user_id,
            "event_name": vector.event_name,
            "event_time": iso_time(vector.time_ms),
            **vector.place,
            "lifetime_events": vector.lifetime_events,
            "history_events": vector.history_events,
            "model": None if vector.model is None else asdict(vector.model),
            "features": features,
            "notes": list(vector.cautions),
        }
    )


def _head(vector: Vector) -> Iterator[str]:
    place = ", ".join(f"{key} {value}" for key, value in vector.place.items())
    event = f"{visible(vector.event_name)} at {iso_time(vector.time_ms)}"
    yield f"user {visible(vector.user_id)}: {event} ({visible(place)})"
    yield f"events of the user: {vector.lifetime_events}, of which the history has {vector.history_events}"
    if vector.model is not None:
        yield _score(vector.model)
    yield from (f"note: {visible(caution)}" for caution in vector.cautions)


def _score(model: ModelScore) -> str:
    score = "none" if model.score is None else f"{model.score:.6f}"
    base = "" if model.base is None else f"; {model.base:.6f} before anything is known of the user"
    served = "" if model.served is None else f"; {model.served:.6f} in the topic"
    return f"score of model {model.version} ({model.label}): {score}{base}{served}"


def _table(vector: Vector) -> str:
    has_contributions = any(feature.added is not None for feature in vector.features)
    lines = [("name", "value", "odds", "description")]
    lines += [
        (feature.name, feature.text, "" if feature.added is None else _odds(feature.added), feature.description)
        for feature in vector.features
    ]
    return aligned(lines if has_contributions else [(name, value, meaning) for name, value, _, meaning in lines])


def _odds(added: float) -> str:
    """The factor by which a contribution to the logit multiplies the odds; empty where it is 1."""
    return f"x{math.exp(added):.2f}" if added else ""
