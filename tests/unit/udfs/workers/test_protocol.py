"""A worker's process, spoken to as its operator does."""

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fake_operator import (
    BATCH,
    DONE,
    METRICS_DECLARED,
    NEXT,
    PART,
    PROJECT,
    RECORD,
    ROW,
    TIMEOUT_S,
    FakeOperator,
    Memory,
    NeverReady,
    Repeat,
    WorkerFailed,
    answer_to,
    rows_of,
    start_worker,
)
from udfs.workers.protocol import MAGIC, RECORD_HEADER, VERSION, Channel, ProtocolError, Rows, SharedMemory

PART_SIZE = 300  # not a page: answers must not spill over


@pytest.fixture(scope="module")
def operator():
    with FakeOperator(Repeat(), buffer_bytes=PART_SIZE) as operator:
        yield operator


def test_a_worker_says_its_version_and_its_metrics_when_it_is_ready():
    with FakeOperator(Repeat()) as operator:
        assert operator.version == VERSION == 1
        assert operator.metrics == ["counter\trows\tintent", "gauge\tlast_bytes\tintent\tside=worker"]


small_rows = st.builds(lambda times, text: bytes([times]) + text, st.integers(0, 3), st.binary(max_size=12))
any_rows = st.one_of(
    small_rows,
    st.just(b""),
    st.builds(lambda times, text: bytes([times]) + text, st.sampled_from([30, 255]), st.binary(max_size=15)),
)


@given(st.lists(st.tuples(any_rows, st.integers(-1, 2**31 - 1)), min_size=1, max_size=16))
def test_each_row_is_answered_in_order_however_large_the_answer_is(operator, rows_and_slots):
    rows, slots = map(list, zip(*rows_and_slots))
    answer = operator.call(rows, slots)
    assert answer == [answer_to(row, slot) for row, slot in zip(rows, slots)]


def test_an_answer_that_fits_comes_in_one_part(operator):
    text = bytes([1]) + b"x" * (PART_SIZE - RECORD_HEADER.size - 4)
    assert operator.call([text]) == [answer_to(text, -1)]
    assert operator.kinds[-1:] == [DONE]
    assert PART not in operator.kinds
    assert RECORD not in operator.kinds


def test_an_answer_larger_than_the_memory_comes_in_parts_and_a_larger_record_between_them(operator):
    small, large = bytes([9]) + b"0123456789", bytes([40]) + b"0123456789"
    rows = [small, small, small, large, small, large, large, small]
    assert operator.call(rows) == [answer_to(row, -1) for row in rows]
    parts = [kind for kind in operator.kinds if kind != METRICS_DECLARED]
    assert parts == [PART, PART, RECORD, PART, RECORD, RECORD, DONE]


def test_a_row_larger_than_the_memory_is_answered_with_its_slot(operator):
    row = bytes([2]) + bytes(range(256)) * 5_000
    assert operator.call([row], [7]) == [answer_to(row, 7)]


def test_metrics_that_a_batch_brings_are_declared_before_its_answer_and_counted():
    with FakeOperator(Repeat()) as operator:
        operator.call([b"\1aaa", b"\1a", b"\1a"])
        assert operator.kinds == [METRICS_DECLARED, DONE]
        operator.call([b"\1a"])
        assert operator.kinds == [DONE]
        assert operator.metric_values() == {
            "counter\trows\tintent": 4,
            "gauge\tlast_bytes\tintent\tside=worker": RECORD_HEADER.size + 5,
            "counter\trecords\tintent\toutput=0": 1,
            "counter\trecords\tintent\toutput=1": 3,
        }


def test_a_worker_ends_with_its_socket_and_lets_go_of_what_it_had(tmp_path):
    farewell = tmp_path / "farewell"
    with FakeOperator(Repeat(farewell)) as operator:
        operator.call([b"\1a"])
        assert not farewell.exists()
        assert operator.hang_up() == 0
    assert farewell.read_text() == "closed"


def test_a_handler_that_fails_is_reported_with_its_traceback_and_closed(tmp_path):
    farewell = tmp_path / "farewell"
    with FakeOperator(Repeat(farewell)) as operator:
        with pytest.raises(WorkerFailed, match=r"in process\n(.|\n)*ValueError: asked to fail"):
            operator.call([b"\1a", b"fail"])
        assert operator.process.wait(TIMEOUT_S) == 1
        assert "ERROR udfs.workers.server: Traceback" in operator.process.stderr.read()
    assert farewell.exists()


