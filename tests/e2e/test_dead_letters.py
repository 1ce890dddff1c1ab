"""Hostile records through a real broker: each is a dead letter with its bytes, and the job goes on."""

import json
import time

import pytest

from tests.support.e2e.pipeline import original
from udfs.contracts.rejects import Reason

pytestmark = pytest.mark.e2e


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
