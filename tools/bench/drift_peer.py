"""Another library's drift of each feature in each window, with its defaults: run by tools.bench.drift_detection.

    PYTHON tools/bench/drift_peer.py evidently|nannyml DIRECTORY

It runs in the library's own environment, so it imports nothing of this project. DIRECTORY has reference.parquet and
windows.parquet (a column `window` and one for each feature) and codes.json (the names of the features that are codes).
It writes drift.parquet: window, feature, value and is_alarm; and prints the library's name and version.
"""

import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd

EVIDENTLY_ROWS = 20_000  # of the reference, by chance: a test sorts all of them, for each window

Drift = list[tuple[int, str, float, bool]]


def evidently_drift(reference: pd.DataFrame, windows: pd.DataFrame, codes: list[str]) -> Drift:
    """The test that Evidently chooses for each column, on known values, as its reports have it."""
    from evidently.legacy.calculations.stattests import get_stattest

    reference = reference.sample(min(len(reference), EVIDENTLY_ROWS), random_state=1)
    drift = []
    for name in reference.columns.drop("window"):
        kind = "cat" if name in codes else "num"
        known = reference[name].dropna()
        for window, values in windows.groupby("window")[name]:
            now = values.dropna()
            if now.empty or known.empty:
                continue
            test = get_stattest(known, now, kind, None)
            result = test(known, now, kind, None)
            # A p-value is small where a distance is large.
            value = result.drift_score if "distance" in test.display_name else 1 - result.drift_score
            drift.append((window, name, value, bool(result.drifted)))
    return drift


def nannyml_drift(reference: pd.DataFrame, windows: pd.DataFrame, codes: list[str]) -> Drift:
    """NannyML's univariate drift: the Jensen-Shannon distance, its thresholds from the windows of the reference."""
    from nannyml import UnivariateDriftCalculator

    names = list(reference.columns.drop("window"))
    calculator = UnivariateDriftCalculator(
        column_names=names, treat_as_categorical=codes, timestamp_column_name="day", chunk_period="D"
    )
    calculator.fit(_by_day(reference, codes))
    table = calculator.calculate(_by_day(windows, codes)).filter(period="analysis").to_df()
    numbers = sorted(windows["window"].unique())
    return [
        (window, name, value, bool(alert))
        for name in names
        for window, value, alert in zip(
            numbers, table[name, "jensen_shannon", "value"], table[name, "jensen_shannon", "alert"], strict=True
        )
    ]


def _by_day(frame: pd.DataFrame, codes: list[str]) -> pd.DataFrame:
    """A window is a day, so that it is a chunk; codes are texts."""
    frame = frame.sort_values("window", kind="stable")
    days = pd.Timestamp("2020-01-01") + pd.to_timedelta(frame["window"], unit="D")
    return frame.drop(columns="window").assign(day=days, **{name: frame[name].astype(str) for name in codes})


LIBRARIES = {"evidently": evidently_drift, "nannyml": nannyml_drift}


def main() -> None:
    warnings.filterwarnings("ignore")
    library, directory = sys.argv[1], Path(sys.argv[2])
    reference, windows = (pd.read_parquet(directory / f"{name}.parquet") for name in ("reference", "windows"))
    drift = LIBRARIES[library](reference, windows, json.loads((directory / "codes.json").read_text()))
    pd.DataFrame(drift, columns=["window", "feature", "value", "is_alarm"]).to_parquet(directory / "drift.parquet")
    print(f"{library} {version(library)}")


if __name__ == "__main__":
    main()
