"""Whether the score job keeps up with the clicks, from rates and latencies that the dashboard has anyway."""

from typing import Literal

import msgspec

SECONDS = 60  # of the rates: with exactly-once delivery, scores come once per checkpoint
MARGIN = 1.05  # rates that differ by less are equal


class Backlog(msgspec.Struct, frozen=True):
    """Clicks that wait longer than the latency budget allows."""

    trend: Literal["grows", "holds", "shrinks"]
    clicks_rate: float  # arriving per second
    answers_rate: float  # scores and dead letters per second
    waiting_ms: float  # from the Kafka timestamp of a click to its score, now


def find_backlog(
    clicks_rate: float | None, answers_rate: float | None, waiting_ms: float | None, budget_ms: int
) -> Backlog | None:
    """The backlog; None while there is none, or where it can't be known.

    >>> find_backlog(300.0, 100.0, 2_000.0, 1_000).trend
    'grows'
    """
    if clicks_rate is None or answers_rate is None or waiting_ms is None or waiting_ms <= budget_ms:
        return None
    trend = "holds"
    if clicks_rate > MARGIN * answers_rate:
        trend = "grows"
    elif answers_rate > MARGIN * clicks_rate:
        trend = "shrinks"
    return Backlog(trend, round(clicks_rate, 2), round(answers_rate, 2), waiting_ms)
