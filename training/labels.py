"""What the model is to predict, and how well scores predict it.

The label of an event: the same user buys within the horizon after it, by event time. Two kinds of rows are not for
training or evaluation, see `eligible`: purchases themselves (a score then comes too late to act on, and what follows
is mostly the decision already taken), and rows whose horizon had not passed when the data ended, whether
positive or not: keeping only the positives among them would overstate the rate.
"""

import numpy as np

from udfs.history import EVENT_KINDS

HORIZON_MS = 30 * 60_000
PURCHASE = EVENT_KINDS.index("purchase")


def purchase_within(
    user: np.ndarray, time_ms: np.ndarray, kind: np.ndarray, horizon_ms: int = HORIZON_MS
) -> tuple[np.ndarray, np.ndarray]:
    """Label n events, in any order, given as user code int[n], event time int64[n] and index into EVENT_KINDS [n].

    Returns whether the user has a purchase in (time, time + horizon], bool[n], and whether that horizon ends no later
    than the newest event of all, bool[n].
    """
    matured = time_ms + horizon_ms <= time_ms.max(initial=0)
    # Times as ranks, so that user and time make one integer that can't overflow.
    moments, rank = np.unique(time_ms, return_inverse=True)
    key = user.astype(np.int64) * len(moments) + rank
    bought = np.sort(key[kind == PURCHASE])
    if not bought.size:
        return np.zeros(len(key), bool), matured
    following = bought[np.minimum(np.searchsorted(bought, key, side="right"), len(bought) - 1)]
    next_user, next_rank = np.divmod(following, len(moments))
    wait_ms = moments[next_rank] - time_ms
    return (next_user == user) & (wait_ms > 0) & (wait_ms <= horizon_ms), matured


def eligible(kind: np.ndarray, matured: np.ndarray) -> np.ndarray:
    """Which rows to train on and evaluate, bool[n]: matured and not themselves purchases."""
    return matured & (kind != PURCHASE)


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    The Mann-Whitney statistic from average ranks. Raises ValueError unless both classes are present.
    """
    labels = labels.astype(bool)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs both classes: got {positives} positive and {negatives} negative labels")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    average_rank = np.cumsum(counts) - (counts - 1) / 2
    return float((average_rank[place][labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))
