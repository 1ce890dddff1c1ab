"""Splits of examples into training rows, folds and holdout: by user or by time, never by row.

Rows of one user are much alike, and neighbouring rows share their future; a user is therefore on one side of a split by
user, and in a split by time no training label reaches into the holdout.
"""

import numpy as np
from sklearn.model_selection import StratifiedKFold

from training.data.examples import Examples


class SplitError(ValueError):
    """Examples that can't be split; the message is one line with a remedy."""


def split_by_user(examples: Examples, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into training rows and holdout: a share of the users, stratified by whether they have a positive."""
    parts = max(2, round(1 / share))
    fold = user_folds(examples, np.arange(len(examples)), parts, seed)
    return checked(examples, np.flatnonzero(fold != 0), "training"), checked(
        examples, np.flatnonzero(fold == 0), "holdout"
    )


def split_by_time(examples: Examples, share: float, horizon_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into training rows and holdout: the newest share of the rows."""
    return split_at(examples, np.quantile(examples.time_ms, 1 - share), horizon_ms)


def split_at(examples: Examples, cut: float, horizon_ms: int) -> tuple[np.ndarray, np.ndarray]:
    """Split into training rows and holdout: the rows from the cut on. Rows whose horizon reaches it are in neither."""
    return (
        checked(examples, np.flatnonzero(examples.time_ms + horizon_ms < cut), "training"),
        checked(examples, np.flatnonzero(examples.time_ms >= cut), "holdout"),
    )


def user_folds(examples: Examples, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each of the rows, int64[len(rows)]: users stratified by whether they have a positive."""
    users, user = np.unique(examples.user[rows], return_inverse=True)
    is_positive = np.bincount(user, examples.labels[rows]) > 0
    if min(is_positive.sum(), (~is_positive).sum()) < folds and len(users) < 2 * folds:
        raise SplitError(
            f"{len(users)} users, {is_positive.sum()} of them with a positive label, are too few for {folds} parts: "
            "use more users or fewer parts"
        )
    chosen = np.empty(len(users), np.int64)
    if min(is_positive.sum(), (~is_positive).sum()) >= folds:
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed).split(users, is_positive)
        for number, (_, members) in enumerate(splitter):
            chosen[members] = number
    else:
        chosen[np.random.default_rng(seed).permutation(len(users))] = np.arange(len(users)) % folds
    return chosen[user]


def checked(examples: Examples, rows: np.ndarray, name: str) -> np.ndarray:
    """Return the rows. Raises SplitError unless they have both classes."""
    positives = int(examples.labels[rows].sum())
    if positives in (0, len(rows)):
        raise SplitError(
            f"the {name} part has {positives} positive labels among {len(rows)} events of "
            f"{len(np.unique(examples.user[rows]))} users: both classes are needed, use more users or more time"
        )
    return rows
