"""Writing UBJSON as XGBoost does."""

import struct

import numpy as np

_INTEGERS = (("i", "b"), ("I", "h"), ("l", "i"), ("L", "q"))
_COLUMNS = {">f4": b"d", "|u1": b"U", ">i4": b"l", ">i8": b"L"}


def encode(value: object) -> bytes:
    """The bytes of what `udfs.models.ubjson.decode` returns."""
    if isinstance(value, dict):
        return b"{" + b"".join(_text(key) + encode(item) for key, item in value.items()) + b"}"
    if isinstance(value, np.ndarray):
        return b"[$" + _COLUMNS[value.dtype.str] + b"#" + _length(len(value)) + value.tobytes()
    if isinstance(value, list):
        return b"[#" + _length(len(value)) + b"".join(map(encode, value))
    if isinstance(value, str):
        return b"S" + _text(value)
    marker, kind = next(entry for entry in _INTEGERS if -1 <= value >> 8 * struct.calcsize(entry[1]) - 1 <= 0)
    return marker.encode() + struct.pack(f">{kind}", value)


def _text(value: str) -> bytes:
    return _length(len(value.encode())) + value.encode()


def _length(length: int) -> bytes:
    return b"L" + struct.pack(">q", length)
