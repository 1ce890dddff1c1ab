"""What training knows of its features, for drift: the reference.json of a bundle.

Contract: a reference is refused with BundleError, or windows of any rows have a record of their drift.
"""

import msgspec
import numpy as np

from tools.fuzz.target import Target
from training.bundles.drift_reference import Sampling, reference_distributions
from udfs.contracts.outputs import DriftWindow
from udfs.features.declaration_file import STANDARD
from udfs.measurement.drift import Thresholds, count_cells, window_drift
from udfs.models.bundle import BundleError
from udfs.rollout.drift_references import decode_reference

_HOUR_MS = 3_600_000
#: The lengths of windows in ms, and their rows.
_WINDOWS = ((60_000, 1), (_HOUR_MS, 200), (90 * 24 * _HOUR_MS, 2_000))
_THRESHOLDS = Thresholds(watch=0.1, alarm=0.25)


def references() -> Target:
    """References of a number, of a code, of a number that is often missing, and of features that are constant."""
    codes = [name for name in STANDARD.names if STANDARD.is_code(name)]
    numbers = [name for name in STANDARD.names if not STANDARD.is_code(name)]
    names = (numbers[0], codes[0], numbers[1], numbers[2], numbers[3])
    rng = np.random.default_rng(1)
    rows = 600
    features = np.stack(
        [
            rng.normal(size=rows),
            rng.integers(0, 9, rows),
            np.where(rng.random(rows) < 0.5, np.nan, rng.exponential(size=rows)),
            np.full(rows, 7.0),
            np.full(rows, np.nan),
        ],
        axis=1,
    ).astype(np.float32)
    sampling = Sampling(rng.integers(0, 60, rows), np.sort(rng.integers(0, 48 * _HOUR_MS, rows)), np.ones(rows))
    corpus = [
        reference_distributions(STANDARD, names[:size], features[:, :size], sampling, rng.random(rows), sampling)
        for size in (1, 2, len(names))
    ]
    largest = np.finfo(np.float32).max
    extremes = np.array([np.nan, 0, 1, -1, 7, 1e6, largest, -largest], np.float32)

    def run(data: bytes) -> str:
        reference = decode_reference(data, "bundle")
        shape = _WINDOWS[-1][1], len(reference.features)
        values = np.random.default_rng(2).choice(extremes, shape)
        cells = reference.cells(values, np.linspace(0, 1, len(values), dtype=np.float32))
        levels = []
        for length_ms, rows in _WINDOWS:
            counts = count_cells(cells[:rows])
            drift = window_drift((0, length_ms), "v1", reference, counts, (0, 0), _THRESHOLDS)
            # JSON has null for what is no number, which no reader of the topic takes.
            levels.append(msgspec.json.decode(msgspec.json.encode(drift), type=DriftWindow).level)
        return " ".join(levels)

    return Target(tuple(corpus), run, (BundleError,))
