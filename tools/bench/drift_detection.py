"""Compare the drift detector with Evidently and NannyML: which drifts each finds, at equally many false alarms.

    python -m tools.bench.drift_detection --evidently-python ENV/bin/python --nannyml-python ENV/bin/python

The simulated shop's users are parted in three: the reference, the windows that each library's values are standardized
by, and the windows that are judged, first as they are and then with ten kinds of drift in three sizes. The libraries
run in environments of their own, with their defaults. A Markdown table is printed.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from jobs.common.settings import load_settings
from tools.paths import PROJECT
from training.bundles.drift_reference import Sampling, reference_distributions
from training.data.dataset import arrange, read_clicks, read_profiles
from training.simulation.clickstream import Simulation, simulate
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import STANDARD
from udfs.measurement.drift import (
    FALSE_ALARM,
    JUDGED_ROWS,
    Distribution,
    Reference,
    Thresholds,
    compare,
    count_cells,
)

PEER = PROJECT / "tools" / "bench" / "drift_peer.py"
HOUR_MS = 3_600_000
OPENING_HOURS = 168  # until then histories grow
FALSE_ALARMS = 0.05  # of the unchanged windows, for each detector
EVERY = 3  # of the hours are judged with drift
OURS = "this project"
LEAST_DIGITS, MOST_DIGITS = 1.0, 20.0  # of the probabilities of our drift

UNWATCHED = load_settings(PROJECT / "conf" / "base.yaml").drift.unwatched
NAMES = tuple(name for name in STANDARD.names if name not in UNWATCHED)
COLUMNS = {name: column for column, name in enumerate(NAMES)}


class ComparisonError(RuntimeError):
    """A library that did not run; the message is one line."""


@dataclass(frozen=True)
class Rows:
    """Features float32[n, NAMES] with user int64[n] and time_ms int64[n]."""

    features: np.ndarray
    user: np.ndarray
    time_ms: np.ndarray

    def take(self, rows: np.ndarray) -> "Rows":
        return Rows(self.features[rows], self.user[rows], self.time_ms[rows])

    def hours(self) -> list["Rows"]:
        """The rows of each hour."""
        hour = (self.time_ms - self.time_ms.min()) // HOUR_MS
        return [self.take(rows) for number in range(hour.max() + 1) if len(rows := np.flatnonzero(hour == number))]


@dataclass(frozen=True)
class Window:
    """What is judged: features float32[n, NAMES], and the kind and size of their drift, if any."""

    part: str  # known, unchanged or drifted
    features: np.ndarray
    kind: str = ""
    size: float = 0.0


Change = Callable[[np.ndarray, float, np.random.Generator, Rows], np.ndarray]


def columns(*starts: str) -> list[int]:
    """The columns of the features whose names start so."""
    return [column for name, column in COLUMNS.items() if name.startswith(starts)]


def _some(features: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return np.flatnonzero(rng.random(len(features)) < share)


def shift(features, size, rng, shop):
    """Sessions last longer, by a share of the standard deviation."""
    column = COLUMNS["session_duration_s"]
    features[:, column] += size * np.nanstd(shop.features[:, column])
    return features


def scale(features, size, rng, shop):
    """Prices rise by a share."""
    features[:, columns("value_viewed", "value_carted", "value_purchased")] *= 1 + size
    features[:, COLUMNS["value"]] *= 1 + size
    return features


def zero_inflation(features, size, rng, shop):
    """In a share of the rows, engagement is 0."""
    features[_some(features, size, rng), COLUMNS["session_engagement_s"]] = 0
    return features


def new_category(features, size, rng, shop):
    """A share of the rows has a device that was not known."""
    features[_some(features, size, rng), COLUMNS["device"]] = 9
    return features


def missing(features, size, rng, shop):
    """In a share of the rows, the scroll depth is missing."""
    features[_some(features, size, rng), COLUMNS["scroll"]] = np.nan
    return features


def mixture(features, size, rng, shop):
    """A share of the rows is of users without a profile."""
    unknown = np.flatnonzero(shop.features[:, COLUMNS["profile_known"]] == 0)
    rows = _some(features, size, rng)
    features[rows] = shop.features[rng.choice(unknown, len(rows))]
    return features


def bot_storm(features, size, rng, shop):
    """The user with the most rows comes as well, with rows in proportion to all others'."""
    busiest = np.flatnonzero(shop.user == np.bincount(shop.user).argmax())
    return np.concatenate([features, shop.features[rng.choice(busiest, round(size * len(features)))]])


def lost_event_kind(features, size, rng, shop):
    """A share of the add_to_cart events is lost: their rows, and what other rows count of them."""
    kind = STANDARD.vocabulary("event_kind")["add_to_cart"]
    lost = rng.random(len(features)) < size
    counts = columns("cart_adds", "value_carted", "session_cart_adds")
    features[np.ix_(lost, counts)] = 0
    features[lost, COLUMNS["since_cart_add_s"]] = np.nan
    return features[~(lost & (features[:, COLUMNS["event_kind"]] == kind))]


