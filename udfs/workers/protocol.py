"""The worker's side of the protocol between a worker and its operator, described in docs/worker-protocol.md.

SharedMemory.java and Worker.java in udfs/java/intent are the other side. All numbers are little endian.
"""

import mmap
import socket
import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path

import numpy as np

MAGIC = int.from_bytes(b"INTENT1", "little")
VERSION = 1


class Message(IntEnum):
    """Types of messages. The first three are the operator's."""

    BATCH = 1  # rows are in the memory; the number says how many
    ROW = 2  # one row that is too large for the memory, in the payload
    NEXT = 3  # the part of the answer has been read, the next one may be written
    READY = 11  # the number is the version of the protocol
    DONE = 12  # the last or only part of the answer is in the memory; the number says how many bytes
    PART = 13  # the same of a part that is not the last: NEXT follows
    RECORD = 14  # one record that is too large for the memory, in the payload: output (i4), bytes
    METRICS = 15  # new metrics, in the payload
    FAILED = 16  # the traceback, in the payload; the worker ends


_HEADER = struct.Struct("<iiii")  # type, sequence, number, bytes of the payload
#: What is allocated at once for a payload: memory goes to bytes that come, not to those that a message announces.
_RECEIVED_AT_ONCE = 1 << 20
#: Of a record in the memory: the output that it is for (0 is the main one), and how many bytes follow.
RECORD_HEADER = struct.Struct("<ii")


_FRAME = struct.Struct("<iii")  # output, bytes that follow, bytes of the key


def frame_record(output: int, value: bytes, key: bytes | None = None) -> bytes:
    """A record for an output: a frame, as Frame.java reads it."""
    if key is None:
        return _FRAME.pack(output, 4 + len(value), -1) + value
    key_bytes = len(key)
    return _FRAME.pack(output, 4 + len(value) + key_bytes, key_bytes) + value + key


class ProtocolError(RuntimeError):
    """The other side violates the protocol."""


