"""Negative downsampling: training with all positives and a weighted share of the negatives."""

import numpy as np


def downsample_negatives(
    labels: np.ndarray, weight: np.ndarray, negative_share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the rows to keep: all positives and a random share of the negatives. Returns the rows and their weights.

    A kept negative has the weight of the negatives that it stands for, so that rates and probabilities stay unbiased.
    """
    drawn = np.random.default_rng(seed).random(len(labels)) < negative_share
    rows = np.flatnonzero(labels | drawn)
    kept = np.where(labels[rows], weight[rows], weight[rows] / negative_share)
    return rows, kept.astype(np.float32)


def share_that_fits(examples: int, positives: int, share: float, limit: int) -> float:
    """The share of the negatives to keep: the given one, or a smaller one if more than `limit` rows would remain."""
    negatives = examples - positives
    return (limit - positives) / negatives if positives < limit < positives + share * negatives else share