def unit_change(features, size, rng, shop):
    """A share of the rows has values in cents."""
    rows = _some(features, size, rng)
    changed = [COLUMNS["value"], *columns("value_viewed", "value_carted", "value_purchased")]
    features[np.ix_(rows, changed)] *= 100
    return features


def clock(features, size, rng, shop):
    """A server's clock, which a third of the rows go by, is late by some seconds."""
    rows = _some(features, 1 / 3, rng)
    changed = [column for column in columns("since_") if NAMES[column].endswith("_s")]
    features[np.ix_(rows, changed)] += size
    return features


KINDS: dict[Change, tuple[float, float, float]] = {
    shift: (0.1, 0.3, 1.0),
    scale: (0.1, 0.3, 1.0),
    zero_inflation: (0.1, 0.25, 0.6),
    new_category: (0.01, 0.05, 0.2),
    missing: (0.02, 0.1, 0.4),
    mixture: (0.1, 0.3, 0.8),
    bot_storm: (0.1, 0.3, 1.0),
    lost_event_kind: (0.3, 0.7, 1.0),
    unit_change: (0.02, 0.1, 0.5),
    clock: (1.0, 5.0, 60.0),
}


def simulated_rows(users: int, hours: float, seed: int) -> Rows:
    """The rows of a shop in its first hours after those in which histories grow."""
    stream = simulate(Simulation(users=users, hours=OPENING_HOURS + hours, seed=seed))
    clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
    data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)))
    time_ms = data.records["time_ms"]
    rows = np.flatnonzero(time_ms >= stream.arrival_ms[0] + OPENING_HOURS * HOUR_MS)
    return Rows(data.features(FeatureComputer(NAMES), rows), data.user[rows], time_ms[rows].astype(np.int64))


def windows_of(known: Rows, judged: Rows, rng: np.random.Generator) -> list[Window]:
    """All windows: the known ones, and the judged ones without drift and with every kind and size of it."""
    windows = [Window("known", hour.features) for hour in known.hours()]
    hours = judged.hours()
    windows += [Window("unchanged", hour.features) for hour in hours]
    return windows + [
        Window("drifted", change(hour.features.copy(), size, rng, judged), change.__name__, size)
        for change, sizes in KINDS.items()
        for size in sizes
        for hour in hours[::EVERY]
    ]


def our_drift(reference: Rows, windows: Sequence[Window]) -> pd.DataFrame:
    """How improbable each window and feature is by chance."""
    sampling = Sampling(reference.user, reference.time_ms, np.ones(len(reference.user)))
    score = np.zeros(len(reference.user), np.float32)
    content = reference_distributions(STANDARD, NAMES, reference.features, sampling, score, sampling)
    known = msgspec.json.decode(content, type=Reference).features
    settings = load_settings(PROJECT / "conf" / "base.yaml").drift
    thresholds, drift = Thresholds(settings.watch, settings.alarm), []
    for number, window in enumerate(windows):
        cells = [of_feature.cells(values) for of_feature, values in zip(known.values(), window.features.T)]
        for (name, of_feature), counts in zip(known.items(), count_cells(np.stack(cells, 1))):
            as_set = compare(of_feature, counts, HOUR_MS, FALSE_ALARM / len(NAMES))
            is_judged = as_set.independent_rows >= JUDGED_ROWS
            value = surprise(of_feature, counts) if is_judged else 0.0
            drift.append((number, name, value, is_judged and as_set.level(thresholds) != "stable"))
    return pd.DataFrame(drift, columns=["window", "feature", "value", "is_alarm"])


def surprise(known: Distribution, counts: np.ndarray) -> float:
    """The decimal digits of the smallest probability at which counts of an hour are beyond chance: 3 for 1 in 1,000.

    It is 0 for less than LEAST_DIGITS, and what exceeds MOST_DIGITS is the excess at that probability.
    """

    def excess(digits: float) -> float:
        return compare(known, counts, HOUR_MS, 10**-digits).excess

    if excess(LEAST_DIGITS) <= 1:
        return 0.0
    if (beyond := excess(MOST_DIGITS)) > 1:
        return MOST_DIGITS + beyond - 1
    low, high = LEAST_DIGITS, MOST_DIGITS
    while high - low > 0.01:
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 1 else (low, middle)
    return low


