"""What the experiment job decides before it is submitted: its SQL, run by SQLite; caps; where experiments come from.

tests/flink runs the whole job.
"""

import json
import re
import sqlite3
from pathlib import Path
from unittest.mock import MagicMock

import msgspec
import pandas as pd
import pytest

from jobs import watch_experiments as job
from jobs.common.settings import experiment_settings, load_settings
from tests.support.ledgers import rollout_of, write_ledger
from tests.support.sample_records import sample_fields
from udfs.contracts.outputs import Session
from udfs.measurement.design import Stretch
from udfs.measurement.kpis import LEAST_CAPPING, Kpi, caps_of, load_kpis, terms_of
from udfs.rollout.registry import RegistryError

CONF = Path(__file__).parents[3] / "conf" / "local.yaml"
START_MS = 1_800_000_000_000
REPLAY = (f"experiments.start={START_MS}", "experiments.shares={challenger: 0.3, champion: 0.6}")
KPIS = {
    "conversion": Kpi(formula="c", numerator="purchases > 0", denominator="sessions", direction="up"),
    "revenue": Kpi(formula="r", numerator="revenue", denominator="sessions", direction="up", winsorize=0.9),
    "duration": Kpi(formula="d", numerator="duration_s", denominator="sessions", direction="up"),
}


@pytest.fixture(autouse=True)
def without_flink(monkeypatch):
    """No test may submit a job."""
    monkeypatch.setattr(job, "submit", MagicMock(side_effect=AssertionError("a job is submitted")))


def settings_with(*overrides: str):
    return experiment_settings(load_settings(CONF, overrides, {}))


def built(caps: dict[str, float], *overrides: str, kpis=KPIS) -> tuple[str, list[str]]:
    """The job's query, and the uids of its operators."""
    tables = MagicMock()
    settings = settings_with(*REPLAY, *overrides)
    job.watch_experiments(tables, settings, kpis, caps, job.find_source(settings))
    (query,) = tables.sql_query.call_args.args
    keyed = tables.to_data_stream().key_by
    uids = []
    for _ in range(2):
        named = keyed().process().name()
        uids.append(named.uid.call_args.args[0])
        keyed = named.uid().key_by
    return query, uids


def sessions_of(*changes: dict) -> list[bytes]:
    return [json.dumps(sample_fields("sessions", **change)).encode() for change in changes]


@pytest.mark.parametrize(("cap", "counted"), [(9.5, 9.5), (float("inf"), 20.25)])
def test_the_query_has_what_a_session_counts_for_and_leaves_bots_out(cap, counted):
    rows = [
        sample_fields("sessions", user_id="ada", started_at=1_000, ended_at=3_500, purchases=2, revenue=20.25),
        sample_fields(
            "sessions", user_id="bob", started_at=2_000, ended_at=2_000, purchases=0, revenue=0.5, top_score=None
        ),
        sample_fields("sessions", user_id="bot", is_bot=True),
    ]
    rows[1]["is_bot"] = None  # in records of earlier releases
    names = Session.__struct_fields__
    query, _ = built({"revenue": cap})
    with sqlite3.connect(":memory:") as database:
        database.create_function("LEAST", 2, min)
        database.execute(f"CREATE TABLE arriving_sessions ({', '.join(names)})")
        values = [tuple(row[name] for name in names) for row in rows]
        database.executemany(f"INSERT INTO arriving_sessions VALUES ({', '.join('?' * len(names))})", values)
        found = {row[0]: row[1:] for row in database.execute(query)}
    assert [term.text for term in terms_of(KPIS, {"revenue": cap})] == [
        "purchases > 0",
        "sessions",
        "revenue",
        "duration_s",
        "revenue",
        "top_score",
    ]
    assert found == {
        "ada": ("champion", "v1", 1_000, 1.0, 1.0, 20.25, 2.5, counted, 0.25),
        "bob": ("champion", "v1", 2_000, 0.0, 1.0, 0.5, 0.0, 0.5, 0.0),
    }


def test_another_cap_goes_on_with_the_state_and_other_terms_or_another_start_do_not():
    _, uids = built({"revenue": 9.5})
    assert built({"revenue": float("inf")})[1] == uids
    plain = KPIS | {"revenue": msgspec.structs.replace(KPIS["revenue"], winsorize=None)}
    others = [built({}, kpis=plain)[1], built({"revenue": 9.5}, f"experiments.start={START_MS + 1}")[1]]
    for other in others:
        assert not set(other) & set(uids)


