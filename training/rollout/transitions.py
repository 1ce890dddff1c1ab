"""Transitions of the rollout as pure functions: each returns the rollout that follows from the current one."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from udfs.rollout.plan import Bandit, Challenger, Rollout, add_challenger, check_rollout

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

    Without another challenger, its users are drawn afresh, or it would get those who had the one before. A bandit gives
    it the floor, whatever `at_most` is, and draws the users of all challengers afresh.

    Raises RolloutError when there is no room for at_most.
    """
    if version not in rollout.shadows:
        _refuse_role(rollout, version)
    shadows = tuple(shadow for shadow in rollout.shadows if shadow != version)
    if rollout.bandit is not None:
        if share is not None:
            raise ChangeError(f"the bandit gives {version} its share: leave --share out")
        return _start_at_floor(replace(rollout, shadows=shadows), rollout.bandit, version)
    if share is None:
        share = min(rollout.steps[0].share, at_most)
    salt = rollout.challenger_salt if rollout.challengers else version
    return add_challenger(
        replace(rollout, shadows=shadows, challenger_salt=salt),
        Challenger(version=version, share=share, at_most=at_most),
    )


def ramp(rollout: Rollout, version: str, share: float | None) -> Rollout:
    """Give a challenger the share of the plan's next step, or the given share; never above its at_most."""
    challenger = _challenger(rollout, version)
    if rollout.bandit is not None:
        raise ChangeError(
            f"the bandit gives {version} its share: `reallocate` does so now; to ramp instead, `apply` a file with "
            "bandit: null and the at_most of each challenger"
        )
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
    """Make a challenger that has reached its at_most the champion; its region becomes free.

    Under a bandit, whose at_most are the shares, it needs more users than the champion has.
    """
    challenger = _challenger(rollout, version)
    if rollout.bandit is not None and challenger.share <= rollout.champion_share:
        raise ChangeError(
            f"{version} has {challenger.share:g} of the users, the champion {rollout.champion_share:g}: it becomes "
            "champion once the bandit has given it more"
        )
    if challenger.share < challenger.at_most:
        raise ChangeError(
            f"{version} has {challenger.share:g} of the users: it becomes champion from its at_most, "
            f"{challenger.at_most:g}; `ramp` it there first"
        )
    return replace(_without(rollout, version), champion=version)


def reallocate(rollout: Rollout, shares: Mapping[str, float], salt: str) -> Rollout:
    """Give all challengers new shares, by version, and draw their users afresh by a new salt.

    Their regions follow each other from control's on, as wide as the shares: under a new salt, no user has a place to
    keep. Raises RolloutError for shares that leave no room.
    """
    if shares.keys() != {part.version for part in rollout.challengers}:
        raise ChangeError(f"shares are of {_listed(shares)}, challengers are {_listed(_versions(rollout))}: look again")
    challengers, start = [], rollout.control.at_most
    for part in rollout.challengers:
        share = shares[part.version]
        challengers.append(replace(part, share=share, at_most=share, start=start))
        start += share
    placed = replace(rollout, challengers=tuple(challengers), challenger_salt=salt)
    check_rollout(placed)
    return placed


def _start_at_floor(rollout: Rollout, bandit: Bandit, version: str) -> Rollout:
    """Add a challenger with the floor; what the others have above it shrinks in proportion."""
    room, floor = rollout.model_share, bandit.floor
    parts = {part.version: part.share / room for part in rollout.challengers}
    above = {name: max(0.0, part - floor) for name, part in parts.items()}
    everything = sum(above.values()) + max(0.0, 1 - sum(parts.values()) - floor) or 1.0
    left = 1 - floor * (len(parts) + 2)
    shares = {name: round(room * (floor + part / everything * left), 6) for name, part in above.items()}
    newcomer = Challenger(version=version, share=0.0, at_most=floor, start=0.0)
    extended = replace(rollout, challengers=(*rollout.challengers, newcomer))
    return reallocate(extended, shares | {version: round(room * floor, 6)}, version)


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
    if staying:
        _check_places(old, new, staying[0].version)
    for part in staying:
        if regions[part.version] != part.start:
            raise ChangeError(
                f"start {regions[part.version]:g} would give {part.version} other users, its region starts at "
                f"{part.start:g}: leave start out"
            )


def _check_places(old: Rollout, new: Rollout, staying: str) -> None:
    """Raises ChangeError when users outside control would get other places."""
    if old.salt != new.salt:
        raise ChangeError(f"salt {new.salt} would reassign the users of {staying}: stop the challengers first")
    if old.challenger_salt != new.challenger_salt:
        raise ChangeError(
            f"challenger_salt {new.challenger_salt or 'null'} would reassign the users of {staying}: leave "
            "challenger_salt out, or stop the challengers first"
        )
    if old.challenger_salt is not None and old.control.at_most != new.control.at_most:
        raise ChangeError(
            f"control.at_most {new.control.at_most:g} would reassign the users of {staying}: keep "
            f"{old.control.at_most:g}, or stop the challengers first"
        )


def _challenger(rollout: Rollout, version: str) -> Challenger:
    for challenger in rollout.challengers:
        if challenger.version == version:
            return challenger
    raise ChangeError(f"{version} is not a challenger: there is {_listed(_versions(rollout))}; `start` makes one")


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
    return _listed(rollout.versions[1:])


def _versions(rollout: Rollout) -> list[str]:
    return [part.version for part in rollout.challengers]


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(versions) or "none"
