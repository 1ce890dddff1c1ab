"""Live quality of the models: AUC and calibration."""

from collections import deque
from collections.abc import Iterable

import numpy as np
from scipy.stats import norm

from dashboard.panels.room import has_room
from dashboard.panels.series import Series
from udfs.contracts.outputs import ModelQuality, Outcome

MINUTES = 1_440
SPAN = 15  # minutes that a point of a line stands for
MAX_MODELS = 16
SAMPLE = 20_000
EDGES = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)  # of bins of scores: most of them are small
_Z = float(norm.ppf(0.975))


class LiveQuality:
    """The minutes of topic model_quality, by version and arm."""

    _COLUMNS = ("scores", "positives", "score_sum", "loss_sum", "auc_pairs", "pairs")

    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str], Series] = {}

    def add(self, record: ModelQuality) -> None:
        """Keep the newest minutes of the models with the newest minutes."""
        model = (record.model_version, record.arm)
        if not has_room(self._by_model, model, MAX_MODELS, lambda series: series.newest_ms, record.event_minute):
            return
        positives = record.scores * record.positive_rate
        # AUC is a share of the pairs of a positive and a negative, so minutes are weighed by theirs.
        pairs = positives * (record.scores - positives) if record.roc_auc is not None else 0
        self._by_model.setdefault(model, Series(MINUTES, 60_000, len(self._COLUMNS))).put(
            record.event_minute,
            record.scores,
            positives,
            record.scores * record.mean_score,
            record.scores * record.log_loss,
            (record.roc_auc or 0) * pairs,
            pairs,
        )

    def lines(self, minutes: int) -> list[dict]:
        """A line for each version and arm: the last `minutes`, each point of the SPAN minutes up to it."""
        newest = max((series.newest_ms for series in self._by_model.values()), default=0)
        lines = []
        for (version, arm), series in self._by_model.items():
            starts, values = series.read(newest - (minutes + SPAN) * 60_000)
            sums = trailing_sums(starts, values, SPAN)
            shown = starts > newest - minutes * 60_000
            scores, positives, score_sum, loss_sum, auc_pairs, pairs = sums[shown].T
            lines.append(
                {
                    "version": version,
                    "arm": arm,
                    "times": starts[shown].tolist(),
                    "auc": _ratio(auc_pairs, pairs),
                    "mean_score": _ratio(score_sum, scores),
                    "positive_rate": _ratio(positives, scores),
                    "log_loss": _ratio(loss_sum, scores),
                    "scores": int(scores[-1]) if len(scores) else 0,
                }
            )
        return lines


def trailing_sums(starts: np.ndarray, values: np.ndarray, span: int) -> np.ndarray:
    """The sums over each minute and the `span - 1` minutes before it, float64[n, columns]."""
    totals = np.vstack([np.zeros(values.shape[1]), np.cumsum(values, axis=0)])
    first = np.searchsorted(starts, starts - (span - 1) * 60_000)
    return totals[1:] - totals[first]


class LiveCalibration:
    """The calibration of a sample of outcomes: mean scores and observed rates."""

    def __init__(self) -> None:
        self._newest: dict[str, deque[tuple[int, float, bool]]] = {}  # when it matured, score and label

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Keep the newest outcomes of the versions with the newest outcomes."""
        for outcome in outcomes:
            version, at = outcome.model_version, outcome.matured_at
            if outcome.evaluated and has_room(self._newest, version, MAX_MODELS, lambda kept: kept[-1][0], at):
                kept = self._newest.setdefault(version, deque(maxlen=SAMPLE))
                kept.append((at, outcome.score, outcome.label))

    def table(self) -> list[dict]:
        """Number and mean of scores, observed rate and its 95 % interval, by version and bin of scores."""
        rows = []
        for version, kept in self._newest.items():
            _, score, label = np.array(kept, float).T
            bins = np.digitize(score, EDGES[1:-1])
            for number in np.unique(bins):
                rows_of_bin = bins == number
                count, positives = int(rows_of_bin.sum()), int(label[rows_of_bin].sum())
                low, high = wilson(positives, count)
                rows.append(
                    {
                        "version": version,
                        "from": EDGES[number],
                        "to": EDGES[number + 1],
                        "scores": count,
                        "promised": float(score[rows_of_bin].mean()),
                        "came_true": positives / count,
                        "low": low,
                        "high": high,
                    }
                )
        return rows


def wilson(positives: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, Probable inference, 1927).

    >>> low, high = wilson(5, 50)
    >>> round(low, 3), round(high, 3)
    (0.043, 0.214)
    """
    share, z2 = positives / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * (share * (1 - share) / count + z2 / (4 * count**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> list[float | None]:
    return [round(float(n / d), 5) if d > 0 else None for n, d in zip(numerator, denominator)]
