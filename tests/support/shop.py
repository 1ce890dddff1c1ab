"""A simulated shop that several modules of tests train on; each process makes it once."""

from functools import cache

from training.data.examples import Examples
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.examples import simulated_examples

#: The features of trainings that are not about all of them, so that they take a second.
FEW = ("events_5m", "events_30m", "cart_adds_30m", "checkouts_30m", "value", "event_kind", "session_events", "country",
       "item_in_cart", "first_visit", "device", "since_last_visit_s")  # fmt: skip
#: As many as it takes to leave out some.
SOME = (*FEW, "cart_adds_24h", "events_24h", "lifetime_events", "session_duration_s", "since_cart_add_s", "local_hour")


@cache
def shop_clicks() -> Clickstream:
    return simulate(Simulation(users=700, seed=4))


@cache
def shop_examples() -> Examples:
    """Examples with all standard features. They are shared: change a copy."""
    return simulated_examples(shop_clicks())
