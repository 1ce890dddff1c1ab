"""The protocol between workers and their operators: what an operator writes into the socket and the shared memory.

Contract: the worker that decodes answers each batch with as many records as it has rows, the one that scores with as
many scores as there are events, or they end with ProtocolError or, at an id that is not UTF-8, UnicodeDecodeError. The
operator is our own Java, so an error may end the worker; but it must not wait for ever, or go on with something else.
"""

import socket
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.fuzz.targets.bundles import small_bundle
from tools.fuzz.targets.clicks import JSON_CORPUS, NOW_MS
from udfs.contracts.clicks import Click, pack_click
from udfs.contracts.event_layout import STANDARD_LAYOUT
from udfs.contracts.packed_events import EVENT
from udfs.contracts.profiles import Profile, pack_profile
from udfs.features.user_slots import EVENT_ROW, HISTORY_ROW, LOGIN_ROW, PROFILE_ROW, head_type, new_head, ring_bytes
from udfs.mapping.topic import ClickTopic
from udfs.serving.bootstrap import serving_bundle
from udfs.serving.deployment import Options
from udfs.workers.decode import RAW_RECORD, ClickHandler
from udfs.workers.metrics import Metrics
from udfs.workers.protocol import MAGIC, RECORD_HEADER, VERSION, Channel, Message, ProtocolError, Rows, SharedMemory
from udfs.workers.score import FEATURE_LOG, SCORES, ScoreClicks
from udfs.workers.user_rows import UserRows

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


def scores() -> Target:
    """Rows for the score operator, each behind its slot (u1) and its length (u2)."""
    history_length, slots_count = 64, 4
    heads = np.frombuffer(bytearray(new_head() * slots_count), head_type(STANDARD_LAYOUT))
    events = np.zeros(slots_count * ring_bytes(history_length) // EVENT.itemsize, EVENT)
    serving = serving_bundle(small_bundle(), Options(engine="native"))
    handler = ScoreClicks(serving, user_share=1.0, budget_ms=100, duplicates_within_ms=0)
    handler.open(_Slots(heads, events), Metrics(np.zeros(_METRICS, np.int64)).group())
    fresh = heads.tobytes()

    def run(data: bytes) -> str:
        rows, slots, rest = [], [], data
        while len(rest) > 3 and len(rows) < _ROWS:
            slot, size = struct.unpack_from("<BH", rest)
            rows.append(rest[3 : 3 + size])
            slots.append(slot % slots_count)
            rest = rest[3 + size :]
        if not rows:
            return "no rows"
        heads[:] = np.frombuffer(fresh, heads.dtype)
        ends = np.cumsum([len(row) for row in rows])
        answer = b"".join(handler.process(Rows(b"".join(rows), ends, np.array(slots, np.int32))))
        outputs = _outputs(answer)
        scored = sum(row[4] == EVENT_ROW for row in rows)
        if outputs != [SCORES] * scored + [FEATURE_LOG] * scored:
            raise ContractError(f"{scored} events have answers for the outputs {outputs}")
        return f"scored {scored} of {len(rows)}"

    return Target(tuple(_score_corpus()), run, (ProtocolError, UnicodeDecodeError))


class _Slots:
    """Stands in for the shared memory of a score operator."""

    buffer_bytes = _BUFFER_BYTES

    def __init__(self, heads: np.ndarray, events: np.ndarray):
        self._heads, self._events = heads, events

    def slot_heads(self, _type: np.dtype) -> np.ndarray:
        return self._heads

    def slot_bodies(self, _type: np.dtype) -> np.ndarray:
        return self._events


def _outputs(answer: bytes) -> list[int]:
    """The outputs of the records of an answer, which must be JSON with the key behind."""
    outputs, start = [], 0
    while start < len(answer):
        output, size, key_bytes = struct.unpack_from("<iii", answer, start)
        value = answer[start + 12 : start + 8 + size - max(key_bytes, 0)]
        msgspec.json.decode(value)
        outputs.append(output)
        start += 8 + size
    return outputs


def _score_corpus() -> list[bytes]:
    rows_of = UserRows(EVENT)
    event = pack_click(Click("ada", "purchase", NOW_MS, event_id="e", value=2.5))
    profile = pack_profile(Profile("ada", country="DE")).ljust(EVENT.itemsize, b"\0")
    login = struct.pack("<Qqq", 7, 3, NOW_MS).ljust(EVENT.itemsize, b"\0")
    kinds = ((EVENT_ROW, event), (PROFILE_ROW, profile), (HISTORY_ROW, event), (LOGIN_ROW, login))
    rows = [rows_of.row(kind, content, b"ada", 1, 7, NOW_MS)[RECORD_HEADER.size :] for kind, content in kinds]
    framed = [struct.pack("<BH", 1, len(row)) + row for row in rows]
    return [*framed, b"".join(framed), framed[0] * _ROWS, framed[3] + framed[2] + framed[0]]


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
