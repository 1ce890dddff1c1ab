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
    known = scores[~np.isnan(scores)]
    wanted = share * len(scores)
    rank = min(round(wanted), len(known))
    if rank == 0:
        return float("inf")
    value = np.partition(known, len(known) - rank)[len(known) - rank]
    with_ties, without = np.count_nonzero(known >= value), np.count_nonzero(known > value)
    if with_ties - wanted <= wanted - without:
        return float(value)
    return float(known[known > value].min(initial=np.inf))