def test_a_handler_that_can_not_be_opened_is_reported():
    with pytest.raises(WorkerFailed, match="OSError: no such model"), FakeOperator(NeverReady()):
        pass


@pytest.mark.parametrize("content", [b"", pickle.dumps(Repeat()).replace(b"Repeat", b"Repaet")], ids=["empty", "other"])
def test_a_handler_that_can_not_be_read_is_reported(content):
    with pytest.raises(WorkerFailed, match=r"Traceback(.|\n)*pickle\.loads"), FakeOperator(content):
        pass


def test_a_message_that_is_no_batch_is_refused():
    with FakeOperator(Repeat()) as operator:
        operator.send(NEXT)
        with pytest.raises(WorkerFailed, match="ProtocolError: message 3 instead of a batch"):
            operator.receive()


def test_another_batch_before_the_answer_is_read_is_refused():
    with FakeOperator(Repeat(), buffer_bytes=PART_SIZE) as operator:
        operator.memory.put_rows([bytes([20]) + b"0123456789"] * 2, [0, 0])
        operator.send(BATCH, 2)
        while operator.receive()[0] != PART:
            pass
        operator.send(BATCH, 2)
        with pytest.raises(WorkerFailed, match="instead of NEXT"):
            operator.receive()


@pytest.mark.parametrize(
    ("count", "ends", "slots", "message"),
    [
        (0, [3], [0], "a batch has 0 rows, not 1 to 16"),
        (-1, [3], [0], "a batch has -1 rows"),
        (17, [3], [0], "a batch has 17 rows"),
        (1, [-1], [0], "the ends of rows do not ascend"),
        (1, [4097], [0], "from 0 to at most 4096"),
        (2, [3, 2], [0, 0], "the ends of rows do not ascend"),
        (1, [3], [-1], "a row has a slot that is not one of 2"),
        (2, [3, 3], [1, 2], "a row has a slot that is not one of 2"),
    ],
)
def test_rows_that_are_not_in_the_memory_are_refused(tmp_path, count, ends, slots, message):
    written = Memory(tmp_path / "memory", slot_count=2)
    written.put_rows([b"row"], [0])
    struct.pack_into(f"<{len(ends)}i", written.bytes, written.row_ends, *ends)
    struct.pack_into(f"<{len(slots)}i", written.bytes, written.row_slots, *slots)
    with pytest.raises(ProtocolError, match=message):
        SharedMemory(tmp_path / "memory").batch(count)


def test_a_message_of_less_than_no_bytes_is_refused():
    with FakeOperator(Repeat()) as operator:
        operator.send_bytes(struct.pack("<iiii", ROW, 0, 1, -5))
        with pytest.raises(WorkerFailed, match="ProtocolError: a message announces -5 bytes"):
            operator.receive()


def test_a_message_takes_no_memory_for_bytes_that_it_only_announces():
    with tempfile.TemporaryDirectory(prefix="intent-") as directory, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{directory}/bell")
        server.listen()
        channel = Channel(Path(directory) / "bell", memory=None)
        operator, _ = server.accept()
        with operator:
            operator.sendall(struct.pack("<iiii", ROW, 1, 1, 2**31 - 1) + b"x" * 99)
        tracemalloc.start()
        assert not list(channel.batches())
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()


@pytest.mark.parametrize("tail", [-1, 3])
def test_a_row_that_is_shorter_than_it_says_is_refused(tail):
    rows = rows_of([b"heaadxx", b"heaad"])
    rows.check_tails(5, np.array([2, 0]))
    with pytest.raises(ProtocolError, match="shorter than its head announces"):
        rows.check_tails(5, np.array([tail, 0]))


CUT_SHORT = {
    "between messages": b"",
    "in a header": struct.pack("<ii", BATCH, 1),
    "in a payload": struct.pack("<iiii", ROW, 1, 1, 100) + b"x" * 99,
}


@pytest.mark.parametrize("sent", CUT_SHORT.values(), ids=CUT_SHORT)
def test_a_worker_ends_whatever_its_operator_was_at_when_it_went(sent):
    with FakeOperator(Repeat()) as operator:
        operator.send_bytes(sent)
        operator.hang_up()


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_another_version_of_the_protocol_is_refused(tmp_path, version):
    Memory(tmp_path / "memory", version=version)
    worker = start_worker(tmp_path)
    _, written = worker.communicate(timeout=TIMEOUT_S)
    assert worker.returncode == 1
    assert f"speaks version {version} of the protocol, its worker {VERSION}: JAR and wheel" in written


