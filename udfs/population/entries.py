"""What an event adds to tables of the population, each as one integer, so that SQL can group and sum it."""

from collections.abc import Mapping, Sequence

import numpy as np

from udfs.contracts.packed_events import NO_ID
from udfs.population.tables import FOLDS, Counted, Counts, counts_of, keys_of

_KEYS = 1 << 32  # a key is uint32


def entries_of(
    records: np.ndarray, folds: np.ndarray, counted: Sequence[Counted], kinds: Mapping[str, int]
) -> list[np.ma.MaskedArray]:
    """What n packed events EVENT[n] of users' folds int64[n] add to each of what is counted: int64[n] each.

    An entry holds the position in `counted`, the key and the fold. It is masked where the event does not count.
    """
    columns = []
    for number, (by, kind) in enumerate(counted):
        keys = keys_of(records, by)
        left_out = keys == NO_ID
        if kind is not None:
            left_out |= records["kind"] != kinds[kind]
        columns.append(np.ma.masked_where(left_out, (number * _KEYS + keys.astype(np.int64)) * FOLDS + folds))
    return columns


def counts_by(entries: np.ndarray, events: np.ndarray, counted: Sequence[Counted]) -> dict[Counted, Counts]:
    """The counts of m distinct entries int64[m] and the number of events of each, int64[m], by what is counted."""
    numbers, keys = np.divmod(entries // FOLDS, _KEYS)
    counts = {}
    for number, what in enumerate(counted):
        rows = numbers == number
        counts[what] = counts_of(keys[rows], entries[rows] % FOLDS, events[rows])
    return counts
