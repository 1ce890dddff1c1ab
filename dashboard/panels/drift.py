"""Drift of features and scores from training: the newest windows of topic drift."""

from dashboard.panels.room import has_room
from udfs.contracts.outputs import LEVELS, DriftWindow, FeatureDrift

WINDOWS = 120
MAX_VERSIONS = 6


class DriftPanel:
    """The records of topic drift by model version."""

    def __init__(self) -> None:
        self._windows: dict[str, dict[int, DriftWindow]] = {}

    def add(self, record: DriftWindow) -> None:
        """Keep the newest windows of the versions with the newest windows, in whichever order records arrive."""
        version = record.model_version
        if not has_room(self._windows, version, MAX_VERSIONS, max, record.window_end):
            return
        # By time: partitions are read one after the other.
        windows = self._windows.setdefault(version, {})
        windows[record.window_end] = record
        if len(windows) > WINDOWS:
            del windows[min(windows)]

    def versions(self) -> list[str]:
        """The versions that have windows, the one with the newest window first."""
        return sorted(self._windows, key=self._newest_end, reverse=True)

    def summary(self, version: str | None = None) -> dict | None:
        """The newest window of a version, and the index of each feature over time; None without any.

        Without a version: the one with the highest level now, and of these the newest.
        """
        if version not in self._windows:
            if not self._windows:
                return None
            version = max(self.versions(), key=lambda known: LEVELS.index(_level(self._newest(known))))
        windows = [self._windows[version][end] for end in sorted(self._windows[version])]
        newest = windows[-1]
        names = [feature.name for feature in newest.features]
        by_name = [{feature.name: feature for feature in window.features} for window in windows]
        return {
            "version": version,
            "versions": self.versions(),
            "level": newest.level,
            "window_start": newest.window_start,
            "window_end": newest.window_end,
            "rows": newest.rows,
            "moved": newest.moved,
            "label_rate": newest.label_rate,
            "times": [window.window_end for window in windows],
            "levels": [window.level for window in windows],
            "label_rates": [window.label_rate for window in windows],
            "features": sorted(
                (
                    {
                        "name": name,
                        "psi": by_name[-1][name].psi,
                        "level": by_name[-1][name].level,
                        "unwatched": by_name[-1][name].unwatched,
                        "missing": by_name[-1][name].missing,
                        "unseen": by_name[-1][name].unseen,
                        "history": [_psi(window.get(name)) for window in by_name],
                        "levels": [_letter(window.get(name)) for window in by_name],
                    }
                    for name in names
                ),
                key=_rank,
            ),
        }

    def shares(self, version: str, name: str) -> list[float] | None:
        """The newest window's shares of a feature in the bins of the reference; None when there are none."""
        if version not in self._windows:
            return None
        return next((part.shares for part in self._newest(version).features if part.name == name), None)

    def _newest(self, version: str) -> DriftWindow:
        return self._windows[version][self._newest_end(version)]

    def _newest_end(self, version: str) -> int:
        return max(self._windows[version])


def _rank(feature: dict) -> tuple:
    """The sort key: highest level first, then largest index, rounded so that stable features keep their place."""
    level = LEVELS.index(feature["level"]) if feature["level"] in LEVELS else 0
    return -level, -round(feature["psi"], 2), feature["name"]


def _level(window: DriftWindow) -> str:
    return window.level if window.level in LEVELS else LEVELS[0]


def _psi(feature: FeatureDrift | None) -> float | None:
    return None if feature is None else round(feature.psi, 4)


def _letter(feature: FeatureDrift | None) -> str:
    return "" if feature is None else feature.level[:1]
