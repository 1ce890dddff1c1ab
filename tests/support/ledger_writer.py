"""A writer of a ledger, for processes of its own: they import this module alone."""

from training.rollout.ledger import LostRace, append, next_entry
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry


def write_ten(arguments: tuple[str, str]) -> list[int]:
    """The numbers that a writer won, of ten changes that it repeats until they are in."""
    uri, writer = arguments
    won = []
    while len(won) < 10:
        registry = Registry(uri)
        number = next_entry(registry)
        try:
            append(
                registry, number, Rollout(salt="s", champion=f"{writer}-{number}"), by=writer, command=(), why="race"
            )
        except LostRace:
            continue
        won.append(number)
    return won
