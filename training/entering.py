"""The one way into the ledger: a change is checked first, then entered."""

from collections.abc import Sequence

from training.admission import HoldoutError, check_models, check_newcomers
from training.changes import ChangeError
from training.ledger import append
from udfs.registry import Entry, Registry
from udfs.rollout import Rollout


def enter(
    registry: Registry,
    number: int,
    old: Rollout | None,
    new: Rollout,
    *,
    by: str,
    command: Sequence[str],
    why: str,
    force: bool = False,
    overridden: Sequence[str] = (),
    restored: Entry | None = None,
) -> tuple[Entry, list[str]]:
    """Check a change and enter it as entry `number`; returns it and what was overridden, `overridden` included.

    What a rollback restores has acted before: its holdout is not compared again. Raises ChangeError, BundleError,
    HoldoutError unless forced, and like `append`.
    """
    if new == old:
        raise ChangeError("this is what serves already")
    check_models(registry, old, new)
    told = list(overridden)
    if restored is None:
        try:
            check_newcomers(registry, old, new)
        except HoldoutError as error:
            if not force:
                raise HoldoutError(f"{error}; --force overrides this") from None
            told.append(str(error))
    entry = append(
        registry,
        number,
        new,
        by=by,
        command=command,
        why=why,
        forced=bool(told),
        restores=None if restored is None else restored.restores or restored.number,
    )
    return entry, told
