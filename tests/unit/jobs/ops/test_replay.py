"""What a replay reads, when it sends it and what it says about options; no broker."""

import csv
import gzip
import json
import signal
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ops.replay.__main__ import main
from jobs.ops.replay.options import OptionError, producer_options, simulation
from jobs.ops.replay.producer import BURST_SECONDS, CATCH_UP, STEP_SECONDS, at_rate, at_recorded_speed
from training.data.mapping import ClickMapping, MappingError, load_mapping
from training.data.sources import (
    WEEK_MS,
    Record,
    SourceError,
    click_records,
    count_and_last_time,
    file_records,
    profile_records,
    weeks_to_shift,
)
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import ClickDecoder
from udfs.contracts.profiles import ProfileDecoder
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options

ROOT = Path(__file__).parents[4]
DATA = ROOT.parent / "shared" / "data"
NOW_MS = 1_790_000_000_000
MAPPING = ClickMapping(
    columns={"user_id": "who", "event_name": "what", "event_time": "at"}, time_format="epoch_ms", event_id_prefix="t"
)


def records_of(path: Path, *args, **keys) -> list[Record]:
    with path.open("rb") as file:
        return list(file_records(file, *args, **keys))


def adapted(path: Path, text: str | bytes, **keys) -> tuple[list[Record], list[tuple[int, str]]]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    unfit = []
    records = records_of(path, MAPPING, on_unfit=lambda number, reason: unfit.append((number, reason)), **keys)
    return records, unfit


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


# Sources


@pytest.mark.parametrize("compressed", [False, True])
def test_json_lines_are_sent_byte_for_byte_even_when_broken(tmp_path, compressed):
    lines = [
        b'{"user_id": "a",  "event_time": 5, "price": 1.50}',
        b'{"user_id": "a", "event_ti',
        b"",
        b'{"user_id": "\xff", "event_time": 6}',
        b'{"user_id": 7, "event_time": 6}',
        b"[" * 5000,
        b'{"event_time": 1e999}\r',
        b'{"user_id": "", "event_time": -1}',
    ]
    path = tmp_path / ("c.jsonl.gz" if compressed else "c.jsonl")
    (gzip.open if compressed else open)(path, "wb").write(b"\n".join(lines) + b"\n")
    records = records_of(path)
    assert [value for _, value, _ in records] == lines
    assert [(key, time_ms) for key, _, time_ms in records] == [(b"a", 5)] + [(None, None)] * 7


