"""Results of experiments: the newest effect on each KPI, its history, and the decision."""

import msgspec

from udfs.contracts.outputs import ExperimentAction, ExperimentResult

MAX_PAIRS, MAX_KPIS = 10, 50
KEPT = 720  # looks of each KPI
#: The style of an action on the pages.
TONES = {
    ExperimentAction.SHIP: "good",
    ExperimentAction.STOP: "bad",
    ExperimentAction.FIX_FIRST: "bad",
    ExperimentAction.KEEP_RUNNING: "wait",
}


class ExperimentPanel:
    """The records of topic experiments by treatment and baseline."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], dict[str, dict[int, ExperimentResult]]] = {}

    def add(self, record: ExperimentResult) -> None:
        pair = (record.treatment, record.baseline)
        if pair not in self._pairs and len(self._pairs) >= MAX_PAIRS:
            return
        kpis = self._pairs.setdefault(pair, {})
        if record.kpi not in kpis and len(kpis) >= MAX_KPIS:
            return
        # By time: partitions are read one after the other.
        looks = kpis.setdefault(record.kpi, {})
        looks[record.at] = record
        if len(looks) > KEPT:
            del looks[min(looks)]

    def summary(self) -> list[dict]:
        """Each experiment, the one that was looked at last first: its decision, and its KPIs with their looks."""
        experiments = []
        for (treatment, baseline), kpis in self._pairs.items():
            newest = max((looks[max(looks)] for looks in kpis.values()), key=lambda effect: effect.at)
            experiments.append(
                {
                    "treatment": treatment,
                    "baseline": baseline,
                    "at": newest.at,
                    "decision": newest.decision,
                    "verdict": TONES.get(newest.action, "wait"),
                    "treatment_users": newest.treatment_users,
                    "baseline_users": newest.baseline_users,
                    "sample_ratio_p": newest.sample_ratio_p,
                    "kpis": [_effect(looks) for looks in kpis.values()],
                }
            )
        return sorted(experiments, key=lambda pair: -pair["at"])


def _effect(looks_by_time: dict[int, ExperimentResult]) -> dict:
    looks = [looks_by_time[at] for at in sorted(looks_by_time)]
    newest = looks[-1]
    effect = msgspec.to_builtins(newest)
    for name in ("difference", "low", "high"):
        effect[f"relative_{name}"] = _relative(getattr(newest, name), newest.baseline_value)
    effect["looks"] = {
        "times": [look.at for look in looks],
        **{
            name: [_relative(getattr(look, name), look.baseline_value) for look in looks]
            for name in ("difference", "low", "high")
        },
    }
    return effect


def _relative(value: float | None, baseline: float | None) -> float | None:
    return value / abs(baseline) if value is not None and baseline else None
