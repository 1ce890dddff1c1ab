"""Ledgers whose entries have the times that a test gives them."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from udfs.rollout.plan import Challenger, Rollout
from udfs.rollout.registry import ENTRY_FORMAT, Entry, entry_file, seal


def rollout_of(champion: str, **shares: float) -> Rollout:
    """A rollout with challengers at shares, by their versions."""
    places = {version: place / 2 for place, version in enumerate(shares)}
    challengers = (
        Challenger(version=version, share=share, at_most=share, start=places[version])
        for version, share in shares.items()
    )
    return Rollout(salt="test", champion=champion, challengers=tuple(challengers))


def entries_of(*rollouts: tuple[int, Rollout]) -> list[Entry]:
    """The entries of rollouts and the times at which they came into force, ms since 1970."""
    return [
        Entry(
            format=ENTRY_FORMAT,
            number=number,
            at=datetime.fromtimestamp(time_ms / 1000, UTC),
            by="a test",
            command=("apply",),
            why="to see",
            rollout=rollout,
        )
        for number, (time_ms, rollout) in enumerate(rollouts, 1)
    ]


def write_ledger(registry: Path, *rollouts: tuple[int, Rollout]) -> str:
    """Write the whole ledger of a registry; returns the registry's URI."""
    (registry / "ledger").mkdir(parents=True, exist_ok=True)
    for entry in entries_of(*rollouts):
        (registry / "ledger" / entry_file(entry.number)).write_bytes(seal(msgspec.json.encode(entry)))
    return str(registry)
