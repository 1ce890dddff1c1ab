"""The order in which events arrived at the job, as far as recorded data tells."""

import numpy as np

from training.data.dataset import largest_so_far
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

    A partition keeps order by offset. Between the partitions of a user, Kafka's timestamps decide. Rows of an export
    may be in any order, and when they arrived is not known: they are taken to have arrived as they happened, by
    `time_ms`.
    """
    place = np.broadcast_to(place, len(user))
    if len(arrival_ms) and arrival_ms.min() == UNKNOWN_MS:
        return np.lexsort((place, offset, partition, time_ms, user))
    order = np.lexsort((place, offset, partition, user))
    user, partition = user[order], partition[order]
    # A timestamp that lies before that of an earlier offset is the producer's, not the time of arrival.
    reached = largest_so_far(_groups(user, partition), arrival_ms[order])
    return order[np.lexsort((np.arange(len(order)), reached, user))]


def read_twice(user: np.ndarray, *position: np.ndarray) -> np.ndarray:
    """Which of n ordered events are of the same user and position as the one before them, bool[n]."""
    return np.all([np.diff(column, prepend=-1) == 0 for column in (user, *position)], axis=0)


def _groups(user: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """The number of each run of equal users and partitions, upwards."""
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(partition, prepend=-1) != 0)
    return np.cumsum(begins)
