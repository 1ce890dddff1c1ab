"""Drift by a slow, obvious computation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, f, gamma

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
            features = [feature_drift(name, rows[name], known[name], watched, settings, length_ms) for name in known]
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


def feature_drift(name: str, values: pd.Series, known: dict, watched: list[str], settings, length_ms: int) -> dict:
    present = [float(value) for value in values if not np.isnan(value)]
    is_code = known["values"] is not None
    if is_code:
        bins = [[value] for value in known["values"]] + ([known["rare"]] if known["rare"] else [])
        unseen = new = [value for value in present if not any(value in codes for codes in bins)]
        in_bins = [sum(value in codes for value in present) for codes in bins]
    else:
        edges = [-np.inf, *known["edges"], np.inf]
        unseen = [value for value in present if not known["low"] <= value <= known["high"]]
        far = 10 * (known["high"] - known["low"])
        new = [value for value in unseen if not known["low"] - far <= value <= known["high"] + far]
        near = [value for value in present if value not in new]
        in_bins = [sum(low <= value < high for value in near) for low, high in zip(edges, edges[1:])]
    now = [*in_bins, len(values) - len(present), len(new)]
    then = [*(share * (1 - known["missing"]) for share in known["shares"]), known["missing"], 0.0]
    lengths = np.log([chance[0] for chance in known["chance"]])
    effect, degrees, rhythm, alone, largest, usual = (
        np.interp(np.log(length_ms), lengths, [chance[part] for chance in known["chance"]]) for part in range(1, 7)
    )
    size, of_reference = len(values) / effect, known["rows"] / known["chance"][-1][1]
    psi, level = 0.0, "stable"
    pairs = [(count / len(values), share) for count, share in zip(now, then) if count or share]
    if len(pairs) > 1:
        index, share_of_new = 0.0, 0.0
        for p, q in pairs:
            smooth_p = (p * size + 0.5) / (size + len(pairs) / 2)
            smooth_q = (q * of_reference + 0.5) / (of_reference + len(pairs) / 2)
            index += (smooth_p - smooth_q) * np.log(smooth_p / smooth_q)
            share_of_new += smooth_q if q == 0 else 0
        by_chance = (len(pairs) - 1) / size + known["noise"]
        mean = by_chance + rhythm
        psi = max(0.0, index - mean)
        # Noncentral: the mean and the variance of a scaled chi-square variable of `degrees` that is off centre.
        variance = 2 * (by_chance**2 + 2 * by_chance * rhythm) / min(degrees, len(pairs) - 1)
        probability = FALSE_ALARM / len(watched)
        of_many = gamma.isf(probability, mean**2 / variance, scale=variance / mean)
        measured = mean * f.isf(probability, 2 * mean**2 / variance, known["noise_degrees"])
        users = np.log(probability) / np.log(0.005)
        crowd = users * (largest / len(values) + known["chance"][-1][5] / known["rows"])
        bin_of_crowd = largest**2 / (largest**2 + alone**2)
        of_few = mixture_index(crowd, bin_of_crowd)
        if share_of_new:
            of_few = max(of_few, mixture_index(users * usual / len(values), share_of_new))
        is_gone = any(p == 0 and np.exp(-q * size) < probability and q > 3 * rhythm for p, q in pairs)
        far_index, most = 0.0, chi2.isf(probability, 1) / size
        if new and not is_code:
            p, q = (len(new) / len(values) * size + 0.5) / (size + 1), 0.5 / (of_reference + 1)
            far_index = (p - q) * np.log(p / q) + (q - p) * np.log((1 - p) / (1 - q))
        of_users = min(measured, (np.sqrt(of_many) + np.sqrt(of_few)) ** 2)
        if index > max(of_users, (np.sqrt(mean) + np.sqrt(of_few)) ** 2) or far_index > most:
            level = "alarm" if psi >= settings.alarm or is_gone else "watch" if psi >= settings.watch else "stable"
    reason = "window_rows" if size < 20 else None
    reason = "training_rows" if of_reference < 20 else reason
    reason = "setting" if name not in watched else reason
    return {
        "name": name,
        "psi": psi,
        "level": "stable" if reason else level,
        "unwatched": reason,
        "missing": 1 - len(present) / len(values),
        "unseen": len(unseen) / len(values),
        "shares": [count / max(1, len(present)) for count in in_bins],
    }


def mixture_index(crowd: float, share: float) -> float:
    """The index of two bins when a share of the rows, the crowd, are all in the first, which had a given share."""
    if crowd >= 1:
        return np.inf
    p, q = np.array([crowd + (1 - crowd) * share, (1 - crowd) * (1 - share)]), np.array([share, 1 - share])
    return sum((a - b) * np.log(a / b) for a, b in zip(p, q) if b)


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
