"""Models that know what a backtest asks them: trained on its stretch, or on what came after it."""

from datetime import UTC, datetime

from udfs.models.bundle import Manifest


def leak(manifest: Manifest, from_ms: int) -> str | None:
    """Why a model knew more than was known at the beginning of a backtest; None if it did not.

    A label reaches a horizon beyond the last event of the training window.
    """
    window = manifest.training_window
    begin = datetime.fromtimestamp(from_ms / 1000, UTC)
    known_ms = window.end.timestamp() * 1000 + manifest.label.horizon_ms
    if known_ms <= from_ms:
        return None
    return (
        f"KNOWS THE FUTURE: trained on events from {window.start:%Y-%m-%d %H:%M} to {window.end:%Y-%m-%d %H:%M} UTC "
        f"and their outcomes within {manifest.label.horizon}, but the backtest begins at {begin:%Y-%m-%d %H:%M}: these "
        "figures are better than what it could have earned"
    )
