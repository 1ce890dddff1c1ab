"""The experiment job's functions, without Flink: what they say in the end is what the report says of all sessions."""

import random
from functools import cache, partial
from math import inf
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.fake_flink import KeyedRun
from tests.support.ledgers import entries_of, rollout_of, write_ledger
from tests.support.oracles.experiment import expected_records, newest_records
from training.experiments.comparison import arm_sides, cell_sums, compare, stretch_numbers
from udfs.contracts.outputs import ExperimentResult
from udfs.flink.experiments import CHANGE_TYPE, RESULT_TYPE, UserCells, Verdicts
from udfs.measurement.cell_changes import (
    STATE_FORMAT,
    CountedSession,
    KnownExperiments,
    apply_change,
    count_session,
    decode_change,
    decode_periods,
    encode_change,
    encode_periods,
)
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.design import Experiment, ExperimentArm, Period, PeriodSums, Stretch
from udfs.measurement.kpis import COUNTED, Kpi, load_kpis, term_values, terms_of
from udfs.rollout.experiments import experiments
from udfs.rollout.known_experiments import FixedExperiment, LedgerExperiments
from udfs.rollout.registry import entry_file

DAY_MS = 86_400_000
#: A challenger that is ramped; then another one in its place, and a third beside it; then the second one serves all.
ROLLOUTS = [
    (1 * DAY_MS, rollout_of("v0")),
    (2 * DAY_MS, rollout_of("v0", v1=0.1)),
    (3 * DAY_MS, rollout_of("v0", v1=0.3)),
    (4 * DAY_MS, rollout_of("v0", v2=0.2, v3=0.2)),
    (5 * DAY_MS, rollout_of("v0", v2=0.2, v3=0.1)),
    (6 * DAY_MS, rollout_of("v2")),
]
ARMS = [("champion", "v0"), ("challenger", "v1"), ("challenger", "v2"), ("challenger", "v3"), ("control", None)]
#: Without caps: a report takes its own from all of its sessions.
KPIS = {
    name: msgspec.structs.replace(kpi, winsorize=None)
    for name, kpi in load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml").items()
}
COUNTS = dict.fromkeys(("events", "pages", *COUNTED), 1)
#: Whole numbers and quarters, whose sums have no rounding errors.
EXACT = {
    name: Kpi(formula=name, numerator=name, denominator="sessions", direction="up") for name in ("pages", "revenue")
}
EXACT_TERMS = terms_of(EXACT, {})
COLUMNS = Columns(len(EXACT_TERMS))
INTERVAL_MS = 60_000

moments = st.integers(0, 14).map(lambda half_days: half_days * DAY_MS // 2)
session_fields = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from("abc"),
        "served": st.sampled_from([*ARMS, (None, None)]),
        "started_at": moments,
        "pages": st.integers(0, 3),
        "revenue": st.integers(0, 9).map(lambda quarters: quarters / 4),
        "top_score": st.none() | st.integers(0, 4).map(lambda quarters: quarters / 4),
    }
)


def known_at(entries: int = len(ROLLOUTS)) -> KnownExperiments:
    """What is known when the ledger has so many entries."""
    return KnownExperiments(tuple(experiments(entries_of(*ROLLOUTS[:entries]), "challenger", "champion")))


def frame(rows: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            COUNTS | row | {"arm": row["served"][0], "model_version": row["served"][1], "ended_at": row["started_at"]}
            for row in rows
        ]
    )


def counted(row: dict) -> CountedSession:
    return CountedSession(
        *row["served"], row["started_at"], np.array([row["pages"], 1, row["revenue"], row.get("top_score") or 0])
    )


def replayed(arriving: list[tuple[dict, KnownExperiments]]) -> dict[str, CellSums]:
    """The sums of each experiment after sessions that arrive, each with what is known then; all of it is encoded."""
    users: dict[str, bytes] = {}
    sums: dict[str, CellSums] = {}
    for row, known in arriving:
        periods = decode_periods(users.get(row["user_id"]))
        for change in count_session(periods, known, counted(row), COLUMNS):
            apply_change(sums.setdefault(change.key, CellSums(COLUMNS.width)), *decode_change(encode_change(change)))
        users[row["user_id"]] = encode_periods(periods)
    return sums


