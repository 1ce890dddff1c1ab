"""Rates, latencies and the topics of a run, out of what was counted."""

from array import array

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.settings import TopicNames, load_settings
from tools.bench.context import CONF, fresh_run, topics_of
from tools.bench.latency import GUARANTEES, SHIPPED, settled
from tools.bench.rates import POLL_SECONDS, BenchError, PeakMemory, rate_between, report_every, tree_pss
from tools.bench.sql_jobs import USER_SHARE
from tools.bench.throughput import SWAP_ROWS, reading


class Counting:
    """A count that grows at a rate from a start on, up to an end, and the clock by which it does."""

    def __init__(self, rate: float, start: float = 0.0, end: float = float("inf")):
        self.now, self.rate, self.start, self.end = 0.0, rate, start, end
        self.told: list[str] = []

    def __call__(self) -> int:
        return int(min(max(self.now - self.start, 0) * self.rate, self.end))

    def between(self, first: int, last: int, **options) -> float:
        return rate_between(self, first, last, self.told.append, clock=lambda: self.now, sleep=self.sleep, **options)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.floats(100, 100_000), st.floats(0, 100))
def test_the_rate_is_that_between_the_marks_whenever_it_began(rate, start):
    counting = Counting(rate, start)
    found = counting.between(1_000, 1_000 + int(rate * 60), wait_seconds=1_000)
    assert found == pytest.approx(rate, rel=0.01)


def test_who_is_slow_is_measured_up_to_where_the_time_was_up():
    counting = Counting(10)
    assert counting.between(100, 1_000_000, max_seconds=120) == pytest.approx(10)
    assert counting.now <= 10 + 120 + 2 * POLL_SECONDS
    assert counting.told == sorted(counting.told, key=len)
    assert counting.told[0].endswith(" of 1,000,000")


def test_who_does_not_come_to_the_first_mark_is_told():
    with pytest.raises(BenchError, match=r"500 of 1,000 after 60 s"):
        Counting(100, end=500).between(1_000, 2_000, wait_seconds=60)


def test_who_stands_still_after_the_first_mark_has_no_rate():
    with pytest.raises(BenchError, match="cannot compute a rate"):
        Counting(100, end=1_000).between(1_000, 2_000, max_seconds=60)


def test_a_count_that_ends_between_the_marks_is_measured_to_its_end():
    assert Counting(100, end=1_500).between(1_000, 2_000, max_seconds=60) == pytest.approx(100, rel=0.25)


def test_items_go_through_and_are_counted():
    told = []
    assert list(report_every(range(7), 3, told.append)) == [*range(7)]
    assert told == [3, 6]


def test_memory_is_that_of_a_process_and_what_it_has_started():
    held = tree_pss(psutil.Process())
    assert sum(held.values()) > 1 << 20
    watch = PeakMemory(psutil.Process().pid)
    watch.start()
    mib = watch.stop()
    assert mib["all"] == sum(found for name, found in mib.items() if name != "all") > 0


def test_latencies_leave_out_what_was_sent_in_the_first_seconds():
    times = array("d", [1_000, 1_500, 5_999, 6_099, 6_000, 6_010, 9_000, 9_020])
    assert settled(times, 5).tolist() == [10, 20]
    assert settled(times, 0).tolist() == [500, 100, 10, 20]


def test_runs_share_neither_topics_nor_consumer_groups():
    first, second = fresh_run("first"), fresh_run("second")
    assert not {value.split("=")[1] for value in first} & {value.split("=")[1] for value in second}
    assert len(topics_of("first")) == len(TopicNames.__struct_fields__)
    assert fresh_run("third", "scores") == ["source.group_id=third", "topics.scores=third-scores"]


@pytest.mark.parametrize(
    "overrides",
    [
        reading("waiting-clicks", "throughput-heap-1", 1, "hashmap"),
        [*reading("waiting-clicks", "swap", 2), "model.registry=registry", f"workers.batch_rows={SWAP_ROWS}"],
        *([*fresh_run("latency", "clicks"), *SHIPPED, *changed] for changed, _ in GUARANTEES.values()),
        [*fresh_run("measuring"), f"feature_log.user_share={USER_SHARE}"],
    ],
)
def test_the_settings_of_the_jobs_that_are_measured_are_valid(overrides):
    assert load_settings(CONF, overrides, {}).source.start in ("earliest", "latest", "committed")
