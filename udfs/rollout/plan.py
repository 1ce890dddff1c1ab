"""The rollout: which models serve, for which share of the users; reading and checking it.

Control and each challenger have a region of [0, 1) to themselves, as wide as the largest share they may ever get
(`at_most`), and fill it from its start up to their share. `assignment` gives each user a place in [0, 1).
"""

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from udfs.config.durations import Duration
from udfs.config.reading import MISSING_KEY, UNKNOWN_KEY, key_and_rule, read_yaml
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.models.bundle import VERSION_PATTERN
from udfs.rollout.rules import Rule, RuleError, check_rule, rule_features

Version = Annotated[str, Meta(pattern=VERSION_PATTERN)]
Share = Annotated[float, Meta(ge=0, le=1)]

#: Regions meet without a gap; decimal fractions do not add up exactly.
_TOLERANCE = 1e-9


class RolloutError(ValueError):
    """A rollout that can't be used; the message is one line that names the file, the key, the rule and the value."""


class _TrafficShare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Control(_TrafficShare):
    """Users for whom the rule decides and no model acts."""

    share: Share = 0.0
    at_most: Share = 0.0


class Challenger(_TrafficShare):
    """A model that decides for a share of the users; `start` is where its region of [0, 1) begins."""

    version: Version
    share: Share
    at_most: Annotated[float, Meta(gt=0, le=1)]
    start: Share | None = None


class Step(_TrafficShare):
    """A share to ramp to, and its guardrails: the fraction of the champion's value by which each KPI may be worse."""

    share: Annotated[float, Meta(gt=0, le=1)]
    guardrails: dict[str, Share] = {}


class Bandit(_TrafficShare):
    """Shares that follow the results: `training.rollout.bandit` decides, and no step applies."""

    kpi: Annotated[str, Meta(min_length=1)] = "conversion_rate"
    floor: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    every: Duration = "1 d"


class Rollout(_TrafficShare):
    """The models that serve and their traffic shares; conf/rollout.yaml describes each key."""

    salt: Version
    champion: Version
    challenger_salt: Version | None = None  # None: `salt` deals out the users of challengers too
    control: Control = Control()
    challengers: tuple[Challenger, ...] = ()
    shadows: tuple[Version, ...] = ()
    eligible: Rule | None = None
    rule: Rule | None = None
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)] = tuple(
        Step(share=share) for share in (0.01, 0.05, 0.25, 0.5, 1.0)
    )
    bandit: Bandit | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """All models that score: the champion, challengers, shadows."""
        return (self.champion, *(challenger.version for challenger in self.challengers), *self.shadows)

    @property
    def champion_share(self) -> float:
        """The champion's share of the eligible users: what the other arms leave."""
        return max(0.0, round(1 - self.control.share - sum(part.share for part in self.challengers), 9))

    @property
    def model_share(self) -> float:
        """The share of the users outside control's region, whom champion and challengers can have."""
        return 1 - self.control.at_most


def rollout_features(rollout: Rollout) -> tuple[str, ...]:
    """The features that the rule and the eligibility rule use, beside those of the models; each once."""
    return tuple(dict.fromkeys(name for _, rule in _rules(rollout) for name in rule_features(rule)))


def load_rollout(path: Path, under: Rollout | None = None) -> Rollout:
    """Read a rollout from YAML or JSON; a key that the file leaves out stays as it is in `under`. Raises RolloutError.

    What rules say of features is for `check_rules`.

    A challenger without `start` keeps the region that it has in `under`, or gets the first one that is free. If all
    challengers are new, a file without `challenger_salt` draws their users afresh.
    """
    own = _read(path)
    regions = {part.version: part.start for part in under.challengers} if under else {}
    content = own if under is None else msgspec.to_builtins(under) | own
    rollout = _convert(content, Rollout, str(path))
    new = [part.version for part in rollout.challengers if part.version not in regions]
    if new and len(new) == len(rollout.challengers) and "challenger_salt" not in own:
        rollout = msgspec.structs.replace(rollout, challenger_salt=new[0])
    challengers = [
        part if part.start is not None else msgspec.structs.replace(part, start=regions.get(part.version))
        for part in rollout.challengers
    ]
    placed = msgspec.structs.replace(rollout, challengers=tuple(part for part in challengers if part.start is not None))
    try:
        for challenger in challengers:
            if challenger.start is None:
                placed = add_challenger(placed, challenger)
        check_rollout(placed)
    except RolloutError as error:
        raise RolloutError(f"{path}: {error}") from None
    return placed


def load_rule(path: Path, declaration: Declaration = STANDARD) -> Rule:
    """Read the rule of a rollout file, a baseline to compare models with. Raises RolloutError."""
    content = _read(path)
    if "rule" not in content:
        raise RolloutError(f"{path}: key rule: missing")
    rule = _convert(content["rule"], Rule, str(path), "rule")
    try:
        _check_rule("rule", rule, declaration)
    except RolloutError as error:
        raise RolloutError(f"{path}: {error}") from None
    return rule


def load_steps(path: Path) -> tuple[Step, ...]:
    """Read the steps of a rollout file, none if it leaves them out. Raises RolloutError."""
    return _convert(_read(path).get("steps", ()), tuple[Step, ...], str(path), "steps")


