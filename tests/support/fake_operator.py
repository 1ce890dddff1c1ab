"""The operator's side of a worker once more, in small: its shared memory, and a process to talk to.

SharedMemory.java and Worker.java are the real ones; here the layout and the messages are written down anew, so that the
two sides are not checked against themselves.
"""

import mmap
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from udfs.workers.metrics import MetricGroup
from udfs.workers.protocol import Rows, SharedMemory
from udfs.workers.server import Handler

PROJECT = Path(__file__).parents[2]
PAGE = 4096
METRICS = 8192
TIMEOUT_S = 60
BATCH, ROW, NEXT = 1, 2, 3
READY, DONE, PART, RECORD, METRICS_DECLARED, FAILED = 11, 12, 13, 14, 15, 16
_HEADER = struct.Struct("<iiii")


class WorkerFailed(Exception):
    """The worker said so; the message is its traceback."""


class Record(NamedTuple):
    """What a worker answers with, and to which output."""

    output: int
    content: bytes

    @property
    def key(self) -> bytes | None:
        """Of a frame: the key's length, the value, the key."""
        length = self._key_length()
        return None if length < 0 else self.content[len(self.content) - length :]

    @property
    def value(self) -> bytes:
        return self.content[4 : len(self.content) - max(self._key_length(), 0)]

    def _key_length(self) -> int:
        length = int.from_bytes(self.content[:4], "little", signed=True)
        assert -1 <= length <= len(self.content) - 4
        return length


def read_records(content: bytes) -> list[Record]:
    """Records as they lie one after the other: output, length, bytes."""
    found, position = [], 0
    while position < len(content):
        output, length = struct.unpack_from("<ii", content, position)
        assert 0 <= length <= len(content) - position - 8
        found.append(Record(output, bytes(content[position + 8 : position + 8 + length])))
        position += 8 + length
    return found


