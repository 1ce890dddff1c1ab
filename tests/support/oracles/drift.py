"""Drift by a slow, obvious computation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f, gamma

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
    present = values.dropna().to_numpy(np.float64)
    is_code = known["values"] is not None
    if is_code:
        bins = [[value] for value in known["values"]] + ([known["rare"]] if known["rare"] else [])
        unseen = new = present[~np.isin(present, [value for codes in bins for value in codes])]
        in_bins = [np.count_nonzero(np.isin(present, codes)) for codes in bins]
    else:
        edges = [-np.inf, *known["edges"], np.inf]
        low, high = known["low"], known["high"]
        unseen = present[(present < low) | (present > high)]
        is_new = (present < low - (high - low)) | (present > high + (high - low))
        new, near = present[is_new], present[~is_new]
        in_bins = [np.count_nonzero((start <= near) & (near < end)) for start, end in zip(edges, edges[1:])]
    now = [*in_bins, len(values) - len(present), len(new)]
    then = [*(share * (1 - known["missing"]) for share in known["shares"]), known["missing"], 0.0]
    lengths = np.log([chance[0] for chance in known["chance"]])
    effect, degrees, rhythm, alone, largest, usual = (
        np.interp(np.log(length_ms), lengths, [chance[part] for chance in known["chance"]]) for part in range(1, 7)
    )
    size, of_reference = len(values) / effect, known["rows"] / known["chance"][-1][1]
    psi, level = 0.0, "stable"
    kept = [number for number, (count, share) in enumerate(zip(now, then)) if count or share]
    pairs = [(now[number] / len(values), then[number]) for number in kept]
    if len(pairs) > 1:
        smooth = [smoothed(p, q, len(pairs), size, of_reference) for p, q in pairs]
        index = sum((p - q) * np.log(p / q) for p, q in smooth)
        share_of_new = sum(smooth_q for (_, q), (_, smooth_q) in zip(pairs, smooth) if q == 0)
        noise = (len(pairs) - 1) / size + known["noise"]
        mean = noise + rhythm
        psi = max(0.0, index - mean)
        false_alarm = FALSE_ALARM / len(watched)
        is_gone = any(p == 0 and np.exp(-q * size) < false_alarm and q > 3 * rhythm for p, q in pairs)
        of_index, of_others = (1 if is_gone else 0.05) * false_alarm, 0.95 * false_alarm / (1 + len(known["contrasts"]))
        last = known["chance"][-1]
        crowd = large_users(of_index) * (largest / len(values) + last[5] / known["rows"])
        of_few = mixture_index(crowd, largest**2 / (largest**2 + alone**2))
        if share_of_new:
            of_few = max(of_few, mixture_index(large_users(of_index) * usual / len(values), share_of_new))
        freedom = min(degrees, len(pairs) - 1)
        is_beyond = index > quantile(noise, rhythm, freedom, known["noise_degrees"], of_few, of_index)
        is_beyond |= sum(now[n] for n in kept if not then[n]) > large_users(of_others) * usual
        for contrast, weights in zip(known["contrasts"], contrasts_of(known), strict=True):
            effect, rhythm_of, alone_of = (
                np.interp(np.log(length_ms), lengths, [spread[part] for spread in contrast["spreads"]])
                for part in range(3)
            )
            at_training = contrast["spreads"][-1]
            rows = len(values) / effect, known["rows"] / at_training[0]
            pq = [smoothed(p, q, len(pairs), *rows) for p, q in pairs]
            means = [p if np.isclose(p, q, rtol=1e-7) else (p - q) / np.log(p / q) for p, q in pq]
            weights = [weights[number] for number in kept]
            center = np.average(weights, weights=means)
            variance = sum(m * (w - center) ** 2 for m, w in zip(means, weights))
            part = sum(w * (p - q) for w, (p, q) in zip(weights, pq)) ** 2 / variance
            few = (large_users(of_others) * (alone_of / len(values) + at_training[2] / known["rows"])) ** 2
            by_users = 1 / rows[0] + contrast["noise"]
            is_beyond |= part > quantile(by_users, rhythm_of, 1, contrast["noise_degrees"], few, of_others)
        if is_beyond:
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


def smoothed(p: float, q: float, bins: int, size: float, of_reference: float) -> tuple[float, float]:
    """Shares of a bin now and at training, with half a row more in each bin."""
    return (p * size + 0.5) / (size + bins / 2), (q * of_reference + 0.5) / (of_reference + bins / 2)


def large_users(probability: float) -> float:
    return np.log(probability) / np.log(0.005)


def quantile(
    noise: float, rhythm: float, freedom: float, noise_degrees: float, of_few: float, probability: float
) -> float:
    """What an index may be by chance."""
    mean = noise + rhythm
    # Noncentral: the mean and the variance of a scaled chi-square variable that is off centre.
    variance = 2 * (noise**2 + 2 * noise * rhythm) / freedom
    of_many = gamma.isf(probability, mean**2 / variance, scale=variance / mean)
    measured = mean * f.isf(probability, 2 * mean**2 / variance, noise_degrees)
    return max(min(measured, (of_many**0.5 + of_few**0.5) ** 2), (mean**0.5 + of_few**0.5) ** 2)


def contrasts_of(known: dict) -> list[list[float]]:
    """The weights of the bins, missing values and new ones in each contrast."""
    bins, found = len(known["shares"]), []
    if 0 < known["missing"] < 1:
        found.append([0] * bins + [1, 0])
    if known["means"] and sum(share > 0 for share in known["shares"]) > 1:
        mean = np.average(known["means"], weights=known["shares"])
        found.append([one - mean for one in known["means"]] + [0, 0])
    return found


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
