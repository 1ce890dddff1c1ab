"""What an event adds to tables of the population, each as one integer, so that SQL can group and sum it.

An entry has 63 bits: 27 of a hash of what is counted, 32 of the key, and 4 of the fold. The hash does not depend on
what else is counted, so that a job can go on from its state with another declaration.
"""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from udfs.contracts.packed_events import NO_ID
from udfs.population.tables import FOLDS, Counted, Counts, counts_of, keys_of

_KEYS = 1 << 32  # a key is uint32
_CODES = 1 << 27


def entries_of(
    records: np.ndarray, folds: np.ndarray, counted: Sequence[Counted], kinds: Mapping[str, int]
) -> list[np.ma.MaskedArray]:
    """What n packed events EVENT[n] of users' folds int64[n] add to each of what is counted: int64[n] each.

    An entry is masked where the event does not count.
    """
    columns = []
    for what in counted:
        keys = keys_of(records, what.by)
        left_out = keys == NO_ID
        if what.kind is not None:
            left_out |= records["kind"] != kinds[what.kind]
        columns.append(np.ma.masked_where(left_out, (_code(what) * _KEYS + keys.astype(np.int64)) * FOLDS + folds))
    return columns


def counts_by(entries: np.ndarray, events: np.ndarray, counted: Sequence[Counted]) -> dict[Counted, Counts]:
    """The counts of m distinct entries int64[m] and the number of events of each, int64[m], by what is counted."""
    codes, keys = np.divmod(entries // FOLDS, _KEYS)
    counts = {}
    for what in counted:
        rows = codes == _code(what)
        counts[what] = counts_of(keys[rows], entries[rows] % FOLDS, events[rows])
    return counts


def _code(what: Counted) -> int:
    return crc32(f"{what.kind or ''} by {what.by or ''}".encode()) % _CODES
