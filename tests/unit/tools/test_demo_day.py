"""The day's plan and its figures, from records as the jobs write them."""

import json

import msgspec
import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from tests.support.sample_records import feature_drift, sample_fields
from tools.demo.day.figures import report
from tools.demo.day.models import STEADY_FEATURES, DemoModels
from tools.demo.day.outcome import DayOutcome
from tools.demo.day.scenario import JOBS, MINUTE_MS, moments, parts
from tools.demo.day.tables import report_tables
from tools.demo.steps import demo_records
from training.simulation.clickstream import Simulation, simulate
from udfs.features.declaration_file import STANDARD

HOUR_MS = 3_600_000
ROLES = ("scores", "dead_letters", "outcomes", "shadow_scores", "kpis", "drift", "experiments")


@pytest.fixture(scope="module")
def day():
    return simulate(Simulation(users=500, hours=8, seed=4, shift_at=4, late_share=0.05))


def outcome_records(day, version_of) -> list[dict]:
    """An outcome of each event, whose score is its propensity, spoilt for some models."""
    labels, rows = day.labels()
    spoilt = np.random.default_rng(1).random(len(day))
    return [
        sample_fields(
            "outcomes",
            event_id=f"e4-{number}",
            event_time=int(day.events["time_ms"][number]),
            score=float(day.propensity[number] if version_of(number) == "good" else spoilt[number]),
            model_version=version_of(number),
            label=bool(labels[number]),
            evaluated=bool(rows[number]),
        )
        for number in range(len(day))
    ]


def received(records: dict[str, list[dict]]) -> DayOutcome:
    outcome = DayOutcome({role: role for role in ROLES})
    for role, values in records.items():
        for value in values:
            outcome.received(role, json.dumps(value).encode(), 0.0)
    return outcome


def figures_of(day, **records) -> dict:
    """As they are in the file: figures of numpy can't be written there."""
    start_ms = int(day.events["time_ms"].min())
    return json.loads(msgspec.json.encode(report(day, received(records), start_ms + HOUR_MS, start_ms + 4 * HOUR_MS)))


def test_records_are_cut_where_each_moment_comes_and_none_is_lost(day):
    records = list(demo_records(day))
    start_ms = int(day.events["time_ms"].min())
    cuts = [start_ms + HOUR_MS, start_ms + HOUR_MS, start_ms + 5 * HOUR_MS]
    cut = list(parts(records, cuts))
    assert [record for part in cut for record in part] == records
    assert len(cut[1]) == 0
    for part, time_ms in zip(cut, cuts):
        assert all(record[2] is None or record[2] < time_ms for record in part)
    for part, time_ms in zip(cut[1:], cuts):
        assert not part or part[0][2] >= time_ms


def test_a_time_that_never_comes_leaves_the_rest_of_the_day_in_one_part(day):
    records = list(demo_records(day))
    assert [len(part) for part in parts(records, [day.events["time_ms"].max() + 1])] == [len(records), 0]


def test_what_is_done_in_the_day_is_in_order_and_within_it(day, tmp_path):
    times = [moment.time_ms for moment in moments(DemoModels(tmp_path, day), 0)]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 16 * HOUR_MS


def test_jobs_are_submitted_after_those_that_they_read_from():
    assert JOBS.index("jobs.score_clicks") < JOBS.index("jobs.measure_outcomes") < JOBS.index("jobs.watch_drift")
    assert JOBS.index("jobs.measure_sessions") < JOBS.index("jobs.watch_experiments")


def test_the_models_of_the_day_leave_out_what_moves_in_any_day():
    assert set(STEADY_FEATURES) < set(STANDARD.names)
    assert not {"local_hour", "lifetime_events", "events_24h", "country"} & set(STEADY_FEATURES)
    assert {"device", "session_mean_gap_s", "cart_adds_30m"} <= set(STEADY_FEATURES)


def test_a_model_is_measured_on_the_outcomes_of_its_own_scores_before_and_after_the_shift(day):
    outcomes = outcome_records(day, lambda number: "good" if number % 2 else "poor")
    figures = {(row["model"], row["when"]): row for row in figures_of(day, outcomes=outcomes)["models"]}
    assert len(figures) == 4
    labels, rows = day.labels()
    mine = rows & (np.arange(len(day)) % 2 == 1) & (day.events["time_ms"] < day.events["time_ms"].min() + 4 * HOUR_MS)
    found = figures["good", "before the shift"]
    assert found["scores"] == mine.sum()
    assert found["auc"] == found["best_possible_auc"] == round(roc_auc_score(labels[mine], day.propensity[mine]), 4)
    assert figures["poor", "before the shift"]["auc"] < found["auc"] - 0.1


