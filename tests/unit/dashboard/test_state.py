"""The dashboard's memory of the topics: bounded, and what it says follows from what it was given."""

import json
from base64 import b64encode

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.panels import quality
from dashboard.panels.dead_letters import DeadLetters
from dashboard.panels.drift import WINDOWS, DriftPanel
from dashboard.panels.experiments import KEPT, MAX_EXPERIMENTS, MAX_KPIS, TONES, ExperimentPanel
from dashboard.panels.kpis import MAX_PLACEMENTS, SHOWN_MINUTES, KpiLines, ratio_interval, ratio_lines
from dashboard.panels.quality import LiveCalibration, LiveQuality
from dashboard.panels.scores import MAX_MODELS, Latencies, ScoreMix
from dashboard.panels.series import Series
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from dashboard.panels.traffic import TopicFlow
from tests.support.sample_records import feature_drift, sample, sample_fields
from udfs.contracts.outputs import DriftWindow, ExperimentAction, ExperimentResult, Score

MINUTE = 60_000
NOW = 1_800_000_000_000


def test_a_series_keeps_the_newest_buckets_and_leaves_out_what_is_older():
    series = Series(3, 1_000)
    for time_ms in (1_000, 2_000, 3_000, 3_500, 4_000):
        series.add(time_ms, 1)
    series.add(1_200, 9)
    starts, values = series.read()
    assert starts.tolist() == [2_000, 3_000, 4_000]
    assert values[:, 0].tolist() == [1, 2, 1]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), max_size=60))
