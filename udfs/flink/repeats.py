"""Keys by which SQL counts an event once that is sent again."""

from collections.abc import Sequence

import numpy as np

from udfs.contracts.identifiers import hash_id
from udfs.contracts.packed_events import DEDUP_BY_EVENT, DEDUP_BY_NOTHING

_ODD = np.uint64(0x9E3779B97F4A7C15)  # a product with it has no structure that the hashes of similar ids share


def repeat_keys(user_ids: Sequence[str], events: np.ndarray, within_ms: int) -> np.ma.MaskedArray:
    """Keys int64[n] of n users' events EVENT[n], masked where the event has no id.

    Equal keys are of one user and one order; or of one user, one event id, and times in the same period of `within_ms`.
    A copy usually has the time of the first event. The same id at another time is another event: many shops number the
    events of a page or a visit.
    """
    users = np.fromiter(map(hash_id, user_ids), np.uint64, len(user_ids))
    periods = np.where(events["dedup_by"] == DEDUP_BY_EVENT, 1 + events["time_ms"] // within_ms, 0).astype(np.uint64)
    keys = (users * _ODD + periods) * _ODD + events["dedup_key"]  # modulo 2^64
    return np.ma.array(keys.view(np.int64), mask=events["dedup_by"] == DEDUP_BY_NOTHING)
