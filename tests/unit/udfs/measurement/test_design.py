"""A user's cells, session by session, are those that a report counts from all sessions at once."""

from bisect import bisect_right

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.session_frames import experiment, frame
from training.experiments.comparison import arm_sides, cell_sums, stretch_numbers
from udfs.measurement.cell_sums import DROPPED, MOVED, SESSIONS, USER, CellSums, Columns
from udfs.measurement.design import Experiment, ExperimentArm, Period, PeriodSums, Stretch, cells_of_user
from udfs.measurement.kpis import Term

TERMS = (Term("revenue"), Term("sessions"), Term("revenue", 50.0))
COLUMNS = Columns(len(TERMS))
ENTRIES = (10, 20, 25, 40, 60)  # when the ledger has changed


@st.composite
def designs(draw_from) -> Experiment:
    """Stretches that begin and end with entries, which there may be within a stretch, too."""
    times = draw_from(st.lists(st.sampled_from(ENTRIES), min_size=2, unique=True).map(sorted))
    pairs = list(zip(times, [*times[1:], None]))
    chosen = draw_from(st.lists(st.sampled_from(pairs), min_size=1, unique=True).map(sorted_by_start))
    arms = st.sampled_from([("challenger", "v2"), ("challenger", None), ("control", None)])
    until = draw_from(st.sampled_from([start for start in ENTRIES if start <= chosen[0][0]]))
    stretches = [Stretch(*pair, 0.5, 0.5) for pair in chosen]
    return experiment(*stretches, treatment=draw_from(arms), history_until_ms=until)


def sorted_by_start(pairs: list[tuple]) -> list[tuple]:
    return sorted(pairs, key=lambda pair: pair[0])


@st.composite
def sessions(draw_from) -> pd.DataFrame:
    """Sessions of users who are moved between arms and versions, many of them at the same time."""
    one = st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["ada", "bob", "cy"]),
            "arm": st.sampled_from(["challenger", "champion", "control", None]),
            "model_version": st.sampled_from(["v1", "v2", "v3", None]),
            "started_at": st.sampled_from([5, 10, 19, 20, 21, 24, 25, 30, 40, 59, 60, 70]),
            "revenue": st.integers(0, 100).map(float),
        }
    )
    return frame(draw_from(st.lists(one, min_size=1, max_size=25)))


def one_by_one(design: Experiment, sessions: pd.DataFrame) -> CellSums:
    """The sums of users whose periods are kept from session to session, as a job does."""
    sums = CellSums(COLUMNS.width)
    for _, rows in sessions.groupby("user_id"):
        periods: dict[Period, PeriodSums] = {}
        for row in rows.itertuples():
            before = bisect_right(ENTRIES, row.started_at)
            period = Period(ENTRIES[before - 1] if before else 0, row.arm, row.model_version)
            known = periods.setdefault(period, PeriodSums(row.started_at, 0, np.zeros(len(TERMS))))
            known.first_ms = min(known.first_ms, row.started_at)
            known.sessions += 1
            known.terms = known.terms + [row.revenue, 1.0, min(row.revenue, 50.0)]
        sums.add(cells_of_user(design, periods, COLUMNS))
    return sums


@pytest.mark.slow
@given(designs(), sessions())
def test_a_job_and_a_report_have_the_same_sums(design, sessions):
    wanted = one_by_one(design, sessions)
    stretch = stretch_numbers(design, sessions["started_at"].to_numpy())
    found = cell_sums(sessions, design, TERMS, stretch, arm_sides(design, sessions))
    assert {pair for pair in found.products if found.products[pair].any()} == set(wanted.products)
    for pair, products in wanted.products.items():
        np.testing.assert_allclose(found.products[pair], products, rtol=1e-12, err_msg=str(pair))


def period(rollout_ms: int, arm: str = "challenger", version: str = "v2", first_ms: int | None = None) -> Period:
    return Period(rollout_ms, arm, version), PeriodSums(rollout_ms if first_ms is None else first_ms, 1, np.ones(3))


TWO = experiment(Stretch(20, 40, 0.1, 0.9), Stretch(40, None, 0.5, 0.5), history_until_ms=10)


def test_a_user_counts_in_the_arm_of_the_first_session_of_each_stretch():
    periods = dict([period(20, "champion", "v1", 21), period(25, first_ms=26), period(40, first_ms=41)])
    cells = cells_of_user(TWO, periods, COLUMNS)
    assert sorted(cells) == [1, 2]
    assert cells[1][[USER, MOVED, SESSIONS, DROPPED]].tolist() == [1, 1, 1, 1]
    assert cells[2][[USER, MOVED, SESSIONS, DROPPED]].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("turn", [1, -1])
def test_of_equally_early_sessions_the_baseline_s_decides(turn):
    periods = dict([period(20, "champion", "v1", 21), period(20, first_ms=21)][::turn])
    assert list(cells_of_user(TWO, periods, COLUMNS)) == [1]
    rows = [{"user_id": "ada", "arm": arm, "started_at": 21} for arm in ("champion", "challenger")]
    sessions = frame(rows[::turn])
    stretch = stretch_numbers(TWO, sessions["started_at"].to_numpy())
    found = cell_sums(sessions, TWO, TERMS, stretch, arm_sides(TWO, sessions))
    assert {pair for pair in found.products if found.products[pair].any()} == {(1, 1)}


def test_history_is_what_is_earlier_whatever_the_arm_and_ends_before_the_first_stretch_can_begin():
    periods = dict([period(0, None, None), period(9, "control", None), period(10), period(19), period(20)])
    (row,) = cells_of_user(TWO, periods, COLUMNS).values()
    assert row[COLUMNS.before(0)] == 2
    assert row[COLUMNS.now(0)] == row[SESSIONS] == 1


def test_other_versions_and_users_without_an_arm_have_no_cell():
    periods = dict([period(20, version="v3"), period(20, None, "v2"), period(20, "control", "v2"), period(0)])
    assert cells_of_user(TWO, periods, COLUMNS) == {}


@pytest.mark.parametrize(("time", "number"), [(19, None), (20, 0), (39, 0), (40, 1), (10**9, 1)])
def test_a_stretch_begins_with_its_start_and_ends_before_its_end(time, number):
    assert TWO.stretch_at(time) == number


def test_a_key_names_arms_and_versions():
    assert TWO.key == "challenger@v2 vs. champion@v1"
    assert experiment(baseline=("control", None)).key == "challenger@v2 vs. control"
    assert ExperimentArm("control").has("control", "v1")
