import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.settings import ConfigError, load_settings
from jobs.ops.requeue import __main__ as requeue
from jobs.ops.requeue.plan import Fate, Judge, note, note_key, noted_position, read_letter
from jobs.ops.time_options import time_ms
from tests.support.sample_records import sample_fields
from udfs.contracts.outputs import DeadLetter, iso_time
from udfs.kafka.errors import KafkaClientError

CONF = Path(__file__).parents[4] / "conf" / "local.yaml"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
LONG_AGO_MS = NOW_MS - 40 * 86_400_000


settings = cache(lambda *overrides: load_settings(CONF, overrides, {}))


def judge(*overrides, sent=()):
    return Judge(settings(*overrides), sent)


def click(**fields) -> bytes:
    return json.dumps({"user_id": "ada", "event_name": "scroll", "event_time": NOW_MS, **fields}).encode()


def letter(offset=0, original=b"", topic="clicks", reason="time_too_old", partition=0) -> DeadLetter:
    return DeadLetter(topic, partition, offset, iso_time(NOW_MS), reason, "why", original)


def fates(plan) -> dict:
    return {fate: count for (_, fate), count in plan.counts.items()}


def test_a_letter_goes_back_when_the_settings_have_come_to_accept_it():
    old = letter(original=click(event_time=LONG_AGO_MS))
    assert fates(judge().plan([old], 10)) == {Fate.REJECTED_AGAIN: 1}
    plan = judge("decode.max_behind=60 d").plan([old], 10)
    assert plan.letters == [(old, "ada")]


def test_the_original_timestamp_decides_not_the_present_one():
    at_that_time = DeadLetter("clicks", 0, 0, "2020-01-01T00:00:00.000Z", "wrong_type", "why", click())
    assert fates(judge().plan([at_that_time], 10)) == {Fate.REJECTED_AGAIN: 1}  # in the future, then


@pytest.mark.parametrize("original", [None, b"", b"{", b'{"user_id": "ada"}'])
def test_what_would_only_be_rejected_again_stays(original):
    plan = judge().plan([letter(original=original), letter(1, original, topic="profiles")][: 1 if original else 2], 10)
    assert not plan.letters
    assert set(fates(plan)) == {Fate.REJECTED_AGAIN}


def test_profiles_go_back_too():
    profile = letter(original=b'{"user_id": "bob"}', topic="profiles")
    assert judge().plan([profile], 10).letters == [(profile, "bob")]


def test_what_was_sent_before_is_not_sent_again_nor_what_comes_twice():
    first, again, second = letter(1, click()), letter(1, click()), letter(2, click())
    plan = judge(sent=[second.position]).plan([first, again, second], 10)
    assert plan.letters == [(first, "ada")]
    assert fates(plan) == {Fate.SENT: 1, Fate.SENT_BEFORE: 2}


def test_a_record_may_return_that_was_requeued_and_rejected_at_its_new_place():
    assert judge(sent=[("clicks", 0, 1)]).plan([letter(7, click())], 10).letters


def test_letters_of_other_jobs_stay():
    plan = judge().plan([letter(original=click(), topic="orders")], 10)
    assert fates(plan) == {Fate.ANOTHER_TOPIC: 1}


def test_what_is_over_the_limit_is_left_for_the_next_run():
    found = [letter(offset, click()) for offset in range(5)]
    first = judge().plan(found, 3)
    assert fates(first) == {Fate.SENT: 3, Fate.OVER_LIMIT: 2}
    rest = judge(sent=[back.position for back, _ in first.letters]).plan(found, 3)
    assert fates(rest) == {Fate.SENT_BEFORE: 3, Fate.SENT: 2}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), max_size=30), st.integers(1, 4))
def test_runs_until_nothing_is_left_send_every_letter_once_and_in_order(places, limit):
    letters = [letter(offset, click(), partition=partition) for partition, offset in places]
    sent = []
    while plan := judge(sent=sent).plan(letters, limit).letters:
        positions = [back.position for back, _ in plan]
        assert positions == sorted(positions)
        sent += positions
    assert sorted(sent) == sorted({found.position for found in letters})


def test_a_note_names_the_rejected_record():
    found = letter(17, click(), partition=3)
    assert noted_position(note_key(found.position)) == found.position
    assert json.loads(note(found, NOW_MS)) == {
        "topic": "clicks",
        "partition": 3,
        "offset": 17,
        "reason": "time_too_old",
        "requeued_at": NOW_MS,
    }


def test_a_letter_is_read_as_the_job_writes_it():
    value = (
        b'{"topic":"clicks","partition":1,"offset":2,"timestamp":"2026-11-24T12:00:00.123Z","reason":"too_large",'
        b'"message":"m","original":"e30="}'
    )
    found = read_letter(SimpleNamespace(value=value))
    assert (found.position, found.timestamp_ms, found.original) == (("clicks", 1, 2), NOW_MS + 123, b"{}")


NO_DATE = msgspec.json.encode(sample_fields("dead_letters", timestamp="2026-02-30T12:00:00.000Z"))


@pytest.mark.parametrize("value", [None, b"{}", b"nonsense", NO_DATE])
def test_what_is_no_dead_letter_is_named_by_its_place(value):
    record = SimpleNamespace(topic="dead_letters", partition=1, offset=2, value=value)
    with pytest.raises(KafkaClientError, match="topic dead_letters, partition 1, offset 2: not a dead letter"):
        read_letter(record)


def test_times_are_durations_before_now_or_moments_in_utc():
    assert time_ms("2 h", "--since", NOW_MS) == NOW_MS - 7_200_000
    assert time_ms("2026-11-24T12:00", "--since", 0) == NOW_MS
    assert time_ms("36500 d", "--since", NOW_MS) == time_ms("1969-12-31", "--since", NOW_MS) == 0
    assert time_ms("2026-11-24T13:00+01:00", "--since", 0) == NOW_MS
    with pytest.raises(ConfigError, match="--since yesterday: expected a duration"):
        time_ms("yesterday", "--since", 0)


def test_what_cannot_be_used_is_refused_in_a_line(capsys):
    assert requeue.main(["--conf", "nowhere.yaml"]) == 2
    assert requeue.main(["--conf", str(CONF), "--since", "yesterday"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
