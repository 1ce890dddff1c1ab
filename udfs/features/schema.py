"""The schema hash: what names the meaning of a model's features."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np

from udfs.contracts.packed_events import DEVICES, EVENT, EVENT_KINDS, PAGE_TYPES
from udfs.contracts.profiles import AGE_BANDS, MEMBERSHIP_TIERS, PROFILE
from udfs.features.declaration import Declaration, Feature
from udfs.features.declaration_file import STANDARD
from udfs.features.expressions import Function, normalized

_WINDOWS_MS = {"1m": 60_000, "5m": 300_000, "30m": 1_800_000, "24h": 86_400_000}  # that schema hashes began with

#: EVENT as features see it: models outlive what tells the job that an event was sent before.
SEEN_EVENT = np.dtype([*((name, EVENT[name]) for name in EVENT.names if not name.startswith("dedup")), ("spare", "u1")])


def schema_hash(declaration: Declaration, names: Sequence[str], history_length: int) -> str:
    """SHA-256, in hex, of all that gives a column its meaning: equal hashes mean equal features from equal histories.

    Covers the layouts of SEEN_EVENT and PROFILE, the vocabularies, the session gap, the history length, own columns
    with the schedule of tables that fill some of them, and of the features, in order, names and expressions. Raises
    ValueError for an unknown or repeated name.
    """
    features = [declaration.features[position] for position in declaration.find(names)]
    schema = {
        "event": _layout(SEEN_EVENT),
        "profile": _layout(PROFILE),
        "vocabularies": [
            [*EVENT_KINDS, *declaration.layout.own_kinds], PAGE_TYPES, DEVICES, AGE_BANDS, MEMBERSHIP_TIERS
        ],
        "session_gap_ms": declaration.session_gap_ms,
        "windows_ms": _WINDOWS_MS,
        "history_length": history_length,
        "features": [(feature.name, _revision(feature)) for feature in features],
    }  # fmt: skip
    if declaration.layout.own_columns:
        schema["columns"] = [astuple(column) for column in declaration.layout.own_columns]
    if declaration.layout.population_columns:
        schema["publication"] = astuple(declaration.layout.publication)
    return hashlib.sha256(json.dumps(schema).encode()).hexdigest()


def _revision(feature: Feature) -> int | str:
    """What names the meaning of a feature: 1 for that of the standard, so that older models keep their hashes."""
    if isinstance(feature.value, Function):
        return f"{feature.value.path} {feature.value.sha256}"
    text = normalized(feature.text)
    of_standard = feature.name in STANDARD and normalized(STANDARD[feature.name].text) == text
    return 1 if of_standard else text


def _layout(dtype: np.dtype) -> list:
    return [dtype.itemsize, *((name, field.str, field.shape, offset) for name, (field, offset) in dtype.fields.items())]
