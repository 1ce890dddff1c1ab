"""Metrics at an endpoint of the process's own, in the text format that Prometheus reads."""

import socket
from http.client import HTTPException

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from jobs.local_http import get_text
from udfs import exposition
from udfs.exposition import ExposedGroup, Exposition, process_group
from udfs.metrics import LATENCY_BOUNDS_MS, LatencyMetric


def exposed(text: str) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def text_of(shown: Exposition) -> str:
    registry = CollectorRegistry()
    registry.register(shown)
    return generate_latest(registry).decode()


def test_counters_of_several_tasks_add_up_and_the_newest_gauge_shows():
    shown = Exposition()
    for task in (1, 2):
        group = ExposedGroup(shown).add_group("intent").add_group("version", "v1")
        group.counter("scored").inc(task)
        group.gauge("entry", lambda task=task: task)
    assert exposed(text_of(shown)) == {
        ("intent_scored", ("version", "v1")): 3,
        ("intent_entry", ("version", "v1")): 2,
    }


def test_a_latency_is_in_all_buckets_from_its_own_on_and_breaches_its_budget():
    shown, now = Exposition(), [0.0]
    metric = LatencyMetric(ExposedGroup(shown), "ms", budget_ms=30, clock=lambda: now[0])
    metric.observe(7.0, 30.0)
    metric.observe(31.0)  # collected, not counted yet
    assert exposed(text_of(shown))[("ms_over_budget",)] == 0
    now[0] = 1.0
    metric.observe(8.0)
    found = exposed(text_of(shown))
    latencies = np.array([7, 30, 31, 8])
    for bound in LATENCY_BOUNDS_MS:
        assert found[("ms_bucket", ("le", str(bound)))] == (latencies <= bound).sum()
    assert found[("ms_bucket", ("le", "+Inf"))] == 4
    assert found[("ms_sum",)] == latencies.sum()
    assert found[("ms_over_budget",)] == 1


def test_the_first_free_port_of_a_range_serves_the_whole_process(monkeypatch):
    monkeypatch.setattr(exposition, "_served", [])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        endpoint = f"127.0.0.1:{first}-{first + 50}"
        process_group(endpoint).counter("one").inc()
        process_group(endpoint).counter("two").inc()
    ports = [port for port in range(first + 1, first + 51) if "one 1.0" in page_at(port)]
    assert len(ports) == 1
    assert "two 1.0" in page_at(ports[0])


def page_at(port: int) -> str:
    try:
        return get_text(port, "/metrics")
    except (OSError, HTTPException):
        return ""
