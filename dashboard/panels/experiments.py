"""Results of experiments: the newest effect on each KPI, its history, and the decision."""

from typing import NamedTuple

import msgspec
from msgspec import UNSET

from dashboard.panels.room import has_room
from udfs.contracts.outputs import ExperimentAction, ExperimentResult

MAX_EXPERIMENTS, MAX_KPIS = 10, 50
KEPT = 720  # looks of each KPI
#: The style of an action on the pages.
TONES = {
    ExperimentAction.SHIP: "good",
    ExperimentAction.STOP: "bad",
    ExperimentAction.FIX_FIRST: "bad",
    ExperimentAction.KEEP_RUNNING: "wait",
    ExperimentAction.NO_DATA: "wait",
}
_ENDS = ("difference", "low", "high")


class _Compared(NamedTuple):
    """What tells one experiment from another."""

    treatment: str
    treatment_version: str | None
    baseline: str
    baseline_version: str | None


class _Looks:
    """The looks at one experiment."""

    def __init__(self, first: ExperimentResult) -> None:
        self.newest = first
        self._by_kpi: dict[str, dict[int, ExperimentResult]] = {}

    def add(self, record: ExperimentResult) -> None:
        if record.at >= self.newest.at:
            self.newest = record
        if not has_room(self._by_kpi, record.kpi, MAX_KPIS, max, record.at):
            return
        # By time: partitions are read one after the other.
        looks = self._by_kpi.setdefault(record.kpi, {})
        looks[record.at] = record
        if len(looks) > KEPT:
            del looks[min(looks)]

    def effects(self) -> list[dict]:
        return [_effect(looks) for looks in self._by_kpi.values()]


class ExperimentPanel:
    """The records of topic experiments, by the arms and versions that are compared."""

    def __init__(self) -> None:
        self._experiments: dict[_Compared, _Looks] = {}

    def add(self, record: ExperimentResult) -> None:
        """Add a record. Without room for its experiment, the one that was looked at longest ago goes."""
        compared = _Compared(record.treatment, record.treatment_version, record.baseline, record.baseline_version)
        if not has_room(self._experiments, compared, MAX_EXPERIMENTS, lambda looks: looks.newest.at, record.at):
            return
        self._experiments.setdefault(compared, _Looks(record)).add(record)

    def summary(self) -> list[dict]:
        """Each experiment, the one that was looked at last first: its decision, and its KPIs with their looks."""
        experiments = []
        for compared, looks in self._experiments.items():
            newest = looks.newest
            experiments.append(
                compared._asdict()
                | {
                    "names": [_named(*compared[:2]), _named(*compared[2:])],
                    "at": newest.at,
                    "decision": newest.decision,
                    "verdict": TONES.get(newest.action, "wait"),
                    "treatment_users": newest.treatment_users,
                    "baseline_users": newest.baseline_users,
                    "moved_users": newest.moved_users,
                    "sample_ratio_p": newest.sample_ratio_p,
                    "is_of_earlier_release": _is_of_earlier_release(newest),
                    "kpis": looks.effects(),
                }
            )
        return sorted(experiments, key=lambda experiment: -experiment["at"])


def _named(arm: str, version: str | None) -> str:
    return " ".join(filter(None, (arm.replace("_", " "), version)))


def _effect(looks_by_time: dict[int, ExperimentResult]) -> dict:
    """The newest look at a KPI, and the relative effect at each look that has one."""
    looks = [looks_by_time[at] for at in sorted(looks_by_time)]
    relative = {look.at: ends for look in looks if None not in (ends := _relative(look))}
    effect = msgspec.to_builtins(looks[-1])
    effect |= zip((f"relative_{end}" for end in _ENDS), _relative(looks[-1]))
    by_end = zip(*relative.values()) if relative else ((), (), ())
    effect["looks"] = {"times": list(relative), **{name: list(ends) for name, ends in zip(_ENDS, by_end)}}
    return effect


def _relative(look: ExperimentResult) -> tuple[float | None, float | None, float | None]:
    """The relative difference and the ends of its interval; all of them None while there is no such interval."""
    if _is_of_earlier_release(look):
        absolute = (look.difference, look.low, look.high)
        if None in absolute or not look.baseline_value:
            return None, None, None
        return tuple(end / abs(look.baseline_value) for end in absolute)
    ends = (look.relative_difference, look.relative_low, look.relative_high)
    return ends if None not in ends else (None, None, None)


def _is_of_earlier_release(look: ExperimentResult) -> bool:
    """Whether a record is of a release that had no relative effects."""
    return look.relative_difference is UNSET
