"""What an overload did, from samples of a system whose behaviour is known."""

import numpy as np
import pytest

from tools.bench.rates import BenchError
from tools.overload.__main__ import main
from tools.overload.figures import Plan, Sample, drained, find_figures, p99_by_window
from tools.overload.report import markdown, write_plots
from tools.trials.steady_load import HOT_USER, with_hot_key

CAPACITY, NORMAL, STEP_S = 1_000, 100, 2
PLAN = Plan(CAPACITY, NORMAL, before_s=30, overload=3_000, overload_s=60, hot=0.2)
START_S = 1_800_000_000.0
DRAIN_S = 120_000 / (CAPACITY - NORMAL)


def system(until_s: int) -> list[Sample]:
    """A queue that is served at the capacity, beside which something else had been sent before."""
    samples, lag, sent = [], 0.0, 5_000.0
    for second in range(until_s + 1):
        if second % STEP_S == 0:
            backlog = {"trend": "grows" if second < 90 else "shrinks"} if lag > CAPACITY else None
            rss = {"broker": 100 + second, "worker": 50}
            samples.append(Sample(START_S + second, round(sent), round(sent - lag), rss, backlog))
        rate = 3_000 if 30 <= second < 90 else NORMAL
        sent += rate
        lag = max(0.0, lag + rate - CAPACITY)
    return samples


def latencies(until_s: int) -> tuple[np.ndarray, np.ndarray]:
    """When clicks were sent and scored: at once, but waiting from second 30 until 20 s after the lag has drained."""
    received_ms = (START_S + np.arange(0, until_s, 0.01)) * 1000
    since_s = received_ms / 1000 - START_S
    slow = (since_s >= 30) & (since_s < 90 + DRAIN_S + 20)
    return received_ms - np.where(slow, 9_000, 40), received_ms


def figures():
    return find_figures(system(320), PLAN, *latencies(320), budget_ms=1_000)


def test_lag_drain_and_recovery_are_those_of_the_system():
    found = figures()
    assert found.sent_rate == pytest.approx(3_000, rel=0.05)
    assert found.scored_rate == pytest.approx(CAPACITY, rel=0.05)
    assert found.largest_lag == 120_000
    assert found.drain_s == pytest.approx(DRAIN_S, abs=2 * STEP_S)
    assert found.drain_rate == pytest.approx(CAPACITY, rel=0.05)
    assert found.recovered_s == pytest.approx(20, abs=8)
    assert (found.p99_before_ms, found.p99_largest_ms, found.p99_after_ms) == pytest.approx((40, 9_000, 40))
    assert found.rss_largest["broker"] == 420
    assert found.notices["grows"] == pytest.approx((2, 58), abs=3)
    assert found.notices["shrinks"][0] == pytest.approx(60, abs=3)


def test_what_did_not_happen_within_the_run_is_not_claimed():
    found = find_figures(system(120), PLAN, *latencies(120), budget_ms=1_000)
    assert (found.drain_s, found.drain_rate, found.recovered_s, found.p99_after_ms) == (None,) * 4
    assert drained(system(120), PLAN) is None
    with pytest.raises(BenchError, match="the samples end before"):
        find_figures(system(60), PLAN, *latencies(60), budget_ms=1_000)


def test_percentiles_are_those_of_the_scores_that_came_in_a_window():
    ends_s, p99 = p99_by_window(np.array([1.0, 7.0, 3.0]), np.array([100.0, 112.0, 104.9]))
    assert ends_s.tolist() == [105, 115]
    assert p99 == pytest.approx([2.98, 7.0])


def test_the_report_says_what_happened_and_what_is_wrong(tmp_path):
    text = markdown(PLAN, figures(), [], 200_000)
    assert text.startswith("# 3.0 times the capacity for 1 minutes\n")
    assert "Each of 200,000 clicks has exactly one score" in text
    assert "20% of them of one user" in text
    assert '"the job is catching up"' in text
    assert "- scores: 1 missing\n" in markdown(PLAN, figures(), ["scores: 1 missing"], 200_000)
    write_plots(tmp_path, system(320), PLAN, *latencies(320))
    assert {file.name for file in tmp_path.iterdir()} == {"lag.svg", "p99.svg", "memory.svg"}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.37])
def test_so_many_events_are_the_hot_users(share):
    clicks = list(with_hot_key(iter([{"user_id": "ada"}] * 1_000), share))
    assert sum(click["user_id"] == HOT_USER for click in clicks) == pytest.approx(1_000 * share, abs=1)


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--times", "1"], ["--hot", "1"]])
def test_arguments_that_make_no_overload_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "must be " in capsys.readouterr().err
