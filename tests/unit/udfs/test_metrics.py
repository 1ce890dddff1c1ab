import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from udfs.metrics import LATENCY_BOUNDS_MS, LatencyMetric, RejectedMetric, cumulative_counts


class Counter:
    """A counter as metric groups have them."""

    def __init__(self):
        self.count = 0

    def inc(self, n: int = 1) -> None:
        self.count += n


class Group:
    """A metric group that keeps its counters by name, with the labels in front."""

    def __init__(self, counters: dict[tuple, Counter], labels: tuple = ()):
        self.counters, self._labels = counters, labels

    def add_group(self, name: str, value: str) -> "Group":
        return Group(self.counters, (*self._labels, (name, value)))

    def counter(self, name: str) -> Counter:
        return self.counters.setdefault((*self._labels, name), Counter())

    def count(self, *key) -> int:
        return self.counters[key].count


@given(st.lists(st.floats(0, 100_000), max_size=50))
def test_each_bucket_counts_the_latencies_up_to_its_bound_and_the_last_one_all(latencies):
    counts = cumulative_counts(np.array(latencies)).tolist()
    assert counts[:-1] == [sum(latency <= bound for latency in latencies) for bound in LATENCY_BOUNDS_MS]
    assert counts[-1] == len(latencies)


def test_a_latency_is_in_all_buckets_from_its_own_on_and_breaches_its_budget():
    group, now = Group({}), [0.0]
    metric = LatencyMetric(group, "ms", budget_ms=30, clock=lambda: now[0])
    metric.observe(7.0, 30.0)
    metric.observe(31.0)  # collected, not counted yet
    assert group.count("ms_over_budget") == 0
    now[0] = 1.0
    metric.observe(8.0)
    latencies = np.array([7, 30, 31, 8])
    for bound in LATENCY_BOUNDS_MS:
        assert group.count(("le", str(bound)), "ms_bucket") == (latencies <= bound).sum()
    assert group.count(("le", "+Inf"), "ms_bucket") == 4
    assert group.count("ms_sum") == latencies.sum()
    assert group.count("ms_over_budget") == 1


def test_fractions_of_a_millisecond_add_up():
    group, now = Group({}), [0.0]
    metric = LatencyMetric(group, "ms", clock=lambda: now[0])
    for _ in range(10):
        now[0] += 1.0
        metric.observe(0.75)
    assert group.count("ms_sum") == 7


def test_rejects_are_counted_by_reason_one_by_one_or_in_columns():
    group = Group({})
    metric = RejectedMetric(group, "clicks")
    metric.count("too_large")
    columns = metric.columns([b"a", b"b", b"c"], [None, "too_large", "invalid_json"], [None, "long", "broken"])
    assert columns["original"] == [None, b"b", b"c"]
    assert group.count(("topic", "clicks"), ("reason", "too_large"), "rejected") == 2
    assert group.count(("topic", "clicks"), ("reason", "invalid_json"), "rejected") == 1
