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


def too_few(events, seen):
    return 0.0
