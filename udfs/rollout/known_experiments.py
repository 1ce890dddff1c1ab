"""The experiments that a job watches: one that its settings describe, or all that a ledger has of two arms."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from udfs.measurement.cell_changes import KnownExperiments
from udfs.measurement.design import Experiment
from udfs.rollout.experiments import experiments, first_apart_ms, read_entries
from udfs.rollout.registry import Registry, RegistryError

log = logging.getLogger(__name__)


class ExperimentSource(Protocol):
    """Where a job learns of experiments. What it has once known never changes; stretches end and others are added."""

    def known(self) -> KnownExperiments:
        """The experiments known now."""

    def refresh(self) -> KnownExperiments:
        """The experiments known after a look at where they are written."""


class FixedExperiment:
    """One experiment and no other."""

    def __init__(self, experiment: Experiment):
        self._known = KnownExperiments((experiment,))

    def known(self) -> KnownExperiments:
        return self._known

    def refresh(self) -> KnownExperiments:
        return self._known


class LedgerExperiments:
    """The experiments of two arms in a registry's ledger, which is read every `poll_s` seconds.

    If it can't be read, the known ones stay, a warning is logged, and it is read again at the next poll.
    """

    def __init__(
        self,
        registry: str,
        treatment: str,
        baseline: str,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Read the ledger. Raises RegistryError."""
        self._registry = Registry(registry)
        self._arms = treatment, baseline
        self._poll_s = poll_s
        self._clock = clock
        self._read()

    def known(self) -> KnownExperiments:
        return self.refresh() if self._clock() >= self._due else self._known

    def refresh(self) -> KnownExperiments:
        self._due = self._clock() + self._poll_s
        try:
            if self._registry.newest().number != self._number:
                self._read()
        except RegistryError as error:
            log.warning("experiments are those of entry %d of the ledger: %s", self._number, error)
        return self._known

    def _read(self) -> None:
        entries = read_entries(self._registry)
        apart_ms = tuple(first_apart_ms(entries, *self._arms).values())
        self._known = KnownExperiments(tuple(experiments(entries, *self._arms)), apart_ms)
        self._number = entries[-1].number
        self._due = self._clock() + self._poll_s
