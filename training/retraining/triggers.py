"""Triggers of retraining: lasting drift, or live quality below the interval in the champion's bundle."""

from collections.abc import Iterable
from datetime import UTC, datetime

from udfs.contracts.outputs import DriftWindow, ModelQuality
from udfs.rollout.plan import Rollout

NAMED_LIMIT = 5
_MINUTE_MS = 60_000


def drift_trigger(records: Iterable[DriftWindow], champion: str, windows: int) -> str | None:
    """The reason to retrain if the champion's newest `windows` are all at alarm. The last record per window counts."""
    latest = {record.window_end: record for record in records if record.model_version == champion}
    newest = [latest[end] for end in sorted(latest)[-windows:]]
    if len(newest) < windows or any(record.level != "alarm" for record in newest):
        return None
    moved = newest[-1].moved
    named = ", ".join(moved[:NAMED_LIMIT]) or "no feature alone"
    more = f" and {len(moved) - NAMED_LIMIT} more" if len(moved) > NAMED_LIMIT else ""
    return f"drift alarm in {windows} windows up to {_time(newest[-1].window_end)}: {named}{more} moved"


def live_auc(
    records: Iterable[ModelQuality], champion: str, minutes: int, least_scores: int
) -> tuple[float, int] | None:
    """The champion's AUC by minute, averaged over the newest minutes by scores, and the number of these scores.

    None if there are too few scores. Minutes with only one kind of label have no AUC and do not count; the last record
    per minute and arm counts.
    """
    latest = {(record.event_minute, record.arm): record for record in records if record.model_version == champion}
    if not latest:
        return None
    first = max(minute for minute, _ in latest) - (minutes - 1) * _MINUTE_MS
    counted = [record for (minute, _), record in latest.items() if minute >= first and record.roc_auc is not None]
    scores = sum(record.scores for record in counted)
    if scores < least_scores:
        return None
    return sum(record.roc_auc * record.scores for record in counted) / scores, scores


def quality_trigger(live: tuple[float, int] | None, bound: float, minutes: int) -> str | None:
    """The reason to retrain if the live AUC is below `bound`, the lower end of the champion's holdout interval."""
    if live is None or not live[0] < bound:
        return None
    auc, scores = live
    return f"live AUC {auc:.4f} over {minutes} min, {scores} scores: its bundle's interval begins at {bound:.4f}"


def in_progress(rollout: Rollout, entered: Iterable[str]) -> str | None:
    """The model of an earlier run that is still in shadow or a challenger; there is at most one."""
    in_trial = {*rollout.shadows, *(part.version for part in rollout.challengers)}
    return next((version for version in entered if version in in_trial), None)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
