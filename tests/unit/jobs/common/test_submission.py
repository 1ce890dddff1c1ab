"""Settings as Flink's options: of the score job, and of the jobs in SQL."""

from pathlib import Path

from jobs.common.settings import archive_settings, load_settings
from jobs.common.submission import flink_options, sql_options

CONF = Path(__file__).parents[4] / "conf" / "local.yaml"


def load(*overrides):
    return load_settings(CONF, overrides, {})


def test_the_score_job_has_no_option_of_bundles():
    options = flink_options(load("execution.buffer_timeout=3 ms"))
    assert options["execution.buffer-timeout.interval"] == "3 ms"
    assert not [key for key in options if key.startswith(("python.fn-execution", "table.exec"))]


def test_jobs_in_sql_have_the_bundles_and_the_buffer_timeout_of_the_background():
    settings = archive_settings(
        load("archive.dir=file:///data", "background.bundle_size=7", "background.bundle_time=2 s")
    )
    options = sql_options(settings)
    assert options["pipeline.name"] == "archive-clicks"
    assert options["python.fn-execution.bundle.size"] == options["python.fn-execution.arrow.batch.size"] == "7"
    assert options["python.fn-execution.bundle.time"] == "2000"
    assert options["execution.buffer-timeout.interval"] == "100 ms"
    assert options["table.exec.state.ttl"] == "90 d"


def test_what_the_section_flink_says_wins_and_null_takes_an_option_back():
    settings = load("flink.python.fn-execution.bundle.size=9", "flink.table.exec.state.ttl=null")
    options = sql_options(settings)
    assert options["python.fn-execution.bundle.size"] == "9"
    assert "table.exec.state.ttl" not in options
    assert options["pipeline.object-reuse"] == "true"
