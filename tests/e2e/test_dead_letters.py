"""Hostile records through a real broker: each is a dead letter with its bytes or a score, and the job goes on."""

import json
import time

import pytest

from tests.support.e2e.pipeline import Pipeline, original, positions
from tools.fuzz.hostile_records import hostile_clicks
from tools.stack import flink_client
from udfs.contracts.rejects import Reason

pytestmark = pytest.mark.e2e

HOSTILE, SEED = 10_000, 20


def click(**fields) -> bytes:
    now = time.time_ns() // 1_000_000
    return json.dumps({"user_id": "ada", "event_name": "view_item", "event_time": now, **fields}).encode()


def test_each_hostile_record_is_a_dead_letter_and_the_clicks_around_it_are_scored(pipeline):
    hostile = {
        b"": Reason.EMPTY_RECORD,
        b"click": Reason.INVALID_JSON,
        b"\xff\xfe": Reason.INVALID_UTF8,
        b"[]": Reason.NOT_AN_OBJECT,
        b"{}": Reason.MISSING_FIELD,
        click(user_id=""): Reason.EMPTY_FIELD,
        click(user_id={}): Reason.WRONG_TYPE,
        click(user_id="u" * 1_000): Reason.TOO_LONG,
        click(price=float("nan")): Reason.NOT_FINITE,
        click(price=-1): Reason.OUT_OF_RANGE,
        click(event_time=1): Reason.OUT_OF_RANGE,
        click(event_time=1_000_000_000_000): Reason.TIME_TOO_OLD,
        click(event_time=4_000_000_000_000): Reason.TIME_IN_FUTURE,
        b"[" * 100_000: Reason.TOO_LARGE,
        b'{"a":' * 12_000: Reason.TOO_DEEP,
        click(note="x" * 3_000_000): Reason.TOO_LARGE,
    }
    pipe = pipeline("decode.max_behind=30 d")
    pipe.start()
    records = [(b"ada", value, None) for bad in hostile for value in (click(), bad)]
    pipe.send("clicks", [*records, (b"ada", None, None), (b"ada", click(event_id="last"), None)])
    pipe.send("profiles", [(b"ada", b"x", None), (b"ada", None, None)])

    scores = pipe.read("scores", at_least=len(hostile) + 1)
    letters = pipe.read("dead_letters", at_least=len(hostile) + 2)
    assert len(scores) == len(hostile) + 1
    assert scores[-1]["event_id"] == "last"

    sent = {(record.partition, record.offset): record for record in pipe.read_records("clicks")}
    from_clicks = [letter for letter in letters if letter["topic"] == pipe.settings.topics.clicks]
    assert {original(letter): letter["reason"] for letter in from_clicks} == {None: "empty_record"} | hostile
    for letter in from_clicks:
        record = sent[letter["partition"], letter["offset"]]
        assert original(letter) == record.value
        assert letter["message"]
    assert [letter["reason"] for letter in letters if letter not in from_clicks] == ["invalid_json"]


def test_ten_thousand_hostile_records_are_scores_or_dead_letters_and_restart_nothing(pipeline):
    pipe = pipeline("decode.max_behind=30 d", "clicks.duplicates_within=0 s")  # so that each event has a score
    pipe.start()
    check_hostile_records(pipe, hostile_clicks(HOSTILE, SEED, time.time_ns() // 1_000_000))


def check_hostile_records(pipe: Pipeline, records: list[bytes]) -> None:
    """Send records to a running job that scores each event; check that none is lost and none restarts the job."""
    before = len(pipe.read_records("clicks"))
    done = len(pipe.read("scores")) + len(pipe.read("dead_letters"))
    assert before == done
    pipe.send("clicks", [(b"%d" % number, record, None) for number, record in enumerate(records)])
    pipe.wait_until_consumed("clicks")

    sent = {(record.partition, record.offset): record.value for record in pipe.read_records("clicks")}
    scores, letters = pipe.read("scores"), pipe.read("dead_letters")
    of_letters = {(letter["partition"], letter["offset"]): letter for letter in letters}
    assert len(sent) == before + len(records) == len(scores) + len(letters)
    assert sent.keys() == set(positions(scores)) | of_letters.keys()
    for position, letter in of_letters.items():
        assert original(letter) == sent[position]
        assert letter["reason"] in set(Reason)
        assert letter["message"].strip()
    assert len({letter["reason"] for letter in letters}) >= 10
    assert len(scores) > len(records) // 100
    assert flink_client.failure(pipe.stack, pipe.job) == "no exception recorded"  # so there was no restart either
