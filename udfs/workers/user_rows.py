"""Rows for the score operator, as its answers to a batch hold them: with the header of a record in front."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from udfs.features.user_slots import user_row_format, user_row_type
from udfs.workers.protocol import RECORD_HEADER


@dataclass(frozen=True)
class UserRows:
    """Writes rows with packed events of a type."""

    event: np.dtype

    @cached_property
    def type(self) -> np.dtype:
        return user_row_type(self.event)

    @cached_property
    def pack_head(self) -> Callable[..., bytes]:
        """Takes the output, the bytes that follow, and the fields of the row."""
        return struct.Struct(RECORD_HEADER.format + user_row_format(self.event).removeprefix("<")).pack

    def row(
        self, kind: int, content: bytes, user: bytes, partition: int = 0, offset: int = 0, time_ms: int = 0
    ) -> bytes:
        """A row for the main output that ends with its user's id: a profile, a login or an event without an id."""
        size, user_bytes = self.type.itemsize + len(user), len(user)
        return self.pack_head(0, size, user_bytes, kind, 0, user_bytes, partition, offset, time_ms, content) + user