class SharedMemory:
    """The mapped file. Arrays are views of it: the operator sees what is written to them."""

    _FIELDS = (
        "magic", "version", "max_rows", "metric_count", "metrics", "row_slots", "row_ends", "rows", "answers",
        "buffer_bytes", "slot_count", "head_bytes", "heads", "body_bytes", "bodies", "size",
    )  # fmt: skip

    def __init__(self, file: Path):
        with file.open("r+b") as opened:
            self.bytes = mmap.mmap(opened.fileno(), 0)
        layout = dict(zip(self._FIELDS, np.frombuffer(self.bytes, "<i8", len(self._FIELDS)).tolist()))
        if (layout["magic"], layout["version"]) != (MAGIC, VERSION):
            raise ProtocolError(
                f"the operator speaks version {layout['version']} of the protocol, its worker {VERSION}: "
                "JAR and wheel are not of the same release"
            )
        self.buffer_bytes = layout["buffer_bytes"]
        self.rows, self.answers = layout["rows"], layout["answers"]
        self.metrics = self.array("<i8", layout["metric_count"], layout["metrics"])
        self.row_slots = self.array("<i4", layout["max_rows"], layout["row_slots"])
        self.row_ends = self.array("<i4", layout["max_rows"], layout["row_ends"])
        self.slot_count, self.body_bytes = layout["slot_count"], layout["body_bytes"]
        self._head_bytes, self._heads, self._bodies = layout["head_bytes"], layout["heads"], layout["bodies"]

    def array(self, dtype: np.dtype | str, count: int, offset: int) -> np.ndarray:
        return np.frombuffer(self.bytes, dtype, count, offset)

    def slot_heads(self, dtype: np.dtype) -> np.ndarray:
        """The heads of all slots: dtype[slots]. Raises ProtocolError for another size."""
        return self._slots("head", dtype, self._head_bytes, self._heads)

    def slot_bodies(self, dtype: np.dtype) -> np.ndarray:
        """The bodies of all slots, as records one after the other. Raises ProtocolError for another size."""
        return self._slots("body", dtype, self.body_bytes, self._bodies)

    def batch(self, count: int) -> "Rows":
        """The rows in the memory. Raises ProtocolError if there can't be so many, or their ends are out of place."""
        if not 0 < count <= len(self.row_ends):
            raise ProtocolError(f"a batch has {count} rows, not 1 to {len(self.row_ends)}")
        ends = self.row_ends[:count]
        if not (ends[0] >= 0 and ends[-1] <= self.buffer_bytes and (ends[:-1] <= ends[1:]).all()):
            raise ProtocolError(f"the ends of rows do not ascend from 0 to at most {self.buffer_bytes}")
        return Rows(self.bytes[self.rows : self.rows + int(ends[-1])], ends, self.slots_of_rows(count))

    def slots_of_rows(self, count: int) -> np.ndarray:
        """The slots of the rows, int32[n]. Raises ProtocolError where there is none such: code would write into it."""
        slots = self.row_slots[:count]
        if self.slot_count and not ((slots >= 0) & (slots < self.slot_count)).all():
            raise ProtocolError(f"a row has a slot that is not one of {self.slot_count}")
        return slots

    def _slots(self, part: str, dtype: np.dtype, size: int, offset: int) -> np.ndarray:
        if size % dtype.itemsize:
            raise ProtocolError(f"the {part} of a slot has {size} bytes, not a multiple of {dtype.itemsize}")
        return self.array(dtype, self.slot_count * (size // dtype.itemsize), offset)


class Rows:
    """The rows of a batch: their bytes one after the other, where each starts and ends (int64[n]), its slot (i4[n])."""

    def __init__(self, content: bytes, ends: np.ndarray, slots: np.ndarray):
        self.content, self.slots = content, slots
        self.ends = ends.astype(np.int64)
        self.starts = np.concatenate(([0], self.ends[:-1]))

    def heads(self, dtype: np.dtype) -> np.ndarray:
        """The head of each row, dtype[n]. Raises ProtocolError for a row that is shorter."""
        if (self.ends - self.starts < dtype.itemsize).any():
            raise ProtocolError(f"a row has fewer than {dtype.itemsize} bytes")
        positions = self.starts[:, None] + np.arange(dtype.itemsize)
        return np.frombuffer(self.content, np.uint8)[positions].view(dtype)[:, 0]

    def check_tails(self, head_bytes: int, tail_bytes: np.ndarray) -> None:
        """Raise ProtocolError for a row that has no room for its tail, int64[n] bytes, behind its head."""
        if not ((tail_bytes >= 0) & (tail_bytes <= self.ends - self.starts - head_bytes)).all():
            raise ProtocolError("a row is shorter than its head announces")


class Channel:
    """The socket on which both sides announce what is in the memory."""

    def __init__(self, file: Path, memory: SharedMemory):
        self._memory = memory
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(file))
        self._sequence = 0

    def batches(self) -> Iterator[Rows]:
        """The batches as they come in, until the operator closes the socket."""
        while (message := self._receive()) is not None:
            kind, number, payload = message
            if kind == Message.BATCH:
                yield self._memory.batch(number)
            elif kind == Message.ROW:
                yield Rows(payload, np.array([len(payload)]), self._memory.slots_of_rows(1))
            else:
                raise ProtocolError(f"message {kind} instead of a batch")

    def ready(self) -> None:
        self._send(Message.READY, VERSION)

    def declare(self, metrics: Iterable[str]) -> None:
        """Declare new metrics, one line each."""
        lines = "\n".join(metrics).encode()
        if lines:
            self._send(Message.METRICS, 0, lines)

    def fail(self, traceback: str) -> None:
        self._send(Message.FAILED, 0, traceback.encode())

    def answer(self, records: list[bytes]) -> None:
        """Answer a batch; in parts where the answer doesn't fit into the memory.

        Each item is one record with its RECORD_HEADER or, where it fits into the memory, several.
        """
        room = self._memory.buffer_bytes
        if sum(map(len, records)) <= room:
            self._write(Message.DONE, records)
            return
        part: list[bytes] = []
        used = 0
        for record in records:
            if used + len(record) > room:
                if part:
                    self._write(Message.PART, part)
                    self._await_next()
                part, used = [], 0
            if len(record) > room:
                self._send(Message.RECORD, 1, record[:4] + record[RECORD_HEADER.size :])
            else:
                part.append(record)
                used += len(record)
        self._write(Message.DONE, part)

    def _write(self, kind: Message, records: list[bytes]) -> None:
        content = b"".join(records)
        self._memory.bytes[self._memory.answers : self._memory.answers + len(content)] = content
        self._send(kind, len(content))

    def _await_next(self) -> None:
        message = self._receive()
        if message is None or message[0] != Message.NEXT:
            raise ProtocolError(f"{message} instead of NEXT")

    def _receive(self) -> tuple[int, int, bytes] | None:
        header = self._read(_HEADER.size)
        if header is None:
            return None
        kind, self._sequence, number, length = _HEADER.unpack(header)
        if length < 0:
            raise ProtocolError(f"a message announces {length} bytes")
        payload = self._read(length) if length else b""
        return None if payload is None else (kind, number, payload)

    def _read(self, size: int) -> bytes | None:
        """Read `size` bytes; None if the operator has closed the socket."""
        parts = []
        while size:
            part = self._socket.recv(min(size, _RECEIVED_AT_ONCE), socket.MSG_WAITALL)
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _send(self, kind: Message, number: int, payload: bytes = b"") -> None:
        self._socket.sendall(_HEADER.pack(kind, self._sequence, number, len(payload)) + payload)