def test_a_series_equals_sums_over_the_newest_buckets(added):
    series, newest = Series(5, 10), -1
    sums: dict[int, int] = {}
    for time_ms, value in sorted(added):
        series.add(time_ms, value)
        sums[time_ms // 10 * 10] = sums.get(time_ms // 10 * 10, 0) + value
        newest = max(newest, time_ms // 10 * 10)
    starts, values = series.read()
    assert dict(zip(starts.tolist(), values[:, 0])) == {at: s for at, s in sums.items() if at > newest - 50}


def test_a_rate_follows_from_end_offsets_alone():
    flow = TopicFlow("clicks", 30_000)
    for second in range(12):
        flow.observe(NOW + second * 1_000, {0: second * 70, 1: second * 30})
    assert flow.rate() == pytest.approx(100)
    assert flow.state(NOW + 12_000) == "flowing"


def test_a_topic_says_that_it_is_missing_empty_or_silent_and_since_when():
    flow = TopicFlow("clicks", 30_000)
    assert flow.state(NOW) == "unknown"
    flow.missing()
    assert flow.state(NOW) == "missing"
    flow.observe(NOW, {0: 0})
    assert flow.state(NOW) == "empty"
    flow.observe(NOW + 1_000, {0: 5})
    flow.observe(NOW + 60_000, {0: 5})
    assert flow.state(NOW + 60_000) == "silent"
    assert flow.newest_ms == NOW + 1_000


def test_silence_of_a_topic_that_may_be_silent_is_no_warning():
    flow = TopicFlow("dead_letters", None)
    flow.observe(NOW, {0: 5})
    assert flow.state(NOW + 10**9) == "quiet"


def test_a_broker_that_was_away_makes_no_burst():
    flow = TopicFlow("clicks", 30_000)
    flow.observe(NOW, {0: 0})
    flow.observe(NOW + 1_000, {0: 100})
    flow.observe(NOW + 21_000, {0: 2_100})
    assert max(flow.by_second.read()[1][:, 0]) == 100


def test_a_broker_that_was_away_for_long_makes_no_burst_in_any_chart():
    flow = TopicFlow("clicks", 30_000)
    flow.observe(NOW, {0: 0})
    flow.observe(NOW + 30 * MINUTE, {0: 180_000})
    assert flow.by_second.read()[1].max() == pytest.approx(100)
    assert flow.by_minute.read()[1].max() == pytest.approx(6_000)


def test_percentiles_are_those_of_the_last_seconds():
    latencies = Latencies(100)
    latencies.add(NOW, [5_000.0] * 10)
    latencies.add(NOW + 20_000, list(map(float, range(1, 101))) + [200.0])
    told = latencies.summary(NOW + 20_000)
    assert told["p50"] == 51
    assert told["sample"] == 101
    assert told["over_budget"] == pytest.approx(1 / 101)
    assert latencies.summary(NOW + 60_000) is None


def score(arm="champion", version="a", value=0.3) -> Score:
    return sample("scores", score=value, decision=value > 0.2, arm=arm, model_version=version)


def test_shares_of_arms_add_up_and_their_number_is_bounded():
    mix = ScoreMix()
    mix.add(NOW, [score(), score(), score("challenger", "b")])
    mix.add(NOW + MINUTE, [score(version=f"v{number}") for number in range(100)])
    minutes, shares = mix.shares()
    assert len(minutes) == 2
    assert shares["champion", "a"][0] == pytest.approx(2 / 3)
    assert sum(shares.values()).tolist() == pytest.approx([1, 1])
    assert len(shares) <= MAX_MODELS + 1


def test_a_model_that_is_no_longer_shown_makes_room_for_the_next_one():
    mix = ScoreMix(minutes=60)
    for number in range(MAX_MODELS):
        mix.add(NOW, [score(version=f"v{number}")])
    mix.add(NOW + 61 * MINUTE, [score(version="next")])
    assert mix.shares()[1]["champion", "next"].tolist() == [0, 1]


def test_a_ratios_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        denominator = random.poisson(200, 15)
        low, high = ratio_interval(random.binomial(denominator, 0.05), denominator)[1:]
        held += low <= 0.05 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_each_point_of_a_line_is_the_ratio_of_the_minutes_up_to_it():
    random = np.random.default_rng(1)
    starts = np.delete(np.arange(40), [7, 8]) * MINUTE
    numerator, denominator = random.integers(1, 9, 38).astype(float), random.integers(50, 90, 38).astype(float)
    lines = np.array(ratio_lines(starts, numerator, denominator, 15))
    for at, start in enumerate(starts):
        rows = (starts > start - 15 * MINUTE) & (starts <= start)
        assert lines[:, at] == pytest.approx(ratio_interval(numerator[rows], denominator[rows]), nan_ok=True)


def test_a_kpi_of_an_arm_that_comes_again_replaces_the_earlier_one():
    kpis = KpiLines()
    for numerator in (5, 9):
        kpis.add(sample("kpis", numerator=numerator, denominator=100))
    kpis.add(sample("kpis", window="hour", numerator=999, denominator=1))
    (line,) = kpis.lines(60)
    assert line["value"] == [0.09]
    assert line["low"] == [None]


def test_a_kpi_by_placement_only_is_summed_for_its_arm():
    kpis = KpiLines()
    for placement, clicks in (("hero", 2), ("side", 4)):
        kpis.add(sample("kpis", kpi="click_through_rate", numerator=clicks, denominator=100, placement=placement))
    assert kpis.lines(60)[0]["value"] == [0.03]
    assert {row["placement"] for row in kpis.placements(60)} == {"hero", "side"}


def test_bots_have_no_line_beside_the_arms_and_their_sessions_are_told():
    kpis = KpiLines()
    for arm, minute, sessions in (("champion", 0, 500), ("champion", 2, 60), ("bot", 2, 30), (None, 3, 10)):
        kpis.add(sample("kpis", arm=arm, window_start=NOW + minute * MINUTE, numerator=3, denominator=sessions))
    assert {line["arm"] for line in kpis.lines(3)} == {"champion", "not scored"}
    assert kpis.denominators("conversion_rate", 3) == {"champion": 60, "bot": 30, "not scored": 10}
    assert kpis.denominators("bounce_rate", 3) == {}


def test_a_placement_that_is_no_longer_shown_makes_room_for_another():
    kpis = KpiLines()
    for number in range(MAX_PLACEMENTS + 5):
        at = NOW + number * (SHOWN_MINUTES + 1) * MINUTE
        kpis.add(sample("kpis", kpi="click_through_rate", placement=f"p{number}", window_start=at))
    kpis.add(sample("kpis", kpi="click_through_rate", placement="late", window_start=NOW))
    assert {row["placement"] for row in kpis.placements(60)} == {f"p{n}" for n in range(5, MAX_PLACEMENTS + 5)}


def test_of_more_placements_than_there_is_room_for_the_first_ones_keep_their_minutes():
    kpis, numbers = KpiLines(), range(MAX_PLACEMENTS + 1)
    for minute in range(5):
        for number in numbers:
            at = NOW + minute * MINUTE
            kpis.add(sample("kpis", kpi="click_through_rate", placement=f"p{number}", window_start=at, denominator=1.0))
    rows = kpis.placements(60)
    assert {row["placement"]: row["denominator"] for row in rows} == {f"p{n}": 5 for n in numbers[:-1]}


def test_live_auc_weighs_minutes_by_their_pairs():
    quality = LiveQuality()
    for minute, (scores, rate, auc) in enumerate([(100, 0.1, 0.9), (300, 0.2, 0.7), (50, 0.0, None)]):
        event_minute = NOW + minute * MINUTE
        quality.add(sample("model_quality", event_minute=event_minute, scores=scores, positive_rate=rate, roc_auc=auc))
    (line,) = quality.lines(60)
    pairs = [10 * 90, 60 * 240]
    assert line["auc"][-1] == pytest.approx((0.9 * pairs[0] + 0.7 * pairs[1]) / sum(pairs), abs=1e-5)


def test_the_models_with_the_newest_figures_are_kept():
    live, calibration = LiveQuality(), LiveCalibration()
    versions = [f"v{number}" for number in range(quality.MAX_MODELS + 1)]
    for number, version in enumerate([*versions, "late"]):
        at = NOW + (-1 if version == "late" else number) * MINUTE
        live.add(sample("model_quality", event_minute=at, model_version=version))
        calibration.add([sample("outcomes", model_version=version, evaluated=True, matured_at=at)])
    assert [line["version"] for line in live.lines(60)] == versions[1:]
    assert [row["version"] for row in calibration.table()] == versions[1:]


def test_calibration_leaves_out_what_is_not_evaluated():
    calibration = LiveCalibration()
    calibration.add([sample("outcomes", score=0.3, label=at < 3, evaluated=at != 9) for at in range(10)])
    (row,) = calibration.table()
    assert row["scores"] == 9
    assert row["came_true"] == pytest.approx(3 / 9)
    assert row["low"] < 3 / 9 < row["high"]


def result(at: int, action: str, decision: str) -> ExperimentResult:
    return sample("experiments", at=at, action=action, decision=decision)


def looked_at(records: list[ExperimentResult]) -> list[dict]:
    experiments = ExperimentPanel()
    for record in records:
        experiments.add(record)
    return experiments.summary()


def test_an_experiments_newest_look_counts_and_is_told_as_the_record_has_it():
    keep = result(1, "keep_running", "Keep running: no significant difference yet.")
    ship = result(2, "ship", "Ship challenger v2: conversion rate improved.")
    (told,) = looked_at([keep, ship, result(1, "stop", "Stop challenger v2.")])
    assert told["decision"] == "Ship challenger v2: conversion rate improved."
    assert told["verdict"] == "good"
    assert told["names"] == ["challenger v2", "champion v1"]
    assert told["moved_users"] == 2
    assert not told["is_of_earlier_release"]
    (effect,) = told["kpis"]
    assert [effect[f"relative_{end}"] for end in ("difference", "low", "high")] == [0.1, -0.02, 0.23]
    assert effect["looks"] == {"times": [1, 2], "difference": [0.1] * 2, "low": [-0.02] * 2, "high": [0.23] * 2}


def test_each_two_versions_are_an_experiment_and_the_newest_comes_first():
    versions = [("v2", "v1"), ("v3", "v1"), ("v3", "v2")]
    records = [
        sample("experiments", at=at, treatment_version=treatment, baseline_version=baseline)
        for at, (treatment, baseline) in enumerate(versions)
    ]
    control = sample("experiments", at=9, treatment="champion", baseline="control", baseline_version=None)
    assert [told["names"] for told in looked_at([*records, control])] == [
        ["champion v2", "control"],
        ["challenger v3", "champion v2"],
        ["challenger v3", "champion v1"],
        ["challenger v2", "champion v1"],
    ]


NO_EFFECT = {"relative_difference": None, "relative_low": None, "relative_high": None}


def test_a_look_without_data_keeps_its_reason_and_is_not_in_the_chart():
    reason = "too few users: the treatment is worth 12 equal users, at least 30 needed"
    nothing = {"treatment_value": None, "baseline_value": None, "difference": None, "low": None, "high": None}
    empty = sample("experiments", at=2, no_data=reason, **nothing, **NO_EFFECT)
    (told,) = looked_at([sample("experiments", at=1), empty, sample("experiments", at=3)])
    assert told["kpis"][0]["looks"]["times"] == [1, 3]
    (told,) = looked_at([sample("experiments", at=1), empty])
    (effect,) = told["kpis"]
    assert (effect["no_data"], effect["difference"], effect["relative_low"]) == (reason, None, None)
    assert effect["looks"]["times"] == [1]
    (told,) = looked_at([empty])
    assert told["kpis"][0]["looks"] == {"times": [], "difference": [], "low": [], "high": []}


def test_a_relative_interval_is_not_made_up_while_the_record_has_none():
    (told,) = looked_at([sample("experiments", **NO_EFFECT)])
    (effect,) = told["kpis"]
    assert effect["relative_difference"] is effect["relative_low"] is effect["relative_high"] is None
    assert effect["difference"] == 0.005
    assert effect["looks"]["times"] == []


@pytest.mark.parametrize("baseline", [0.05, -0.05])
def test_a_record_of_an_earlier_release_is_told_relative_to_its_baseline(baseline):
    fields = sample_fields("experiments", at=1, baseline_value=baseline)
    for name in (*NO_EFFECT, "treatment_version", "baseline_version", "moved_users", "no_data", "cap", "action"):
        del fields[name]
    state = DashboardState({role: role for role in SILENT_AFTER_MS}, 1_000)
    state.take("experiments", NOW, [json.dumps(fields).encode()])
    (told,) = state.experiments.summary()
    assert told["names"] == ["challenger", "champion"]
    assert told["is_of_earlier_release"]
    (effect,) = told["kpis"]
    ends = [effect[f"relative_{end}"] for end in ("difference", "low", "high")]
    assert ends == pytest.approx([0.1, -0.02, 0.22])
    assert [effect["looks"][end] for end in ("difference", "low", "high")] == [[end] for end in ends]


@given(st.permutations([(version, at) for version in range(MAX_EXPERIMENTS + 3) for at in (version, 100 - version)]))
def test_the_experiments_that_were_looked_at_last_are_kept_in_whatever_order_they_come(looks):
    told = looked_at([sample("experiments", at=at, treatment_version=f"v{version}") for version, at in looks])
    assert [one["treatment_version"] for one in told] == [f"v{version}" for version in range(MAX_EXPERIMENTS)]


def test_a_kpi_that_is_measured_no_more_makes_room_for_another():
    records = [sample("experiments", at=at, kpi=f"k{at}") for at in range(MAX_KPIS + 1)]
    (told,) = looked_at([*records, sample("experiments", at=0, kpi="late")])
    assert [effect["kpi"] for effect in told["kpis"]] == [f"k{at}" for at in range(1, MAX_KPIS + 1)]


def test_the_looks_at_a_kpi_are_bounded():
    (told,) = looked_at([sample("experiments", at=at) for at in range(KEPT + 5)])
    assert told["kpis"][0]["looks"]["times"] == list(range(5, KEPT + 5))


@pytest.mark.parametrize(
    ("action", "tone"),
    [
        *((action.value, tone) for action, tone in TONES.items()),
        (msgspec.UNSET, "wait"),
        ("of a later release", "wait"),
    ],
)
def test_an_experiment_looks_like_its_action_whatever_the_decision_says(action, tone):
    experiments = ExperimentPanel()
    experiments.add(result(1, action, "Stop challenger."))
    (told,) = experiments.summary()
    assert told["verdict"] == tone
    assert TONES.keys() == set(ExperimentAction)
    msgspec.json.encode(told)


def window(end: int, level: str, version: str = "v", psi: float = 0.01) -> DriftWindow:
    return sample(
        "drift",
        window_start=end - 1,
        window_end=end,
        model_version=version,
        level=level,
        moved=["b"] if level == "alarm" else [],
        features=[feature_drift("a"), feature_drift("b", level, psi, (0.9, 0.1))],
    )


def test_drift_shows_the_model_that_is_worst_off_and_its_worst_features_first():
    drift = DriftPanel()
    for end in range(1, WINDOWS + 10):
        drift.add(window(end, "stable"))
    drift.add(window(500, "stable", "other"))
    drift.add(window(400, "alarm", psi=0.4))
    told = drift.summary()
    assert (told["version"], told["level"]) == ("v", "alarm")
    assert [feature["name"] for feature in told["features"]] == ["b", "a"]
    assert len(told["times"]) == WINDOWS
    assert drift.shares("v", "b") == [0.9, 0.1]
    assert drift.shares("v", "unheard of") is None


def test_dead_letters_are_counted_by_reason_with_bounded_samples():
    state = DashboardState({role: role for role in SILENT_AFTER_MS}, 1_000)
    letters = [
        json.dumps(
            sample_fields(
                "dead_letters",
                offset=offset,
                reason="invalid_json" if offset % 2 else f"unheard of {offset}",
                message="x" * 10_000,
                original=b64encode(b"<script>" * 1_000).decode(),
            )
        ).encode()
        for offset in range(100)
    ]
    state.take("dead_letters", NOW, letters, [NOW] * 100)
    told = state.rejected.summary(NOW)
    assert told["reasons"] == [{"reason": "other", "count": 50}, {"reason": "invalid_json", "count": 50}]
    assert len(told["samples"]) == 16
    assert len(told["samples"][0]["message"]) == len(told["samples"][0]["original"]) == 400
    assert told["samples"][0]["bytes"] == 8_000
    assert {sample["counted_as"] for sample in told["samples"]} == {"other", "invalid_json"}


def test_dead_letters_by_minute_are_those_of_the_last_hours():
    letters = DeadLetters()
    for at in (NOW - 200 * MINUTE, NOW - MINUTE):
        letters.add(at, sample("dead_letters", reason="invalid_json"))
    told = letters.summary(NOW)
    assert told["reasons"] == [{"reason": "invalid_json", "count": 2}]
    assert len(told["by_minute"]["invalid_json"]["times"]) == 1


def test_what_can_not_be_decoded_is_counted_and_does_not_end_the_reading():
    state = DashboardState({role: role for role in SILENT_AFTER_MS}, 1_000)
    good = b'{"window":"minute","window_start":1,"kpi":"k","numerator":1,"denominator":2,"arm":null}'
    state.take("kpis", NOW, [b"{", None, b'{"window": 7}', good])
    assert state.decoders["kpis"].undecodable == 3
    assert state.kpis.lines(5)[0]["value"] == [0.5]


@pytest.mark.parametrize(("role", "field"), [("kpis", "window_start"), ("model_quality", "event_minute")])
def test_a_time_beyond_64_bits_is_counted_as_unreadable(role, field):
    state = DashboardState({name: name for name in SILENT_AFTER_MS}, 1_000)
    records = [msgspec.json.encode(sample_fields(role) | {field: at}) for at in (NOW, 10**30)]
    assert [getattr(record, field) for record in state.take(role, NOW, records)] == [NOW]
    assert state.decoders[role].undecodable == 1
    assert state.decoders[role].last_error
