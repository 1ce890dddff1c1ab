"""Drift by a slow, obvious computation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

FALSE_ALARM = 1e-5


def expected_windows(
    vectors: pd.DataFrame, outcomes: pd.DataFrame, reference: dict, settings, length_ms: int, slide_ms: int
) -> Iterator[dict]:
    """The records of one model's vectors (event_time, score, a column for each feature) and evaluated outcomes."""
    first = vectors["event_time"].min() // slide_ms * slide_ms - length_ms + slide_ms
    for start in range(first, vectors["event_time"].max() + 1, slide_ms):
        rows = vectors[vectors["event_time"].between(start, start + length_ms - 1)]
        labels = outcomes[outcomes["matured_at"].between(start, start + length_ms - 1)]["label"]
        if len(rows):
            known = {**reference["features"], "score": reference["score"]}
            watched = [name for name in known if name not in settings.unwatched]
            features = [feature_drift(name, rows[name], known[name], watched, settings) for name in known]
            moved = sorted((one for one in features if one["level"] != "stable"), key=lambda one: -one["psi"])
            yield {
                "window_start": start,
                "window_end": start + length_ms,
                "rows": len(rows),
                "level": max((one["level"] for one in features), key=["stable", "watch", "alarm"].index),
                "score_psi": features[-1]["psi"],
                "label_rate": labels.mean() if len(labels) else None,
                "moved": [one["name"] for one in moved],
                "features": features,
            }


def feature_drift(name: str, values: pd.Series, known: dict, watched: list[str], settings) -> dict:
    present = [float(value) for value in values if not np.isnan(value)]
    is_code = known["values"] is not None
    unseen = [
        value
        for value in present
        if (value not in known["values"] if is_code else not known["low"] <= value <= known["high"])
    ]
    edges = [-np.inf, *known["edges"], np.inf]
    bins = list(zip(edges, edges[1:]))
    in_bins = [sum(low <= value < high for value in present) for low, high in bins]
    of_psi = [sum(low <= value < high and not (is_code and value in unseen) for value in present) for low, high in bins]
    now = [*of_psi, len(values) - len(present)]
    then = [*(share * (1 - known["missing"]) for share in known["shares"]), known["missing"]]
    if is_code:
        now, then = [*now, len(unseen)], [*then, 0.0]
    psi, level = 0.0, "stable"
    pairs = [(count / len(values), share) for count, share in zip(now, then) if count or share]
    if len(pairs) > 1:
        size, of_reference = len(values) / known["design_effect"], known["rows"] / known["design_effect"]
        index = 0.0
        for p, q in pairs:
            p = (p * size + 0.5) / (size + len(pairs) / 2)
            q = (q * of_reference + 0.5) / (of_reference + len(pairs) / 2)
            index += (p - q) * np.log(p / q)
        degrees = min(known["degrees_of_freedom"], len(pairs) - 1)
        noise = (len(pairs) - 1) / size + known["noise"]
        psi = max(0.0, index - noise)
        if name in watched and size >= 50 and index > noise * chi2.isf(FALSE_ALARM / len(watched), degrees) / degrees:
            level = "alarm" if psi >= settings.alarm else "watch" if psi >= settings.watch else "stable"
    return {
        "name": name,
        "psi": psi,
        "level": level,
        "missing": 1 - len(present) / len(values),
        "unseen": len(unseen) / len(values),
        "shares": [count / max(1, len(present)) for count in in_bins],
    }


def assert_same_windows(found: list[dict], wanted: list[dict]) -> None:
    """The records are the wanted ones, each once, but for the last digits."""
    found = sorted(found, key=lambda row: row["window_start"])
    assert [row["window_start"] for row in found] == [row["window_start"] for row in wanted]
    for row, expected in zip(found, wanted):
        whole = {name: value for name, value in row.items() if name not in ("features", "model_version")}
        _assert_close(whole, {name: value for name, value in expected.items() if name != "features"})
        for feature, of_oracle in zip(row["features"], expected["features"], strict=True):
            _assert_close(feature, of_oracle)


def _assert_close(found: dict, wanted: dict) -> None:
    assert found == {
        name: pytest.approx(value, rel=1e-9, abs=1e-12)
        if isinstance(value, float | list) and name != "moved"
        else value
        for name, value in wanted.items()
    }
