"""SQL function of the session job: the action of each click."""

import numpy as np
from pyflink.table import DataTypes

from udfs.contracts.packed_events import EVENT, EVENT_KINDS, NO_ID
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.mapping.topic import ClickTopic

_PURCHASE = EVENT_KINDS.index("purchase")
_PROMOTIONS = tuple(EVENT_KINDS.index(name) for name in ("view_promotion", "select_promotion"))


class ReadActions(ColumnFunction):
    """Reads user, event, time, page, revenue and placement of each click record; a rejected one has no user.

    A page is the hash of its location, or of the item where the shop sends no location.
    """

    result = row_type(
        user_id=DataTypes.STRING(),
        event_name=DataTypes.STRING(),
        event_time=DataTypes.BIGINT(),
        page=DataTypes.BIGINT(),
        revenue=DataTypes.DOUBLE(),
        placement=DataTypes.STRING(),
    )

    def __init__(self, topic: ClickTopic):
        self._topic = topic

    def open(self, context) -> None:
        self._decoder = self._topic.decoder()

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        names, pages, placements = ([None] * len(payloads) for _ in range(3))
        revenue = np.zeros(len(payloads))
        accepted = [row for row, event in enumerate(clicks.events) if event is not None]
        events = np.frombuffer(b"".join(clicks.events[row] for row in accepted), EVENT)
        page_ids = np.where(events["page"] == NO_ID, events["item"], events["page"]).tolist()
        for row, kind, page in zip(accepted, events["kind"].tolist(), page_ids):
            names[row] = EVENT_KINDS[kind]
            pages[row] = None if page == NO_ID else page
            if kind in _PROMOTIONS:
                placements[row] = clicks.clicks[row].creative_slot
        revenue[accepted] = np.where(events["kind"] == _PURCHASE, np.nan_to_num(events["value"]), 0.0)
        return {
            "user_id": clicks.user_ids,
            "event_name": names,
            "event_time": clicks.event_times_ms,
            "page": pages,
            "revenue": revenue,
            "placement": placements,
        }
