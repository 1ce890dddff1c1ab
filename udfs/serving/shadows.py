"""Shadow models, which score the same events as the serving model on a thread of their own."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError

import numpy as np

from udfs.models.circuit_breaker import PAUSE_S, Breaker

log = logging.getLogger(__name__)


class Shadows:
    """Scores of shadow models, batch by batch: call `begin`, then `scores` when the serving model has its scores.

    A batch whose shadows are not done `budget_s` after its own scores goes without theirs, and so does the next one if
    they are still busy.
    """

    def __init__(
        self,
        models: Mapping[str, Callable[[np.ndarray], np.ndarray]],
        budget_s: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._models = dict(models)
        self._budget_s = budget_s
        self._breaker = Breaker(clock)
        self._pool = ThreadPoolExecutor(1, "shadows")
        self._last: Future | None = None  # may still be at work for an earlier batch
        self._current: Future | None = None
        self.missed = 0  # batches that went without

    def begin(self, features: np.ndarray) -> None:
        """Start to score a batch float32[n, k], which must not change meanwhile."""
        self._current = None
        is_free = self._last is None or self._last.done()
        if is_free and self._breaker.is_closed:
            self._last = self._current = self._pool.submit(self._score, features)

    def scores(self) -> dict[str, np.ndarray]:
        """The scores float32[n] of the last batch by version; empty if they are not done in time."""
        if self._current is None:
            self.missed += 1
            return {}
        try:
            scores = self._current.result(self._budget_s)
        except TimeoutError:
            self._miss(f"not done {self._budget_s * 1000:.0f} ms after the batch's own scores")
        except Exception as error:  # a shadow's failure is not the serving model's
            self._miss(str(error))
        else:
            self._breaker.succeeded()
            return scores
        return {}

    def close(self) -> None:
        """End the thread after its present batch, without waiting for it."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _score(self, features: np.ndarray) -> dict[str, np.ndarray]:
        return {version: predict(features) for version, predict in self._models.items()}

    def _miss(self, reason: str) -> None:
        self.missed += 1
        if self._breaker.failed():
            log.warning("shadows %s pause for %.0f s: %s", ", ".join(self._models), PAUSE_S, reason)