def test_the_state_of_a_release_with_another_format_belongs_to_no_operator_of_the_job(monkeypatch):
    _, uids = built({})
    assert built({})[1] == uids
    monkeypatch.setattr(job, "STATE_FORMAT", job.STATE_FORMAT + 1)
    assert not set(built({})[1]) & set(uids)


def test_caps_are_those_of_people_outside_the_treatment_arm(monkeypatch):
    monkeypatch.setattr(job, "READ_AT_ONCE", 7)
    people = [{"revenue": float(number), "arm": "champion" if number % 2 else None} for number in range(201)]
    others = [{"revenue": 1e9, "arm": "challenger"}, {"revenue": 1e9, "is_bot": True}] * 200
    caps, lines = job.read_caps(KPIS, sessions_of(*people, *others), "challenger")
    assert caps == caps_of({"revenue": KPIS["revenue"]}, pd.DataFrame(people))
    assert 179 < caps["revenue"] < 182
    assert lines == [f"revenue: a session counts for at most {caps['revenue']:g} revenue, by 200 sessions"]


def test_too_few_sessions_say_no_cap():
    few = [{"revenue": 1.0}] * (LEAST_CAPPING - 1)
    for sessions in (few, [{"revenue": 0.0}], []):
        caps, (line,) = job.read_caps(KPIS, sessions_of(*sessions), "challenger")
        assert caps == {"revenue": float("inf")}
        assert re.fullmatch(r"revenue: not winsorised: \d+ sessions have revenue, at least 100 needed", line)
    assert job.read_caps({"conversion": KPIS["conversion"]}, iter(()), "challenger") == ({}, [])
    assert job.unread_caps(KPIS) == (
        {"revenue": float("inf")},
        ["revenue: not winsorised: the topic was not read"],
    )


def test_experiments_are_those_of_the_ledger_unless_a_start_is_given(tmp_path):
    uri = write_ledger(tmp_path, (1_000, rollout_of("a", b=0.25)))
    (followed,) = job.find_source(settings_with(f"model.registry={uri}"))().known().experiments
    assert followed.key == "challenger@b vs. champion@a"
    (replayed,) = job.find_source(settings_with(f"model.registry={uri}", *REPLAY))().known().experiments
    assert replayed.key == "challenger vs. champion"
    assert replayed.stretches == (Stretch(START_MS, None, 0.3, 0.6),)
    assert replayed.history_until_ms == START_MS
    with pytest.raises(RegistryError, match="no entry"):
        job.find_source(settings_with(f"model.registry={tmp_path / 'empty'}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "watch_experiments: key model.registry: must be set"),
        (["model.registry=/nowhere"], "watch_experiments: /nowhere/ledger: no entry"),
        (["model.registry=models/registry"], "key model.registry: expected an absolute path or a URL such as s3://"),
        (["experiments.baseline=challenger"], "key experiments.treatment: challenger is also experiments.baseline"),
    ],
)
def test_a_job_that_can_not_run_is_refused_in_one_line(overrides, message):
    given = [part for override in overrides for part in ("--set", override)]
    with pytest.raises(SystemExit, match=re.escape(message)) as refused:
        job.main(["--conf", str(CONF), "--skip-topic-check", *given])
    assert "\n" not in str(refused.value)


def test_a_record_that_is_no_session_is_named_by_its_topic(monkeypatch):
    monkeypatch.setattr(job, "check_topics", lambda *_: None)
    monkeypatch.setattr(job, "read_topic", lambda *_: iter([b'{"user_id": 1}']))
    given = [part for override in REPLAY for part in ("--set", override)]
    with pytest.raises(SystemExit, match=r"topic sessions: a record is not a session: .*--skip-topic-check"):
        job.main(["--conf", str(CONF), *given])


def test_the_shipped_kpis_have_terms_in_sql():
    kpis = load_kpis(CONF.with_name("kpis.yaml"))
    query, _ = built(job.unread_caps(kpis)[0], kpis=kpis)
    assert query.count(" AS term_") == len(terms_of(kpis, job.unread_caps(kpis)[0]))
