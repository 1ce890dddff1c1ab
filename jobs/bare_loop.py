"""The yardstick: decode, features and model of the job in one plain Python process, histories in a dict, nothing else.

No Kafka, no recovery, no second core. What Flink adds is judged against it.
"""

import time
from collections.abc import Sequence

import numpy as np

from training.dataset import ANY_TIME
from udfs.deployment import Options
from udfs.events import ClickDecoder
from udfs.history import EVENT
from udfs.model import Bundle
from udfs.serving import follow, serving_bundle


def bare_loop_rate(payloads: Sequence[bytes], bundle: Bundle, batch: int, skip: int) -> float:
    """Events a second, after the first `skip` have filled the histories."""
    decode, scorer = ClickDecoder(ANY_TIME).decode, follow(serving_bundle(bundle, Options())).current
    kept = (bundle.manifest.history_length - 1) * EVENT.itemsize
    histories: dict[str, bytes] = {}
    counters: dict[str, tuple[int, int]] = {}
    started = time.perf_counter()
    for position in range(0, len(payloads), batch):
        if position == skip:
            started = time.perf_counter()
        chunk = payloads[position : position + batch]
        decoded = decode(chunk, [0] * len(chunk))
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
        scorer.score(users, ragged, np.array(lifetime), np.array(first_seen), [None] * len(ragged))
    return (len(payloads) - skip) / (time.perf_counter() - started)
