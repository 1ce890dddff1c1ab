"""Transitions of the rollout as pure functions: each returns the rollout that follows from the current one."""

from msgspec.structs import replace

from udfs.rollout.plan import Challenger, Rollout, add_challenger

FIRST_SALT = "rollout"


class ChangeError(ValueError):
    """A change that can't be made to the current rollout. The message is one line with a remedy."""


def first(version: str) -> Rollout:
    """The first rollout of a registry: a champion and nothing else."""
    return Rollout(salt=FIRST_SALT, champion=version)


def add_shadow(rollout: Rollout, version: str) -> Rollout:
    _refuse_role(rollout, version)
    return replace(rollout, shadows=(*rollout.shadows, version))


def start(rollout: Rollout, version: str, share: float | None, at_most: float) -> Rollout:
    """Start a challenger, new or from shadow, with the first step's share unless another one is given.

    Raises RolloutError when there is no room for at_most.
    """
    if version not in rollout.shadows:
        _refuse_role(rollout, version)
    if share is None:
        share = min(rollout.steps[0].share, at_most)
    shadows = tuple(shadow for shadow in rollout.shadows if shadow != version)
    return add_challenger(replace(rollout, shadows=shadows), Challenger(version=version, share=share, at_most=at_most))


def ramp(rollout: Rollout, version: str, share: float | None) -> Rollout:
    """Give a challenger the share of the plan's next step, or the given share; never above its at_most."""
    challenger = _challenger(rollout, version)
    if share is None:
        steps = (step.share for step in rollout.steps if step.share > challenger.share)
        share = min(next(steps, challenger.at_most), challenger.at_most)
        if share == challenger.share:
            raise ChangeError(
                f"{version} has {share:g}, its at_most: `ramp --to-champion`, or raise at_most by `apply`"
            )
    if share > challenger.at_most:
        raise ChangeError(f"{version}: share {share:g} is above its at_most, {challenger.at_most:g}")
    challengers = tuple(replace(part, share=share) if part is challenger else part for part in rollout.challengers)
    return replace(rollout, challengers=challengers)


def to_champion(rollout: Rollout, version: str) -> Rollout:
    """Make a challenger that has reached its at_most the champion; its region becomes free."""
    challenger = _challenger(rollout, version)
    if challenger.share < challenger.at_most:
        raise ChangeError(
            f"{version} has {challenger.share:g} of the users: it becomes champion from its at_most, "
            f"{challenger.at_most:g}; `ramp` it there first"
        )
    return replace(_without(rollout, version), champion=version)


def stop(rollout: Rollout, version: str) -> Rollout:
    """Remove a challenger or shadow."""
    if version == rollout.champion:
        raise ChangeError(f"{version} is the champion: another one has to take its place, by `ramp --to-champion`")
    if version not in rollout.versions:
        raise ChangeError(f"{version} does not serve: challengers and shadows are {_named(rollout)}")
    return _without(rollout, version)


def check_sticky(old: Rollout, new: Rollout) -> None:
    """Raises ChangeError when users of challengers that stay would be reassigned."""
    regions = {part.version: part.start for part in new.challengers}
    staying = [part for part in old.challengers if part.version in regions]
    if staying and old.salt != new.salt:
        raise ChangeError(
            f"salt {new.salt} would reassign the users of {staying[0].version}: stop the challengers first"
        )
    for part in staying:
        if regions[part.version] != part.start:
            raise ChangeError(
                f"start {regions[part.version]:g} would give {part.version} other users, its region starts at "
                f"{part.start:g}: leave start out"
            )


def _challenger(rollout: Rollout, version: str) -> Challenger:
    for challenger in rollout.challengers:
        if challenger.version == version:
            return challenger
    names = ", ".join(challenger.version for challenger in rollout.challengers) or "none"
    raise ChangeError(f"{version} is not a challenger: there is {names}; `start` makes one")


def _refuse_role(rollout: Rollout, version: str) -> None:
    if version in rollout.versions:
        role = "champion" if version == rollout.champion else "shadow" if version in rollout.shadows else "challenger"
        raise ChangeError(f"{version} is {role} already")


def _without(rollout: Rollout, version: str) -> Rollout:
    return replace(
        rollout,
        challengers=tuple(part for part in rollout.challengers if part.version != version),
        shadows=tuple(shadow for shadow in rollout.shadows if shadow != version),
    )


def _named(rollout: Rollout) -> str:
    return ", ".join(rollout.versions[1:]) or "none"
