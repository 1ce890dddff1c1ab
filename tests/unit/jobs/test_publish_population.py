"""What the jobs and the doctor report of population.dir; tests/flink runs the job."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from jobs import publish_population as job
from jobs import score_clicks
from jobs.common.population import find_population
from jobs.common.settings import click_topic, load_settings
from jobs.ops.doctor.target import check_population
from udfs.config.durations import now_ms
from udfs.population.store import TableStore
from udfs.population.tables import NO_COUNTS, Table, counted_by

CONF = Path(__file__).parents[3] / "conf" / "local.yaml"
HOUR = 3_600_000


@pytest.fixture
def declared(tmp_path) -> list[str]:
    """Settings of a declaration with columns of the population, and a directory that does not exist yet."""
    (tmp_path / "mine.yaml").write_text("extends: population\n")
    return [f"clicks.declaration={tmp_path / 'mine.yaml'}", f"population.dir={tmp_path / 'tables'}"]


def publish(overrides: list[str], boundary_ms: int, half_life_ms: int = 30 * 24 * HOUR) -> None:
    settings = load_settings(CONF, overrides, {})
    layout = click_topic(settings).layout
    publication = replace(layout.publication, half_life_ms=half_life_ms)
    table = Table(boundary_ms, publication, dict.fromkeys(counted_by(layout), NO_COUNTS))
    TableStore(settings.population.dir).write(table)


@pytest.fixture
def submitted(monkeypatch, capsys):
    """Submit a job with overrides, to no cluster; returns what it prints or ends with."""
    submit = MagicMock()
    monkeypatch.setattr(job, "submit", submit)
    monkeypatch.setattr(score_clicks, "Streams", MagicMock())
    monkeypatch.setattr(score_clicks, "find_serving", MagicMock())

    def run(module, overrides: list[str]) -> str:
        arguments = ["--conf", str(CONF), "--skip-topic-check", "--explain"]
        try:
            module.main([*arguments, *(part for override in overrides for part in ("--set", override))])
        except SystemExit as end:
            return str(end.code)
        return submit.call_args.args[-1] if submit.called else capsys.readouterr().err

    return run


def test_the_job_begins_or_goes_on_from_the_newest_table(submitted, declared, tmp_path):
    assert submitted(job, declared) == f"a table every 3600 s in {tmp_path}/tables, begins"
    publish(declared, 5 * HOUR)
    assert submitted(job, declared).endswith("/tables, goes on from that of 1970-01-01T05:00:00.000Z")


@pytest.mark.parametrize("module", [job, score_clicks])
def test_no_job_is_submitted_with_tables_of_another_schedule(module, submitted, declared):
    publish(declared, 5 * HOUR, half_life_ms=HOUR)
    message = submitted(module, declared)
    assert message.startswith(f"{module.__name__.removeprefix('jobs.')}: ")
    assert "its tables were made with" in message


@pytest.mark.parametrize("module", [job, score_clicks])
def test_without_a_directory_no_job_is_submitted(module, submitted, declared):
    assert "key population.dir: must be set (got null)" in submitted(module, declared[:1])


def test_scores_can_begin_before_the_first_table_with_a_warning(submitted, declared):
    assert "no tables yet: features of the population have no values until" in submitted(score_clicks, declared)
    publish(declared, 5 * HOUR)
    assert submitted(score_clicks, declared) == ""


def test_a_declaration_without_such_columns_needs_no_directory(submitted):
    assert submitted(score_clicks, []) == ""
    assert find_population(load_settings(CONF, [], {})) is None


@pytest.mark.parametrize("every", ["1500ms", "200d"])
def test_an_interval_that_sql_can_not_have_is_refused(submitted, declared, tmp_path, every):
    (tmp_path / "mine.yaml").write_text(f"extends: population\npopulation: {{every: {every}, half_life: 365d}}\n")
    assert "population.every: must be whole seconds, at most 99 d" in submitted(
        job, [*declared, "population.keep=999 d"]
    )


def test_the_doctor_says_how_old_the_newest_table_is(declared):
    def finding():
        (found,) = check_population(load_settings(CONF, declared, {}))
        return found

    assert "no tables yet" in finding().result
    publish(declared, now_ms() // HOUR * HOUR - 3 * HOUR)
    assert "min old" in finding().result
    assert "jobs.publish_population" in finding().remedy
    publish(declared, now_ms() // HOUR * HOUR)
    assert not finding().remedy
    publish(declared, now_ms() // HOUR * HOUR + HOUR, half_life_ms=HOUR)
    assert "its tables were made with" in finding().result


def test_the_doctor_says_nothing_without_such_columns():
    assert list(check_population(load_settings(CONF, [], {}))) == []
