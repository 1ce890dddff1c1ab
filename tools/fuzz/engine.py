"""Running a target with mutated inputs; keeping those that break its contract."""

import atexit
import logging
import mmap
import os
import re
import resource
import shlex
import shutil
import signal
import struct
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from random import Random

from tools.fuzz.mutation import HUGE, Mutator
from tools.fuzz.target import Target
from tools.paths import PROJECT

CRASHES = PROJECT / "build" / "fuzz" / "crashes"
LONGEST_S = 10.0  # of processor time: an input that takes longer hangs
LONGEST_WAIT_S = 100.0  # the same of the clock, which also stands for other processes
MOST_BYTES = 2 << 30  # of memory beside what the target had at its start
KEPT_INPUTS, KEPT_BYTES = 5_000, 20_000  # of the inputs with new outcomes that join the corpus
LOOK_S = 1.0  # between looks at how long the current input has taken
REPORT_S = 10.0
SHRINK_RUNS = 400

_PASSED = struct.Struct("<qq")  # inputs so far, bytes of the current one, which follow


class Hang(BaseException):
    """An input took too long. Not an Exception, which the code under test may catch."""


class ContractError(AssertionError):
    """An answer that breaks the contract of its target."""


@dataclass(frozen=True)
class Crash:
    """An input that breaks a contract; `cause` is the same for inputs that break it at the same place."""

    cause: str
    data: bytes
    details: str


@dataclass
class Findings:
    """The result of fuzzing."""

    inputs: int = 0
    outcomes: set[str] = field(default_factory=set)
    crashes: dict[str, Crash] = field(default_factory=dict)  # the first of each cause


def fuzz(
    target: Target, inputs: int, seed: int, log: Callable[[str], None] = lambda _: None, seconds: float = float("inf"),
    flight_recorder: mmap.mmap | None = None,
) -> Findings:  # fmt: skip
    """Call a target with its corpus and mutations of it, at most `inputs` and at most for so many seconds.

    The `flight_recorder`, shared memory, always holds the current input: for another process, should this one die.
    """
    findings, corpus = Findings(), list(target.corpus)
    rng = Random(seed)
    mutator = Mutator(rng, corpus)
    started = reported = time.monotonic()
    with _watchdog() as watch:
        while findings.inputs < inputs:
            number = findings.inputs
            data = corpus[number] if number < len(target.corpus) else mutator.mutate()
            if flight_recorder is not None:
                flight_recorder[_PASSED.size : _PASSED.size + len(data)] = data
                flight_recorder[: _PASSED.size] = _PASSED.pack(number, len(data))
            now = time.monotonic()
            watch.began = now
            outcome = _observe(target, data, findings, log)
            if outcome not in findings.outcomes:
                findings.outcomes.add(outcome)
                if len(corpus) < KEPT_INPUTS and len(data) <= KEPT_BYTES:
                    corpus.append(data)
            findings.inputs += 1
            if now - reported > REPORT_S:
                reported = now
                log(_progress(findings, now - started))
            if now - started > seconds:
                break
        watch.began = None
    log(_progress(findings, time.monotonic() - started))
    return findings


def fuzz_in_child(
    name: str, make: Callable[[str], Target], inputs: int, seed: int, seconds: float, log: Callable[[str], None]
) -> tuple[int, int]:
    """`fuzz` in a process of its own, which is started again if native code ends it; stores crashes.

    The target is made there: threads of native code do not survive a fork. Returns the numbers of inputs and crashes.
    """
    recorder = mmap.mmap(-1, 2 * HUGE + _PASSED.size)
    done = crashes = 0
    deadline = time.monotonic() + seconds
    context, directory = get_context("fork"), tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, directory)
    while done < inputs and time.monotonic() < deadline:
        counts = context.SimpleQueue()

        def work(counts=counts, done=done) -> None:
            logging.disable(logging.WARNING)  # what readers refuse, some log
            tempfile.tempdir = directory  # a process that native code ends leaves its files behind
            target = make(name)
            limit_memory()
            findings = fuzz(target, inputs - done, seed + done, log, deadline - time.monotonic(), recorder)
            for crash in findings.crashes.values():
                log(f"{crash.cause}\n    {store(name, crash)}")
            counts.put((findings.inputs, len(findings.crashes)))

        child = context.Process(target=work)
        child.start()
        child.join()
        if child.exitcode == 0:
            passed, found = counts.get()
            return done + passed, crashes + found
        if child.exitcode > 0:
            raise RuntimeError("the fuzzer itself failed, as reported above")
        passed, length = _PASSED.unpack(recorder[: _PASSED.size])
        cause = f"the process was ended by {signal.Signals(-child.exitcode).name}"
        crash = Crash(cause, recorder[_PASSED.size : _PASSED.size + length], cause)
        log(f"{cause}\n    {store(name, crash)}")
        done, crashes = done + passed + 1, crashes + 1
    return done, crashes


