"""Runs a KeyedProcessFunction without Flink: its input, output and state go through Flink's coders."""

from collections.abc import Iterable
from types import SimpleNamespace

import cloudpickle
from pyflink.common import Row
from pyflink.common.typeinfo import TypeInformation
from pyflink.datastream import KeyedProcessFunction
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.fn_execution.coders import from_type_info

Snapshot = tuple[dict[tuple[str, str], bytes], frozenset[tuple[int, str]]]


class KeyedRun:
    """A function as a worker runs it, keyed by the first field of its rows, with a clock that only moves when told."""

    def __init__(self, function: KeyedProcessFunction, output: TypeInformation, snapshot: Snapshot = ({}, frozenset())):
        """`snapshot` is one of another run, from which this one goes on."""
        self.now_ms = 1_000_000
        self.descriptors: dict[str, ValueStateDescriptor] = {}
        self._output = from_type_info(output).get_impl()
        self._coders = {}
        self._kept, timers = dict(snapshot[0]), snapshot[1]
        self._values: dict[tuple[str, str], object] = {}
        self.timers = set(timers)
        self.timers_set = 0
        self._key = ""
        self._function = cloudpickle.loads(cloudpickle.dumps(function))
        self._function.open(SimpleNamespace(get_state=self._state))

    def process(self, *fields) -> list[tuple]:
        """The rows that an element makes."""
        return self._emitted(self._function.process_element(Row(*fields), self._context(fields[0])))

    def wait(self, milliseconds: int) -> list[tuple]:
        """Let time pass; returns the rows that timers make meanwhile."""
        end_ms, rows = self.now_ms + milliseconds, []
        while due := sorted(timer for timer in self.timers if timer[0] <= end_ms):
            time_ms, key = due[0]
            self.timers.remove((time_ms, key))
            self.now_ms = max(self.now_ms, time_ms)
            rows += self._emitted(self._function.on_timer(time_ms, self._context(key)))
        self.now_ms = end_ms
        return rows

    def snapshot(self) -> Snapshot:
        """End a bundle, as before a checkpoint; returns what the checkpoint has."""
        for (name, key), value in self._values.items():
            self._kept[name, key] = self._coders[name].encode(value)
        self._values.clear()
        return dict(self._kept), frozenset(self.timers)

    def _context(self, key: str) -> SimpleNamespace:
        self._key = key

        def set_timer(time_ms: int) -> None:
            self.timers.add((time_ms, key))
            self.timers_set += 1

        timers = SimpleNamespace(current_processing_time=lambda: self.now_ms, register_processing_time_timer=set_timer)
        return SimpleNamespace(get_current_key=lambda: key, timer_service=lambda: timers)

    def _state(self, descriptor: ValueStateDescriptor) -> SimpleNamespace:
        name = descriptor.get_name()
        self.descriptors[name] = descriptor
        self._coders[name] = from_type_info(descriptor.type_info).get_impl()

        def value() -> object:
            place = name, self._key
            if place not in self._values and place in self._kept:
                self._values[place] = self._coders[name].decode(self._kept[place])
            return self._values.get(place)

        def update(new: object) -> None:
            self._values[name, self._key] = new

        return SimpleNamespace(value=value, update=update)

    def _emitted(self, rows: Iterable[Row] | None) -> list[tuple]:
        return [tuple(self._output.decode(self._output.encode(row))) for row in rows or ()]