def add_challenger(rollout: Rollout, challenger: Challenger) -> Rollout:
    """The rollout with another challenger, in the first region that is free. Raises RolloutError when none is."""
    for _, _, free_from in _regions(rollout):
        placed = msgspec.structs.replace(challenger, start=free_from)
        extended = msgspec.structs.replace(rollout, challengers=(*rollout.challengers, placed))
        if _overlap(extended) is None:
            return extended
    free = 1 - sum(end - start for _, start, end in _regions(rollout))
    raise RolloutError(
        f"key challengers: {challenger.version}: no room for at_most {challenger.at_most:g}: the other at_most leave "
        f"{free:g}, possibly in several pieces"
    )


def check_rollout(rollout: Rollout) -> None:
    """Check what depends on more than one key, rules apart. Raises RolloutError naming key, rule and value."""
    seen = set()
    for version in rollout.versions:
        if version in seen:
            raise RolloutError(
                f"key champion, challengers, shadows: {version} is listed twice; give each version one role"
            )
        seen.add(version)
    parts = [("control", rollout.control), *((f"challengers: {part.version}", part) for part in rollout.challengers)]
    for key, part in parts:
        if part.share > part.at_most:
            raise RolloutError(f"key {key}: share must be at most its at_most, {part.at_most:g} (got {part.share:g})")
    for challenger in rollout.challengers:
        if challenger.start is None:
            raise RolloutError(f"key challengers: {challenger.version}: start is missing")
    total = sum(part.at_most for _, part in parts)
    if total > 1 + _TOLERANCE:
        raise RolloutError(f"key control, challengers: the sum of at_most must be at most 1 (got {total:g})")
    overlap = _overlap(rollout)
    if overlap is not None:
        raise RolloutError(f"key control, challengers: {overlap}")
    shares = [step.share for step in rollout.steps]
    if shares != sorted(set(shares)):
        raise RolloutError(
            f"key steps: shares must increase with each step, got {', '.join(f'{share:g}' for share in shares)}"
        )
    arms = 1 + len(rollout.challengers)
    if rollout.bandit is not None and rollout.bandit.floor * arms > 1 + _TOLERANCE:
        raise RolloutError(
            f"key bandit.floor: {arms} arms can have at most {1 / arms:.4f} each (got {rollout.bandit.floor:g}): lower "
            "it, or stop a challenger"
        )
    if rollout.control.at_most and rollout.rule is None:
        raise RolloutError("key rule: missing; it decides in control, which has at_most above 0")
    for key, rule in _rules(rollout):
        try:
            rule_features(rule)
        except RuleError as error:
            raise RolloutError(f"key {key}: {error}") from None


def check_rules(rollout: Rollout, declaration: Declaration) -> None:
    """Check the rules, which are about the champion's features. Raises RolloutError naming key, rule and value."""
    for key, rule in _rules(rollout):
        _check_rule(key, rule, declaration)
    # Attributes, not behavior, or users would change arm from click to click.
    allowed = (*(feature.name for feature in declaration.features if feature.is_attribute), "first_visit")
    for name in rule_features(rollout.eligible) if rollout.eligible else ():
        if name not in allowed:
            raise RolloutError(f"key eligible: {name} changes as a user clicks; expected one of {', '.join(allowed)}")


def _rules(rollout: Rollout) -> list[tuple[str, Rule]]:
    """The rules of a rollout, each with its key."""
    return [(key, rule) for key in ("rule", "eligible") if (rule := getattr(rollout, key)) is not None]


def _check_rule(key: str, rule: Rule, declaration: Declaration) -> None:
    try:
        check_rule(rule, declaration)
    except RuleError as error:
        raise RolloutError(f"key {key}: {error}") from None


def _regions(rollout: Rollout) -> list[tuple[str, float, float]]:
    """Name, start and end of the region of control and of each challenger, in order."""
    regions = [("control", 0.0, rollout.control.at_most)]
    regions += [(part.version, part.start, part.start + part.at_most) for part in rollout.challengers]
    return sorted(regions, key=lambda region: region[1:])


def _overlap(rollout: Rollout) -> str | None:
    """The error in the regions, such as an overlap; None if there is none."""
    regions = _regions(rollout)
    for (name, _, end), (next_name, start, _) in zip(regions, regions[1:]):
        if start < end - _TOLERANCE:
            return (
                f"the region of {name} ends at {end:g}, that of {next_name} starts at {start:g}: they must not overlap"
            )
    name, _, end = regions[-1]
    return None if end <= 1 + _TOLERANCE else f"the region of {name} must end at 1 or below (got {end:g})"


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, RolloutError)
    if not isinstance(content, dict):
        raise RolloutError(f"{path}: expected keys such as champion:, got {type(content).__name__}")
    return content


def _convert(content: Any, kind: type, origin: str, key: str = "") -> Any:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        invalid_key, rule = key_and_rule(error)
        if rule not in (UNKNOWN_KEY, MISSING_KEY):
            rule += _got(content, invalid_key)
        whole_key = f"{key}.{invalid_key}".replace(".[", "[").strip(".")
        raise RolloutError(f"{origin}: key {whole_key}: {rule}") from None


def _got(content: Any, key: str) -> str:
    """The value at a key, as the end of a message."""
    for name, number in re.findall(r"([A-Za-z_]\w*)|\[(\d+)\]", key):
        content = content[name] if name else content[int(number)]
    return "" if isinstance(content, dict | list) else f", got {content!r}"
