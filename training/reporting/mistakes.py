"""The most confident mistakes on the holdout, with what led to each score."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from training.data.examples import Examples
from udfs.contracts.packed_events import EVENT_KINDS, NO_ID, standard_kinds
from udfs.models.attributions import strongest

MISTAKES, EVENTS, REASONS = 5, 8, 5  # mistakes of each class; events and contributions of each mistake


@dataclass(frozen=True)
class Mistake:
    """A scored event whose outcome was the opposite. Items are CRC-32 of their ids: histories keep nothing else."""

    user: str
    time: datetime
    partition: int
    offset: int
    label: bool
    probability: float
    events: tuple[str, ...]  # the last ones, with the time before this event
    reasons: list[tuple[str, float]]


def mistakes(holdout: Examples, probability: np.ndarray, names: tuple[str, ...], added: np.ndarray) -> list[Mistake]:
    """The negatives with the highest scores and the positives with the lowest, one event per user.

    `added` float[rows, k] are the contributions of the k features `names`.
    """
    found = []
    for positive, order in (
        (False, np.argsort(-probability, kind="stable")),
        (True, np.argsort(probability, kind="stable")),
    ):
        users = set()
        for row in order[holdout.labels[order] == positive]:
            if len(users) == MISTAKES:
                break
            if holdout.user[row] not in users:
                users.add(holdout.user[row])
                found.append(_mistake(holdout, row, float(probability[row]), names, added[row]))
    return found


def _mistake(holdout: Examples, row: int, probability: float, names: tuple[str, ...], added: np.ndarray) -> Mistake:
    time_ms = int(holdout.time_ms[row])
    history = holdout.events[holdout.starts[row] : holdout.ends[row]][-EVENTS:]
    return Mistake(
        user=str(holdout.user_ids[holdout.user[row]]),
        time=datetime.fromtimestamp(time_ms / 1000, UTC),
        partition=int(holdout.partition[row]),
        offset=int(holdout.offset[row]),
        label=bool(holdout.labels[row]),
        probability=probability,
        events=tuple(
            f"{_before(time_ms - int(event['time_ms']))} {EVENT_KINDS[kind]}{_item(int(event['item']))}"
            for event, kind in zip(history, standard_kinds(history))
        ),
        reasons=strongest(names, added, REASONS),
    )


def _before(milliseconds: int) -> str:
    """How long before the scored event, in the largest unit that fits.

    >>> _before(0), _before(90_000), _before(7_200_000), _before(-5_000)
    ('0 s', '−1 min', '−2 h', '+5 s')
    """
    size = abs(milliseconds)
    sign = "" if size < 1_000 else "−" if milliseconds > 0 else "+"
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if size >= length:
            return f"{sign}{size // length} {unit}"
    return f"{sign}{size // 1_000} s"


def _item(code: int) -> str:
    return "" if code == NO_ID else f" {code:08x}"
