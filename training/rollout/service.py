"""`RolloutService`, which checks all changes and appends them to the ledger."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from training.experiments.comparison import Report
from training.rollout.admission import HoldoutError, check_models, check_newcomers
from training.rollout.admission_settings import DEFAULTS, Admission
from training.rollout.commands import Change, Growth, Rollback
from training.rollout.guardrails import GuardrailError, guardrails_at, refuse_unless_held
from training.rollout.ledger import append, next_entry
from training.rollout.transitions import ChangeError
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Entry, Registry

#: The errors that `force` overrides.
OVERRIDABLE = (HoldoutError, GuardrailError)


@dataclass(frozen=True)
class Snapshot:
    """The newest entry of the ledger, and the number of the next one."""

    number: int
    newest: Entry | None  # None: the ledger is empty

    @property
    def rollout(self) -> Rollout | None:
        return None if self.newest is None else self.newest.rollout


#: Reports on a challenger at its current step. Called only if guardrails need it.
FindReport = Callable[[str], Report]


class RolloutService:
    """Executes changes of the rollout in a registry, whose models must be within the bounds of `admission`."""

    def __init__(self, registry: Registry, admission: Admission = DEFAULTS):
        self._registry, self._admission = registry, admission

    def snapshot(self, may_be_empty: bool = False) -> Snapshot:
        """Return the current rollout. Pass it to `execute` to make sure that nothing has changed in between.

        Raises RegistryError for a ledger without an entry, unless it may be empty.
        """
        # The number comes first: an entry written after this takes the number, and `append` notices.
        number = next_entry(self._registry)
        if may_be_empty and not self._has_begun():
            return Snapshot(number, None)
        return Snapshot(number, self._registry.newest())

    def execute(
        self,
        change: Change,
        *,
        by: str,
        why: str,
        force: bool = False,
        report: FindReport | None = None,
        options: Sequence[str] = (),
        snapshot: Snapshot | None = None,
    ) -> tuple[Entry, list[str]]:
        """Check a change and append it to the ledger; return the entry and the objections that `force` overrode.

        `report` shows whether guardrails hold. `options` follow the change's command in the ledger. The change is
        made to `snapshot`, by default to the current rollout.

        Raises ChangeError, RolloutError or BundleError for a change that can't be made, HoldoutError or GuardrailError
        for one that must be forced, LostRace when something has changed since the snapshot.
        """
        snapshot = snapshot or self.snapshot(change.may_begin)
        old = snapshot.rollout
        restored = self._restored_by(change, snapshot.newest) if isinstance(change, Rollback) else None
        new = change.apply(old) if restored is None else restored.rollout
        if new == old:
            raise ChangeError("nothing to change: this rollout already serves")
        check_models(self._registry, old, new, self._admission)
        overridden = []
        for check in self._overridable_checks(change, old, new, report):
            try:
                check()
            except OVERRIDABLE as error:
                if not force:
                    raise
                overridden.append(str(error))
        entry = append(
            self._registry,
            snapshot.number,
            new,
            by=by,
            command=(*change.command, *options),
            why=why,
            forced=bool(overridden),
            restores=None if restored is None else restored.restores or restored.number,
        )
        return entry, overridden

    def _has_begun(self) -> bool:
        """Whether the ledger has a whole entry: a first one that is half-written does not count."""
        return any(self._registry.entry(number) is not None for number in reversed(self._registry.numbers()))

    def _restored_by(self, rollback: Rollback, newest: Entry) -> Entry:
        """Return the entry that a rollback brings back. Raises ChangeError when there is none."""
        if rollback.to is None:
            return self._previous(newest)
        entry = self._registry.entry(rollback.to)
        if entry is None:
            raise ChangeError(f"ledger entry {rollback.to} is incomplete; choose one that `intent promote list` shows")
        return entry

    def _previous(self, newest: Entry) -> Entry:
        """The entry before the newest, not counting those that were rolled back.

        So a rollback after a rollback goes one entry further back.
        """
        serves = newest.restores or newest.number
        for number in reversed(self._registry.numbers()):
            entry = self._registry.entry(number) if number < serves else None
            if entry is not None:
                return entry
        raise ChangeError(f"entry {serves} is the first one: there is nothing to go back to")

    def _overridable_checks(
        self, change: Change, old: Rollout | None, new: Rollout, report: FindReport | None
    ) -> Iterator[Callable[[], None]]:
        if isinstance(change, Growth):
            yield partial(self._check_guardrails, change.version, old, new, report)
        if not isinstance(change, Rollback):  # its models have acted before: no second comparison of holdouts
            yield partial(check_newcomers, self._registry, old, new)

    def _check_guardrails(self, version: str, old: Rollout, new: Rollout, report: FindReport | None) -> None:
        """Raises GuardrailError when a challenger gets more users and its step's guardrails are not shown to hold."""
        share, next_share = _share(old, version), _share(new, version)
        guardrails = guardrails_at(old, share) if next_share > share else {}
        if not guardrails:
            return
        if report is None:
            raise GuardrailError(
                f"the step at {share:g} has guardrails: give --sessions PATH, or --sessions topic, to check them"
            )
        refuse_unless_held(report(version))


def _share(rollout: Rollout, version: str) -> float:
    """The traffic share of a challenger; 1 for the champion."""
    return next((part.share for part in rollout.challengers if part.version == version), 1.0)
