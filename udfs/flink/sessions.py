"""SQL function of the session job: the action of each click."""

import numpy as np
from pyflink.table import DataTypes

from udfs.contracts.packed_events import DEVICES, EVENT_KINDS, NO_ID, standard_kinds
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.flink.repeats import repeat_keys
from udfs.mapping.topic import ClickTopic

_PURCHASE = EVENT_KINDS.index("purchase")
_PROMOTIONS = tuple(EVENT_KINDS.index(name) for name in ("view_promotion", "select_promotion"))


class ReadActions(ColumnFunction):
    """Reads user, event, time, page, revenue, placement and device of each click record; a rejected one has no user.

    A page is the hash of its location, or of the item where the shop sends no location. Events of which one is sent
    again have equal keys (`repeat_keys`): `purchase_key` if it is a purchase, else `event_key`. Without an id there is
    no key, nor if `within_ms` is 0.
    """

    result = row_type(
        user_id=DataTypes.STRING(),
        event_name=DataTypes.STRING(),
        event_time=DataTypes.BIGINT(),
        page=DataTypes.BIGINT(),
        revenue=DataTypes.DOUBLE(),
        placement=DataTypes.STRING(),
        device=DataTypes.STRING(),
        event_key=DataTypes.BIGINT(),
        purchase_key=DataTypes.BIGINT(),
    )

    def __init__(self, topic: ClickTopic, within_ms: int):
        self._topic, self._within_ms = topic, within_ms

    def open(self, context) -> None:
        self._decoder = self._topic.decoder()

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        names, pages, placements, devices = ([None] * len(payloads) for _ in range(4))
        revenue = np.zeros(len(payloads))
        event_keys, purchase_keys = (np.ma.masked_all(len(payloads), np.int64) for _ in range(2))
        accepted = [row for row, event in enumerate(clicks.events) if event is not None]
        events = np.frombuffer(b"".join(clicks.events[row] for row in accepted), self._topic.layout.dtype)
        page_ids = np.where(events["page"] == NO_ID, events["item"], events["page"]).tolist()
        kinds, device_codes = standard_kinds(events).tolist(), events["device"].tolist()
        for row, kind, page, device in zip(accepted, kinds, page_ids, device_codes):
            names[row] = EVENT_KINDS[kind]
            devices[row] = DEVICES[device] if device else None
            pages[row] = None if page == NO_ID else page
            if kind in _PROMOTIONS:
                placements[row] = clicks.clicks[row].creative_slot
        is_purchase = events["kind"] == _PURCHASE
        revenue[accepted] = np.where(is_purchase, np.nan_to_num(events["value"]), 0.0)
        if self._within_ms:
            keys = repeat_keys([clicks.user_ids[row] for row in accepted], events, self._within_ms)
            event_keys[accepted] = np.ma.masked_where(is_purchase, keys)
            purchase_keys[accepted] = np.ma.masked_where(~is_purchase, keys)
        return {
            "user_id": clicks.user_ids,
            "event_name": names,
            "event_time": clicks.event_times_ms,
            "page": pages,
            "revenue": revenue,
            "placement": placements,
            "device": devices,
            "event_key": event_keys,
            "purchase_key": purchase_keys,
        }