def test_a_file_that_is_no_memory_is_refused(tmp_path):
    (tmp_path / "memory").write_bytes(b"INTENT9\0" + bytes(4096))
    with pytest.raises(ProtocolError, match="not of the same release"):
        SharedMemory(tmp_path / "memory")


PARENT_OF_A_BUSY_WORKER = """
import sys
from tests.support.fake_operator import BATCH, FakeOperator, Repeat
with FakeOperator(Repeat()) as operator:
    operator.memory.put_rows([b"sleep"], [0])
    operator.send(BATCH, 1)
    print(operator.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_busy_worker_ends_with_its_parent():
    command = [sys.executable, "-c", PARENT_OF_A_BUSY_WORKER]
    parent = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    parent.send_signal(signal.SIGKILL)
    parent.communicate(timeout=TIMEOUT_S)
    give_up_at = time.monotonic() + TIMEOUT_S
    while is_running(worker):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has asked for."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


# The memory as the worker sees it


def test_the_magic_is_the_one_of_the_layout(tmp_path):
    assert struct.pack("<q", MAGIC) == Memory(tmp_path / "memory").bytes[:8] == b"INTENT1\0"


def test_the_worker_finds_rows_slots_metrics_and_answers_where_the_operator_has_them(tmp_path):
    made = Memory(tmp_path / "memory", max_rows=5, buffer_bytes=100, slot_count=3, new_head=b"h" * 12, body_bytes=16)
    seen = SharedMemory(tmp_path / "memory")
    made.put_rows([b"one", b"", b"three"], [2, 0, 1])
    assert seen.row_ends.tolist() == [3, 3, 8, 0, 0]
    assert seen.row_slots.tolist() == [2, 0, 1, 0, 0]
    assert seen.bytes[seen.rows : seen.rows + 8] == b"onethree"
    assert (seen.buffer_bytes, seen.slot_count, seen.body_bytes) == (100, 3, 16)
    seen.metrics[:] = np.arange(len(seen.metrics))
    assert made.metric_values(8192) == list(range(8192))
    seen.bytes[seen.answers : seen.answers + 10] = RECORD_HEADER.pack(1, 2) + b"ab"
    assert made.records(10) == [(1, b"ab")]


def test_slots_are_seen_one_after_the_other_and_written_through(tmp_path):
    made = Memory(tmp_path / "memory", slot_count=3, new_head=b"\1\0\0\0\2\0\0\0", body_bytes=16)
    seen = SharedMemory(tmp_path / "memory")
    heads, bodies = seen.slot_heads(np.dtype("<i4,<i4")), seen.slot_bodies(np.dtype("<i8"))
    assert heads.tolist() == [(1, 2)] * 3
    assert bodies.tolist() == [0] * 6
    heads["f1"][2], bodies[5] = 77, 99
    again = SharedMemory(tmp_path / "memory")
    assert again.slot_heads(np.dtype("<i4,<i4"))["f1"].tolist() == [2, 2, 77]
    assert made.bytes.rfind(struct.pack("<q", 99)) > made.bytes.rfind(struct.pack("<i", 77)) > 0


def test_slots_of_another_size_are_refused(tmp_path):
    Memory(tmp_path / "memory", slot_count=1, new_head=bytes(12), body_bytes=20)
    memory = SharedMemory(tmp_path / "memory")
    with pytest.raises(ProtocolError, match="the head of a slot has 12 bytes, not a multiple of 8"):
        memory.slot_heads(np.dtype("<i8"))
    with pytest.raises(ProtocolError, match="the body of a slot has 20 bytes, not a multiple of 8"):
        memory.slot_bodies(np.dtype("<i8"))


@given(st.lists(st.binary(min_size=4, max_size=9), min_size=1, max_size=9))
def test_rows_are_cut_where_they_end_and_show_what_they_begin_with(rows):
    found = rows_of(rows)
    assert [found.content[start:end] for start, end in zip(found.starts, found.ends)] == rows
    assert found.heads(np.dtype("<u2,<u2")).tobytes() == b"".join(row[:4] for row in rows)


def test_a_row_that_is_too_short_is_refused():
    rows = Rows(b"long enough", np.array([8, 11]), np.array([0, 0], np.int32))
    with pytest.raises(ProtocolError, match="a row has fewer than 4 bytes"):
        rows.heads(np.dtype("<i4"))
