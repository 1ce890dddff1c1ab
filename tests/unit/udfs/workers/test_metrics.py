import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.contracts.rejects import Reason
from udfs.metrics import LatencyMetric, RejectedMetric
from udfs.workers.metrics import Metrics


def metrics_of(count: int) -> tuple[Metrics, np.ndarray]:
    values = np.zeros(count, np.int64)
    return Metrics(values), values


def test_a_metric_is_declared_once_with_its_kind_name_and_groups():
    metrics, _ = metrics_of(9)
    group = metrics.group().add_group("intent")
    group.add_group("topic", "clicks").add_group("reason", "too_large").counter("rejected")
    group.gauge("batch_size", lambda: 0)
    metrics.group().counter("plain")
    assert metrics.take_declared() == [
        "counter\trejected\tintent\ttopic=clicks\treason=too_large",
        "gauge\tbatch_size\tintent",
        "counter\tplain",
    ]
    assert metrics.take_declared() == []
    group.counter("late")
    assert metrics.take_declared() == ["counter\tlate\tintent"]


@given(st.lists(st.booleans(), max_size=8), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2**40)), max_size=20))
def test_the_values_are_in_the_order_of_the_declarations(is_gauge, changes):
    metrics, values = metrics_of(9)
    expected = [0] * len(is_gauge)
    counters = {}
    for position, gauge in enumerate(is_gauge):
        if gauge:
            metrics.group().gauge("g", lambda position=position: expected[position])
        else:
            counters[position] = metrics.group().counter("c")
    for position, n in changes:
        if position < len(expected):
            expected[position] += n
            if position in counters:
                counters[position].inc(n)
    metrics.update_gauges()
    assert values[: len(expected)].tolist() == expected
    assert [line.split("\t")[0] == "gauge" for line in metrics.take_declared()] == is_gauge


def test_a_counter_counts_one_where_nothing_is_said():
    metrics, values = metrics_of(2)
    counter = metrics.group().counter("c")
    counter.inc()
    counter.inc()
    assert values.tolist() == [2, 0]


def test_a_gauge_shows_its_value_when_asked_for():
    metrics, values = metrics_of(2)
    found = [7]
    metrics.group().gauge("g", lambda: found[0])
    metrics.update_gauges()
    found[0] = 8
    assert values[0] == 7
    metrics.update_gauges()
    assert values[0] == 8


def test_metrics_beyond_the_room_are_not_shown_and_disturb_no_other(caplog):
    metrics, values = metrics_of(4)
    counters = [metrics.group().counter(f"c{number}") for number in range(6)]
    metrics.group().gauge("g", lambda: 99)
    for number, counter in enumerate(counters):
        counter.inc(number + 1)
    metrics.update_gauges()
    assert metrics.take_declared() == ["counter\tc0", "counter\tc1", "counter\tc2"]
    assert values[:3].tolist() == [1, 2, 3]
    assert [name in caplog.text for name in ("c2", "c3", "c5", "g is not shown")] == [False, True, True, True]


def test_the_metrics_of_the_jobs_count_in_a_worker_as_in_a_function():
    metrics, values = metrics_of(64)
    group = metrics.group().add_group("intent")
    now = [0.0]
    LatencyMetric(group, "decode_ms", budget_ms=8, clock=lambda: now[0]).observe(4.0, 7.0, 20_000.0)
    rejected = RejectedMetric(group, "clicks")
    rejected.count("too_large")
    shown = dict(zip(metrics.take_declared(), values.tolist()))
    buckets = {line.rpartition("=")[2]: shown[line] for line in shown if "\tdecode_ms_bucket\t" in line}
    assert buckets == {
        "5": 1, "10": 2, "20": 2, "50": 2, "100": 2, "200": 2, "500": 2, "1000": 2, "10000": 2, "+Inf": 3
    }  # fmt: skip
    assert shown["counter\tdecode_ms_sum\tintent"] == 20_011
    assert shown["counter\tdecode_ms_over_budget\tintent"] == 1
    assert shown["counter\trejected\tintent\ttopic=clicks\treason=too_large"] == 1
    assert len(shown) == 12 + len(Reason)


@pytest.mark.parametrize("value", ["1.4.0", "a=b", "ünicode"])
def test_a_label_may_have_any_value_without_tabs_and_lines(value):
    metrics, _ = metrics_of(2)
    metrics.group().add_group("version", value).counter("c")
    assert metrics.take_declared()[0].split("\t")[2].split("=", 1) == ["version", value]
