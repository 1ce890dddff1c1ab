"""Metrics of functions inside a TaskManager, at a Prometheus endpoint of their own.

In thread mode PyFlink collects what Python counts and hands it to nobody. The groups here have the methods of its own.
"""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import UnknownMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]


class Counter:
    """A whole number that only grows."""

    def __init__(self):
        self.count = 0

    def inc(self, n: int = 1) -> None:
        self.count += n


class Exposition(Collector):
    """All metrics of a process. Counters of one name and labels add up; of such gauges the newest one shows."""

    def __init__(self):
        self._counters: dict[str, dict[Labels, list[Counter]]] = defaultdict(lambda: defaultdict(list))
        self._gauges: dict[str, dict[Labels, Callable[[], int]]] = defaultdict(dict)

    def counter(self, name: str, labels: Labels) -> Counter:
        counter = Counter()  # one for each task: they count in threads of their own
        self._counters[name][labels].append(counter)
        return counter

    def gauge(self, name: str, labels: Labels, value: Callable[[], int]) -> None:
        self._gauges[name][labels] = value

    def collect(self) -> Iterator[UnknownMetricFamily]:
        """What prometheus_client asks for. The type is left open: it would append `_total` to a counter's name."""
        for name, counters in list(self._counters.items()):
            yield _family(name, {labels: sum(one.count for one in all_) for labels, all_ in list(counters.items())})
        for name, gauges in list(self._gauges.items()):
            yield _family(name, {labels: value() for labels, value in list(gauges.items())})


class ExposedGroup:
    """A metric group as PyFlink has them: a name for its metrics to begin with, or a label."""

    def __init__(self, exposition: Exposition, prefix: str = "", labels: Labels = ()):
        self._exposition, self._prefix, self._labels = exposition, prefix, labels

    def add_group(self, name: str, extra: str | None = None) -> "ExposedGroup":
        if extra is None:
            return ExposedGroup(self._exposition, f"{self._prefix}{name}_", self._labels)
        return ExposedGroup(self._exposition, self._prefix, (*self._labels, (name, extra)))

    def counter(self, name: str) -> Counter:
        return self._exposition.counter(self._prefix + name, self._labels)

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        self._exposition.gauge(self._prefix + name, self._labels, value)


def process_group(endpoint: str) -> ExposedGroup:
    """The group of this process; the first call serves it at `endpoint`, HOST:PORT or HOST:FIRST-LAST.

    Of a range the first free port is taken. Where none is free there is a log line and no endpoint: the metrics of a
    job are no reason to end it.
    """
    with _lock:
        if not _served:
            _served.append(Exposition())
            _serve(_served[0], endpoint)
    return ExposedGroup(_served[0])


_lock = threading.Lock()
_served: list[Exposition] = []


def _serve(exposition: Exposition, endpoint: str) -> None:
    registry = CollectorRegistry()
    registry.register(exposition)
    host, _, ports = endpoint.rpartition(":")
    first, _, last = ports.partition("-")
    for port in range(int(first), int(last or first) + 1):
        try:
            start_http_server(port, host, registry)
        except OSError:
            continue
        log.warning("metrics of the Python functions are served at %s:%d", host, port)  # the root logger drops INFO
        return
    log.error("no port is free at %s: the metrics of the Python functions are not served", endpoint)


def _family(name: str, values: dict[Labels, int]) -> UnknownMetricFamily:
    family = UnknownMetricFamily(name, name)
    for labels, value in values.items():
        family.add_sample(name, dict(labels), value)
    return family
