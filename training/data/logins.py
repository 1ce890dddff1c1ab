"""Logins in recorded clicks: what an anonymous user did becomes history of the user, as in the job.

See udfs/workers/logins.py for the rule. Users and their devices are in different buckets: so rows of clicks with an
anonymous id are written once more by device, and what each device gives its users is written by user.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.data.arrival_order import arrivals, read_twice
from training.data.dataset import repeated_events
from training.data.partitioning import coded, unpack
from udfs.contracts.packed_events import EVENT

_POSITION = [("arrival_ms", pa.int64()), ("partition", pa.int64()), ("offset", pa.int64())]
_PACKED = ("packed", pa.binary())

#: Clicks with an anonymous id.
DEVICE_ROWS = pa.schema([("anonymous_id", pa.string()), ("user_id", pa.string()), _PACKED, *_POSITION])

#: What logins add to users. An event of the user's history arrived with the login, which has its arrival, partition and
#: offset: `place` counts from it, below 0. An outcome is a login's event, and the user is the anonymous one.
LOGIN_ROWS = pa.schema(
    [
        ("user_id", pa.string()),
        _PACKED,
        *_POSITION,
        ("place", pa.int64()),
        ("login_ms", pa.int64()),  # event time of the login
        ("is_outcome", pa.bool_()),
    ]
)
NO_LOGINS = LOGIN_ROWS.empty_table()


def login_rows(devices: pa.Table, history_length: int, duplicates_within_ms: int, event: np.dtype = EVENT) -> pa.Table:
    """The LOGIN_ROWS of a bucket's DEVICE_ROWS, given in any order, with packed events of a type."""
    device, _ = coded(devices.column("anonymous_id"))
    records = unpack(devices.column("packed"), event)
    arrival, partition, offset = (devices.column(name).to_numpy() for name, _ in _POSITION)
    order = arrivals(device, arrival, partition, offset, records["time_ms"], records=records).order
    order = order[~read_twice(device[order], partition[order], offset[order])]
    devices, device, records = devices.take(order), device[order], records[order]
    is_login = pc.not_equal(devices.column("user_id"), devices.column("anonymous_id")).to_numpy()
    rows = np.arange(len(order))
    visit = np.cumsum(is_login | (np.diff(device, prepend=-1) != 0))  # from one login of a device to the next
    repeated = np.zeros(len(order), bool)
    for group, chosen in ((visit, np.flatnonzero(~is_login)), (device, np.flatnonzero(is_login))):
        repeated[chosen] = repeated_events(group[chosen], records[chosen], history_length, duplicates_within_ms)
    next_login = np.minimum.accumulate(np.where(is_login, rows, len(rows))[::-1])[::-1]
    has_login = next_login < len(rows)
    has_login[has_login] = device[next_login[has_login]] == device[has_login]
    history = np.flatnonzero(~is_login & has_login & ~repeated)
    outcomes = np.flatnonzero(is_login & np.isin(device, device[~is_login]) & ~repeated)
    return pa.concat_tables(
        [
            _rows(devices, "user_id", next_login[history], history, records),
            _rows(devices, "anonymous_id", outcomes, outcomes, records),
        ]
    )


def connected_ids(devices: pa.Table) -> set[tuple[str, str]]:
    """The pairs of anonymous id and user id in DEVICE_ROWS."""
    ids = devices.select(["anonymous_id", "user_id"])
    ids = ids.filter(pc.not_equal(ids.column(0), ids.column(1))).group_by(ids.column_names).aggregate([])
    return set(zip(*(column.to_pylist() for column in ids.columns)))


def _rows(devices: pa.Table, user: str, logins: np.ndarray, events: np.ndarray, records: np.ndarray) -> pa.Table:
    """Rows for the users of logins, of events; both are positions in the devices' rows."""
    of_logins = devices.take(logins)
    columns = [
        of_logins.column(user),
        devices.column("packed").take(events),
        *(of_logins.column(name) for name, _ in _POSITION),
        pa.array(events - logins),
        pa.array(records["time_ms"][logins]),
        pa.array(events == logins),
    ]
    return pa.Table.from_arrays(columns, schema=LOGIN_ROWS)
