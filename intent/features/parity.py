"""Whether Python functions of a declaration give compiled what plain Python gives."""

from dataclasses import dataclass

import numpy as np

from intent.features.generated_histories import generated_histories
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration
from udfs.features.expressions import Function
from udfs.features.own_functions import load_function

#: Compiled code may add up in another order: so many units in the last place of a float32.
_TOLERANCE_ULP = 2


@dataclass(frozen=True)
class Parity:
    """A function's values for made-up events, compiled and in plain Python."""

    name: str
    events: int
    missing: int  # without a value
    different: int
    example: str  # of a difference

    @property
    def is_met(self) -> bool:
        return self.different == 0


def check_functions(declaration: Declaration, events: int, history_length: int) -> list[Parity]:
    """Compare each Python function of a declaration on made-up histories, computed as in training and in the job."""
    names = [feature.name for feature in declaration.features if isinstance(feature.value, Function)]
    if not names:
        return []
    arguments = generated_histories(declaration.layout, events, history_length)
    matrix = FeatureComputer(names, history_length, declaration).compute(**arguments)
    return [
        _compared(name, column, _in_python(declaration[name].value, arguments, history_length))
        for name, column in zip(names, matrix.T)
    ]


def _in_python(function: Function, arguments: dict[str, np.ndarray], history_length: int) -> np.ndarray:
    call, records = load_function(function), arguments["records"].view(np.recarray)
    profiles = arguments["profiles"].view(np.recarray)
    values = []
    for row, (start, end) in enumerate(zip(arguments["starts"], arguments["ends"])):
        seen = np.arange(max(start, end - history_length), end)
        seen = seen[np.argsort(records["time_ms"][seen], kind="stable")]
        of_user = arguments["lifetime_events"][row], arguments["first_seen_ms"][row], profiles[row]
        values.append(call(records, seen, *of_user))
    return np.array(values, np.float32)


def _compared(name: str, compiled: np.ndarray, plain: np.ndarray) -> Parity:
    is_near = np.abs(compiled - plain) <= _TOLERANCE_ULP * np.spacing(np.maximum(np.abs(compiled), np.abs(plain)))
    different = ~(is_near | np.isnan(compiled) & np.isnan(plain))
    row = int(different.argmax())
    example = f"event {row}: {compiled[row]!r} compiled, {plain[row]!r} in Python" if different.any() else ""
    return Parity(name, len(compiled), int(np.isnan(compiled).sum()), int(different.sum()), example)
