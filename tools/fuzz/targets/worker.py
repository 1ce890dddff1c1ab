"""The protocol between a worker and its operator: what the operator writes into the socket and the shared memory.

Contract: the worker answers each batch with as many records as it has rows, or ends with ProtocolError. The operator is
our own Java, so an error may end the worker; but it must not wait for ever or go on with something else.
"""

import socket
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.fuzz.targets.clicks import JSON_CORPUS, NOW_MS
from udfs.mapping.topic import ClickTopic
from udfs.workers.decode import RAW_RECORD, ClickHandler
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import MAGIC, VERSION, Channel, Message, ProtocolError, SharedMemory

_ROWS, _METRICS, _BUFFER_BYTES, _PAGE = 8, 200, 4096, 4096
_TABLES = 2 * 4 * _ROWS  # bytes of the slots and the ends of the rows, with which an input begins
_MESSAGE = struct.Struct("<iiii")


def protocol() -> Target:
    """Slots and ends of rows, the buffer of rows, then the bytes of the socket."""
    directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
    metrics_at, slots_at = _PAGE, 2 * _PAGE
    rows_at, answers_at = 3 * _PAGE, 4 * _PAGE
    size = answers_at + _BUFFER_BYTES
    layout = (
        MAGIC, VERSION, _ROWS, _METRICS, metrics_at, slots_at, slots_at + 4 * _ROWS, rows_at, answers_at, _BUFFER_BYTES,
        0, 0, size, 0, size, size,
    )  # fmt: skip
    (directory / "memory").write_bytes(struct.pack("<16q", *layout).ljust(size, b"\0"))
    memory = SharedMemory(directory / "memory")
    handler = ClickHandler("clicks", ClickTopic())
    handler.open(memory, Metrics(np.zeros(_METRICS, np.int64)).group())
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(directory / "bell"))
    server.listen()

    def run(data: bytes) -> str:
        memory.bytes[slots_at : slots_at + _TABLES] = data[:_TABLES].ljust(_TABLES, b"\0")
        buffer = data[_TABLES : _TABLES + _BUFFER_BYTES]
        memory.bytes[rows_at : rows_at + len(buffer)] = buffer
        channel = Channel(directory / "bell", memory)
        operator, _ = server.accept()
        with operator, channel._socket:
            operator.sendall(data[_TABLES + _BUFFER_BYTES :][:100_000])
            operator.shutdown(socket.SHUT_WR)
            operator.setblocking(False)
            answered = 0
            for rows in channel.batches():
                records = handler.process(rows)
                if len(records) != len(rows.ends):
                    raise ContractError("a batch has more or fewer answers than rows")
                channel.answer(records)
                _drain(operator)
                answered += 1
        return f"answered {min(answered, 3)}"

    return Target(tuple(_corpus()), run, (ProtocolError,))


def _drain(operator: socket.socket) -> None:
    """Read all answers, so that there is room for further ones."""
    with suppress(BlockingIOError):
        while operator.recv(1 << 20):
            pass


def _corpus() -> list[bytes]:
    inputs = []
    for count in (1, 3, _ROWS):
        rows = [_row(payload) for payload in JSON_CORPUS[:count]]
        ends = np.cumsum([len(row) for row in rows], dtype="<i4").tobytes()
        tables = b"\xff" * 4 * _ROWS + ends.ljust(4 * _ROWS, b"\0")
        messages = [(Message.BATCH, count, b""), (Message.ROW, 1, rows[0]), (Message.NEXT, 0, b"")]
        stream = b"".join(
            _MESSAGE.pack(kind, number, rows_in, len(payload)) + payload
            for number, (kind, rows_in, payload) in enumerate(messages)
        )
        inputs += [tables + b"".join(rows).ljust(_BUFFER_BYTES, b"\0") + stream[:end] for end in (16, len(stream))]
    return inputs


def _row(payload: bytes) -> bytes:
    return np.array([(NOW_MS, 1, 0, 1, len(payload))], RAW_RECORD).tobytes() + b"k" + payload
