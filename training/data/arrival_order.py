"""The order in which events arrived at the job, as far as recorded data tells."""

import numpy as np

from training.data.summary import UNKNOWN_MS


def arrival_order(
    user: np.ndarray,
    arrival_ms: np.ndarray,
    partition: np.ndarray,
    offset: np.ndarray,
    time_ms: np.ndarray,
    place: np.ndarray | int = 0,
) -> np.ndarray:
    """The order of n events, int64[n], by user and arrival, given int64[n] each; `place` parts equal offsets.

    A partition keeps order by offset. A user is in one partition unless the number of partitions changes; then the
    partition where the user appeared first comes first. Rows of an export may be in any order, and when they arrived is
    not known: they are taken to have arrived as they happened, by `time_ms`.
    """
    place = np.broadcast_to(place, len(user))
    if len(arrival_ms) and arrival_ms.min() == UNKNOWN_MS:
        return np.lexsort((place, offset, partition, time_ms, user))
    begins = np.zeros(len(user), np.int64)
    if len(np.unique(partition)) > 1:
        pairs, number = np.unique(np.stack([user, partition], 1), axis=0, return_inverse=True)
        earliest = np.full(len(pairs), np.iinfo(np.int64).max)
        np.minimum.at(earliest, number.ravel(), arrival_ms)
        begins = earliest[number.ravel()]
    return np.lexsort((place, offset, partition, begins, user))
