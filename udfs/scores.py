"""Scoring a batch: packed histories and what else is known of each user in, scores and feature vectors out."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from udfs.history import read_histories
from udfs.model import Bundle, Scorer
from udfs.profiles import NO_PROFILE, PROFILE


class BatchScorer:
    """Scores events with one model. Each row depends on its own arguments only, whatever batch it comes in."""

    def __init__(self, bundle: Bundle, threads: int = 1):
        self._model = Scorer(bundle, threads)
        self.score([bytes(32)], np.ones(1, np.int64), np.zeros(1, np.int64), [None])  # compile and warm up

    def score(
        self,
        histories: Sequence[bytes],
        lifetime_events: np.ndarray,
        first_seen_ms: np.ndarray,
        profiles: Sequence[bytes | None],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32[n] and feature vectors float32[n, k] of the last event of each of n histories.

        `lifetime_events` int64[n] counts the user's events, this one included; `first_seen_ms` int64[n] is the time of
        the earliest one; a user without a profile has None.
        """
        records, starts, ends = read_histories(histories)
        packed = b"".join([NO_PROFILE if profile is None else profile for profile in profiles])
        features = self._model.features.compute(
            records, starts, ends, lifetime_events, first_seen_ms, np.frombuffer(packed, PROFILE)
        )
        return self._model.predict(features), features


def in_sample(user_id: str, share: float) -> bool:
    """Whether a user belongs to a share (0 to 1) of all users: always the same ones, and a larger share keeps them.

    >>> in_sample("anyone", 0.0), in_sample("anyone", 1.0)
    (False, True)
    """
    return crc32(user_id.encode()) < share * 2**32