def peer_drift(library: str, python: Path, reference: Rows, windows: Sequence[Window]) -> tuple[str, pd.DataFrame]:
    """Name with version of a library, and its drift of each window and feature. Raises ComparisonError."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_windows(directory / "reference.parquet", [hour.features for hour in reference.hours()])
        write_windows(directory / "windows.parquet", [window.features for window in windows])
        codes = [feature for feature in NAMES if STANDARD.is_code(feature)]
        (directory / "codes.json").write_bytes(msgspec.json.encode(codes))
        ran = subprocess.run([python, PEER, library, directory], capture_output=True, text=True, check=False)
        if ran.returncode:
            raise ComparisonError(f"{library}: {(ran.stderr.strip() or 'no output').splitlines()[-1]}")
        return ran.stdout.splitlines()[-1], pd.read_parquet(directory / "drift.parquet")


def write_windows(path: Path, windows: Sequence[np.ndarray]) -> None:
    """Write windows float32[n, NAMES] as one table, each with its number in column `window`."""
    frame = pd.DataFrame(np.concatenate(windows), columns=list(NAMES))
    frame.assign(window=np.repeat(np.arange(len(windows)), [len(window) for window in windows])).to_parquet(path)


def standardized(drift: pd.DataFrame, windows: Sequence[Window]) -> pd.DataFrame:
    """The values of each feature, less their mean in the known windows, over their standard deviation there.

    Without it the feature that varies most would set the threshold of all.
    """
    table = drift.pivot(index="window", columns="feature", values="value").reindex(range(len(windows)))
    known = table[[window.part == "known" for window in windows]]
    return (table - known.mean()) / known.std().replace(0, np.nan).fillna(1e-9)


def detection_rates(score: np.ndarray, windows: Sequence[Window]) -> dict[tuple[str, float], float]:
    """The share of windows found, by kind and size, from scores float[windows].

    The threshold is what FALSE_ALARMS of the unchanged windows exceed.
    """
    unchanged = np.sort(score[[window.part == "unchanged" for window in windows]])
    threshold = unchanged[-1 - int(FALSE_ALARMS * len(unchanged))]
    found: dict[tuple[str, float], list[bool]] = {}
    for window, value in zip(windows, score):
        if window.part == "drifted":
            found.setdefault((window.kind, window.size), []).append(bool(value > threshold))
    return {case: float(np.mean(of_case)) for case, of_case in found.items()}


def default_alarms(drift: pd.DataFrame, windows: Sequence[Window]) -> float:
    """The share of the unchanged windows in which a feature is an alarm by the library's own thresholds."""
    in_window = drift.groupby("window")["is_alarm"].any()
    return float(
        np.mean([in_window.get(number, False) for number, window in enumerate(windows) if window.part == "unchanged"])
    )


def table(rates: dict[str, dict[tuple[str, float], float] | None], alarms: dict[str, float | None]) -> str:
    """Markdown: a row for each kind of drift, the three sizes in a cell for each detector."""
    lines = ["| drift | sizes | " + " | ".join(rates) + " |", "|---" * (len(rates) + 2) + "|"]
    for change, sizes in KINDS.items():
        kind, of_sizes = change.__name__, ", ".join(f"{size:g}" for size in sizes)
        cells = [_cell(of_one and [of_one[kind, size] for size in sizes]) for of_one in rates.values()]
        lines.append(f"| {kind.replace('_', ' ')} | {of_sizes} | {' | '.join(cells)} |")
    cells = [_cell(None if share is None else [share]) for share in alarms.values()]
    return "\n".join([*lines, f"| none: false alarms with its own thresholds | | {' | '.join(cells)} |"])


def _cell(shares: Sequence[float] | None) -> str:
    return "not installed" if shares is None else ", ".join(f"{share:.0%}" for share in shares)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="tools.bench.drift_detection", description="Compare drift detectors.")
    parser.add_argument("--evidently-python", type=Path, help="the Python of an environment with Evidently")
    parser.add_argument("--nannyml-python", type=Path, help="the Python of an environment with NannyML")
    parser.add_argument("--users", type=int, default=6_000)
    parser.add_argument("--hours", type=float, default=48.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    rows = simulated_rows(options.users, options.hours, options.seed)
    reference, known, judged = (rows.take(np.flatnonzero(rows.user % 3 == part)) for part in range(3))
    windows = windows_of(known, judged, np.random.default_rng(options.seed))
    drift = our_drift(reference, windows)
    score = drift.groupby("window")["value"].max().to_numpy()
    rates, alarms = {OURS: detection_rates(score, windows)}, {OURS: default_alarms(drift, windows)}
    for library, python in (("evidently", options.evidently_python), ("nannyml", options.nannyml_python)):
        if python is None:
            rates[library], alarms[library] = None, None
            continue
        try:
            name, drift = peer_drift(library, python, reference, windows)
        except ComparisonError as error:
            sys.exit(f"drift_detection: {error}")
        score = standardized(drift, windows).max(axis=1).to_numpy()
        rates[name], alarms[name] = detection_rates(score, windows), default_alarms(drift, windows)
    print(table(rates, alarms))


if __name__ == "__main__":
    main()