def test_a_shifted_line_of_json_keeps_the_bytes_of_its_other_fields(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"price": 1.50, "event_time": 5, "x": {"y":  1e2}, "user_id": "a"}\nbroken\n')
    assert records_of(path, shift_ms=WEEK_MS) == [
        (b"a", b'{"price":1.50,"event_time":604800005,"x":{"y":  1e2},"user_id":"a"}', 604800005),
        (None, b"broken", None),
    ]


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.jsonl", "c.jsonl.gz", "c.parquet"])
def test_every_format_gives_the_same_records_through_a_mapping(tmp_path, name):
    path, rows = tmp_path / name, [{"who": 1, "what": "scroll", "at": 5}, {"who": 2, "what": "ä", "at": 6}]
    opener = gzip.open if name.endswith(".gz") else open
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif ".csv" in name:
        with opener(path, "wt", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        with opener(path, "wb") as file:
            file.writelines(msgspec.json.encode(row) + b"\n" for row in rows)
    records = records_of(path, MAPPING, shift_ms=100)
    assert [(key, time_ms) for key, _, time_ms in records] == [(b"1", 105), (b"2", 106)]
    assert [json.loads(value) for _, value, _ in records] == [
        {"user_id": "1", "event_name": "scroll", "event_time": 105, "event_id": "t-000001"},
        {"user_id": "2", "event_name": "ä", "event_time": 106, "event_id": "t-000002"},
    ]


def test_a_row_that_cannot_be_adapted_is_reported_and_sent_as_it_is(tmp_path):
    records, unfit = adapted(tmp_path / "c.csv", "who,what,at\na,scroll,5\nb,scroll,noon\nc,scroll,7\n")
    assert [key for key, _, _ in records] == [b"a", None, b"c"]
    assert json.loads(records[1][1]) == {"who": "b", "what": "scroll", "at": "noon"}
    assert unfit == [(2, "event_time (column at): 'noon' is not a number")]
    assert json.loads(records[2][1])["event_id"] == "t-000003"


def test_a_row_of_another_length_is_reported_with_all_its_values(tmp_path):
    records, unfit = adapted(tmp_path / "c.csv", "who,what,at\na,scroll\nb,scroll,5,6,7\n")
    assert [json.loads(value) for _, value, _ in records] == [
        {"who": "a", "what": "scroll"},
        {"who": "b", "what": "scroll", "at": "5", "": ["6", "7"]},
    ]
    assert unfit == [(1, "2 values for 3 columns"), (2, "5 values for 3 columns")]


def test_bytes_that_are_not_utf8_spoil_their_own_row_only(tmp_path):
    records, unfit = adapted(tmp_path / "c.csv", b"who,what,at\n\xff,scroll,5\nb,scroll,6\n")
    assert records[0][1] == b'{"who": "\xff", "what": "scroll", "at": "5"}'
    assert records[1][0] == b"b"
    assert [number for number, _ in unfit] == [1]


@pytest.mark.parametrize("time_ms", [-1, 10**30])
def test_an_absurd_time_is_sent_for_the_job_to_judge_but_is_no_kafka_timestamp(tmp_path, time_ms):
    records, unfit = adapted(tmp_path / "c.csv", f"who,what,at\na,scroll,{time_ms}\n")
    assert not unfit
    assert json.loads(records[0][1])["event_time"] == time_ms
    assert records[0][2] is None


def test_a_broken_line_of_json_with_a_mapping_is_sent_as_it_is(tmp_path):
    records, unfit = adapted(tmp_path / "c.jsonl", b'{"who": "a"\n[1]\n{"who":"a","what":"scroll","at":1}\n')
    assert [value for _, value, _ in records[:2]] == [b'{"who": "a"', b"[1]"]
    assert [number for number, _ in unfit] == [1, 2]
    assert all(reason.startswith("not a JSON object: ") for _, reason in unfit)


def test_csv_may_have_a_byte_order_mark_quotes_blank_lines_and_windows_line_ends(tmp_path):
    text = '\ufeff"who",what,at\r\n\r\n"a, ""b""\nc",scroll,5\r\n'
    records, unfit = adapted(tmp_path / "c.csv", text)
    assert not unfit
    assert [key for key, _, _ in records] == [b'a, "b"\nc']


def test_a_parquet_time_column_needs_no_format_and_nulls_are_missing(tmp_path):
    path = tmp_path / "c.parquet"
    at = [datetime(2024, 1, 1, tzinfo=UTC), None]
    pyarrow.parquet.write_table(pyarrow.table({"who": ["a", "b"], "what": ["scroll"] * 2, "at": at}), path)
    unfit = []
    records = records_of(path, MAPPING, on_unfit=lambda number, reason: unfit.append((number, reason)))
    assert records[0][2] == 1_704_067_200_000
    assert json.loads(records[1][1]) == {"who": "b", "what": "scroll", "at": None}
    assert unfit == [(2, "event_time (column at) is missing")]


def test_a_mapped_column_that_the_file_does_not_have_is_refused(tmp_path):
    with pytest.raises(MappingError, match=r"m\.yaml: key columns\.event_time: no column at in .*c\.csv"):
        adapted(tmp_path / "c.csv", "who,what\n", mapping_name="m.yaml")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", b"", "no header line"),
        ("c.csv.gz", b"not gzip", "cannot be read further: Not a gzipped file"),
        # A gzip header holds the second it was made in, and xdist's workers must name a test alike.
        pytest.param(
            "c.csv.gz",
            gzip.compress(b"who,what,at\na,scroll,1\n", mtime=0)[:-9],
            "cannot be read further: ",
            id="c.csv.gz-cut off",
        ),
        ("c.parquet", b"not parquet", "cannot be read further: "),
        ("c.xlsx", b"", "unknown format; the name must end in .csv, .csv.gz, .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path, name, content, message):
    with pytest.raises(SourceError) as refusal:
        adapted(tmp_path / name, content)
    assert str(refusal.value).startswith(str(tmp_path / name))
    assert message in str(refusal.value)


def test_a_file_is_read_as_a_stream(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"user_id":"a","event_time":1}\n' * 100_000)
    with path.open("rb") as file:
        assert len(list(islice(file_records(file), 10))) == 10
        assert file.tell() < path.stat().st_size / 2


def test_simulated_clicks_and_profiles_keep_the_contracts():
    stream = simulate(Simulation(users=20, hours=6, seed=3))
    clicks = list(click_records(stream.clicks(), shift_ms=WEEK_MS))
    decoded = ClickDecoder().decode([value for _, value, _ in clicks], [time_ms for _, _, time_ms in clicks])
    assert [user.encode() for user in decoded.user_ids] == [key for key, _, _ in clicks]
    assert clicks[0][2] == int(stream.events["time_ms"][0]) + WEEK_MS
    keys, values, _ = zip(*profile_records(stream.profiles))
    assert [user.encode() for user in ProfileDecoder().decode(keys, values).user_ids] == list(keys)


@pytest.mark.parametrize(
    ("name", "mapping", "rows"),
    [
        ("taobao_dev_events.csv.gz", "taobao.yaml", 84_252),
        ("rees46_2019-10-01_00-03h.csv.gz", "rees46.yaml", 17_434),
    ],
)
def test_every_row_of_the_recorded_shops_is_accepted_when_shifted(name, mapping, rows):
    if not (DATA / name).exists():
        pytest.skip(f"no {name} beside the repository")
    mapping = load_mapping(ROOT / "conf" / "mappings" / mapping)
    with (DATA / name).open("rb") as file:
        count, last_ms = count_and_last_time(file_records(file, mapping))
        file.seek(0)
        _, values, times = zip(*file_records(file, mapping, weeks_to_shift(last_ms, NOW_MS)))
    decoded = ClickDecoder().decode(values, times)
    assert [message for message in decoded.messages if message] == []
    assert count == len(decoded.events) == rows
    assert len(set(decoded.event_ids)) == rows
    assert NOW_MS - WEEK_MS < max(times) <= NOW_MS


# Times


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 4_000_000_000_000))
def test_a_shift_is_of_whole_weeks_and_ends_in_the_week_before_now(last_ms, now_ms):
    shift_ms = weeks_to_shift(last_ms, now_ms)
    assert shift_ms % WEEK_MS == 0
    assert now_ms - WEEK_MS < last_ms + shift_ms <= now_ms


def test_the_last_time_is_the_greatest_and_broken_records_have_none():
    assert count_and_last_time(timed(3, None, 9, 4)) == (4, 9000)
    assert count_and_last_time(timed(None)) == (1, None)


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
        (["gone.csv"], "replay: [Errno 2] No such file or directory: 'gone.csv'"),
        (["gone.txt"], "replay: gone.txt: unknown format"),
        (["c.jsonl", "--times", "shift"], "replay: c.jsonl: --times shift: no event has a time"),
        (["c.csv"], "replay: c.csv: no column user_id, only who, what"),
        (["empty.csv", "--rate", "5"], "replay: empty.csv: no header line"),
        (["c.jsonl", "--profiles", "simulated"], "replay: --profiles simulated requires --simulate"),
        (["c.jsonl", "--profiles", "p.csv"], "replay: --profiles p.csv: expected a .jsonl or .jsonl.gz file"),
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
