"""What the workers do that the tests of the operators start, in tests/java/intent."""

import os
import socket
import struct
import sys
import time

import numpy as np

from udfs.workers import protocol
from udfs.workers.metrics import MetricGroup
from udfs.workers.protocol import RECORD_HEADER, Channel, Message, Rows, SharedMemory
from udfs.workers.server import Handler


def contents(rows: Rows) -> list[bytes]:
    return [rows.content[start:end] for start, end in zip(rows.starts.tolist(), rows.ends.tolist())]


def record(content: bytes, output: int = 0) -> bytes:
    return RECORD_HEADER.pack(output, len(content)) + content


class Echo(Handler):
    """Answers each row with itself, those that begin with a digit on the output of that number."""

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        pass

    def process(self, rows: Rows) -> list[bytes]:
        return [record(row, int(row[:1]) if row[:1].isdigit() else 0) for row in contents(rows)]


class Join(Echo):
    """Answers each batch with one record: its rows, apart by spaces."""

    def process(self, rows: Rows) -> list[bytes]:
        return [record(b" ".join(contents(rows)))]


class Pack(Echo):
    """Answers like Echo, with all records in one piece."""

    def process(self, rows: Rows) -> list[bytes]:
        return [b"".join(super().process(rows))]


class Stretch(Echo):
    """Answers each row, which is a number, with a record of so many bytes."""

    def process(self, rows: Rows) -> list[bytes]:
        return [record(b"x" * int(row)) for row in contents(rows)]


class Repeat(Echo):
    """Answers each row, which is a number, with three records of so many bytes."""

    def process(self, rows: Rows) -> list[bytes]:
        return 3 * [record(b"x" * int(row)) for row in contents(rows)]


class Nothing(Echo):
    """Answers no row."""

    def process(self, rows: Rows) -> list[bytes]:
        return []


class Counter(Handler):
    """Counts the frames of each key and keeps the last bytes of their values; answers each frame with both, as a frame.

    The value of an answer is the count (i4) and those bytes.
    """

    HEAD = np.dtype([("begin", "<i4"), ("end", "<i4"), ("layout", "<u4"), ("count", "<i4")])

    def __init__(self, kept: int):
        self._kept = kept

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._heads = memory.slot_heads(self.HEAD)
        self._bodies = memory.slot_bodies(np.dtype(np.uint8)).reshape(memory.slot_count, -1)

    def process(self, rows: Rows) -> list[bytes]:
        return [self._count(row, slot) for row, slot in zip(contents(rows), rows.slots.tolist())]

    def _count(self, frame: bytes, slot: int) -> bytes:
        key_start = len(frame) - int.from_bytes(frame[:4], "little")
        head, body = self._heads[slot], self._bodies[slot]
        value = (body[head["begin"] : head["end"]].tobytes() + frame[4:key_start])[-self._kept :]
        end = int(head["end"]) + key_start - 4
        if end > len(body):
            end = len(value)
        body[end - len(value) : end] = np.frombuffer(value, np.uint8)
        head["begin"], head["end"] = end - len(value), end
        head["count"] += 1
        return record(frame[:4] + head["count"].tobytes() + value + frame[key_start:])


class Meter(Echo):
    """Counts rows by their first letter, and shows how many there were in the last batch."""

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._metrics, self._letters, self._last = metrics, {}, 0
        self._rows = metrics.counter("rows")
        metrics.add_group("last").gauge("batch_size", lambda: self._last)

    def process(self, rows: Rows) -> list[bytes]:
        found = contents(rows)
        self._last = len(found)
        self._rows.inc(len(found))
        for row in found:
            letter = row[:1].decode()
            if letter not in self._letters:
                self._letters[letter] = self._metrics.add_group("letter", letter).counter("rows")
            self._letters[letter].inc()
        return []


class ManyMetrics(Echo):
    """Declares more metrics than there is room for."""

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        for number in range(len(memory.metrics) + 1):
            metrics.counter(f"m{number}").inc(number)


