"""Figures of the demo's day: models, arms, the experiment and drift."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
from sklearn.metrics import roc_auc_score

from tools.demo.day.outcome import DayOutcome
from training.simulation.clickstream import Clickstream
from udfs.contracts.outputs import DriftWindow, ExperimentResult, KpiValue, Outcome, ShadowScores

MOVED_SHOWN = 8


def report(day: Clickstream, outcome: DayOutcome, experiment_ms: int, shift_ms: int) -> dict:
    """The figures of build/demo_day.json."""
    return {
        "events": outcome.sent,
        "records": dict(outcome.counts.most_common()),
        "models": model_figures(outcome.outcomes, outcome.shadow_scores, day.propensity, shift_ms),
        "kpis": kpi_figures(outcome.kpis, experiment_ms),
        "experiment": experiment_figures(outcome.experiments),
        "drift": drift_figures(outcome.drift, shift_ms),
    }


def model_figures(
    outcomes: Sequence[Outcome], shadows: Sequence[ShadowScores], propensity: np.ndarray, shift_ms: int
) -> list[dict]:
    """Quality of the scores, and the best possible one, by model, serving or shadow, before and after the shift."""
    evaluated = {_number(outcome.event_id): outcome for outcome in outcomes if outcome.evaluated}
    scores = defaultdict(list)
    for number, outcome in evaluated.items():
        scores[outcome.model_version, "serving"].append((number, outcome.score))
    for shadow in shadows:
        number = _number(shadow.event_id)
        for version, score in zip(shadow.shadow_versions, shadow.shadow_scores):
            if number in evaluated:
                scores[version, "shadow"].append((number, score))
    figures = []
    for (version, role), pairs in scores.items():
        for when, after in (("before the shift", False), ("after the shift", True)):
            chosen = [(number, score) for number, score in pairs if (evaluated[number].event_time >= shift_ms) == after]
            if chosen:
                labels = np.array([evaluated[number].label for number, _ in chosen])
                rows, model_scores = (np.array(column) for column in zip(*chosen))
                figures.append(
                    {
                        "model": version,
                        "role": role,
                        "when": when,
                        "scores": len(chosen),
                        "positive_rate": round(float(labels.mean()), 4),
                        "mean_score": round(float(model_scores.mean()), 4),
                        "auc": _auc(labels, model_scores),
                        "best_possible_auc": _auc(labels, propensity[rows]),
                    }
                )
    return figures


def _number(event_id: str) -> int:
    """The number of an event in its stream, from its id."""
    return int(event_id.rpartition("-")[2])


def _auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return round(float(roc_auc_score(labels, scores)), 4) if 0 < labels.mean() < 1 else None


def kpi_figures(sums: Sequence[KpiValue], since_ms: int) -> dict[str, dict[str, float | None]]:
    """The value of each KPI, and of click-through by placement, in each arm, over the hours since `since_ms`."""
    totals = defaultdict(lambda: np.zeros(2))
    for row in sums:
        if row.window == "hour" and row.window_start >= since_ms and row.arm is not None:
            kpi = row.kpi if row.placement is None else f"{row.kpi}, {row.placement}"
            totals[kpi, row.arm] += row.numerator, row.denominator
    figures = defaultdict(dict)
    for (kpi, arm), (numerator, denominator) in sorted(totals.items()):
        figures[kpi][arm] = round(float(numerator / denominator), 4) if denominator else None
    return dict(figures)


def experiment_figures(effects: Sequence[ExperimentResult]) -> dict | None:
    """The newest state of the experiment; None without any result."""
    newest = {effect.kpi: effect for effect in sorted(effects, key=lambda effect: effect.at)}
    if not newest:
        return None
    last = max(newest.values(), key=lambda effect: effect.at)
    return {
        "decision": last.decision,
        "users": {last.treatment: last.treatment_users, last.baseline: last.baseline_users},
        "kpis": [msgspec.to_builtins(effect) for effect in newest.values()],
    }


def drift_figures(records: Sequence[DriftWindow], shift_ms: int) -> dict[str, dict]:
    """Levels of the windows before and after the shift, first alarm after it, top drifted features, by model."""
    figures = {}
    for version in sorted({record.model_version for record in records}):
        windows = sorted(
            (record for record in records if record.model_version == version), key=lambda record: record.window_end
        )
        before = [record for record in windows if record.window_end <= shift_ms]
        after = [record for record in windows if record.window_start >= shift_ms]
        alarms = (record for record in windows if record.window_end > shift_ms and record.level == "alarm")
        first = next(alarms, None)
        indices = _mean_index(before), _mean_index(after)
        names = sorted(indices[1], key=lambda name: -indices[1][name])[:MOVED_SHOWN]
        figures[version] = {
            "levels_before": dict(Counter(record.level for record in before)),
            "levels_after": dict(Counter(record.level for record in after)),
            "alarm_after_minutes": None if first is None else (first.window_end - shift_ms) // 60_000,
            "moved": [{"feature": name, "before": indices[0].get(name), "after": indices[1][name]} for name in names],
        }
    return figures


def _mean_index(records: Sequence[DriftWindow]) -> dict[str, float]:
    """The mean PSI of each feature over the windows."""
    indices = defaultdict(list)
    for record in records:
        for feature in record.features:
            indices[feature.name].append(feature.psi)
    return {name: round(float(np.mean(values)), 4) for name, values in indices.items()}
