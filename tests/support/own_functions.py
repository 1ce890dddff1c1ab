"""Functions of a shop's own, as a declaration of features names them."""

import numpy as np


def price_spread(events, seen, lifetime_events, first_seen_ms, profile):
    """The largest value minus the smallest."""
    lowest, highest = np.inf, -np.inf
    for position in seen:
        value = events[position].value
        if not np.isnan(value):
            lowest, highest = min(lowest, value), max(highest, value)
    return highest - lowest if highest >= lowest else np.nan


def overflows(events, seen, lifetime_events, first_seen_ms, profile):
    """A number that int64 can't hold, and an integer of Python can."""
    number = len(seen)
    for _ in range(70):
        number = number * 2
    return float(number)


def too_few(events, seen):
    return 0.0
