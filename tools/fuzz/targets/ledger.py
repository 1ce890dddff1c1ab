"""Entries of the ledger, as they lie in a registry.

Contract: an entry is used, not there yet (None), or refused with RegistryError; what is used assigns users to arms with
the probabilities that the rollout states.
"""

from datetime import UTC, datetime

import msgspec
import numpy as np

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from udfs.rollout.assignment import arms, assign, propensities
from udfs.rollout.experiments import ExperimentError, experiments, read_entries
from udfs.rollout.plan import Bandit, Challenger, Control, Rollout
from udfs.rollout.registry import ENTRY_FORMAT, Entry, Registry, RegistryError, entry_file, seal
from udfs.rollout.rules import Rule

_USERS = [f"user-{number}" for number in range(50)]
_PLAIN = b"plain\n"


def ledger() -> Target:
    """An entry's content, which is sealed, or after a line `plain` the file as it is."""
    registry = Registry("memory://fuzz-ledger")
    path = registry.path("ledger", entry_file(7))
    challengers = (
        Challenger(version="v2", share=0.2, at_most=0.3, start=0.1),
        Challenger(version="v3", share=0.0, at_most=0.5, start=0.4),
    )
    control = Control(share=0.05, at_most=0.1)
    rule = Rule(any=("cart_adds_30m >= 1", Rule(all=("device in [mobile, tablet]",))))
    rollouts = (
        Rollout(salt="s", champion="v1"),
        Rollout(salt="s", champion="v1", control=control, challengers=challengers, rule=rule, shadows=("v4",)),
        Rollout(salt="s", champion="v1", challenger_salt="c", challengers=challengers[:1], bandit=Bandit()),
    )
    entries = [
        msgspec.json.encode(
            Entry(
                format=ENTRY_FORMAT, number=7, at=datetime(2026, 5, 1, tzinfo=UTC), by="ada", command=("promote",),
                why="better", restores=3, rollout=rollout,
            )
        )
        for rollout in rollouts
    ]  # fmt: skip

    def run(data: bytes) -> str:
        content = data.removeprefix(_PLAIN) if data.startswith(_PLAIN) else seal(data)
        registry.files.pipe_file(path, content)
        entry = registry.entry(7)
        if entry is None:
            return "not there yet"
        _check_assignment(entry.rollout)
        try:
            experiments(read_entries(Registry("memory://fuzz-ledger")), "challenger", "champion")
        except ExperimentError as error:
            return str(error)[:10]
        return f"used {len(entry.rollout.versions)}"

    plain = [_PLAIN + seal(entry) for entry in entries]
    return Target((*entries, *plain), run, (RegistryError,))


def _check_assignment(rollout: Rollout) -> None:
    shares = propensities(rollout)
    total = shares[0] + sum(shares[2:])
    if not all(0 <= share <= 1 for share in shares) or abs(total - 1) > 1e-6:
        raise ContractError(f"the propensities of a rollout are {shares}")
    arm = assign(rollout, _USERS, np.ones(len(_USERS), bool))
    if not ((arm >= 0) & (arm < len(arms(rollout)))).all():
        raise ContractError("a user is in no arm")
