"""The comparison of drift detectors: the drifts it makes, thresholds at equal false alarms, and its table."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.unit.udfs.measurement.test_drift import reference_of
from tools.bench import drift_detection
from tools.bench.drift_detection import (
    COLUMNS,
    HOUR_MS,
    KINDS,
    LEAST_DIGITS,
    MOST_DIGITS,
    NAMES,
    OURS,
    ComparisonError,
    Rows,
    Window,
    default_alarms,
    detection_rates,
    our_drift,
    peer_drift,
    standardized,
    surprise,
    table,
    windows_of,
)
from udfs.features.declaration_file import STANDARD
from udfs.measurement.drift import compare, count_cells


@pytest.fixture(scope="module")
def shop() -> Rows:
    rng = np.random.default_rng(1)
    features = rng.integers(0, 3, (4_000, len(NAMES))).astype(np.float32)
    return Rows(features, rng.integers(0, 500, 4_000), np.sort(rng.integers(0, 4 * HOUR_MS, 4_000)))


@pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)
def test_a_larger_drift_is_further_from_the_window_it_was(change, shop):
    def moved(size: float) -> float:
        changed = change(shop.features.copy(), size, np.random.default_rng(2), shop)
        rows = min(len(changed), len(shop.features))
        different = ~np.isclose(changed[:rows], shop.features[:rows], equal_nan=True)
        scale = np.nan_to_num(np.abs(changed[:rows] - shop.features[:rows]), nan=1.0)
        return float((different * scale).sum()) + abs(len(changed) - len(shop.features))

    small, medium, large = map(moved, KINDS[change])
    assert 0 < small < medium < large


def test_a_lost_event_kind_has_no_rows_and_is_counted_nowhere(shop):
    kind = STANDARD.vocabulary("event_kind")["add_to_cart"]
    shop.features[::7, COLUMNS["event_kind"]] = kind
    left = drift_detection.lost_event_kind(shop.features.copy(), 1.0, np.random.default_rng(2), shop)
    assert kind not in left[:, COLUMNS["event_kind"]]
    assert not left[:, [COLUMNS["cart_adds_30m"], COLUMNS["session_cart_adds"]]].any()
    assert np.isnan(left[:, COLUMNS["since_cart_add_s"]]).all()


def test_each_detector_s_threshold_is_what_as_many_unchanged_windows_exceed():
    unchanged = [Window("unchanged", np.empty((1, 0)))] * 40
    drifted = [Window("drifted", np.empty((1, 0)), "shift", 0.1)] * 4
    score = np.array([*range(40), 36, 37, 38, 100])
    assert detection_rates(score, unchanged + drifted) == {("shift", 0.1): 0.5}


def test_values_are_standardized_by_the_known_windows_and_a_value_that_is_missing_is_no_alarm():
    windows = [Window(part, np.empty((1, 0))) for part in ("known", "known", "unchanged", "unchanged")]
    drift = pd.DataFrame(
        [(0, "a", 1.0, True), (1, "a", 3.0, True), (2, "a", 2.0 + np.sqrt(8), True)],
        columns=["window", "feature", "value", "is_alarm"],
    )
    assert standardized(drift, windows)["a"].tolist() == pytest.approx(
        [-np.sqrt(0.5), np.sqrt(0.5), 2.0, np.nan], nan_ok=True
    )
    assert default_alarms(drift, windows) == 0.5


@pytest.mark.slow
def test_our_detector_finds_large_drifts_and_no_others(shop):
    hour = shop.hours()[0]
    windows = windows_of(hour, hour, np.random.default_rng(3))
    drift = our_drift(shop, windows)
    assert default_alarms(drift, windows) == 0.0
    rates = detection_rates(drift.groupby("window")["value"].max().to_numpy(), windows)
    assert [rates["new_category", 0.2], rates["missing", 0.4], rates["unit_change", 0.5]] == [1.0, 1.0, 1.0]


def test_what_is_more_improbable_surprises_more():
    known, values = reference_of("value", np.arange(10_000)), np.arange(0, 10_000, 50)
    counts = [count_cells(known.cells(np.float32(low + values))[:, None])[0] for low in (0, 1_000, 1_500, 50_000)]
    digits = [surprise(known, of_window) for of_window in counts]
    assert digits[0] == 0.0 < LEAST_DIGITS < digits[1] < digits[2] < MOST_DIGITS < digits[3]
    assert compare(known, counts[1], HOUR_MS, 10 ** -(digits[1] + 0.02)).excess < 1
    assert compare(known, counts[1], HOUR_MS, 10 ** -digits[1]).excess > 1


def test_the_table_has_a_row_for_each_kind_and_says_what_is_not_installed():
    rates = {(change.__name__, size): 0.5 for change, sizes in KINDS.items() for size in sizes}
    lines = table({OURS: rates, "nannyml": None}, {OURS: 0.0, "nannyml": None}).splitlines()
    assert lines[0] == "| drift | sizes | this project | nannyml |"
    assert lines[2] == "| shift | 0.1, 0.3, 1 | 50%, 50%, 50% | not installed |"
    assert lines[-1] == "| none: false alarms with its own thresholds | | 0% | not installed |"
    assert len(lines) == 2 + len(KINDS) + 1


@pytest.mark.slow
def test_a_library_that_is_not_in_the_environment_is_told_by_name(shop):
    windows = [Window("known", shop.features)]
    with pytest.raises(ComparisonError, match="evidently: ModuleNotFoundError: No module named 'evidently"):
        peer_drift("evidently", Path(sys.executable), shop, windows)