def rows_of(rows: list[bytes], slots: list[int] | None = None) -> Rows:
    """Rows as a handler gets them; without slots there is none."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int32)
    return Rows(b"".join(rows), ends, np.array([-1] * len(rows) if slots is None else slots, np.int32))


class Memory:
    """The file, as SharedMemory.java lays it out."""

    def __init__(
        self,
        file: Path,
        max_rows: int = 16,
        buffer_bytes: int = PAGE,
        slot_count: int = 0,
        new_head: bytes = b"",
        body_bytes: int = 0,
        version: int = 1,
    ):
        self.file, self.buffer_bytes = file, buffer_bytes
        self.row_slots = PAGE + 8 * METRICS
        self.row_ends = self.row_slots + 4 * max_rows
        self.rows = _to_page(self.row_ends + 4 * max_rows)
        self.answers = _to_page(self.rows + buffer_bytes)
        heads = _to_page(self.answers + buffer_bytes)
        bodies = _to_page(heads + len(new_head) * slot_count)
        size = _to_page(bodies + body_bytes * slot_count)
        magic = struct.unpack("<q", b"INTENT1\0")[0]
        layout = (
            magic, version, max_rows, METRICS, PAGE, self.row_slots, self.row_ends, self.rows, self.answers,
            buffer_bytes, slot_count, len(new_head), heads, body_bytes, bodies, size,
        )  # fmt: skip
        content = bytearray(size)
        struct.pack_into("<16q", content, 0, *layout)
        content[heads : heads + len(new_head) * slot_count] = new_head * slot_count
        file.write_bytes(content)
        with file.open("r+b") as opened:
            self.bytes = mmap.mmap(opened.fileno(), 0)

    def put_rows(self, rows: list[bytes], slots: list[int]) -> None:
        content = b"".join(rows)
        assert len(content) <= self.buffer_bytes
        self.bytes[self.rows : self.rows + len(content)] = content
        ends = np.cumsum([len(row) for row in rows])
        struct.pack_into(f"<{len(rows)}i", self.bytes, self.row_slots, *slots)
        struct.pack_into(f"<{len(rows)}i", self.bytes, self.row_ends, *ends.tolist())

    def records(self, length: int) -> list[Record]:
        """Those in the first bytes of the answers."""
        assert 0 <= length <= self.buffer_bytes
        return read_records(self.bytes[self.answers : self.answers + length])

    def metric_values(self, count: int) -> list[int]:
        return list(struct.unpack_from(f"<{count}q", self.bytes, PAGE))


def _to_page(size: int) -> int:
    return (size + PAGE - 1) // PAGE * PAGE


class FakeOperator:
    """A worker's process, and the operator's end of the socket; `with` waits until it is ready."""

    def __init__(self, handler: bytes | Handler, **memory):
        self._directory = Path(tempfile.mkdtemp(prefix="intent-"))  # not under tmp_path: a socket's path is short
        self.memory = Memory(self._directory / "memory", **memory)
        content = handler if isinstance(handler, bytes) else pickle.dumps(handler)
        (self._directory / "handler").write_bytes(content)
        self.metrics: list[str] = []  # the lines that declare them
        self.kinds: list[int] = []  # of the messages of the last answer
        self._sequence = 0
        self._socket = None

    def __enter__(self) -> Self:
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(self._directory / "bell"))
                server.listen()
                server.settimeout(TIMEOUT_S)
                self.process = start_worker(self._directory)
                self._socket, _ = server.accept()
            self._socket.settimeout(TIMEOUT_S)
            self.version = self._await_ready()
        except BaseException:
            self.__exit__()
            raise
        finally:
            shutil.rmtree(self._directory)  # as the operator does: both sides hold the files open by now
        return self

    def __exit__(self, *_) -> None:
        if self._socket is not None:
            self._socket.close()
        self.process.kill()
        self.process.communicate()

    def call(self, rows: list[bytes], slots: list[int] | None = None) -> list[Record]:
        """The answer to a batch; to a row that is too large for the memory, where there is one that is."""
        slots = [-1] * len(rows) if slots is None else slots
        if len(rows) == 1 and len(rows[0]) > self.memory.buffer_bytes:
            self.memory.put_rows([b""], slots)
            self.send(ROW, 1, rows[0])
        else:
            self.memory.put_rows(rows, slots)
            self.send(BATCH, len(rows))
        records, self.kinds = [], []
        while True:
            kind, number, payload = self.receive()
            self.kinds.append(kind)
            if kind == METRICS_DECLARED:
                self.metrics += payload.decode().split("\n")
            elif kind == RECORD:
                records.append(Record(*struct.unpack("<i", payload[:4]), payload[4:]))
            elif kind in (PART, DONE):
                records += self.memory.records(number)
                if kind == DONE:
                    return records
                self.memory.bytes[self.memory.answers] ^= 0xFF  # nobody may look at it any more
                self.send(NEXT)
            else:
                raise AssertionError(f"message {kind} in an answer")

    def metric_values(self) -> dict[str, int]:
        """The metrics by their lines."""
        return dict(zip(self.metrics, self.memory.metric_values(len(self.metrics))))

    def send(self, kind: int, number: int = 0, payload: bytes = b"") -> None:
        if kind != NEXT:
            self._sequence += 1
        self.send_bytes(_HEADER.pack(kind, self._sequence, number, len(payload)) + payload)

    def send_bytes(self, content: bytes) -> None:
        self._socket.sendall(content)

    def receive(self) -> tuple[int, int, bytes]:
        """Type, number and payload of the next message. Raises WorkerFailed."""
        kind, sequence, number, length = _HEADER.unpack(self._read(_HEADER.size))
        payload = self._read(length)
        assert sequence == self._sequence
        if kind == FAILED:
            raise WorkerFailed(payload.decode())
        return kind, number, payload

    def hang_up(self) -> int:
        """Close the socket; the exit code of the worker, which ends by itself."""
        self._socket.close()
        return self.process.wait(TIMEOUT_S)

    def _await_ready(self) -> int:
        while True:
            kind, number, payload = self.receive()
            if kind == READY:
                return number
            assert kind == METRICS_DECLARED
            self.metrics += payload.decode().split("\n")

    def _read(self, size: int) -> bytes:
        content = b""
        while len(content) < size:
            received = self._socket.recv(size - len(content))
            if not received:
                raise ConnectionError(f"the worker hung up, exit code {self.process.wait(TIMEOUT_S)}")
            content += received
        return content


def start_worker(directory: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "udfs.workers", str(directory)]
    return subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True)


def answer_to(row: bytes, slot: int) -> Record:
    """What Repeat answers to a row."""
    times, text = row[:1], row[1:]
    return Record(len(text) % 3, struct.pack("<i", slot) + text * int.from_bytes(times, "little"))


class Repeat(Handler):
    """A handler to try the protocol with: repeats the rest of a row so many times as its first byte says.

    Counts rows, and those of each output. Fails at a row `fail`, is busy for good with a row `sleep`, and tells of its
    end in a file, where one is named.
    """

    def __init__(self, farewell: Path | None = None):
        self._farewell = farewell

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._metrics = metrics
        self._rows = metrics.counter("rows")
        self._last_bytes = 0
        metrics.add_group("side", "worker").gauge("last_bytes", lambda: self._last_bytes)
        self._by_output = {}

    def process(self, rows: Rows) -> list[bytes]:
        records = []
        for start, end, slot in zip(rows.starts.tolist(), rows.ends.tolist(), rows.slots.tolist()):
            row = rows.content[start:end]
            if row == b"fail":
                raise ValueError("asked to fail")
            if row == b"sleep":
                time.sleep(10 * TIMEOUT_S)
            output, content = answer_to(row, slot)
            records.append(struct.pack("<ii", output, len(content)) + content)
            if output not in self._by_output:
                self._by_output[output] = self._metrics.add_group("output", str(output)).counter("records")
            self._by_output[output].inc()
        self._rows.inc(len(records))
        self._last_bytes = sum(map(len, records))
        return records

    def close(self) -> None:
        if self._farewell is not None:
            self._farewell.write_text("closed")


class NeverReady(Handler):
    """Fails before its first batch."""

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        raise OSError("no such model")

    def process(self, rows: Rows) -> list[bytes]:
        raise NotImplementedError
