"""The cost of features: the time that the compiled kernel takes for them, measured on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from intent.features.generated_histories import generated_histories
from intent.features.late_progress import Report
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration

EVENTS = 2_000
HISTORY_LENGTH = 64
#: Rounds of measuring: as many as fit into the time, but not fewer than the first and not more than the last number.
SECONDS = 12.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25


@dataclass(frozen=True)
class Costs:
    """Microseconds for an event."""

    features: Mapping[str, float]  # by name: what it adds when it is computed alone
    empty_pass: float  # over the history, which nearly all features share; and keeping the tiles, if there are any
    sets: Mapping[str, float]  # of whole sets of features, with the pass


def measure(
    declaration: Declaration,
    names: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    report: Report,
    events: int = EVENTS,
    history_length: int = HISTORY_LENGTH,
) -> Costs:
    """Measure the named features, each alone, and sets of features.

    Each is computed for the same events, once in every round. The fastest round counts: what a busy machine adds is no
    part of the cost. Rounds run in alternating directions, so that no feature always follows the same one.
    """
    report("compiling the features")
    nothing, empty_pass = (FeatureComputer((), history_length, declaration) for _ in range(2))
    empty_pass.pass_anyway()
    alone = {name: FeatureComputer([name], history_length, declaration) for name in names}
    together = {name: FeatureComputer(several, history_length, declaration) for name, several in sets.items()}
    arguments = generated_histories(declaration.layout, events, history_length)
    fastest_s = _fastest_s([nothing, empty_pass, *alone.values(), *together.values()], arguments, report)
    rows = len(arguments["starts"])
    us = {computer: seconds / rows * 1e6 for computer, seconds in fastest_s.items()}
    return Costs(
        {
            name: max(0.0, us[computer] - us[empty_pass if computer.passes else nothing])
            for name, computer in alone.items()
        },
        us[empty_pass],
        {name: us[computer] for name, computer in together.items()},
    )


def _fastest_s(
    computers: Sequence[FeatureComputer], arguments: Mapping[str, np.ndarray], report: Report
) -> dict[FeatureComputer, float]:
    """The seconds that each takes in its fastest round."""
    fastest = dict.fromkeys(computers, float("inf"))
    started = perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and (perf_counter() - started) * (number + 1) / number > SECONDS:
            break
        report("measuring", number, MOST_ROUNDS)
        for computer in computers[:: -1 if number % 2 else 1]:
            begin = perf_counter()
            computer.compute(**arguments)
            fastest[computer] = min(fastest[computer], perf_counter() - begin)
    return fastest
