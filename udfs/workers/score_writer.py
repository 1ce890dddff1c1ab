"""Scores of a batch as JSON, compiled: a struct and an encoder's call for each would take as long as its features.

Each record is what msgspec would make of a Score, but that a score has nine significant digits: as many as a float32
needs to be read back as the same.
"""

import json
from collections.abc import Mapping

import numpy as np
from numba import njit, types

from udfs.contracts.outputs import Score, to_json
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.features import kernel_cache
from udfs.workers.protocol import RECORD_HEADER

_HEADER_BYTES = RECORD_HEADER.size + 4  # and the key's length
_NUMBER_BYTES = 64  # more than any number takes
_DIGITS = 9
_TEN_DIGITS = 10**_DIGITS
_QUOTE, _BACKSLASH, _SPACE, _ZERO, _POINT, _MINUS = b'"\\ 0.-'
_ESCAPE = np.frombuffer(rb"\u00", np.uint8)  # of a control character, before its two digits
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)

_compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Texts:
    """Pieces of text, as the compiled code takes them: their bytes one after the other, and where each starts."""

    def __init__(self, pieces: list[bytes]):
        self.content = np.frombuffer(b"".join(pieces), np.uint8)
        self.starts = np.concatenate(([0], np.cumsum([len(piece) for piece in pieces]))).astype(np.int64)

    @property
    def longest(self) -> int:
        return int(np.diff(self.starts).max())


def _between(first: str, second: str) -> bytes:
    """What stands between two fields of a record, or around all of them; they are in the order of the struct."""
    fields = ("", *Score.__struct_fields__)
    if fields.index(second) != fields.index(first) + 1:
        raise ValueError(f"{second} does not follow {first} in the record of a score")
    return f'{"," if first else "{"}"{second}":'.encode()


def _text(value: str) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


_EVENT_ID = _between("user_id", "event_id")
_SEPARATORS = Texts(
    [
        _between("", "user_id"),
        _EVENT_ID + b"null",
        _EVENT_ID,
        _between("event_time", "score"),
        _between("source_partition", "source_offset"),
        b"}",
    ]
)


def event_names(own_kinds: Mapping[str, int]) -> Texts:
    """The names of events, by the codes of their kinds, as records have them."""
    names = [*EVENT_KINDS, *([EVENT_KINDS[0]] * (256 - len(EVENT_KINDS)))]
    for name, code in own_kinds.items():
        names[code] = name
    return Texts(
        [_between("event_id", "event_name") + _text(name) + _between("event_name", "event_time") for name in names]
    )


def write_scores(
    output: int,
    content: bytes,
    id_starts: np.ndarray,
    key_starts: np.ndarray,
    ends: np.ndarray,
    heads: np.ndarray,
    scores: np.ndarray,
    verdicts: np.ndarray,
    texts: list[bytes],
    names: Texts,
    room: int,
) -> list[bytes]:
    """Records for an output, keyed by the user, of n events; in pieces of at most `room` bytes, of whole records each.

    content has the event's id, where it has one, from id_starts to key_starts, and the user's from there to ends:
    int64[n]. heads USER_ROW[n], scores float32[n]. verdicts int64[n] are positions in texts, made by `verdict`; names
    are `event_names`.
    Raises ValueError for a score that is no probability.
    """
    if not len(scores):
        return []
    if not (scores.min() >= 0 and scores.max() <= 1):  # nor NaN
        raise ValueError(f"scores from {scores.min()} to {scores.max()}: a probability is from 0 to 1")
    found, texts_ = [], Texts(texts)
    fixed = _HEADER_BYTES + int(np.diff(_SEPARATORS.starts).sum()) + names.longest + texts_.longest + 4 * _NUMBER_BYTES
    longest = fixed + 7 * int((ends - id_starts).max())  # an escaped byte takes six; the key once more as it is
    buffer = np.empty(min(max(room, longest), fixed * len(scores) + 7 * len(content)), np.uint8)
    bytes_ = np.frombuffer(content, np.uint8)
    events = heads["event"]
    row = 0
    while row < len(scores):
        row, used = _write(
            output, bytes_, id_starts, key_starts, ends, heads["has_event_id"], events["kind"], events["time_ms"],
            heads["partition"], heads["offset"], scores, verdicts, _SEPARATORS.content, _SEPARATORS.starts,
            names.content, names.starts, texts_.content, texts_.starts, buffer, fixed, room, row,
        )  # fmt: skip
        found.append(buffer[:used].tobytes())
    return found


def verdict(decision: bool, arm: str, model_version: str, propensity: float | None, scored_at: int) -> bytes:
    """The part of a record that many events of a batch share."""
    return b"".join(
        (
            _between("score", "decision") + (b"true" if decision else b"false"),
            _between("decision", "arm") + _text(arm),
            _between("arm", "model_version") + _text(model_version),
            _between("model_version", "propensity") + to_json(propensity),
            _between("propensity", "scored_at") + str(scored_at).encode(),
            _between("scored_at", "source_partition"),
        )
    )


