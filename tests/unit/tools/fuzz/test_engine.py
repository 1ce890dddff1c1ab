"""The fuzzer finds what breaks a contract, names it once, keeps as little of it as it takes, and repeats itself."""

import mmap
import os
import signal
from random import Random

import pytest

from tools.fuzz import __main__ as command_line
from tools.fuzz import engine
from tools.fuzz.engine import Crash, Hang, check, fuzz, fuzz_in_child, shrink, store
from tools.fuzz.mutation import Mutator
from tools.fuzz.target import Target


class Refusal(ValueError):
    pass


def fragile(data: bytes) -> str:
    """Fails at two bytes, in two places; refuses what is empty."""
    if not data:
        raise Refusal("no bytes")
    if b"\xff" in data:
        raise KeyError("first")
    if b'"\\ud800"' in data:
        raise IndexError("second")
    return "accepted"


TARGET = Target((b'{"a": 1, "b": "text"}', b"plain"), fragile, (Refusal,))


def test_inputs_are_the_same_for_a_seed_and_different_for_others():
    def made(seed: int) -> list[bytes]:
        mutator = Mutator(Random(seed), TARGET.corpus)
        return [mutator.mutate() for _ in range(300)]

    assert made(1) == made(1)
    assert made(1) != made(2)
    assert len(set(made(1))) > 200


def test_each_cause_is_a_crash_once_and_its_input_is_shrunk():
    findings = fuzz(TARGET, 2_000, 1)
    assert findings.inputs == 2_000
    assert sorted(crash.data for crash in findings.crashes.values()) == [b'"\\ud800"', b"\xff"]
    assert {"accepted", "Refusal: no bytes"} < findings.outcomes


def test_a_refusal_of_several_lines_or_of_half_a_character_is_a_crash():
    def refuse(data: bytes) -> str:
        raise Refusal(data.decode(errors="surrogateescape"))

    for message in (b"", b"two\nlines", b"\xff"):
        assert "not one line of text" in check(Target((), refuse, (Refusal,)), message)[1].cause
    assert check(Target((), refuse, (Refusal,)), b"one line") == ("Refusal: one line", None)


@pytest.mark.parametrize("bound", ["LONGEST_S", "LONGEST_WAIT_S"])
def test_an_input_that_takes_too_long_is_a_crash(monkeypatch, bound):
    monkeypatch.setattr(engine, bound, 0.0)
    monkeypatch.setattr(engine, "LOOK_S", 0.01)

    def wait(_data: bytes) -> str:
        while True:
            pass

    findings = fuzz(Target((b"a",), wait), 1, 1)
    assert [crash.cause.partition(":")[0] for crash in findings.crashes.values()] == [Hang.__name__]


def test_an_input_that_ends_the_process_is_kept_and_fuzzing_goes_on(tmp_path, monkeypatch):
    def run(data: bytes) -> str:
        if data == b"end":
            os.kill(os.getpid(), signal.SIGKILL)
        return "accepted"

    log: list[str] = []
    monkeypatch.setattr(engine, "store", lambda name, crash: store(name, crash, tmp_path))
    make = {"fragile": Target((b"a", b"end", b"b"), run)}.get
    done, crashes = fuzz_in_child("fragile", make, 2, 1, 60, log.append)
    assert (done, crashes) == (2, 1)
    assert "ended by SIGKILL" in "".join(log)
    assert [path.read_bytes() for path in tmp_path.glob("fragile-*") if not path.suffix] == [b"end"]


def test_the_current_input_is_in_the_flight_recorder():
    recorder = mmap.mmap(-1, 1_000)
    fuzz(Target((b"first", b"last"), fragile), 2, 1, flight_recorder=recorder)
    assert recorder[:20] == (1).to_bytes(8, "little") + (4).to_bytes(8, "little") + b"last"


def test_shrinking_keeps_the_cause():
    target = Target((), fragile)
    crash = check(target, b"x" * 50 + b"\xff" + b"y" * 50)[1]
    assert shrink(target, crash).data == b"\xff"
    assert shrink(target, crash, runs=0) == crash


def test_a_crash_can_be_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "make_target", lambda name: TARGET)
    command = store("clicks", Crash("KeyError: here", b"\xff", "details"), tmp_path)
    assert command.startswith("python -m tools.fuzz --target clicks --input ")
    assert command_line.main(["--target", "clicks", "--input", command.rpartition(" ")[2]]) == 1
    assert "KeyError: 'first'" in capsys.readouterr().out
    (tmp_path / "fine").write_bytes(b"fine")
    assert command_line.main(["--target", "clicks", "--input", str(tmp_path / "fine")]) == 0
    assert command_line.main(["--target", "clicks", "--input", str(tmp_path / "nothing")]) == 2


@pytest.mark.parametrize("arguments", [[], ["--target", "nothing"], ["--target", "clicks", "--inputs", "0"]])
def test_options_that_can_not_be_used_are_refused(arguments):
    assert command_line.main(arguments) == 2
