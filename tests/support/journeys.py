"""Made-up visits with logins, and with events and orders that are sent again."""

import numpy as np

NOW = 1_700_000_000_000
MINUTE = 60_000


def arrivals(clicks: list[dict]) -> np.ndarray:
    return np.maximum.accumulate([one["event_time"] for one in clicks])


def journeys(random: np.random.Generator, count: int) -> list[dict]:
    """Clicks of some devices and users in order of arrival, a few of them sent again, and orders twice."""
    clicks, now = [], NOW
    for number in range(count):
        now += int(random.choice([500, 5_000, 40_000, 200_000]))
        device = f"d{random.integers(4)}"
        user = str(random.choice([device, device, device, "ada", "bob"]))
        kind = str(random.choice(["view_item", "add_to_cart", "purchase"], p=[0.7, 0.2, 0.1]))
        one = {
            "user_id": user,
            "anonymous_id": device,
            "event_name": kind,
            "event_time": now - int(random.choice([0, 0, 0, 90_000])),
            "event_id": f"e{number}",
            "item_id": f"i{random.integers(5)}",
            "price": float(random.integers(1, 90)),
        }
        if kind == "purchase" and random.random() < 0.8:
            one["transaction_id"] = f"t{number - random.integers(2)}"
        clicks.append(one)
        if random.random() < 0.15:
            clicks.append(clicks[-random.integers(1, min(4, len(clicks)) + 1)])
    # So that the horizon of all the others has passed.
    return [*clicks, {"user_id": "z", "anonymous_id": "z", "event_name": "scroll", "event_time": now + 60 * MINUTE}]
