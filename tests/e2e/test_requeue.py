"""Dead letters that go back through a real broker: once each, though runs are killed, and though two overlap."""

import json
import signal
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.support.e2e.pipeline import CONF, Pipeline
from udfs.contracts.outputs import iso_time

pytestmark = pytest.mark.e2e

LETTERS = 20_000
SECONDS = 120
REJECTED_AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_each_letter_goes_back_once_though_runs_are_killed_and_overlap(pipeline):
    pipe = pipeline()
    rejected = [click(number) for number in range(LETTERS)]
    pipe.send("dead_letters", ((None, letter(pipe, *numbered), None) for numbered in enumerate(rejected)))

    killed = begin(pipe)
    try:
        pipe.read("requeued", at_least=1)
    finally:
        killed.kill()
    assert killed.wait(SECONDS) == -signal.SIGKILL
    assert 0 < len(pipe.read("requeued")) < LETTERS  # in the middle

    overlapping = [begin(pipe), begin(pipe)]
    try:
        codes = [run.wait(SECONDS) for run in overlapping]
    finally:
        for run in overlapping:
            run.kill()
    assert set(codes) <= {0, 1}  # one that began earlier is fenced by one that began later
    assert begin(pipe).wait(SECONDS) == 0

    returned = Counter(record.value for record in pipe.read_records("clicks"))
    assert returned == Counter(dict.fromkeys(rejected, 1))
    notes = Counter((note["topic"], note["partition"], note["offset"]) for note in pipe.read("requeued"))
    assert notes == Counter({(pipe.settings.topics.clicks, number % 4, number): 1 for number in range(LETTERS)})


def click(number: int) -> bytes:
    time_ms = round(REJECTED_AT.timestamp() * 1000)
    return json.dumps({"user_id": f"u{number}", "event_name": "scroll", "event_time": time_ms}).encode()


def letter(pipe: Pipeline, number: int, original: bytes) -> bytes:
    """As the job writes it, of a click that it would accept by now."""
    place = {"topic": pipe.settings.topics.clicks, "partition": number % 4, "offset": number}
    why = {
        "timestamp": iso_time(round(REJECTED_AT.timestamp() * 1000)),
        "reason": "time_too_old",
        "message": "key event_time: too old",
    }
    return json.dumps(place | why | {"original": b64encode(original).decode()}).encode()


def begin(pipe: Pipeline) -> subprocess.Popen:
    overrides = [word for override in pipe.overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "jobs.ops.requeue", "--conf", str(CONF), *overrides]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)