def assert_as_at_once(sums: dict[str, CellSums], rows: list[dict]) -> None:
    sessions = frame(rows)
    for experiment in known_at().experiments:
        stretch = stretch_numbers(experiment, sessions["started_at"].to_numpy())
        wanted = cell_sums(sessions, experiment, EXACT_TERMS, stretch, arm_sides(experiment, sessions)).products
        found = sums[experiment.key].products if experiment.key in sums else {}
        assert found.keys() == wanted.keys()
        for pair in wanted:
            np.testing.assert_array_equal(found[pair], wanted[pair])


def test_the_terms_are_in_the_order_in_which_sessions_have_them():
    assert [term.text for term in EXACT_TERMS] == ["pages", "sessions", "revenue", "top_score"]
    assert known_at().boundaries_ms == [day * DAY_MS for day in (2, 3, 4, 5, 6)]
    assert {one.key: len(one.stretches) for one in known_at().experiments} == {
        "challenger@v1 vs. champion@v0": 2,
        "challenger@v2 vs. champion@v0": 2,
        "challenger@v3 vs. champion@v0": 2,
    }


@pytest.mark.slow
@examples(60)
@given(st.lists(session_fields, min_size=1, max_size=15))
def test_sums_are_those_of_all_sessions_at_once_whatever_the_order_of_arrival(rows):
    assert_as_at_once(replayed([(row, known_at()) for row in rows]), rows)


@pytest.mark.slow
@examples(40)
@given(st.lists(st.tuples(session_fields, st.integers(0, 6)), min_size=1, max_size=15))
def test_a_ledger_may_grow_meanwhile_as_long_as_sessions_arrive_after_the_rollout_of_their_time(rows):
    """A session is sent half an hour after it began, or later; the ledger is read more often."""
    entries = [max(later, sum(time_ms <= row["started_at"] for time_ms, _ in ROLLOUTS)) for row, later in rows]
    arriving = sorted(zip(entries, range(len(rows))))
    sums = replayed([(rows[number][0], known_at(count)) for count, number in arriving])
    assert_as_at_once(sums, [row for row, _ in rows])


def test_what_changes_nothing_in_an_experiment_is_not_sent():
    def changed(*rows: dict) -> list[list[str]]:
        periods = {}
        return [[one.key for one in count_session(periods, known_at(), counted(row), COLUMNS)] for row in rows]

    row = {"user_id": "a", "pages": 1, "revenue": 1.0}
    before = row | {"served": ("champion", "v0"), "started_at": DAY_MS}
    first = row | {"served": ("challenger", "v1"), "started_at": 2 * DAY_MS}
    other = row | {"served": ("control", None), "started_at": 2 * DAY_MS}
    assert changed(before, first, other) == [[], ["challenger@v1 vs. champion@v0"], []]
    assert changed(first, before) == [["challenger@v1 vs. champion@v0"]] * 2


# --- the functions, as Flink calls them ---


