"""Metrics by segment of the holdout and by period, and the segments in which the model is worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.data.examples import Examples
from training.modeling.metrics import METRICS, Estimate, LabelledScores, estimate
from udfs.contracts.packed_events import DEVICES
from udfs.contracts.profiles import country_of

SMALLEST_SEGMENT = 30  # positives; fewer are too noisy
COUNTRIES = 6
_METRICS = {name: METRICS[name] for name in ("roc_auc", "average_precision", "positive_rate", "mean_probability")}


@dataclass(frozen=True)
class Segment:
    """A part of the holdout. It has no metrics if it has too few positives, or nothing else."""

    name: str
    rows: int
    positives: int
    metrics: dict[str, Estimate] | None

    def is_worse(self, auc: float) -> bool:
        """Whether the whole interval of its AUC is below the AUC of the holdout."""
        return self.metrics is not None and self.metrics["roc_auc"].high < auc

    @property
    def is_off(self) -> bool:
        """Whether its mean score is outside the interval of its positive rate."""
        if self.metrics is None:
            return False
        rate = self.metrics["positive_rate"]
        return not rate.low <= self.metrics["mean_probability"].value <= rate.high


def segments(holdout: Examples, probability: np.ndarray) -> tuple[Segment, ...]:
    """The metrics by segment, for those that do not have all rows."""
    return _measured(holdout, probability, _parts(holdout))


def periods(holdout: Examples, probability: np.ndarray) -> tuple[str, tuple[Segment, ...]]:
    """The metrics by week, or by day for less than two weeks; "week" or "day" comes first. Periods begin in UTC."""
    days = holdout.time_ms.astype("datetime64[ms]").astype("datetime64[D]")
    unit, begins = "day", days
    if days.max() - days.min() >= np.timedelta64(14, "D"):
        # Day 0, 1970-01-01, was a Thursday; weeks begin on Mondays.
        unit, begins = "week", days - (days.astype(np.int64) + 3) % 7
    parts = {str(begin): begins == begin for begin in np.unique(begins)}
    return unit, _measured(holdout, probability, parts, whole=True)


def _measured(
    holdout: Examples, probability: np.ndarray, parts: Mapping[str, np.ndarray], whole: bool = False
) -> tuple[Segment, ...]:
    found = []
    for name, mask in parts.items():
        labels = holdout.labels[mask]
        if not len(labels) or (len(labels) == len(holdout) and not whole):
            continue
        metrics = None
        if SMALLEST_SEGMENT <= labels.sum() < len(labels):
            scores = LabelledScores(labels, probability[mask], holdout.weight[mask], holdout.user[mask])
            metrics = estimate(scores, _METRICS)
        found.append(Segment(name, len(labels), int(labels.sum()), metrics))
    return tuple(found)


def _parts(examples: Examples) -> dict[str, np.ndarray]:
    """Masks bool[n] of the segments whose features are present: logged features may lack some."""
    columns = dict(zip(examples.names, examples.features.T))
    parts: dict[str, np.ndarray] = {}
    if (first_visit := columns.get("first_visit")) is not None:
        parts |= {"user: first visit": first_visit == 1, "user: returning": first_visit != 1}
    if (devices := columns.get("device")) is not None:
        parts |= {f"device: {device}": devices == code for code, device in enumerate(DEVICES)}
    if (countries := columns.get("country")) is not None:
        codes, counts = np.unique(countries[~np.isnan(countries)], return_counts=True)
        frequent = codes[np.argsort(-counts)][:COUNTRIES]
        parts |= {f"country: {country_of(int(code))}": countries == code for code in frequent}
    parts |= _bins("history", "events", examples.ends - examples.starts, (4, 16, 64))
    if (age_s := columns.get("session_duration_s")) is not None:
        parts |= _bins("session age", "s", age_s, (60, 600))
    return parts


def _bins(name: str, unit: str, values: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    bounds = [-np.inf, *edges, np.inf]
    texts = [
        f"below {edges[0]} {unit}",
        *(f"{low} to {high - 1} {unit}" for low, high in zip(edges, edges[1:])),
        f"{edges[-1]} {unit} or more",
    ]
    return {f"{name}: {text}": (values >= low) & (values < high) for text, low, high in zip(texts, bounds, bounds[1:])}
