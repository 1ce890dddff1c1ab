"""Functions of the user's own that compute a feature, in a module on the Python path.

    def price_spread(events, seen, lifetime_events, first_seen_ms, profile):
        lowest, highest = np.inf, -np.inf
        for position in seen:
            value = events[position].value
            if not np.isnan(value):
                lowest, highest = min(lowest, value), max(highest, value)
        return highest - lowest if highest >= lowest else np.nan

`events` are packed events. `seen` int64[k] are the positions of those that the feature may see: by time, the scored one
last. `lifetime_events`, `first_seen_ms` and `profile`, a packed one, are the user's at that event. numba compiles
the function, so it can use what numba knows, and it returns a number: NaN where there is none.
"""

import ast
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from inspect import isfunction, signature

from udfs.features.expressions import ExpressionError, Function

ARGUMENTS = 5
#: What the module may import: a bundle remembers the source of the module alone.
ALLOWED = frozenset({"math", "numba", "numpy", "typing", "__future__"})


def find_function(path: str) -> Function:
    """A function by its dotted path. Raises ExpressionError if there is none, or it takes other arguments."""
    _load(path)
    return Function(path, _digest(path))


def load_function(function: Function) -> Callable:
    """The function itself. Raises ExpressionError if it is not there, or its module is not what it was."""
    found = _load(function.path)
    if _digest(function.path) != function.sha256:
        raise ExpressionError(
            f"{function.path}: the source of its module is not that of the training: ship the same file, or train again"
        )
    return found


def _load(path: str) -> Callable:
    module_name, _, name = path.rpartition(".")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever a module of the user's own raises
        reason = f"{type(error).__name__}: {error}"
        raise ExpressionError(
            f"{path}: can't import {module_name} ({reason}): put it on the Python path, or ship it with -pyfs"
        ) from None
    function = getattr(module, name, None)
    function = getattr(function, "py_func", function)  # of one that numba has compiled
    if not isfunction(function):
        raise ExpressionError(f"{path}: module {module_name} has no function {name}")
    if len(signature(function).parameters) != ARGUMENTS:
        raise ExpressionError(
            f"{path}: takes {len(signature(function).parameters)} arguments; expected {ARGUMENTS}: events, seen, "
            "lifetime_events, first_seen_ms, profile"
        )
    return function


@cache  # as it was imported
def _digest(path: str) -> str:
    """SHA-256, in hex, of the source of a function's module. Raises ExpressionError if it imports others."""
    name = path.rpartition(".")[0]
    spec = find_spec(name)
    source = spec.loader.get_source(name) if hasattr(spec.loader, "get_source") else None
    if source is None:
        raise ExpressionError(f"{path}: its module is not Python source")
    imported = {
        (node.module or "." if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if others := sorted(imported - ALLOWED):
        raise ExpressionError(
            f"{path}: its module imports {others[0] or 'from its package'}: it may import "
            f"{', '.join(sorted(ALLOWED))}, so that the module alone says what the function does"
        )
    return sha256(source.encode()).hexdigest()
