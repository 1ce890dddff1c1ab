from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord

from jobs.common.settings import load_settings
from tests.support.bundles import make_bundle
from tools.chaos.__main__ import main
from tools.chaos.faults import KINDS
from tools.chaos.load import Load
from tools.chaos.report import Leg, Result, markdown
from tools.chaos.schedule import PAUSE_SECONDS, draw
from tools.chaos.verdict import Clicks, differences, newest_profiles
from tools.paths import CONF
from training.simulation.clickstream import Simulation, simulate
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

NOW = 1_767_225_600_000


@given(st.integers(0, 99), st.integers(1, 60))
def test_equal_seeds_give_equal_faults_and_each_kind_has_its_turn(seed, count):
    faults = draw(seed, count, list(KINDS))

    assert faults == draw(seed, count, list(KINDS))
    assert draw(seed, count + 5, list(KINDS))[:count] == faults
    assert [fault.number for fault in faults] == list(range(1, count + 1))
    times = Counter(fault.kind for fault in faults)
    assert max(times.values()) - min(times[kind] for kind in KINDS) <= 1
    for fault in faults:
        least, most = KINDS[fault.kind].seconds
        assert least <= fault.seconds <= most
        assert PAUSE_SECONDS[0] <= fault.after_s <= PAUSE_SECONDS[1]


def test_other_seeds_give_other_faults():
    assert draw(1, 30, list(KINDS)) != draw(2, 30, list(KINDS))


@given(st.dictionaries(st.integers(0, 20), st.sampled_from([0.25, 0.5])), st.data())
def test_any_change_of_what_was_expected_is_a_difference(expected, data):
    found = list(expected.items())
    assert differences("scores", expected, data.draw(st.permutations(found))) == []
    if found:
        key, value = data.draw(st.sampled_from(found))
        others = [entry for entry in found if entry[0] != key]
        assert differences("scores", expected, others) == [f"scores: 1 of {len(found)} missing, such as {key}"]
        assert differences("scores", expected, [*found, (key, value)]) == [
            f"scores: 1 there more than once, such as {key}"
        ]
        assert differences("scores", expected, [*others, (key, 0.75)]) == [
            f"scores: 1 with another value, such as {key}"
        ]
    assert differences("scores", expected, [*found, (21, 0.5)]) == ["scores: 1 that should not be there, such as 21"]


def record(offset: int, **click) -> ConsumerRecord:
    value = msgspec.json.encode({"user_id": "ada", "event_name": "page_view", "event_time": NOW, **click})
    fields = {"topic": "clicks", "partition": 1, "offset": offset, "timestamp": NOW, "value": value}
    return ConsumerRecord(**{name: fields.get(name) for name in ConsumerRecord._fields})


def test_an_offline_run_says_what_each_click_should_give(tmp_path):
    records = [
        record(4, event_id="a"),
        record(5, event_id="a"),  # sent again: no score
        record(6, event_time="yesterday"),
        record(7, event_name="purchase", value=12.5, event_time=NOW + 60_000),
        record(8, event_time=NOW + 500_000),
    ]
    bundle = load_bundle(make_bundle(tmp_path, "v1"), 64)
    clicks = Clicks(records, newest_profiles(simulated_profiles()), load_settings(CONF), bundle)

    assert clicks.dead_letters == {(1, 6): "wrong_type"}
    assert clicks.scores().keys() == {(1, 4), (1, 7), (1, 8)}
    assert clicks.labels(CONVERTED, NOW + 400_000) == {(1, 4): True, (1, 7): False}
    (session,) = clicks.sessions(NOW + 1).items()
    assert session[0] == ("ada", NOW)
    assert session[1][:3] == ("champion", NOW + 500_000, 3)
    assert clicks.sessions(NOW) == {}


class simulated_profiles:
    profiles = [{"user_id": "ada", "country": "CH", "updated_at": NOW + 1}, {"user_id": "ada", "country": "AT"}]


def test_the_newest_profile_of_a_user_counts_from_the_beginning():
    (profile,) = newest_profiles(simulated_profiles())
    assert msgspec.json.decode(profile) == {"user_id": "ada", "country": "AT", "updated_at": 0}


def leg(*problems: str) -> Leg:
    results = [Result(1, "broker-killed", 3.0, 9.0), Result(2, "broker-killed", 5.0, 19.5)]
    return Leg(7, results, 1_000, 990, 10, 980, 70, list(problems))


def test_the_report_says_how_long_recovery_took_and_what_is_wrong():
    text = markdown(7, 4, [leg(), leg("scores: 1 of 990 missing, such as (0, 3)")], ["network-cut"])

    assert text.startswith("# 4 of 4 faults, seed 7\n")
    assert "2,000 clicks gave 1,980 scores and 20 dead letters, 1,960 outcomes and 140 sessions." in text
    assert "- scores: 1 of 990 missing, such as (0, 3)\n" in text
    assert "| broker-killed | 4 | 4.0 s | 14.2 s | 19.5 s |" in text
    assert "Left out, since they need root on Linux: network-cut." in text
    assert "exactly one committed score" in markdown(7, 2, [leg()], [])


@pytest.mark.parametrize("arguments", [["--faults", "0"], ["--leg", "0"], ["--kinds", "none-of-these"]])
def test_arguments_that_make_no_run_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "must be at least 1" in capsys.readouterr().err or "none-of-these" in arguments


def test_a_wrong_clock_moves_the_time_of_events(monkeypatch):
    monkeypatch.setattr("tools.chaos.load.KafkaProducer", lambda **options: None)
    stream = simulate(Simulation(users=30, hours=6))
    load = Load("nowhere", "clicks", stream, 100)
    first, later = load._clicks(), load._clicks()
    load.clock_off_ms = 60_000

    assert next(later)["event_time"] == int(stream.events["time_ms"][0]) + 60_000
    load.clock_off_ms = 0
    assert next(first)["event_time"] == int(stream.events["time_ms"][0])
