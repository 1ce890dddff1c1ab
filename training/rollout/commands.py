"""Changes of the rollout as command objects.

Each has the rollout that follows (`apply`, a pure function of the old one; see `transitions`) and the command line of
`training.promote` that makes the same change (`command`), which the ledger records.
`training.rollout.service.RolloutService` executes them.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from training.rollout import transitions
from training.rollout.transitions import ChangeError
from udfs.rollout.plan import Rollout, load_rollout

Command = tuple[str, ...]


class Change(ABC):
    """A change of the rollout."""

    #: Whether it can be the first entry of a ledger; `apply` then gets None.
    may_begin: ClassVar[bool] = False

    @property
    @abstractmethod
    def command(self) -> Command:
        """The arguments of `training.promote` that make this change."""


class Transition(Change):
    """A change that depends on the current rollout alone."""

    @abstractmethod
    def apply(self, rollout: Rollout) -> Rollout:
        """Return the next rollout. Raises ChangeError or RolloutError when the change can't be made."""


@dataclass(frozen=True)
class First(Transition):
    """Make a model the champion of a new registry."""

    version: str
    may_begin: ClassVar[bool] = True

    def apply(self, rollout: Rollout | None) -> Rollout:
        if rollout is not None:
            raise ChangeError(
                "start --champion: the ledger has begun; a challenger becomes champion by `ramp --to-champion`"
            )
        return transitions.first(self.version)

    @property
    def command(self) -> Command:
        return "start", self.version, "--champion"


@dataclass(frozen=True)
class Apply(Transition):
    """Apply the keys of a rollout file to the current rollout."""

    file: Path
    may_begin: ClassVar[bool] = True

    def apply(self, rollout: Rollout | None) -> Rollout:
        changed = load_rollout(self.file, rollout)
        if rollout is not None:
            transitions.check_sticky(rollout, changed)
        return changed

    @property
    def command(self) -> Command:
        return "apply", str(self.file)


@dataclass(frozen=True)
class AddShadow(Transition):
    """Let a model score without acting."""

    version: str

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.add_shadow(rollout, self.version)

    @property
    def command(self) -> Command:
        return "shadow", self.version


@dataclass(frozen=True)
class Start(Transition):
    """Let a model act for a share of the users, by default that of the plan's first step."""

    version: str
    at_most: float
    share: float | None = None

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.start(rollout, self.version, self.share, self.at_most)

    @property
    def command(self) -> Command:
        return "start", self.version, "--at-most", _number(self.at_most), *_share_option(self.share)


@dataclass(frozen=True)
class Reallocate(Transition):
    """Give all challengers the shares that the bandit has found, and draw their users afresh."""

    shares: Mapping[str, float]  # by version
    salt: str

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.reallocate(rollout, self.shares, self.salt)

    @property
    def command(self) -> Command:
        return ("reallocate",)


class Growth(Transition):
    """A change that may give a challenger more users, so the guardrails of the step it has reached must hold."""

    version: str


@dataclass(frozen=True)
class Ramp(Growth):
    """Give a challenger the next share of the plan, or the given one."""

    version: str
    share: float | None = None

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.ramp(rollout, self.version, self.share)

    @property
    def command(self) -> Command:
        return "ramp", self.version, *_share_option(self.share)


@dataclass(frozen=True)
class MakeChampion(Growth):
    """Make a challenger that has reached its maximum share the champion."""

    version: str

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.to_champion(rollout, self.version)

    @property
    def command(self) -> Command:
        return "ramp", self.version, "--to-champion"


@dataclass(frozen=True)
class Stop(Transition):
    """Remove a challenger or shadow."""

    version: str

    def apply(self, rollout: Rollout) -> Rollout:
        return transitions.stop(rollout, self.version)

    @property
    def command(self) -> Command:
        return "stop", self.version


@dataclass(frozen=True)
class Rollback(Change):
    """Return to the rollout of an earlier entry, by default the one before.

    The result depends on the ledger's history rather than on the current rollout, so the service looks it up.
    """

    to: int | None = None

    @property
    def command(self) -> Command:
        return ("rollback",) if self.to is None else ("rollback", "--to", str(self.to))


def _share_option(share: float | None) -> Command:
    return () if share is None else ("--share", _number(share))


def _number(value: float) -> str:
    """The shortest text that is read back as the same number."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
