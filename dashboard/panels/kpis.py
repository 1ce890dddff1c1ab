"""KPIs by arm over time, with intervals, computed from the sums of topic kpis."""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from dashboard.panels.quality import trailing_sums
from dashboard.panels.room import has_room
from dashboard.panels.series import Series
from udfs.contracts.outputs import BOT, KpiValue

MINUTES, SHOWN_MINUTES = 1_440, 180
SPAN = 15  # minutes that a point of a line stands for
MIN_MINUTES = 5  # with a denominator above 0, before there is an interval
MAX_LINES = 400
MAX_PLACEMENTS = 20
NO_ARM = "not scored"


class KpiLines:
    """Numerator and denominator of each KPI and arm by minute; a repeated record replaces the earlier one."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str | None], Series] = {}

    def add(self, record: KpiValue) -> None:
        if record.window != "minute":
            return
        line = (record.kpi, record.arm or NO_ARM, record.placement)
        if line not in self._lines:
            if record.placement is not None and not self._has_room(record.kpi, record.placement, record.window_start):
                return
            if len(self._lines) >= MAX_LINES:
                return
            self._lines[line] = Series(MINUTES, 60_000, 2)
        self._lines[line].put(record.window_start, record.numerator, record.denominator)

    def _has_room(self, kpi: str, placement: str, time_ms: int) -> bool:
        """Whether there is room for a placement of a KPI. One that is no longer shown makes room for it."""
        newest_ms: dict[str, int] = {}
        for (of, _, known), series in self._lines.items():
            if of == kpi and known is not None:
                newest_ms[known] = max(newest_ms.get(known, -1), series.newest_ms)
        before = set(newest_ms)
        if not has_room(newest_ms, placement, MAX_PLACEMENTS, int, time_ms - SHOWN_MINUTES * 60_000):
            return False
        gone = before - set(newest_ms)
        self._lines = {line: kept for line, kept in self._lines.items() if line[0] != kpi or line[2] not in gone}
        return True

    def lines(self, minutes: int) -> list[dict]:
        """A line for each KPI and arm: the last `minutes`, each point of the SPAN minutes up to it. Bots have no line.

        A KPI that is counted by placement only is here as the sum over its placements.
        """
        newest = self._newest_ms
        lines = []
        for kpi, arm in dict.fromkeys((kpi, arm) for kpi, arm, _ in self._lines if arm != BOT):
            starts, sums = self._sums(kpi, arm, newest - (minutes + SPAN) * 60_000)
            value, low, high = ratio_lines(starts, sums[:, 0], sums[:, 1], SPAN)
            shown = starts > newest - minutes * 60_000
            whole = ratio_interval(sums[shown, 0], sums[shown, 1])
            lines.append(
                {
                    "kpi": kpi,
                    "arm": arm,
                    "times": starts[shown].tolist(),
                    "value": _plain(value[shown]),
                    "low": _plain(low[shown]),
                    "high": _plain(high[shown]),
                    "whole": _plain(whole),
                    "denominator": float(sums[shown, 1].sum()),
                }
            )
        return lines

    def denominators(self, kpi: str, minutes: int) -> dict[str, float]:
        """The denominator of a KPI in each arm, and of bots, over the last `minutes`."""
        since_ms = self._newest_ms - (minutes - 1) * 60_000
        arms = dict.fromkeys(arm for name, arm, _ in self._lines if name == kpi)
        return {arm: float(self._sums(kpi, arm, since_ms)[1][:, 1].sum()) for arm in arms}

    def placements(self, minutes: int) -> list[dict]:
        """KPIs by placement and arm, over the last `minutes`."""
        newest = self._newest_ms
        rows = []
        for (kpi, arm, placement), series in self._lines.items():
            if placement is None:
                continue
            _, sums = series.read(newest - minutes * 60_000)
            value, low, high = _plain(ratio_interval(sums[:, 0], sums[:, 1]))
            row = {"kpi": kpi, "arm": arm, "placement": placement, "value": value, "low": low, "high": high}
            rows.append(row | {"denominator": float(sums[:, 1].sum())})
        return sorted(rows, key=lambda row: (row["kpi"], row["placement"], row["arm"]))

    @property
    def _newest_ms(self) -> int:
        return max((series.newest_ms for series in self._lines.values()), default=0)

    def _sums(self, kpi: str, arm: str, since_ms: int) -> tuple[np.ndarray, np.ndarray]:
        whole = self._lines.get((kpi, arm, None))
        parts = [whole] if whole else [part for line, part in self._lines.items() if line[:2] == (kpi, arm)]
        read = [part.read(since_ms) for part in parts]
        starts = np.unique(np.concatenate([part_starts for part_starts, _ in read]))
        sums = np.zeros((len(starts), 2))
        for part_starts, values in read:
            sums[np.searchsorted(starts, part_starts)] += values
        return starts, sums


def ratio_lines(
    starts: np.ndarray, numerator: np.ndarray, denominator: np.ndarray, span: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`ratio_interval` of each minute and the `span - 1` before it: three times float64[n], NaN where there is none."""
    columns = [numerator, denominator, numerator**2, denominator**2, numerator * denominator, denominator > 0]
    return _intervals(*trailing_sums(starts, np.column_stack(columns).astype(float), span).T)


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """A ratio of two sums over k minutes, and its 95 % interval: value, low, high, float64[3], NaN where there is none.

    By linearisation, minutes as the units (Cochran, Sampling Techniques, 1977, chapter 6): the residuals are
    numerator - ratio denominator. It takes minutes for independent, as sessions of different users are.
    """
    columns = [numerator, denominator, numerator**2, denominator**2, numerator * denominator, denominator > 0]
    return np.array(_intervals(*([column.sum()] for column in np.array(columns, float)))).ravel()


def _intervals(
    n: ArrayLike, d: ArrayLike, nn: ArrayLike, dd: ArrayLike, nd: ArrayLike, k: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratios and intervals from sums over minutes, of n, d, their squares and product, and the number of minutes with
    d > 0, float64[m] each."""
    n, d, nn, dd, nd, k = map(np.asarray, (n, d, nn, dd, nd, k))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(d > 0, n / d, np.nan)
        squares = np.maximum(nn - 2 * ratio * nd + ratio**2 * dd, 0)
        error = np.sqrt(squares * k / (k - 1)) / d
    measurable = (k >= MIN_MINUTES) & (n > 0)
    half = np.where(measurable, error * np.array([_quantile(int(count)) for count in k]), np.nan)
    return ratio, np.maximum(ratio - half, 0), ratio + half


@cache
def _quantile(minutes: int) -> float:
    return float(student.ppf(0.975, max(1, minutes - 1)))


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 6) for value in values]
