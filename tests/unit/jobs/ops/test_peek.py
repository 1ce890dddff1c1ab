import json
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ops.peek import __main__ as peek
from jobs.ops.peek.formatting import as_json, as_line, read_record, visible

CONF = Path(__file__).parents[4] / "conf" / "local.yaml"
HOSTILE = "\x1b[2J\r\n\x07\u202e\x9b31m"


def seen(role, value, key=b"ada", timestamp=0, offset=0):
    payload = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    record = SimpleNamespace(
        topic=f"the-{role}", partition=0, offset=offset, timestamp=timestamp, key=key, value=payload
    )
    return read_record(role, record)


def letter(original: bytes | None, **fields):
    encoded = None if original is None else b64encode(original).decode()
    place = {"topic": "clicks", "partition": 3, "offset": 17, "reason": "wrong_type", "message": "m"}
    return seen("dead_letters", {**place, "original": encoded, **fields}, key=None)


def test_a_score_is_shown_in_columns():
    score = {"user_id": "ada", "event_name": "scroll", "score": 0.123456, "decision": True, "arm": "champion"}
    words = as_line(seen("scores", {**score, "model_version": "v1"}, timestamp=1)).split()
    assert words == ["1970-01-01T00:00:00.001Z", "scores", "ada", "scroll", "0.1235", "yes", "champion", "v1"]


def test_a_session_is_shown_with_whether_it_looks_like_a_bots():
    session = {"user_id": "ada", "events": 5, "arm": "champion", "is_bot": True, "device": None}
    assert as_line(seen("sessions", session)).split()[1:] == ["sessions", "ada", "champion", "yes", "events=5"]


def test_a_dead_letter_is_shown_with_what_was_rejected_and_where():
    line = as_line(letter(b'{"user_id": 7}'))
    assert "wrong_type" in line
    assert "clicks/3/17" in line
    assert '{"user_id": 7}' in line


def test_fields_without_a_column_follow_by_name():
    assert as_line(seen("profiles", None, key=b"ada")).split()[1:3] == ["profiles", "ada"]
    assert as_line(seen("kpis", {"kpi": "ctr", "value": None, "denominator": 3})).endswith("kpi=ctr denominator=3")


def test_whose_a_dead_letter_is_its_original_says():
    assert letter(b'{"user_id": "bob"}').user_id == "bob"
    assert letter(b"{").user_id is None
    assert letter(None).user_id is None


def test_whose_another_record_is_it_says_itself_or_else_its_key():
    assert seen("scores", {"user_id": "bob"}).user_id == "bob"
    assert seen("clicks", b"{").user_id == "ada"
    assert seen("profiles", None).user_id == "ada"


@pytest.mark.parametrize(
    "record",
    [
        seen("clicks", {"user_id": HOSTILE, HOSTILE: HOSTILE}, key=HOSTILE.encode()),
        seen("clicks", HOSTILE.encode()),
        seen("clicks", b"\xff\xfe\x1b[2J"),
        letter(HOSTILE.encode(), message=HOSTILE, reason=HOSTILE),
        letter(json.dumps({"user_id": HOSTILE}).encode()),
        seen("clicks", b"[" * 100_000),
        seen("dead_letters", {"original": "no base64"}),
        seen("dead_letters", None),
    ],
)
def test_nothing_in_a_record_reaches_the_terminal_as_a_command(record):
    assert as_line(record).isprintable()
    line = as_json(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["topic"] == record.topic


@given(st.binary(), st.sampled_from(["clicks", "dead_letters", "scores"]))
def test_any_bytes_can_be_shown(value, role):
    record = seen(role, value, key=value)
    assert as_line(record).isprintable()
    json.loads(as_json(record), parse_constant=pytest.fail)


@given(st.text())
def test_visible_text_stays_the_same_when_it_is_printable(text):
    assert visible(text).isprintable()
    assert (visible(text) == text) == text.isprintable()


def test_what_comes_of_a_click_is_sorted_behind_it():
    shown = [seen("outcomes", {}, timestamp=5), seen("scores", {}, timestamp=5), seen("clicks", {}, timestamp=5)]
    assert [record.role for record in sorted(shown, key=lambda record: record.order)] == [
        "clicks",
        "scores",
        "outcomes",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a topic, or pass --user"),
        (["kpis", "--user", "ada"], "records of kpis belong to no user"),
        (["scores", "--since", "now"], "--since now: expected a duration"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_line(arguments, message, capsys):
    assert peek.main([*arguments, "--conf", str(CONF)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_topic_that_the_settings_do_not_have_is_refused(capsys):
    assert peek.main(["score", "--conf", str(CONF)]) == 2
    assert "'score' is not one of 'clicks', " in capsys.readouterr().err
