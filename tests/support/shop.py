"""A simulated shop that several modules of tests train on; each process makes it once."""

from functools import cache

from training.data.examples import Examples
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.examples import simulated_examples


@cache
def shop_clicks() -> Clickstream:
    return simulate(Simulation(users=700, seed=4))


@cache
def shop_examples() -> Examples:
    """Examples with all standard features. They are shared: change a copy."""
    return simulated_examples(shop_clicks())
