"""Rows for the score operator, as its answers to a batch hold them: with the header of a record in front."""

import struct

from udfs.features.user_slots import USER_ROW, USER_ROW_FORMAT
from udfs.workers.protocol import RECORD_HEADER

#: Takes the output, the bytes that follow, and the fields of USER_ROW.
pack_head = struct.Struct(RECORD_HEADER.format + USER_ROW_FORMAT.removeprefix("<")).pack


def user_row(kind: int, content: bytes, user: bytes, partition: int = 0, offset: int = 0, time_ms: int = 0) -> bytes:
    """A row for the main output that ends with its user's id: a profile, a login or an event without an id."""
    size, user_bytes = USER_ROW.itemsize + len(user), len(user)
    return pack_head(0, size, user_bytes, kind, 0, user_bytes, partition, offset, time_ms, content) + user
