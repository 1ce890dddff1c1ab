from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ops.replay.producer import Sent
from tools.chaos.__main__ import _key, main
from tools.chaos.faults import DRAWN, KINDS
from tools.chaos.load import Load
from tools.chaos.report import Leg, Result, markdown
from tools.chaos.schedule import PAUSE_SECONDS, draw, with_losses
from training.simulation.clickstream import Simulation, simulate


@given(st.integers(0, 99), st.integers(1, 60))
def test_equal_seeds_give_equal_faults_and_each_kind_has_its_turn(seed, count):
    faults = draw(seed, count, DRAWN)

    assert faults == draw(seed, count, DRAWN)
    assert draw(seed, count + 5, DRAWN)[:count] == faults
    assert [fault.number for fault in faults] == list(range(1, count + 1))
    times = Counter(fault.kind for fault in faults)
    assert max(times.values()) - min(times[kind] for kind in DRAWN) <= 1
    for fault in faults:
        least, most = KINDS[fault.kind].seconds
        assert least <= fault.seconds <= most
        assert PAUSE_SECONDS[0] <= fault.after_s <= PAUSE_SECONDS[1]


def test_with_several_brokers_each_leg_ends_with_the_loss_of_one():
    faults = draw(1, 5, DRAWN)
    legs = with_losses(1, [faults[:3], faults[3:]])
    assert [fault.number for leg in legs for fault in leg] == list(range(1, 8))
    assert [leg[-1].kind for leg in legs] == ["broker-lost"] * 2
    assert [fault[1:] for leg in legs for fault in leg[:-1]] == [fault[1:] for fault in faults]


def test_a_leg_of_other_faults_or_of_another_load_does_not_stand_for_one():
    faults = draw(1, 3, DRAWN)
    others = [(draw(2, 3, DRAWN), 60), (draw(1, 3, DRAWN[:3]), 60), (faults[:2], 60), (faults, 61)]
    assert _key(faults, 60) == _key(draw(1, 3, DRAWN), 60)
    assert len({_key(*planned) for planned in [(faults, 60), *others]}) == 5


def test_other_seeds_give_other_faults():
    assert draw(1, 30, DRAWN) != draw(2, 30, DRAWN)


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


@pytest.mark.parametrize(
    "arguments",
    [["--faults", "0"], ["--leg", "0"], ["--kinds", "none-of-these"], ["--brokers", "0"], ["--brokers", "2"]],
)
def test_arguments_that_make_no_run_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    problem = capsys.readouterr().err
    assert "must be " in problem or "none-of-these" in arguments


class Topic:
    """Stands in for a producer: what has been sent."""

    def __init__(self, **options):
        pass

    def close(self):
        pass


def test_a_paused_load_sends_nothing_and_then_goes_on_where_it_was(monkeypatch):
    stream = simulate(Simulation(users=30, hours=6))
    sent: list[bytes] = []

    def send(producer, topic, records, record_timestamps):
        sent.extend(value for _, value, _ in records)
        return Sent()

    monkeypatch.setattr("tools.chaos.load.KafkaProducer", Topic)
    monkeypatch.setattr("tools.chaos.load.send", send)
    load = Load("nowhere", "clicks", stream, 100_000)
    load.start()
    for _ in range(3):
        with load.paused():
            so_far = list(sent)
        assert sent[: len(so_far)] == so_far
    load.join()
    with pytest.raises(RuntimeError, match="the simulated days are over"):
        load.stop()
    assert sent == [value for _, value, _ in Load("nowhere", "clicks", stream, 1)._records()]


def test_a_wrong_clock_moves_the_time_of_events():
    stream = simulate(Simulation(users=30, hours=6))
    load = Load("nowhere", "clicks", stream, 100)
    first, later = load._clicks(), load._clicks()
    load.clock_off_ms = 60_000

    assert next(later)["event_time"] == int(stream.events["time_ms"][0]) + 60_000
    load.clock_off_ms = 0
    assert next(first)["event_time"] == int(stream.events["time_ms"][0])