@_compiled
def put_text(buffer, position, content, starts, piece):
    for source in range(starts[piece], starts[piece + 1]):
        buffer[position] = content[source]
        position += 1
    return position


@_compiled
def put_escaped(buffer, position, content, start, end):
    """A JSON string of UTF-8 bytes."""
    buffer[position] = _QUOTE
    position += 1
    for source in range(start, end):
        byte = content[source]
        if byte in (_QUOTE, _BACKSLASH):
            buffer[position] = _BACKSLASH
            position += 1
        elif byte < _SPACE:
            for place in range(len(_ESCAPE)):
                buffer[position + place] = _ESCAPE[place]
            buffer[position + len(_ESCAPE)] = _HEX[byte >> 4]
            position += len(_ESCAPE) + 1
            byte = _HEX[byte & 15]
        buffer[position] = byte
        position += 1
    buffer[position] = _QUOTE
    return position + 1


@_compiled
def put_digits(buffer, position, number, digits):
    """The last so many digits of a number that is not negative."""
    for place in range(digits - 1, -1, -1):
        buffer[position + place] = _ZERO + number % 10
        number //= 10
    return position + digits


@_compiled
def put_integer(buffer, position, number):
    if number < 0:
        buffer[position] = _MINUS
        position += 1
        number = -number
    digits = 1
    rest = number // 10
    while rest > 0:
        digits += 1
        rest //= 10
    return put_digits(buffer, position, number, digits)


@_compiled
def put_share(buffer, position, share):
    """A number from 0 to 1, with nine significant digits."""
    zeros = 0
    scaled = np.float64(share) * _TEN_DIGITS
    while scaled < _TEN_DIGITS // 10 and zeros < _NUMBER_BYTES - _DIGITS - 2 and scaled > 0:
        scaled *= 10
        zeros += 1
    number = np.int64(np.rint(scaled))
    if number >= _TEN_DIGITS:  # rounded up: one zero fewer behind the point, or 1 before it
        number //= 10
        zeros -= 1
    buffer[position] = _ZERO + (1 if zeros < 0 else 0)
    buffer[position + 1] = _POINT
    position += 2
    if zeros < 0:
        buffer[position] = _ZERO
        return position + 1
    for _ in range(zeros):
        buffer[position] = _ZERO
        position += 1
    return put_digits(buffer, position, number, _DIGITS)


@_compiled
def put_length(buffer, position, number):
    for place in range(4):
        buffer[position + place] = (number >> (8 * place)) & 0xFF
    return position + 4


_bytes = types.Array(types.uint8, 1, "C", readonly=True)
_positions = types.Array(types.int64, 1, "A", readonly=True)
_column = {of: types.Array(of, 1, "A") for of in (types.uint8, types.int32, types.int64, types.float32)}


@njit(
    types.UniTuple(types.int64, 2)(
        types.int64, _bytes, _positions, _positions, _positions,
        _column[types.uint8], _column[types.uint8], _column[types.int64], _column[types.int32], _column[types.int64],
        _column[types.float32], _positions, _bytes, _positions, _bytes, _positions, _bytes, _positions,
        types.Array(types.uint8, 1, "C"), types.int64, types.int64, types.int64,
    ),
    **kernel_cache.entry_options(),
)  # fmt: skip
def _write(
    output, content, id_starts, key_starts, ends, has_id, kinds, times_ms, partitions, offsets, scores, verdicts,
    separators, separator_starts, names, name_starts, texts, text_starts, buffer, fixed, room,
    row,
):  # fmt: skip
    """Write records from `row` on, one at least, while there is room; returns the next one, and the bytes used."""
    position = np.int64(0)
    while row < len(scores):
        if position > 0 and position + fixed + 7 * (ends[row] - id_starts[row]) > room:
            break
        start = position
        position += _HEADER_BYTES
        position = put_text(buffer, position, separators, separator_starts, 0)
        position = put_escaped(buffer, position, content, key_starts[row], ends[row])
        if has_id[row]:
            position = put_text(buffer, position, separators, separator_starts, 2)
            position = put_escaped(buffer, position, content, id_starts[row], key_starts[row])
        else:
            position = put_text(buffer, position, separators, separator_starts, 1)
        position = put_text(buffer, position, names, name_starts, np.int64(kinds[row]))
        position = put_integer(buffer, position, times_ms[row])
        position = put_text(buffer, position, separators, separator_starts, 3)
        position = put_share(buffer, position, scores[row])
        position = put_text(buffer, position, texts, text_starts, verdicts[row])
        position = put_integer(buffer, position, np.int64(partitions[row]))
        position = put_text(buffer, position, separators, separator_starts, 4)
        position = put_integer(buffer, position, offsets[row])
        position = put_text(buffer, position, separators, separator_starts, 5)
        for source in range(key_starts[row], ends[row]):
            buffer[position] = content[source]
            position += 1
        put_length(buffer, start, output)
        put_length(buffer, start + 4, position - start - (_HEADER_BYTES - 4))
        put_length(buffer, start + 8, ends[row] - key_starts[row])
        row += 1
    return row, position
