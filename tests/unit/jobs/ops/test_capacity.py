import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.ops import capacity
from jobs.ops.capacity import Assumed, MeasuredLoad, need

MEASURED = MeasuredLoad(events_per_core=20_000, bytes_per_user=1_500, click_bytes=300, score_bytes=250)
FIGURES = {
    "job": {"heap": {"1": 1.0}, "rocksdb": {"1": 30_000, "4": 40_000}},
    "state_bytes_per_user": 1_500,
    "record_bytes": {"clicks": 300.0, "scores": 250.0},
    "bare_loop": 70_000,
}
REPORT = {"throughput": {"cores": 2, "figures": FIGURES}, "scale": {"cores": 2, "figures": {}}}
NO_RATE = {"throughput": {"cores": 2, "figures": FIGURES | {"job": {"heap": {}}}}}


def test_a_load_is_reckoned_from_what_a_core_does():
    found = need(100_000, 10_000_000, MEASURED, Assumed(load=0.5, slots_per_core=2, interval_s=30))
    assert (found.cores, found.slots) == (10, 20)
    assert found.network_bytes_s == 100_000 * 550
    assert found.state_bytes == 15e9
    assert found.checkpoint_bytes == 3_000_000 * 1_500


def test_an_incremental_checkpoint_is_no_larger_than_the_state():
    found = need(1_000_000, 1_000, MEASURED)
    assert found.checkpoint_bytes == found.state_bytes


def test_there_is_a_partition_for_each_slot_and_none_takes_more_than_it_can():
    found = need(10_000_000, 0, MEASURED)
    assert found.partitions >= found.slots
    assert 10_000_000 * MEASURED.click_bytes / found.partitions <= Assumed().partition_bytes
    slim = need(10_000, 0, MeasuredLoad(1e9, 1, 100_000, 1))
    assert slim.partitions == 200


@given(st.integers(1, 10**7), st.integers(1, 10**9), st.integers(1, 10))
def test_more_of_either_never_takes_less(rate, users, times):
    less, more = need(rate, users, MEASURED), need(rate * times, users * times, MEASURED)
    assert all(getattr(less, name) <= getattr(more, name) for name in vars(less))


def test_the_report_of_the_benchmark_is_read():
    assert capacity.measured_of(json.dumps(REPORT).encode()) == MEASURED


def test_every_rate_and_number_of_users_has_a_row(tmp_path, capsys):
    report = tmp_path / "bench.json"
    report.write_text(json.dumps(REPORT))
    assert capacity.main([str(report)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line[2:3].isdigit()]
    assert len(rows) == len(capacity.RATES) + len(capacity.USERS)


@pytest.mark.parametrize("content", [None, "{}", "nonsense", json.dumps(NO_RATE)])
def test_a_report_that_cannot_be_used_is_named_in_a_line(tmp_path, capsys, content):
    report = tmp_path / "bench.json"
    if content is not None:
        report.write_text(content)
    assert capacity.main([str(report)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"capacity: {report}: ")
    assert error.count("\n") == 1
