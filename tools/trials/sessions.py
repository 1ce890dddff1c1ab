"""Sessions one after the other, as one would explain them."""

from collections.abc import Callable

import pandas as pd

from udfs.measurement.kpis import COUNTED

GAP_MS = 1_800_000


def expected_sessions(clicks: list[dict], arm_of: Callable[[str], str]) -> pd.DataFrame:
    """The sessions of clicks, in any order; `arm_of` gives a user's."""
    events = pd.DataFrame(clicks).sort_values(["user_id", "event_time"], kind="stable")
    pause = events.groupby("user_id")["event_time"].diff()
    events["session"] = (pause.isna() | (pause > GAP_MS)).cumsum()
    rows = []
    for _, session in events.groupby("session"):
        names = session["event_name"]
        bought = session[names == "purchase"]
        devices = session.dropna(subset="device_category").sort_values(["event_time", "device_category"])
        rows.append(
            {
                "user_id": session["user_id"].iloc[0],
                "arm": arm_of(session["user_id"].iloc[0]),
                "started_at": session["event_time"].min(),
                "ended_at": session["event_time"].max(),
                "events": len(session),
                "pages": session["page_location"].nunique(),
                **{field: int((names == event).sum()) for field, event in COUNTED.items()},
                "revenue": bought["value"].sum(),
                "device": None if devices.empty else devices["device_category"].iloc[0].lower(),
            }
        )
    return pd.DataFrame(rows)
