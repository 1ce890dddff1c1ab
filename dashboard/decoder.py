"""Decoding the records of topics."""

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

Record = TypeVar("Record", bound=msgspec.Struct)


class RecordDecoder(Generic[Record]):
    """Decodes the records of a topic, and counts those that can't be decoded."""

    def __init__(self, record: type[Record]):
        self._decode = msgspec.json.Decoder(record).decode
        self.undecodable = 0
        self.last_error = ""

    def decode(self, values: Iterable[bytes | None]) -> list[Record]:
        """The records that can be decoded."""
        records = []
        for value in values:
            try:
                records.append(self._decode(value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.reject(error)
        return records

    def reject(self, error: Exception) -> None:
        """Count a record that can't be used."""
        self.undecodable += 1
        self.last_error = str(error)
