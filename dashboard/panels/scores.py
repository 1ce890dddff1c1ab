"""A sample of the scores: their latency, their models and arms, and their distribution."""

from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from dashboard.panels.room import has_room
from dashboard.panels.series import Series
from udfs.contracts.outputs import Score

PERCENTILES = (50, 95, 99)
LATENCY_SECONDS = 10
SAMPLE = 2_000
BINS = 20
MAX_MODELS = 16  # distinct arms and versions; scores of further ones count as others
OTHERS = ("other", "other")


class Latencies:
    """Latencies from a click's Kafka timestamp to its score, of a sample of the newest scores."""

    def __init__(self, budget_ms: int):
        self.budget_ms = budget_ms
        self._newest: deque[tuple[int, float]] = deque(maxlen=SAMPLE)
        self._history = Series(360, 5_000, len(PERCENTILES) + 1)  # the last column: how many were over the budget

    def add(self, now_ms: int, latencies_ms: Sequence[float]) -> None:
        """Add the latencies of newly sampled scores."""
        self._newest.extend((now_ms, latency) for latency in latencies_ms)
        recent = self._recent(now_ms)
        if len(recent):
            over = float((recent > self.budget_ms).mean())
            self._history.put(now_ms, *np.percentile(recent, PERCENTILES), over)

    def summary(self, now_ms: int) -> dict | None:
        """Percentiles in milliseconds, and the share over the budget, of the last seconds; None without any."""
        recent = self._recent(now_ms)
        if not len(recent):
            return None
        values = np.percentile(recent, PERCENTILES)
        named = {f"p{percentile}": round(float(value), 1) for percentile, value in zip(PERCENTILES, values)}
        return named | {"over_budget": float((recent > self.budget_ms).mean()), "sample": len(recent)}

    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """Times int64[n], and the percentiles float64[n, 3]."""
        starts, values = self._history.read()
        return starts, values[:, : len(PERCENTILES)]

    def _recent(self, now_ms: int) -> np.ndarray:
        since = now_ms - LATENCY_SECONDS * 1_000
        return np.array([latency for at, latency in self._newest if at > since])


class ScoreMix:
    """The arms and versions of the sampled scores per minute, and the newest scores' distribution."""

    def __init__(self, minutes: int = 180):
        self._minutes = minutes
        self._by_model: dict[tuple[str, str], Series] = {}
        self._others = Series(minutes, 60_000)
        self._newest: deque[tuple[float, bool]] = deque(maxlen=SAMPLE)

    def add(self, now_ms: int, scores: Iterable[Score]) -> None:
        """Count scores. A model makes room for another when it is no longer shown."""
        shown_from_ms = now_ms - self._minutes * 60_000
        for score in scores:
            model = (score.arm, score.model_version)
            if has_room(self._by_model, model, MAX_MODELS, lambda series: series.newest_ms, shown_from_ms):
                self._by_model.setdefault(model, Series(self._minutes, 60_000)).add(now_ms, 1)
            else:
                self._others.add(now_ms, 1)
            self._newest.append((score.score, score.decision))

    def shares(self) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
        """Minutes int64[n], and the share of each arm and version in each of them, float64[n]."""
        read = {model: series.read() for model, series in (self._by_model | {OTHERS: self._others}).items()}
        minutes = np.unique(np.concatenate([starts for starts, _ in read.values()]))
        minutes = minutes[-self._minutes :]
        counts = {model: np.zeros(len(minutes)) for model in read}
        for model, (starts, values) in read.items():
            kept = np.isin(starts, minutes)
            counts[model][np.searchsorted(minutes, starts[kept])] = values[kept, 0]
        total = sum(counts.values(), np.zeros(len(minutes)))
        return minutes, {
            model: count / np.maximum(total, 1) for model, count in counts.items() if model != OTHERS or count.any()
        }

    def histogram(self) -> list[float]:
        """The share of the newest scores in each twentieth of [0, 1]."""
        if not self._newest:
            return []
        counts, _ = np.histogram([score for score, _ in self._newest], bins=BINS, range=(0, 1))
        return (counts / len(self._newest)).round(4).tolist()

    def acted(self) -> float | None:
        """The share of the newest scores that decided to act."""
        return sum(decision for _, decision in self._newest) / len(self._newest) if self._newest else None