@cache
def simulated(users: int = 300) -> list[dict]:
    """Sessions of users, some of whom move between arms, over all rollouts and in any order."""
    rng = np.random.default_rng(5)
    rows = []
    for user in range(users):
        place, taste = rng.random(), rng.beta(1, 4)
        for _ in range(1 + rng.poisson(4)):
            started_at = int(rng.integers(DAY_MS // 2, 7 * DAY_MS))
            rollout = [rollout for time_ms, rollout in ROLLOUTS if time_ms <= started_at][-1:]
            served = ("champion", rollout[0].champion if rollout else "v0")
            for part in rollout[0].challengers if rollout else ():
                if part.start <= place < part.start + part.share:
                    served = ("challenger", part.version)
            if rng.random() < 0.1:
                served = ARMS[rng.integers(len(ARMS))]
            bought = int(rng.random() < taste + 0.2 * (served[0] == "challenger"))
            rows.append(
                COUNTS
                | {name: int(rng.poisson(0.5)) for name in COUNTED}
                | {
                    "user_id": f"user{user}",
                    "served": served,
                    "started_at": started_at,
                    "pages": int(rng.integers(1, 4)),
                }
                | {"purchases": bought, "revenue": round(float(bought * rng.lognormal(3, 1)), 2)}
            )
    random.Random(5).shuffle(rows)
    return rows


class Job:
    """Both functions in a row."""

    def __init__(self, source, kpis=KPIS, caps=None, before: "Job | None" = None):
        self.terms = terms_of(kpis, caps or {})
        users, verdicts = UserCells(source, ttl_ms=90 * DAY_MS), Verdicts(source, kpis, caps or {}, INTERVAL_MS)
        states = [run.snapshot() for run in (before.users, before.verdicts)] if before else [({}, frozenset())] * 2
        self.users = KeyedRun(users, CHANGE_TYPE, states[0])
        self.verdicts = KeyedRun(verdicts, RESULT_TYPE, states[1])

    def send(self, rows: list[dict]) -> None:
        sessions = frame(rows)
        amounts = np.column_stack([term_values(term, sessions) for term in self.terms]).tolist()
        for row, terms in zip(rows, amounts):
            for change in self.users.process(row["user_id"], *row["served"], row["started_at"], *terms):
                self.verdicts.process(*change)

    def wait(self, milliseconds: int = INTERVAL_MS) -> list[dict]:
        return [dict(zip(ExperimentResult.__struct_fields__, row)) for row in self.verdicts.wait(milliseconds)]


@pytest.fixture
def ledger(tmp_path):
    """A function that writes the first entries of the ledger; returns a factory of its experiments."""

    def write(entries: int = len(ROLLOUTS)):
        uri = write_ledger(tmp_path / "registry", *ROLLOUTS[:entries])
        return partial(LedgerExperiments, uri, "challenger", "champion", 1e9)

    return write


def test_the_last_records_are_those_of_the_reports(ledger):
    rows = simulated()
    job = Job(ledger())
    job.send(rows)
    wanted = expected_records(*(compare(frame(rows), KPIS, one) for one in known_at().experiments))
    records = job.wait()
    assert newest_records(records) == wanted
    assert len(records) == len(wanted) == 3 * len(KPIS)
    assert {record["no_data"] is None for record in records} == {False, True}
    assert max(record["moved_users"] for record in records) > 0
    for record in records:
        msgspec.convert(record, ExperimentResult)


def test_a_cap_is_in_the_records_and_an_infinite_one_is_none(ledger):
    kpis = KPIS | {"revenue_per_session": msgspec.structs.replace(KPIS["revenue_per_session"], winsorize=0.9)}
    start_ms = 2 * DAY_MS
    stretch = Stretch(start_ms, None, 0.3, 0.7)
    experiment = Experiment(ExperimentArm("challenger"), ExperimentArm("champion"), (stretch,), start_ms)
    rows = simulated()
    report = compare(frame(rows), kpis, experiment)
    cap = report.findings["revenue_per_session"].cap
    for caps, said in (({"revenue_per_session": cap}, cap), ({"revenue_per_session": inf}, None)):
        job = Job(partial(FixedExperiment, experiment), kpis, caps)
        job.send(rows)
        (revenue,) = (record for record in job.wait() if record["kpi"] == "revenue_per_session")
        assert revenue["cap"] == said
        effect = (
            report.findings["revenue_per_session"].effect if said else report.findings["revenue_per_session"].uncapped
        )
        assert revenue["difference"] == pytest.approx(effect.difference, rel=1e-9)
        assert (revenue["treatment_version"], revenue["baseline_version"]) == (None, None)


def test_records_are_written_at_the_end_of_an_interval_in_which_something_changed(ledger):
    job = Job(ledger())
    first, *others = (row for row in simulated(40) if row["served"] == ("challenger", "v1"))
    in_experiment = first | {"started_at": 2 * DAY_MS}
    assert job.wait() == []
    job.send([in_experiment])
    ends_ms = -(-job.verdicts.now_ms // INTERVAL_MS) * INTERVAL_MS
    records = job.wait()
    assert {record["at"] for record in records} == {ends_ms}
    assert [record["kpi"] for record in records] == list(KPIS)
    assert {record["treatment_version"] for record in records} == {"v1"}
    job.send([others[0] | {"started_at": 6 * DAY_MS}])  # in no experiment
    assert job.wait(10 * INTERVAL_MS) == []
    timers_set = job.verdicts.timers_set
    job.send([in_experiment, in_experiment])
    assert job.verdicts.timers_set == timers_set + 1  # each is a message to Flink
    assert len(job.wait(10 * INTERVAL_MS)) == len(KPIS)


def test_a_restart_from_a_checkpoint_loses_nothing(ledger):
    rows = simulated()
    job = Job(ledger())
    for part in (rows[:700], rows[700:1400], rows[1400:]):
        job.send(part)
        job = Job(ledger(), before=job)
    records = job.wait()
    assert newest_records(records) == expected_records(
        *(compare(frame(rows), KPIS, one) for one in known_at().experiments)
    )
    assert Job(ledger(), before=job).wait() == []


@pytest.mark.parametrize("are_kept", [True, False], ids=["with its timers", "without"])
def test_a_verdict_is_told_once_after_a_restart_whether_or_not_the_checkpoint_has_the_timers(ledger, are_kept):
    rows = simulated()
    job = Job(ledger())
    job.send(rows[:700])
    if not are_kept:  # as when a checkpoint ends the bundle: see Verdicts
        job.verdicts.timers.clear()
    job = Job(ledger(), before=job)
    job.send(rows[700:])
    records = job.wait(10 * INTERVAL_MS)
    assert newest_records(records) == expected_records(
        *(compare(frame(rows), KPIS, one) for one in known_at().experiments)
    )
    assert len(records) == 3 * len(KPIS)


def test_experiments_that_begin_while_the_job_runs_are_judged(ledger):
    rows = simulated()
    new_ms = ROLLOUTS[3][0]
    job = Job(ledger(3))
    job.users._function._source._clock = lambda: inf  # polls each time
    job.send([row for row in rows if row["started_at"] < new_ms])
    assert {record["treatment_version"] for record in job.wait()} == {"v1"}
    ledger()
    job.send([row for row in rows if row["started_at"] >= new_ms])
    assert newest_records(job.wait()) == {
        key: record
        for key, record in expected_records(
            *(compare(frame(rows), KPIS, one) for one in known_at().experiments)
        ).items()
        if key[0] != "v1"  # which ended before: nothing changed there
    }


@pytest.mark.parametrize(
    ("entries", "versions"),
    [
        (2, {"v1"}),  # the experiment is known, and its second stretch is not
        (3, {"v2", "v3"}),  # the experiments are not known
    ],
)
def test_a_verdict_waits_until_the_ledger_knows_of_its_sessions(ledger, tmp_path, caplog, entries, versions):
    job = Job(ledger(entries))
    job.users._function._source = ledger()()
    for number in range(entries + 1, len(ROLLOUTS) + 1):
        (tmp_path / "registry" / "ledger" / entry_file(number)).unlink()
    new_ms = ROLLOUTS[entries][0]
    job.send([row for row in simulated(60) if row["served"][1] in versions and row["started_at"] >= new_ms])
    assert job.wait() == []
    assert "no verdict" in caplog.text
    ledger()
    assert {record["treatment_version"] for record in job.wait()} == versions


def test_users_are_forgotten_and_sums_are_not(ledger):
    job = Job(ledger())
    ttl = job.users.descriptors["periods"]._ttl_config
    assert ttl.get_ttl().to_milliseconds() == 90 * DAY_MS
    assert ttl.get_state_visibility() == ttl.StateVisibility.ReturnExpiredIfNotCleanedUp
    assert job.verdicts.descriptors["sums"]._ttl_config is None


def test_the_state_of_a_user_is_small():
    row = {"user_id": "a", "served": ("challenger", "20260501-0001"), "pages": 1, "revenue": 1.0}
    periods = {}
    for number in range(40):
        count_session(periods, known_at(), counted(row | {"started_at": 2 * DAY_MS + number}), COLUMNS)
    assert len(encode_periods(periods)) < 100


def test_the_state_has_the_format_of_its_number():
    """If this fails, savepoints of earlier releases can't be read: raise STATE_FORMAT, and write the new bytes here."""
    periods = {Period(5, "champion", None): PeriodSums(7, 2, np.array([1.0, 2.5]))}
    assert STATE_FORMAT == 1
    assert encode_periods(periods).hex() == "919605a86368616d70696f6ec00702c410000000000000f03f0000000000000440"
    sums = CellSums(COLUMNS.width)
    sums.add({0: np.ones(COLUMNS.width)})
    assert {pair: (type(sum_), sum_.dtype, sum_.shape) for pair, sum_ in sums.products.items()} == {
        (0, 0): (np.ndarray, np.float64, (COLUMNS.width, COLUMNS.width))
    }
