"""SQL functions of the outcome job: the amounts that clicks add to outcomes, and the quality of scores."""

from collections.abc import Callable

import numpy as np
from pyflink.table import DataTypes

from udfs.contracts.outputs import ModelQuality
from udfs.contracts.sql_types import sql_types
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.flink.repeats import repeat_keys
from udfs.mapping.topic import ClickTopic
from udfs.measurement.quality import MEASURES


class ReadAmounts(ColumnFunction):
    """Reads user and amount of each click record; a record that the score job rejects has neither.

    `amounts` gives int64[n], the amounts of n events EVENT[n]. A record with an amount also has the anonymous id if it
    is not the user's, and a key (`repeat_keys`) if the event has an id; without a key if `within_ms` is 0.
    """

    result = row_type(
        user_id=DataTypes.STRING(),
        anonymous_id=DataTypes.STRING(),
        amount=DataTypes.BIGINT(),
        repeat_key=DataTypes.BIGINT(),
    )

    def __init__(self, topic: ClickTopic, amounts: Callable[[np.ndarray], np.ndarray], within_ms: int):
        self._topic, self._amounts, self._within_ms = topic, amounts, within_ms

    def open(self, context) -> None:
        self._decoder = self._topic.decoder()

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        accepted = np.array([event is not None for event in clicks.events], bool)
        events = np.frombuffer(b"".join(filter(None, clicks.events)), self._topic.layout.dtype)
        added = self._amounts(events)
        amounts = np.zeros(len(payloads), np.int64)
        amounts[accepted] = added
        anonymous, keys = [None] * len(payloads), np.ma.masked_all(len(payloads), np.int64)
        rows = np.flatnonzero(amounts > 0)
        for row in rows.tolist():
            click = clicks.clicks[row]
            if click.visitor != click.user_id:
                anonymous[row] = click.visitor
        if self._within_ms:
            keys[rows] = repeat_keys([clicks.user_ids[row] for row in rows], events[added > 0], self._within_ms)
        return {"user_id": clicks.user_ids, "anonymous_id": anonymous, "amount": amounts, "repeat_key": keys}


class MeasureQuality(ColumnFunction):
    """Measures the quality of n windows, each an array of scores and one of labels; undefined measures are null.

    Flink collects the windows and keeps them in its state: a Python aggregate over a window lost rows at a recovery.
    """

    result = row_type(
        **{name: getattr(DataTypes, kind)() for name, kind in sql_types(ModelQuality).items() if name in MEASURES}
    )

    def columns(self, scores: list, labels: list) -> dict[str, Column]:
        windows = [(np.array(score, np.float64), np.array(label, bool)) for score, label in zip(scores, labels)]
        return {name: [measure(*window) for window in windows] for name, measure in MEASURES.items()}
