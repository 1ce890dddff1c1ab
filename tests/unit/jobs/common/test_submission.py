"""The command line of jobs, settings as Flink's options, of the score job and of the jobs in SQL, and failures."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest
from pyflink.util.exceptions import TableException

from jobs.common.settings import archive_settings, load_settings
from jobs.common.submission import JobOptions, execute, flink_options, parse_arguments, sql_options

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
    assert options["table.local-time-zone"] == "UTC"


def test_what_the_section_flink_says_wins_and_null_takes_an_option_back():
    settings = load("flink.python.fn-execution.bundle.size=9", "flink.table.exec.state.ttl=null")
    options = sql_options(settings)
    assert options["python.fn-execution.bundle.size"] == "9"
    assert "table.exec.state.ttl" not in options
    assert options["pipeline.object-reuse"] == "true"


def test_the_options_of_a_job():
    least = parse_arguments("a_job", "Submit a job.", ["--conf", "a.yaml"])
    assert least == JobOptions(Path("a.yaml"), (), skip_topic_check=False, explain=False)
    flags = ["--skip-topic-check", "--explain"]
    most = parse_arguments("a_job", "Submit a job.", ["--set", "a.b=1", "--conf", "a.yaml", "--set", "a.c=2", *flags])
    assert most == JobOptions(Path("a.yaml"), ("a.b=1", "a.c=2"), skip_topic_check=True, explain=True)


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--conf", "a.yaml", "--expalin"], 2), (["--help"], 0)])
def test_a_job_that_is_not_to_be_submitted_exits(arguments, code, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments("a_job", "Submit a job.", arguments)
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert printed.out.startswith("Usage: python -m jobs.a_job") if code == 0 else printed.err.startswith("a_job: ")


def test_a_failure_that_is_not_of_a_savepoint_is_left_as_it_is():
    job = MagicMock()
    job.execute.side_effect = TableException("Failed to execute sql: no slots")
    with pytest.raises(TableException, match="no slots"):
        execute(job, "a_job")
