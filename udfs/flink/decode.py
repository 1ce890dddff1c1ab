"""SQL functions that decode clicks and profiles."""

import numpy as np
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from udfs.contracts.clicks import Click, write_click
from udfs.contracts.profiles import ProfileDecoder
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.mapping.topic import ClickTopic
from udfs.metrics import RejectedMetric

#: Columns of a decoded row beside its content: its time and, if it was rejected, reason, message and original bytes.
_RECORD_COLUMNS = {
    "record_ms": DataTypes.BIGINT(),
    "reason": DataTypes.STRING(),
    "message": DataTypes.STRING(),
    "original": DataTypes.BYTES(),
}


class DecodeClicks(ColumnFunction):
    """Decodes click records; a rejected one has only a reason, a message and its original bytes.

    `click` is the accepted click, where it may say something else than the record.
    """

    result = row_type(
        user_id=DataTypes.STRING(),
        event=DataTypes.BYTES(),
        event_id=DataTypes.STRING(),
        event_time=DataTypes.BIGINT(),
        click=DataTypes.BYTES(),
        **_RECORD_COLUMNS,
    )

    def __init__(self, topic: ClickTopic):
        self._topic = topic

    def open(self, context: FunctionContext) -> None:
        self._decoder = self._topic.decoder()
        self._rejected = RejectedMetric(self.metric_group(context), "clicks")

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        return {
            "user_id": clicks.user_ids,
            "event": clicks.events,
            "event_id": clicks.event_ids,
            "event_time": np.array(clicks.event_times_ms, np.int64),
            "click": self._changed(clicks.clicks),
            "record_ms": record_ms,
            **self._rejected.columns(payloads, clicks.reasons, clicks.messages),
        }

    def _changed(self, clicks: list[Click | None]) -> list[bytes | None]:
        if not self._topic.changes_clicks:
            return [None] * len(clicks)
        return [None if click is None else write_click(click) for click in clicks]


class DecodeProfiles(ColumnFunction):
    """Decodes profile records, like DecodeClicks."""

    result = row_type(
        user_id=DataTypes.STRING(),
        profile=DataTypes.BYTES(),
        **_RECORD_COLUMNS,
    )

    def __init__(self, max_record_bytes: int):
        self._max_record_bytes = max_record_bytes

    def open(self, context: FunctionContext) -> None:
        self._decoder = ProfileDecoder(self._max_record_bytes)
        self._rejected = RejectedMetric(self.metric_group(context), "profiles")

    def columns(self, keys: list, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        profiles = self._decoder.decode(keys, payloads)
        return {
            "user_id": profiles.user_ids,
            "profile": profiles.profiles,
            "record_ms": record_ms,
            **self._rejected.columns(payloads, profiles.reasons, profiles.messages),
        }
