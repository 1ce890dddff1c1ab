"""What starts a retraining: drift that lasts, or live quality below what the champion's bundle promised."""

from collections.abc import Iterable
from datetime import UTC, datetime

from udfs.contracts.outputs import DriftWindow, ModelQuality
from udfs.rollout.plan import Rollout

MOST_NAMED = 5
_MINUTE_MS = 60_000


def drift_trigger(records: Iterable[DriftWindow], champion: str, windows: int) -> str | None:
    """Why to retrain: so many of the champion's newest windows are all at alarm. Of a window the last record counts."""
    latest = {record.window_end: record for record in records if record.model_version == champion}
    newest = [latest[end] for end in sorted(latest)[-windows:]]
    if len(newest) < windows or any(record.level != "alarm" for record in newest):
        return None
    moved = newest[-1].moved
    named = ", ".join(moved[:MOST_NAMED]) or "no feature alone"
    more = f" and {len(moved) - MOST_NAMED} more" if len(moved) > MOST_NAMED else ""
    return f"drift alarm in {windows} windows up to {_time(newest[-1].window_end)}: {named}{more} moved"


def live_auc(
    records: Iterable[ModelQuality], champion: str, minutes: int, least_scores: int
) -> tuple[float, int] | None:
    """The champion's AUC by minute, averaged by scores over the newest minutes, and how many scores that were.

    None when there were too few scores. Minutes whose labels are all alike have no AUC and do not count; of a minute
    and arm counts the last record.
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


def quality_trigger(found: tuple[float, int] | None, bound: float, minutes: int) -> str | None:
    """Why to retrain, when the live AUC is below the lower end of what the champion's bundle tells."""
    if found is None or not found[0] < bound:
        return None
    auc, scores = found
    return f"live AUC {auc:.4f} over {minutes} min, {scores} scores: its bundle's interval begins at {bound:.4f}"


def in_progress(rollout: Rollout, entered: Iterable[str]) -> str | None:
    """The model that retraining has entered and that is still in shadow or a challenger: one at a time."""
    trying = {*rollout.shadows, *(part.version for part in rollout.challengers)}
    return next((version for version in entered if version in trying), None)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
