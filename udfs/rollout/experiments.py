"""The experiments that a ledger has run: which version was compared with which, from when to when, at which shares."""

from collections.abc import Iterable, Iterator, Sequence

from udfs.measurement.design import Experiment, ExperimentArm, Stretch
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Entry, Registry


class ExperimentError(ValueError):
    """An experiment that the ledger does not have; the message is one line with a remedy."""


def read_entries(registry: Registry) -> list[Entry]:
    """The complete entries of a ledger, in order. Raises RegistryError."""
    newest = registry.newest()
    entries = (registry.entry(number) for number in registry.numbers() if number <= newest.number)
    return [entry for entry in entries if entry is not None]


def experiments(entries: Sequence[Entry], treatment: str, baseline: str) -> list[Experiment]:
    """The experiments of two arms, the one that was changed last at the end.

    A new stretch begins where a share changes, or who is drawn for which arm. History ends when the draw first made a
    difference to users, be it for an earlier version or under an earlier champion.
    """
    apart_ms = first_apart_ms(entries, treatment, baseline)
    stretches: dict[tuple[ExperimentArm, ExperimentArm], list[tuple[Stretch, tuple]]] = {}
    history_until_ms: dict[tuple[ExperimentArm, ExperimentArm], int] = {}
    ends = [*(_ms(entry) for entry in entries[1:]), None]
    for entry, end_ms in zip(entries, ends):
        if _ms(entry) == end_ms:  # replaced within the same second
            continue
        for arms, shares in _compared(entry.rollout, treatment, baseline):
            draws = ((name, _places(entry.rollout, name)) for name in (treatment, baseline))
            history_until_ms.setdefault(arms, min(apart_ms[draw] for draw in draws if draw in apart_ms))
            known = stretches.pop(arms, [])
            stretch, drawn = Stretch(_ms(entry), end_ms, *shares), _draw(entry.rollout)
            if known and known[-1][1] == drawn and known[-1][0][1:] == (stretch.start_ms, *shares):
                stretch = stretch._replace(start_ms=known.pop()[0].start_ms)
            stretches[arms] = [*known, (stretch, drawn)]
    return [
        Experiment(*arms, tuple(stretch for stretch, _ in parts), history_until_ms[arms])
        for arms, parts in stretches.items()
    ]


def first_apart_ms(entries: Sequence[Entry], treatment: str, baseline: str) -> dict[tuple[str, tuple], int]:
    """When each draw of users for one of the two arms first gave it any: the name of the arm, the draw, and the time.

    At each of these times, the history of an experiment may end, of one that begins later too.
    """
    apart_ms: dict[tuple[str, tuple], int] = {}
    for entry in entries:
        for name in {treatment, baseline} - {"champion"}:
            if any(share > 0 for _, share in _arms(entry.rollout, name)):
                apart_ms.setdefault((name, _places(entry.rollout, name)), _ms(entry))
    return apart_ms


def find_experiment(entries: Sequence[Entry], treatment: str, baseline: str, version: str | None = None) -> Experiment:
    """The experiment on a version, by default the newest. Raises ExperimentError."""
    if treatment == baseline:
        raise ExperimentError(f"arm {treatment} cannot be compared with itself: choose two arms")
    known = experiments(entries, treatment, baseline)
    found = [one for one in known if version in (None, one.treatment.version)]
    if not found:
        versions = ", ".join(dict.fromkeys(str(one.treatment.version) for one in known))
        raise ExperimentError(
            f"the ledger has never had {version or 'a model'} as {treatment} beside {baseline}; "
            + (f"it has had {versions}" if versions else "`intent promote start` begins an experiment")
        )
    return found[-1]


def _compared(
    rollout: Rollout, treatment: str, baseline: str
) -> Iterator[tuple[tuple[ExperimentArm, ExperimentArm], tuple[float, float]]]:
    """Each two versions in two arms of a rollout that both have users, and their shares."""
    for arm, share in _arms(rollout, treatment):
        for other, other_share in _arms(rollout, baseline):
            if share > 0 and other_share > 0:
                yield (arm, other), (share, other_share)


def _arms(rollout: Rollout, name: str) -> Iterable[tuple[ExperimentArm, float]]:
    taken = rollout.control.share + sum(part.share for part in rollout.challengers)
    match name:
        case "champion":
            return [(ExperimentArm(name, rollout.champion), max(0.0, round(1 - taken, 9)))]
        case "control":  # no model decides there
            return [(ExperimentArm(name), rollout.control.share)]
        case "challenger":
            return [(ExperimentArm(name, part.version), part.share) for part in rollout.challengers]
    raise ExperimentError(f"{name} is no arm to compare: expected challenger, champion or control")


def _draw(rollout: Rollout) -> tuple:
    """What decides, besides the shares, which users an arm has."""
    return rollout.salt, rollout.challenger_salt, rollout.eligible


def _places(rollout: Rollout, name: str) -> tuple:
    """What decides on a user's place in [0, 1) for control or challengers, as in `assign`."""
    if name == "control" or rollout.challenger_salt is None:
        return (rollout.salt,)
    return rollout.salt, rollout.challenger_salt, rollout.control.at_most


def _ms(entry: Entry) -> int:
    return int(entry.at.timestamp() * 1000)
