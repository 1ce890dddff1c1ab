"""What a replay reads, when it sends it and what it says about options; no broker."""

import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ops.replay.__main__ import _from_file, main, shift_text
from jobs.ops.replay.options import OptionError, producer_options, simulation
from jobs.ops.replay.producer import BURST_SECONDS, CATCH_UP, STEP_SECONDS, at_rate, at_recorded_speed, in_time_order
from training.data.intake import Intake
from training.data.sources import DAY_MS, WEEK_MS, Record, last_time, weeks_to_shift
from training.simulation.clickstream import Simulation
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data"


class Clock:
    """A clock that stands still unless someone sleeps."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def release_times(paced: Iterator[Record], clock: Clock) -> list[float]:
    return [clock.now - 1000.0 for _ in paced]


def timed(*seconds: float | None) -> list[Record]:
    return [(b"u", b"{}", None if second is None else round(second * 1000)) for second in seconds]


# Times


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_a_shift_is_of_whole_weeks_and_ends_in_the_week_before_now(last_ms, now_ms):
    shift_ms = weeks_to_shift(last_ms, now_ms)
    assert shift_ms % WEEK_MS == 0
    assert now_ms - WEEK_MS < last_ms + shift_ms <= now_ms


@given(st.lists(st.integers(0, 4_000_000_000_000), min_size=1, max_size=50))
def test_without_gaps_the_last_time_is_the_greatest(times):
    times = [time % DAY_MS for time in times]
    assert last_time(np.array(times)) == (max(times), 0)


@pytest.mark.parametrize("events", [3, 2_000])
def test_a_few_times_long_after_all_others_are_no_last_time(events):
    times = np.arange(events) * 60_000
    ahead = np.array([70 * 365 * DAY_MS] * max(1, events // 1_000))
    assert last_time(np.concatenate([times, ahead])) == (times[-1], len(ahead))


def test_two_times_alone_are_both_believed():
    assert last_time(np.array([0, 70 * 365 * DAY_MS])) == (70 * 365 * DAY_MS, 0)


@pytest.mark.parametrize(
    ("weeks", "told"),
    [
        (0, "times: not shifted, the last event lies in the week before now"),
        # Recorded in the two days after 1970-01-15: without an overlap, the experiment starts with the first event.
        (3, "times: shifted by +3 weeks, to 1970-02-05T00:00:00Z until 1970-02-07T00:00:00Z; to report on an "
            "experiment on these events: --start 1970-02-05T00:00:00Z"),
        (-1, "times: shifted by -1 weeks, to 1970-01-08T00:00:00Z until 1970-01-10T00:00:00Z; to report on an "
             "experiment on these events: --start 1970-01-08T00:00:00Z"),
    ],
)  # fmt: skip
def test_a_shift_tells_the_new_times_and_where_an_experiment_on_them_starts(weeks, told):
    assert shift_text(14 * DAY_MS, 16 * DAY_MS, weeks * WEEK_MS) == told


def test_an_experiment_on_shifted_events_starts_after_the_recorded_ones_where_both_overlap():
    assert shift_text(14 * DAY_MS, 44 * DAY_MS, WEEK_MS).endswith("--start 1970-02-14T00:00:01Z")


# Pace


@given(st.floats(0.5, 50_000), st.integers(1, 300))
def test_a_rate_is_kept_evenly(rate, count):
    clock = Clock()
    times = release_times(at_rate(timed(*range(count)), rate, clock, clock.sleep), clock)
    for number, released in enumerate(times):
        assert -1e-6 <= released - number / rate <= STEP_SECONDS + 1e-6


@pytest.mark.parametrize("rate", [100, 2_000, 30_000])
def test_a_hold_up_is_made_up_for_without_a_burst(rate):
    clock = Clock()
    times = []
    for number, _ in enumerate(at_rate(timed(*range(2 * rate)), rate, clock, clock.sleep)):
        times.append(clock.now - 1000.0)
        if number == rate // 2:
            clock.now += 0.1
    assert max(Counter(times).values()) <= max(1, (BURST_SECONDS + STEP_SECONDS) * rate)
    in_100_ms = max(bisect_left(times, first + 0.1) - number for number, first in enumerate(times))
    assert in_100_ms <= (0.1 + BURST_SECONDS + STEP_SECONDS) * CATCH_UP * rate
    assert times[-1] == pytest.approx((2 * rate - 1) / rate, abs=STEP_SECONDS)


def test_a_rate_is_kept_although_every_sleep_is_too_long():
    clock = Clock()
    paced = at_rate(timed(*range(3_000)), 1_500, clock, lambda seconds: clock.sleep(seconds + 0.004))
    assert release_times(paced, clock)[-1] == pytest.approx(2.0, abs=0.01)


def test_recorded_speed_keeps_the_gaps_divided_by_the_factor():
    clock = Clock()
    paced = at_recorded_speed(timed(100, 160, None, 160, 220), 60, clock, clock.sleep)
    assert release_times(paced, clock) == pytest.approx([0, 1, 1, 1, 2])


def test_an_event_dated_far_ahead_makes_no_other_wait():
    clock = Clock()
    paced = at_recorded_speed(timed(0, 60, 70 * 365 * 86_400, 120, None, 180), 60, clock, clock.sleep)
    assert release_times(paced, clock) == [0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("position", range(7))
def test_a_wrong_clock_anywhere_delays_nothing_by_more_than_the_recorded_span(position):
    clock, seconds = Clock(), [60.0 * number for number in range(6)]
    seconds.insert(position, 70 * 365 * 86_400)
    at = release_times(at_recorded_speed(timed(*seconds), 1, clock, clock.sleep), clock)
    assert at[-1] == 300 if position < 6 else at[-2] == 300


@given(st.lists(st.integers(0, 100), max_size=60))
def test_times_in_order_are_kept_whatever_their_gaps(gaps):
    clock, seconds = Clock(), np.cumsum([0, *gaps, 1]).tolist()
    at = release_times(at_recorded_speed(timed(*seconds), 1, clock, clock.sleep), clock)
    assert at[:-1] == pytest.approx(seconds[:-1])


def test_streams_are_merged_in_time_order():
    first, second = timed(1, 4, None, 9), timed(2, 3, 10)
    merged = list(in_time_order([iter(first), iter(second)]))
    assert [record[2] for record in merged] == [1000, 2000, 3000, 4000, None, 9000, 10000]


def test_an_event_that_came_late_is_sent_at_once():
    clock = Clock()
    paced = at_recorded_speed(timed(None, 100, 130, 90, 131), 1, clock, clock.sleep)
    assert release_times(paced, clock) == pytest.approx([0, 0, 30, 30, 31])


# Options


@pytest.mark.parametrize("dot", [".", "_"], ids=["Kafka's names", "kafka-python's names"])
def test_kafka_options_have_the_type_of_their_defaults(dot):
    texts = [
        "linger.ms=5",
        "acks=all",
        "compression.type=none",
        "ssl.check.hostname=false",
        "receive.buffer.bytes=9",
        "retries=3",
        "client.id=7",
    ]
    properties, options = producer_options([text.replace(".", dot) for text in texts], {})
    assert properties == {"client.id": "7"}
    assert options == {
        "linger_ms": 5,
        "acks": "all",
        "compression_type": None,
        "ssl_check_hostname": False,
        "receive_buffer_bytes": 9,
        "retries": 3.0,
    }


def test_a_replay_takes_the_client_properties_that_other_commands_take():
    login = '"u" password="${PW}";'
    texts = ["bootstrap.servers=k:1", "security.protocol=SASL_SSL", f"sasl.jaas.config=username={login}"]
    properties, options = producer_options(texts, {"PW": "s3cret"})
    assert not options
    assert client_options(properties) == {
        "bootstrap_servers": ["k:1"],
        "security_protocol": "SASL_SSL",
        "sasl_plain_username": "u",
        "sasl_plain_password": "s3cret",
    }


@pytest.mark.parametrize("variable", ["${PW}", "${env:PW}"])
def test_a_secret_comes_from_the_environment(variable):
    _, options = producer_options([f"sasl_plain_password={variable}"], {"PW": "a=b"})
    assert options == {"sasl_plain_password": "a=b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sasl_plain_password=hunter2", "--kafka sasl_plain_password: a secret on the command line"),
        ("sasl.jaas.config=hunter2", "--kafka sasl.jaas.config: a secret on the command line"),
        ("sasl_plain_password=${PW}", "--kafka sasl_plain_password: environment variable PW is not set"),
        ("security.protocoll=SSL", "--kafka security.protocoll: unknown key; did you mean security.protocol?"),
        ("xyzzy=1", "--kafka xyzzy: unknown key; expected one of bootstrap.servers"),
        ("selector=x", "--kafka selector: unknown key"),
        ("linger_ms=soon", "--kafka linger.ms: 'soon': expected a number"),
        ("ssl_check_hostname=maybe", "--kafka ssl.check.hostname: 'maybe': expected true or false"),
        ("linger_ms", "--kafka linger_ms: expected KEY=VALUE"),
    ],
)
def test_a_wrong_kafka_option_is_refused_without_showing_a_secret(text, message):
    with pytest.raises(KafkaClientError) as refusal:
        producer_options([text], {})
    assert str(refusal.value).startswith(message)
    assert "hunter2" not in str(refusal.value)


def test_a_simulation_is_asked_for_by_name():
    asked = simulation("users=5, hours=1.5,seed=9,start=2026-02-01T00:00:00Z")
    assert asked == Simulation(users=5, hours=1.5, seed=9, start=datetime(2026, 2, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user=5", "--simulate user: unknown key; did you mean users?"),
        ("shift_at=-2", "--simulate shift_at=-2: shift_at must be at least 0 (got -2.0)"),
        ("users=many", "--simulate users=many: Expected `int`"),
        ("users=0", "--simulate users=0: users must be at least 1 (got 0)"),
    ],
)
def test_a_wrong_simulation_is_refused(text, message):
    with pytest.raises(OptionError) as refusal:
        simulation(text)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.csv"], "replay: gone.csv: no such file or directory"),
        (["gone.txt"], "replay: gone.txt: no such file"),
        (["c.jsonl", "--times", "shift"], "replay: c.jsonl: --times shift: no event has a time"),
        (["c.csv"], "replay: c.csv: no column user_id, only who, what"),
        (["empty.csv", "--rate", "5"], "replay: empty.csv: no header line"),
        (["c.jsonl", "--profiles", "simulated"], "replay: --profiles simulated requires --simulate"),
        (["c.jsonl", "--profiles", "p.csv"], "replay: --profiles p.csv: expected a file of JSON Lines"),
        (["c.jsonl", "--mapping", "m.yaml"], "replay: m.yaml: cannot be read"),
        ([], "replay: Either FILE or --simulate is required."),
        (["c.jsonl", "--simulate", "users=2"], "replay: FILE and --simulate can't be combined."),
        (["c.jsonl", "--rate", "1", "--speed", "2"], "replay: --rate and --speed can't be combined."),
        (["c.jsonl", "--spee", "1"], "replay: No such option '--spee'. Did you mean '--speed'? Try `"),
        (["c.jsonl", "--topic"], "replay: Option '--topic' requires an argument."),
        (["c.jsonl", "--kafka", "x=1"], "replay: --kafka x: unknown key"),
        (["--simulate", "users=2", "--mapping", "m.yaml"], "replay: --mapping can't be combined with --simulate"),
    ],
)
def test_the_command_refuses_in_one_line_and_with_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("c.jsonl").write_text("broken\n")
    Path("c.csv").write_text("who,what\n")
    Path("empty.csv").touch()
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_broker_that_does_not_answer_is_no_wrong_option(tmp_path, capsys):
    file = tmp_path / "c.jsonl"
    file.write_text('{"user_id": "a", "event_name": "scroll", "event_time": 1}\n')
    nowhere = ["--bootstrap-servers", "127.0.0.1:1", "--kafka", "bootstrap.timeout.ms=200"]
    assert main([str(file), *nowhere]) == 1
    assert "no broker answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_topic_name_that_kafka_does_not_allow_is_refused(capsys):
    assert main(["c.csv", "--topic", "my clicks"]) == 2
    assert "'--topic': expected 1 to 249 of the characters" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["c.csv", "--rate", "0"], ["c.csv", "--speed", "fast"], ["c.csv", "--limit", "-1"]]
)
def test_a_pace_or_limit_that_is_not_above_0_is_refused(arguments, capsys):
    assert main(arguments) == 2
    assert "above 0" in capsys.readouterr().err


def test_sigterm_ends_a_replay_like_ctrl_c(tmp_path, monkeypatch):
    (tmp_path / "c.jsonl").write_text("{}\n")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("jobs.ops.replay.__main__._replay", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert main([str(tmp_path / "c.jsonl")]) == 130
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["clicks.jsonl", "clicks.csv"])
def test_a_file_can_be_read_twice_as_a_shift_of_its_times_needs(tmp_path, name):
    rows = {
        "clicks.jsonl": '{"user_id": "ada", "event_name": "search", "event_time": 1700000000000}\n',
        "clicks.csv": "user_id,event_name,event_time\nada,search,1700000000000\n",
    }
    (tmp_path / name).write_text(rows[name])
    options = SimpleNamespace(mapping=None, source=tmp_path / name, profiles=None)
    with ExitStack() as resources:
        source = _from_file(options, resources)
        for shift_ms in (0, WEEK_MS):
            assert [time_ms for _, _, time_ms in source.records(shift_ms, Intake())] == [1_700_000_000_000 + shift_ms]
        assert source.total(1) == 1
