"""A function that depends on another module."""

from tests.support.own_functions import price_spread


def one(events, seen, lifetime_events, first_seen_ms, profile):
    return price_spread(events, seen, lifetime_events, first_seen_ms, profile)
