"""UBJSON (https://ubjson.org) as XGBoost writes it, which is a part of what the format allows.

Lengths are 64-bit integers; arrays have a count, and arrays of numbers of one type have the type as well; there are no
null, boolean and no-op values. A reader that accepts nothing else understands a file as XGBoost's own reader does.
"""

import struct
from collections.abc import Callable

import numpy as np

_INTEGERS = {b"i": struct.Struct(">b"), b"I": struct.Struct(">h"), b"l": struct.Struct(">i"), b"L": struct.Struct(">q")}
_COLUMNS = {b"U": np.dtype("u1"), b"l": np.dtype(">i4"), b"L": np.dtype(">i8"), b"d": np.dtype(">f4")}
#: What is before a text and before the values of an array: markers, and a length.
_TEXT, _ARRAY = (struct.Struct(">1sq"), b"L"), (struct.Struct(">2sq"), b"#L")

#: Bounds of what a file of small values can become in memory. A model of 1,000 trees has some 35,000 values.
MOST_VALUES, DEEPEST = 4_000_000, 16


def decode(content: bytes) -> object:
    """The value of a file: objects as dict, arrays as list or, if they have a type, as ndarray; str and int.

    Raises ValueError, one line with the place in the file.
    """
    reader = _Reader(content)
    value = reader.value()
    if reader.at != len(content):
        raise ValueError(f"byte {reader.at}: expected the end of the file")
    return value


class _Reader:
    def __init__(self, content: bytes):
        self._content, self.at = content, 0
        self._values = self._depth = 0

    def value(self) -> object:
        self._values += 1
        if self._values > MOST_VALUES:
            raise ValueError(f"the file has more than {MOST_VALUES:,} values")
        marker = self._marker()
        if marker == b"S":
            return self._text()
        if marker == b"[":
            return self._nested(self._array)
        if marker == b"{":
            return self._nested(self._object)
        if marker in _INTEGERS:
            return self._unpack(_INTEGERS[marker])[0]
        raise ValueError(f"byte {self.at - 1}: expected a value, got {marker!r}")

    def _nested(self, read: Callable[[], object]) -> object:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"byte {self.at}: values are nested more than {DEEPEST} deep")
        value = read()
        self._depth -= 1
        return value

    def _object(self) -> dict[str, object]:
        fields: dict[str, object] = {}
        while self._content[self.at : self.at + 1] != b"}":
            key = self._text()
            if key in fields:
                raise ValueError(f"byte {self.at}: the key {key!r} is given twice")
            fields[key] = self.value()
        self.at += 1
        return fields

    def _array(self) -> list | np.ndarray:
        if self._content[self.at : self.at + 1] != b"$":
            return [self.value() for _ in range(self._length(*_ARRAY))]
        self.at += 1
        marker = self._marker()
        if marker not in _COLUMNS:
            raise ValueError(f"byte {self.at - 1}: expected the type of an array, got {marker!r}")
        dtype = _COLUMNS[marker]
        count, start = self._length(*_ARRAY, dtype.itemsize), self.at
        self.at += count * dtype.itemsize
        return np.frombuffer(self._content, dtype, count, start)

    def _text(self) -> str:
        length, start = self._length(*_TEXT), self.at
        self.at += length
        return self._content[start : self.at].decode()

    def _length(self, head: struct.Struct, markers: bytes, width: int = 1) -> int:
        """The length behind these markers, of items of `width` bytes at least, for which the file has room."""
        given, length = self._unpack(head)
        if given != markers:
            raise ValueError(f"byte {self.at - head.size}: expected {markers!r}, got {given!r}")
        if not 0 <= length * width <= len(self._content) - self.at:
            raise ValueError(f"byte {self.at}: a length of {length} exceeds the file")
        return length

    def _marker(self) -> bytes:
        self.at += 1
        return self._content[self.at - 1 : self.at]

    def _unpack(self, kind: struct.Struct) -> tuple:
        start, self.at = self.at, self.at + kind.size
        if self.at > len(self._content):
            raise ValueError("the file ends within a value")
        return kind.unpack_from(self._content, start)
