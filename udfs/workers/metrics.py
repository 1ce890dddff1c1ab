"""Metrics of a worker: values in the shared memory, where its operator reads them, and lines that declare them.

The groups have the methods of PyFlink's own, so that udfs.metrics counts in either.
"""

import logging
from collections.abc import Callable

import numpy as np

log = logging.getLogger(__name__)


class Metrics:
    """All metrics of a worker. The values are int64[n], one for each metric in the order of their declaration."""

    def __init__(self, values: np.ndarray):
        self._values = values
        self._declared: list[str] = []  # not yet sent to the operator
        self._gauges: list[tuple[int, Callable[[], int]]] = []
        self._count = 0

    def group(self) -> "MetricGroup":
        return MetricGroup(self, ())

    def take_declared(self) -> list[str]:
        """The lines that declare metrics since the last call."""
        declared, self._declared = self._declared, []
        return declared

    def update_gauges(self) -> None:
        """Write the current values of all gauges."""
        for position, value in list(self._gauges):
            self._values[position] = value()

    def counter(self, groups: tuple[str, ...], name: str) -> "Counter":
        return Counter(self._values, self._declare("counter", groups, name))

    def gauge(self, groups: tuple[str, ...], name: str, value: Callable[[], int]) -> None:
        self._gauges.append((self._declare("gauge", groups, name), value))

    def _declare(self, kind: str, groups: tuple[str, ...], name: str) -> int:
        """The position of the metric's value. Metrics declared when no room is left share the last one."""
        last = len(self._values) - 1
        if self._count == last:
            log.warning("no room for another metric after %d: %s is not shown; restart the job", last, name)
            return last
        self._declared.append("\t".join((kind, name, *groups)))
        self._count += 1
        return self._count - 1


class Counter:
    """A whole number that only grows."""

    def __init__(self, values: np.ndarray, position: int):
        self._values, self._position = values, position

    def inc(self, n: int = 1) -> None:
        self._values[self._position] += n


class MetricGroup:
    """A prefix of metric names, or a label, nested in those of other groups."""

    def __init__(self, metrics: Metrics, groups: tuple[str, ...]):
        self._metrics, self._groups = metrics, groups

    def add_group(self, name: str, value: str | None = None) -> "MetricGroup":
        return MetricGroup(self._metrics, (*self._groups, name if value is None else f"{name}={value}"))

    def counter(self, name: str) -> Counter:
        return self._metrics.counter(self._groups, name)

    def gauge(self, name: str, value: Callable[[], int]) -> None:
        self._metrics.gauge(self._groups, name, value)