def test_a_shadow_is_measured_where_its_scores_have_outcomes(day):
    outcomes = outcome_records(day, lambda number: "poor")
    shadows = [
        sample_fields(
            "shadow_scores",
            event_id=f"e4-{number}",
            shadow_versions=["new"],
            shadow_scores=[float(day.propensity[number])],
        )
        for number in range(0, len(day), 3)
    ]
    rows = figures_of(day, outcomes=outcomes, shadow_scores=shadows)["models"]
    shadow = [row for row in rows if row["role"] == "shadow"]
    assert {row["model"] for row in shadow} == {"new"}
    assert sum(row["scores"] for row in shadow) == day.labels()[1][::3].sum()
    assert all(row["auc"] == row["best_possible_auc"] for row in shadow)


def sums(day, **changes) -> dict:
    start_ms = int(day.events["time_ms"].min()) + 2 * HOUR_MS
    hour = sample_fields("kpis", window="hour", window_start=start_ms, arm="control", numerator=1.0, denominator=4.0)
    return hour | {"value": 0.25} | changes


def test_kpis_are_added_up_over_the_hours_of_the_experiment_alone(day):
    records = [
        sums(day),
        sums(day, numerator=2.0, denominator=2.0),
        sums(day, arm="challenger", numerator=0.0, denominator=0.0),
        sums(day, window="minute", numerator=9.0),
        sums(day, window_start=0, numerator=9.0),
        sums(day, arm=None, numerator=9.0),
        sums(day, placement="hero", numerator=3.0),
    ]
    assert figures_of(day, kpis=records)["kpis"] == {
        "conversion_rate": {"control": 0.5, "challenger": None},
        "conversion_rate, hero": {"control": 0.75},
    }


def drift(day, minutes: int, level: str, psi: float) -> dict:
    end_ms = int(day.events["time_ms"].min()) + 4 * HOUR_MS + minutes * MINUTE_MS
    return sample_fields(
        "drift",
        window_start=end_ms - HOUR_MS,
        window_end=end_ms,
        model_version="good",
        level=level,
        features=[msgspec.to_builtins(feature_drift(name, psi=of)) for name, of in (("device", psi), ("value", 0.01))],
    )


def test_drift_is_told_before_and_after_the_shift_with_what_moved_most(day):
    records = [
        drift(day, 90, "alarm", 0.5),
        drift(day, 0, "stable", 0.1),
        drift(day, 20, "alarm", 0.3),  # partly before it: it may alarm, and is in no mean
        drift(day, 60, "watch", 0.2),
    ]
    assert figures_of(day, drift=records)["drift"]["good"] == {
        "levels_before": {"stable": 1},
        "levels_after": {"watch": 1, "alarm": 1},
        "alarm_after_minutes": 20,
        "moved": [
            {"feature": "device", "before": 0.1, "after": 0.35},
            {"feature": "value", "before": 0.01, "after": 0.01},
        ],
    }


def effect(kpi: str, at: int, decision: str) -> dict:
    return sample_fields(
        "experiments", at=at, kpi=kpi, decision=decision, treatment_users=10, baseline_users=12, p_value=None
    )


def test_the_experiment_is_as_it_was_told_last(day):
    records = [effect("bounce_rate", 2, "Ship"), effect("bounce_rate", 1, "Keep running"), effect("revenue", 2, "Ship")]
    found = figures_of(day, experiments=records)["experiment"]
    assert found["decision"] == "Ship"
    assert found["users"] == {"challenger": 10, "champion": 12}
    assert {row["kpi"]: row["at"] for row in found["kpis"]} == {"bounce_rate": 2, "revenue": 2}


def test_the_tables_show_all_of_it_and_say_what_did_not_come(day):
    outcomes = outcome_records(day, lambda number: "good")

    def printed(**records) -> str:
        console = Console(width=200)
        with console.capture() as captured:
            console.print(report_tables(figures_of(day, outcomes=outcomes, **records)))
        return captured.get()

    silent = printed()
    assert "good (serving)" in silent
    assert "Experiment: no results" in silent
    assert "Drift: no results" in silent
    full = printed(
        kpis=[sums(day)], drift=[drift(day, 20, "alarm", 0.3)], experiments=[effect("revenue", 1, "Ship challenger.")]
    )
    assert "Ship challenger." in full
    assert "not significant" in full
    empty = dict.fromkeys(("treatment_value", "baseline_value", "difference", "low", "high", "no_data"))
    unknown = effect("revenue", 1, "No data.") | empty | {"no_data": "too few users", "is_better": False}
    assert "no data: too few users" in printed(experiments=[unknown])
    assert " to " not in printed(experiments=[unknown]).split("Experiment")[1].split("Drift")[0]
    assert "alarm 20 min after the shift" in full
    assert "conversion_rate" in full


def test_the_progress_of_the_day_is_one_line(day):
    outcome = received({"scores": [{}], "drift": [drift(day, 20, "alarm", 0.3) | {"moved": ["device"]}]})
    outcome.sent = 2
    assert outcome.answered == 1
    line = outcome.progress(5_400_000)
    assert line.startswith("01:30  sent 2, scored 1, outcomes 0, sessions 0; drift: alarm at ")
    assert line.endswith("(device)")
