"""The faults of a run: drawn from a seed, the same for equal arguments."""

import random
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from tools.chaos.faults import BROKER_LOST, KINDS

PAUSE_SECONDS = (0.0, 6.0)  # between the recovery from a fault and the next one


class Fault(NamedTuple):
    number: int  # from 1
    kind: str
    after_s: float  # the pause before it
    seconds: float  # how long it lasts
    seed: int  # of what else is drawn while it is caused


def draw(seed: int, total: int, kinds: Sequence[str]) -> list[Fault]:
    """Draw faults. Kinds come in rounds, each in another order, so that a few faults are of many kinds."""
    rng = random.Random(f"{seed} {' '.join(kinds)}")
    faults: list[Fault] = []
    while len(faults) < total:
        for kind in rng.sample(list(kinds), len(kinds)):
            faults.append(_fault(len(faults) + 1, kind, rng))
    return faults[:total]


def with_losses(seed: int, legs: Sequence[Sequence[Fault]]) -> list[list[Fault]]:
    """Legs that each end with the loss of a broker, their faults numbered anew."""
    rng = random.Random(f"{seed} {BROKER_LOST}")
    numbers = count(1)
    return [[fault._replace(number=next(numbers)) for fault in (*leg, _fault(0, BROKER_LOST, rng))] for leg in legs]


def _fault(number: int, kind: str, rng: random.Random) -> Fault:
    pause, lasts = (round(rng.uniform(*span), 1) for span in (PAUSE_SECONDS, KINDS[kind].seconds))
    return Fault(number, kind, pause, lasts, rng.randrange(1 << 30))
