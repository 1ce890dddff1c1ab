"""Kernels: compiled functions that compute the features of a declaration.

Code for the features is generated, and compiled with udfs/features/entry_points.py. That takes seconds, unless
udfs/features/kernel_cache.py has the same code compiled. numba compiles what a function's module calls: so the modules
with the functions that Python calls are not imported but run, once for each set of features and type of events.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from types import ModuleType
from typing import Any

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.features import kernel_cache, row_functions
from udfs.features.code_generation import generate
from udfs.features.declaration import Feature
from udfs.features.expressions import Value
from udfs.features.own_functions import load_function


@dataclass(frozen=True)
class Kernel:
    """The compiled functions of some features, and the bits of work that each needs."""

    functions: ModuleType  # entry_points.py, run for these features
    needs: tuple[int, ...]

    def needs_of(self, columns: Sequence[int]) -> int:
        """The bits of work that the features in these columns need together."""
        needs = 0
        for column in columns:
            needs |= self.needs[column]
        return needs


def build_kernel(features: Sequence[Feature], layout: EventLayout) -> Kernel:
    """The kernel whose i-th column is the i-th feature, in a job with a layout; compiled once for equal ones."""
    return _build(tuple(feature.value for feature in features), layout)


@cache
def slot_functions(event: np.dtype) -> ModuleType:
    """The functions of slot_functions.py for packed events of a type."""
    return _run("slot_functions", str(event.descr), {"EVENT": event})


@cache
def _build(values: tuple[Value, ...], layout: EventLayout) -> Kernel:
    code, event = generate(values, layout), layout.dtype
    meaning = f"{code.source} {code.windows} {code.functions} {event.descr} {layout.tiles_type.descr}"
    rows = _module("row_functions", meaning)
    vars(rows).update(vars(row_functions) | {"__name__": rows.__name__, "WINDOWS": code.windows})
    for number, function in enumerate(code.functions):
        setattr(rows, f"function_{number}", row_functions.compiled(load_function(function)))
    exec(compile(code.source, "<features>", "exec"), vars(rows))
    sizes = {
        "COLUMNS": len(values),
        "COUNT_TABLES": code.count_tables,
        "SUM_TABLES": code.sum_tables,
        "TIME_TABLES": code.time_tables,
        "SETS": code.sets,
        "TABLE_LENGTH": code.table_length,
    }
    of_slots = {name: value for name, value in vars(slot_functions(event)).items() if not name.startswith("__")}
    own = {"compute_row": rows.compute_row, "add_to_tiles": rows.add_to_tiles, "TILES": layout.tiles_type}
    functions = _run("entry_points", meaning, of_slots | sizes | own)
    return Kernel(functions, code.needs)


def _run(name: str, meaning: str, names: Mapping[str, Any]) -> ModuleType:
    """Run a module of this package with further names. What it compiles is cached by `meaning`."""
    module = _module(name, meaning)
    vars(module).update(names, CODE_HASH=_digest(meaning))
    source = files(__package__).joinpath(f"{name}.py")  # maybe in a wheel
    with kernel_cache.one_compiles(module.__name__):
        exec(compile(source.read_text(), str(source), "exec"), vars(module))
    return module


def _module(name: str, meaning: str) -> ModuleType:
    """An empty module with a name of its own: numba takes compiled functions of one name for each other, and finds the
    module of what it has cached by the name."""
    module = ModuleType(f"{__package__}.{name}_{_digest(meaning)}")
    sys.modules[module.__name__] = module
    return module


def _digest(meaning: str) -> str:
    return sha256(meaning.encode()).hexdigest()[:16]
