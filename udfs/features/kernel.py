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
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.features import row_functions
from udfs.features.code_generation import generate
from udfs.features.declaration import Feature
from udfs.features.expressions import Value
from udfs.features.own_functions import load_function


@dataclass(frozen=True)
class Kernel:
    """The compiled functions of some features, and the bits of work that each needs."""

    functions: ModuleType  # entry_points.py, run for these features
    needs: tuple[int, ...]


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
    names = vars(row_functions) | {"np": np, "WINDOWS": code.windows}
    for number, function in enumerate(code.functions):
        names[f"function_{number}"] = row_functions.compiled(load_function(function))
    exec(compile(code.source, "<features>", "exec"), names)
    sizes = {
        "COLUMNS": len(values),
        "COUNT_TABLES": code.count_tables,
        "SUM_TABLES": code.sum_tables,
        "TIME_TABLES": code.time_tables,
        "SETS": code.sets,
        "TABLE_LENGTH": code.table_length,
    }
    of_slots = {name: value for name, value in vars(slot_functions(event)).items() if not name.startswith("__")}
    own = {name: names[name] for name in ("compute_row", "add_to_tiles")} | {"TILES": layout.tiles_type}
    meaning = f"{code.source} {code.windows} {code.functions} {event.descr} {layout.tiles_type.descr}"
    functions = _run("entry_points", meaning, of_slots | sizes | own)
    return Kernel(functions, code.needs)


def _run(name: str, meaning: str, names: Mapping[str, Any]) -> ModuleType:
    """Run a module of this package with further names. What it compiles is cached by `meaning`."""
    digest = sha256(meaning.encode()).hexdigest()
    spec = spec_from_file_location(f"udfs.features.{name}_{digest[:16]}", Path(__file__).with_name(f"{name}.py"))
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # numba finds the module of what it has cached by name
    vars(module).update(names, CODE_HASH=digest)
    spec.loader.exec_module(module)
    return module