def limit_memory(further_bytes: int = MOST_BYTES) -> None:
    """Make allocations fail that would give this process more than so many further bytes of memory."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + further_bytes,) * 2)


def check(target: Target, data: bytes) -> tuple[str, Crash | None]:
    """The outcome of one input, and the crash if it is one."""
    try:
        return target.run(data), None
    except target.refusals as error:
        message = str(error)
        if not message.strip() or "\n" in message or not _is_unicode(message):
            problem = f"{type(error).__name__} whose message is not one line of text"
            return problem, Crash(f"{problem}: {_place(error)}", data, ascii(message)[:2_000])
        return f"{type(error).__name__}: {_shape(message)}", None
    except (Exception, Hang) as error:
        details = "".join(traceback.format_exception(error, limit=-12))[:20_000]
        return f"crash {_place(error)}", Crash(f"{type(error).__name__}: {_place(error)}", data, details)


def shrink(target: Target, crash: Crash, runs: int = SHRINK_RUNS) -> Crash:
    """The crash with parts of its input left out that it does not need (a simple form of delta debugging)."""
    size = max(1, len(crash.data) // 2)
    while size and runs > 0:
        start = 0
        while start < len(crash.data) and runs > 0:
            shorter = crash.data[:start] + crash.data[start + size :]
            runs -= 1
            again = check(target, shorter)[1]
            if again is not None and again.cause == crash.cause:
                crash = again
            else:
                start += size
        size //= 2
    return crash


def store(name: str, crash: Crash, directory: Path = CRASHES) -> str:
    """Write a crash's input and details into the directory; returns the command that runs it again."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{sha256(crash.cause.encode()).hexdigest()[:10]}"
    path.write_bytes(crash.data)
    path.with_suffix(".txt").write_text(f"{crash.cause}\n{crash.details}\n", errors="backslashreplace")
    shown = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    return f"python -m tools.fuzz --target {name} --input {shlex.quote(str(shown))}"


def _observe(target: Target, data: bytes, findings: Findings, log: Callable[[str], None]) -> str:
    outcome, crash = check(target, data)
    if crash is not None and crash.cause not in findings.crashes:
        log(f"crash: {crash.cause}")
        findings.crashes[crash.cause] = crash
        with suppress(Hang):  # what is left out may make it slow
            findings.crashes[crash.cause] = crash if crash.cause.startswith("Hang") else shrink(target, crash)
    return outcome


class _Watch:
    """When the current input began (time.monotonic), None between inputs.

    Of a long one, also the process's time when it was first looked at: on a busy machine, asking takes milliseconds.
    """

    began: float | None = None
    looked: tuple[float, float] = 0.0, 0.0  # when the input began, time.process_time


@contextmanager
def _watchdog() -> Iterator[_Watch]:
    """Raise Hang in the main thread when an input takes longer than LONGEST_S."""
    watch = _Watch()
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return

    def look(*_: object) -> None:
        if watch.began is None:
            return
        if watch.looked[0] != watch.began:
            watch.looked = watch.began, time.process_time()
        waited, computed = time.monotonic() - watch.began, time.process_time() - watch.looked[1]
        if waited > LONGEST_WAIT_S or computed > LONGEST_S:
            watch.began = None
            raise Hang(f"{computed:.0f} s of processor time within {waited:.0f} s")

    before = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_S, LOOK_S)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _progress(findings: Findings, seconds: float) -> str:
    rate = findings.inputs / max(seconds, 1e-9)
    return (
        f"{findings.inputs:,} inputs, {rate:,.0f} per second; {len(findings.outcomes):,} different outcomes, "
        f"{len(findings.crashes)} crashes"
    )


def _place(error: BaseException) -> str:
    """The innermost line of this project that an error passed, outside of the fuzzer, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tools/fuzz/" not in frame.filename and str(PROJECT) in frame.filename]
    frame = (ours or frames)[-1]
    name = Path(frame.filename)
    return f"{name.relative_to(PROJECT) if name.is_relative_to(PROJECT) else name.name}:{frame.lineno}"


_VARIABLE = re.compile(r"[^A-Za-z ]+|\b[a-z]{13,}\b")


def _shape(message: str) -> str:
    """What messages about the same rule have in common: their first words without numbers and names."""
    return " ".join(_VARIABLE.sub(" ", message[:120]).split()[:8])


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
