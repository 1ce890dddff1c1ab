"""Thresholds, from which on a policy acts on the score of an event."""

import numpy as np


def break_even(benefit: float, cost: float) -> float:
    """The probability from which on acting pays on average: p x benefit >= cost.

    Elkan, The foundations of cost-sensitive learning, 2001, section 1. It assumes calibrated probabilities.

    >>> break_even(benefit=4.0, cost=0.5)
    0.125
    """
    return cost / benefit


def threshold_of_share(scores: np.ndarray, share: float) -> float:
    """The threshold at or above which lies a share of n > 0 scores, float[n]; among ties, the share that is closest.

    Scores that are NaN are below each threshold. With none at all, or if acting on nothing is closest, it is infinite.

    >>> threshold_of_share(np.array([0.1, 0.2, 0.3, 0.4], np.float32), 0.5)
    0.30000001192092896
    """
    values, counts = np.unique(scores[~np.isnan(scores)], return_counts=True)
    taken = np.append(0, np.cumsum(counts[::-1])) / len(scores)
    place = int(np.abs(taken - share).argmin())
    return float("inf") if place == 0 else float(values[::-1][place - 1])
