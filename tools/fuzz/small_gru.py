"""Small GRUs with random weights, in the form in which PyTorch's become files."""

import numpy as np

from udfs.features.event_codes import CODES, FIELDS
from udfs.models.gru import EMBEDDINGS, GruFile

EVENTS = 4


def random_gru(seed: int = 1, events: int = EVENTS, width: int = 3, hidden: int = 5) -> GruFile:
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> bytes:
        return rng.normal(0, 0.6, shape).astype("<f4").tobytes()

    return GruFile(
        format=1,
        fields=dict(FIELDS),
        events=events,
        width=width,
        hidden=hidden,
        embedding=weights(EMBEDDINGS, width),
        input_weights=weights(3 * hidden, width),
        input_bias=weights(3 * hidden),
        recurrent_weights=weights(3 * hidden, hidden),
        recurrent_bias=weights(3 * hidden),
        output_weights=weights(hidden),
        output_bias=-1.5,
    )


def random_codes(rows: int, events: int = EVENTS, seed: int = 1) -> np.ndarray:
    """Rows of event codes float32[rows, events] of users with any number of events."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, CODES, (rows, events)).astype(np.float32)
    codes[np.arange(events) < rng.integers(0, events, rows)[:, None]] = np.nan
    return codes
