"""What the job that measures outcomes calls from SQL: what a click adds to an outcome, and how good scores are."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from pyflink.table import DataTypes
from pyflink.table.udf import udaf

from udfs.events import ClickDecoder, ClickLimits
from udfs.flink_columns import Column, ColumnFunction, Profile, row_type
from udfs.history import EVENT
from udfs.quality import MEASURES


class ReadAmounts(ColumnFunction):
    """User and amount of each click record; a record that the score job rejects has neither.

    `amounts` gives int64[n], the amounts of n events EVENT[n].
    """

    result = row_type(user_id=DataTypes.STRING(), amount=DataTypes.BIGINT())

    def __init__(self, limits: ClickLimits, amounts: Callable[[np.ndarray], np.ndarray], profile: Profile):
        super().__init__(profile)
        self._limits = limits
        self._amounts = amounts

    def open(self, context) -> None:
        self._decoder = ClickDecoder(self._limits)

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        accepted = [event is not None for event in clicks.events]
        amounts = np.zeros(len(payloads), np.int64)
        amounts[accepted] = self._amounts(np.frombuffer(b"".join(filter(None, clicks.events)), EVENT))
        return {"user_id": clicks.user_ids, "amount": amounts}


def quality_functions() -> dict[str, object]:
    """The measures as SQL's aggregate functions of (score, label), by name; where one has no value it is null."""
    return {name: udaf(_measure(name), result_type=DataTypes.DOUBLE(), func_type="pandas") for name in MEASURES}


def _measure(name: str) -> Callable[[pd.Series, pd.Series], float | None]:
    def measured(score: pd.Series, label: pd.Series) -> float | None:
        return MEASURES[name](score.to_numpy(np.float64), label.to_numpy(bool))

    return measured