class Misbehaving(Echo):
    """Does what its name says as soon as it has a row; what is said of the start, at the start."""

    def __init__(self, how: str):
        self._does = how.replace(" ", "_")

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._memory = memory
        if self._does.endswith("_at_the_start"):
            getattr(self, self._does)()

    def process(self, rows: Rows) -> list[bytes]:
        self._rows = rows
        answer = getattr(self, self._does)()
        return super().process(rows) if answer is None else answer

    def raises(self) -> None:
        raise ValueError("no such row")

    raises_at_the_start = raises

    def finds_its_server_gone(self) -> None:
        raise ConnectionRefusedError("nobody listens on port 9")

    def exits_with_code_0(self) -> None:
        sys.exit(0)

    def dies(self) -> None:
        print("these are my last words")
        os._exit(3)

    dies_at_the_start = dies

    def dies_between_two_parts(self) -> list[bytes]:
        Channel._await_next = lambda channel: os._exit(3)
        return [record(b"x" * (self._memory.buffer_bytes // 2))] * 5

    def sleeps(self) -> None:
        time.sleep(3600)

    sleeps_at_the_start = sleeps

    def closes_its_socket(self) -> None:
        def close(channel: Channel, records: list[bytes]) -> None:
            channel._socket.shutdown(socket.SHUT_RDWR)
            time.sleep(3600)

        Channel.answer = close

    def does_not_listen_at_the_start(self) -> None:
        Channel._read = lambda channel, size: time.sleep(3600)

    def speaks_version_2_at_the_start(self) -> None:
        protocol.VERSION = 2

    def answers_at_the_start(self) -> None:
        Channel.ready = lambda channel: channel._send(Message.DONE, 0)

    def is_ready_again(self) -> None:
        self._sends(Message.READY)

    def sends_message_99(self) -> None:
        self._sends(99)

    def announces_fewer_than_no_bytes(self) -> None:
        self._sends(Message.RECORD, length=-5)

    def announces_2_GiB(self) -> None:
        self._sends(Message.RECORD, length=2**31 - 1)

    def sends_a_record_without_an_output(self) -> None:
        self._sends(Message.RECORD, length=3)

    def answers_with_fewer_than_no_bytes(self) -> None:
        self._sends(Message.DONE, number=-1)

    def answers_with_more_than_the_buffer(self) -> None:
        self._sends(Message.DONE, number=self._memory.buffer_bytes + 1)

    def answers_with_half_a_header(self) -> None:
        self._sends(Message.DONE, number=RECORD_HEADER.size // 2)

    def declares_a_metric_without_a_name(self) -> None:
        self._sends(Message.METRICS, length=7)

    def answers_twice(self) -> None:
        answer = Channel.answer

        def twice(channel: Channel, records: list[bytes]) -> None:
            answer(channel, records)
            answer(channel, records)

        Channel.answer = twice

    def answers_another_call(self) -> None:
        def answer(channel: Channel, records: list[bytes]) -> None:
            channel._sequence += 1
            channel._send(Message.DONE, 0)

        Channel.answer = answer

    def writes_a_record_beyond_its_answer(self) -> list[bytes]:
        return [record(b""), RECORD_HEADER.pack(0, 6) + b"abcde"]

    def writes_a_record_of_fewer_than_no_bytes(self) -> list[bytes]:
        return [RECORD_HEADER.pack(0, -1)]

    def writes_to_output_7(self) -> list[bytes]:
        return [record(b"", 7)]

    def writes_to_output_minus_1(self) -> list[bytes]:
        return [record(b"", -1)]

    def begins_before_its_slot(self) -> None:
        self._uses(-1, 0)

    def ends_before_it_begins(self) -> None:
        self._uses(5, 4)

    def ends_behind_its_slot(self) -> None:
        self._uses(0, self._memory.body_bytes + 1)

    def _uses(self, begin: int, end: int) -> None:
        heads = self._memory.slot_heads(Counter.HEAD)
        heads["begin"][self._rows.slots], heads["end"][self._rows.slots] = begin, end

    def _sends(self, kind: int, number: int = 0, length: int = 0) -> None:
        """Instead of an answer; a length that is believed is followed by so many x."""
        content = b"x" * length if length < 100 else b""

        def send(channel: Channel, records: list[bytes]) -> None:
            channel._socket.sendall(struct.pack("<iiii", kind, channel._sequence, number, length) + content)

        Channel.answer = send
