"""The order in which events arrived at the job, as far as recorded data tells."""

from typing import NamedTuple

import numpy as np

from training.data.archive import OFFSETS_OF_FILE
from training.data.dataset import largest_so_far, smallest_so_far
from training.data.summary import UNKNOWN_MS
from udfs.contracts.packed_events import EVENT_KINDS

#: If more of Kafka's timestamps than this contradict the order of offsets, they are no times of arrival, or the offsets
#: no order of arrival: as where an export that was not in order was sent to Kafka with the times of its events.
MOST_WRONG = 0.2
#: Share of users' steps from row to row that go forward in time, or back, for a file to be in order, or reversed.
ENOUGH_STEPS = 0.8
_PURCHASE = EVENT_KINDS.index("purchase")


class Arrivals(NamedTuple):
    """The order of n events, and when each arrived."""

    order: np.ndarray  # int64[n], by user and arrival
    arrival_ms: np.ndarray  # int64[n], in that order; the events' own times where it is not known
    is_known: bool  # whether the order is that of arrival, and not that of the events' times


def arrivals(
    user: np.ndarray,
    arrival_ms: np.ndarray,
    partition: np.ndarray,
    offset: np.ndarray,
    time_ms: np.ndarray,
    place: np.ndarray | int = 0,
    records: np.ndarray | None = None,
) -> Arrivals:
    """The order and the arrival of n events, given int64[n] each and EVENT[n]; `place` parts equal offsets.

    A partition keeps order by offset. Between the partitions of a user, Kafka's timestamps decide. Files have no times
    of arrival, and an archive has none either where its timestamps contradict its offsets (MOST_WRONG). Such events are
    taken to have arrived as they happened, by `time_ms`; see `_by_time` for those of one time.
    """
    place = np.broadcast_to(place, len(user))
    if len(arrival_ms) and arrival_ms.min() == UNKNOWN_MS:
        order = _by_time(user, partition, offset, time_ms, place, records)
        return Arrivals(order, time_ms[order], False)
    order = np.lexsort((place, offset, partition, user))
    group = _groups(user[order], partition[order])
    corrected, wrong = _corrected(group, arrival_ms[order])
    if wrong > MOST_WRONG * len(order):
        order = _by_time(user, partition, offset, time_ms, place, records)
        return Arrivals(order, time_ms[order], False)
    by_arrival = np.lexsort((np.arange(len(order)), corrected, user[order]))
    return Arrivals(order[by_arrival], corrected[by_arrival], True)


def read_twice(user: np.ndarray, *position: np.ndarray) -> np.ndarray:
    """Which of n ordered events are of the same user and position as the one before them, bool[n]."""
    return np.all([np.diff(column, prepend=-1) == 0 for column in (user, *position)], axis=0)


def _groups(user: np.ndarray, partition: np.ndarray) -> np.ndarray:
    """The number of each run of equal users and partitions, upwards."""
    begins = (np.diff(user, prepend=-1) != 0) | (np.diff(partition, prepend=-1) != 0)
    return np.cumsum(begins)


def _corrected(group: np.ndarray, arrival_ms: np.ndarray) -> tuple[np.ndarray, int]:
    """Timestamps int64[n], by group and offset, made to never decrease in a group, and how many had to change.

    A timestamp above one of a later offset is of a clock ahead, or the later one is of a clock behind or of a record
    that its producer held back. In each group, what makes fewer timestamps wrong is believed; if that is the same for
    both, the clock ahead, so that nothing is known before its time.
    """
    raised = largest_so_far(group, arrival_ms)
    lowered = smallest_so_far(group.max(initial=0) - group[::-1], arrival_ms[::-1])[::-1]
    size = group.max(initial=0) + 1
    behind = np.bincount(group, raised != arrival_ms, size)
    ahead = np.bincount(group, lowered != arrival_ms, size)
    return np.where((behind < ahead)[group], raised, lowered), int(np.minimum(behind, ahead).sum())


def _by_time(
    user: np.ndarray,
    partition: np.ndarray,
    offset: np.ndarray,
    time_ms: np.ndarray,
    place: np.ndarray,
    records: np.ndarray | None,
) -> np.ndarray:
    """The order by user and time. Events of one time keep the order of their rows if the rows are in order of time.

    If the newest rows come first, they have the opposite order. Otherwise the order of the rows says nothing, and
    events of one time are ordered by what they are: by kind, and purchases last, after what may have led to them.
    """
    direction = _direction(user, partition, offset, time_ms)
    if direction or records is None:
        return np.lexsort((place, (direction or 1) * offset, partition, time_ms, user))
    return np.lexsort((place, offset, partition, _rank(records, partition, offset, place), time_ms, user))


def _direction(user: np.ndarray, partition: np.ndarray, offset: np.ndarray, time_ms: np.ndarray) -> int:
    """1 where users' rows are mostly in order of time, -1 where they are mostly in the opposite order, else 0."""
    rows = np.lexsort((offset, partition, user))
    group = _groups(_groups(user[rows], partition[rows]), offset[rows] // OFFSETS_OF_FILE)
    steps = np.diff(time_ms[rows])[np.diff(group) == 0]
    forward, back = np.count_nonzero(steps > 0), np.count_nonzero(steps < 0)
    if forward and forward >= ENOUGH_STEPS * (forward + back):
        return 1
    return -1 if back and back >= ENOUGH_STEPS * (forward + back) else 0


def _rank(records: np.ndarray, partition: np.ndarray, offset: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The rank of n events EVENT[n] by kind and content, int64[n]; what a login brought has the login's."""
    _, content = np.unique(records.view(f"V{records.dtype.itemsize}"), return_inverse=True)
    kind = records["kind"]
    content[np.lexsort((content, kind, kind == _PURCHASE))] = np.arange(len(content))
    _, position = np.unique(np.stack([partition, offset]), axis=1, return_inverse=True)
    position = position.reshape(-1)
    rank = np.zeros(position.max(initial=-1) + 1, np.int64)
    own = place == 0
    rank[position[own]] = content[own]
    return rank[position]
