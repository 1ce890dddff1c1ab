"""The faults of a run: drawn from a seed, the same for equal arguments."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from tools.chaos.faults import KINDS

PAUSE_SECONDS = (0.0, 6.0)  # between the recovery from a fault and the next one


class Fault(NamedTuple):
    number: int  # from 1
    kind: str
    after_s: float  # the pause before it
    seconds: float  # how long it lasts
    seed: int  # of what else is drawn while it is caused


def draw(seed: int, count: int, kinds: Sequence[str]) -> list[Fault]:
    """Draw faults. Kinds come in rounds, each in another order, so that a few faults are of many kinds."""
    rng = random.Random(f"{seed} {' '.join(kinds)}")
    faults: list[Fault] = []
    while len(faults) < count:
        for kind in rng.sample(list(kinds), len(kinds)):
            pause, lasts = (round(rng.uniform(*span), 1) for span in (PAUSE_SECONDS, KINDS[kind].seconds))
            faults.append(Fault(len(faults) + 1, kind, pause, lasts, rng.randrange(1 << 30)))
    return faults[:count]
