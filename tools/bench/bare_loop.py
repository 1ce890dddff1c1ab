"""The baseline: the job's decoder, features and model in one plain Python process, with histories in a dict.

No Kafka, no recovery, no second core. The cost of Flink is measured against it.
"""

import time
from collections.abc import Sequence

import numpy as np

from training.data.dataset import ANY_TIME
from udfs.contracts.clicks import ClickDecoder, DecodedClicks
from udfs.contracts.packed_events import EVENT
from udfs.models.bundle import Bundle
from udfs.serving.bootstrap import follow, serving_bundle
from udfs.serving.deployment import Options, ScoredEvents


class PlainScorer:
    """Scores clicks one after the other, with the state of each user in a dict."""

    def __init__(self, bundle: Bundle):
        self.deployment = follow(serving_bundle(bundle, Options())).current
        self._decode = ClickDecoder(ANY_TIME).decode
        self._kept = (bundle.manifest.history_length - 1) * EVENT.itemsize
        self._histories: dict[str, bytes] = {}
        self._counters: dict[str, tuple[int, int]] = {}  # number of events, and time of the earliest

    def score(self, payloads: Sequence[bytes], record_times_ms: Sequence[int]) -> tuple[DecodedClicks, ScoredEvents]:
        """Decode n records, given their n Kafka timestamps, and score those that are accepted."""
        decoded = self._decode(payloads, record_times_ms)
        histories, counters, kept = self._histories, self._counters, self._kept
        users, ragged, lifetime, first_seen = [], [], [], []
        for user, event, time_ms in zip(decoded.user_ids, decoded.events, decoded.event_times_ms):
            if user is None:
                continue
            history = histories.get(user, b"")[-kept:] + event
            count, first = counters.get(user, (0, time_ms))
            histories[user] = history
            counters[user] = entry = (count + 1, min(first, time_ms))
            users.append(user)
            ragged.append(history)
            lifetime.append(entry[0])
            first_seen.append(entry[1])
        scored = self.deployment.score(
            users, ragged, np.array(lifetime, np.int64), np.array(first_seen, np.int64), [None] * len(ragged)
        )
        return decoded, scored


def bare_loop_rate(payloads: Sequence[bytes], bundle: Bundle, batch: int, skip: int) -> float:
    """Events per second, after the first `skip` have filled the histories."""
    scorer = PlainScorer(bundle)
    started = time.perf_counter()
    for position in range(0, len(payloads), batch):
        if position == skip:
            started = time.perf_counter()
        chunk = payloads[position : position + batch]
        scorer.score(chunk, [0] * len(chunk))
    return (len(payloads) - skip) / (time.perf_counter() - started)
