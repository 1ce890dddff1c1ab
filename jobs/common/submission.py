"""Submission of a job: its command line, its settings as Flink's options, its environment."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from pyflink.common import Configuration, JobClient
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import EnvironmentSettings, ExplainDetail, StatementSet, StreamTableEnvironment, TableEnvironment
from pyflink.util.exceptions import TableException

from jobs.common.settings import Option, Settings
from udfs.config.command_line import Command, conf_option, run, set_option
from udfs.config.durations import duration_ms

Environment = TypeVar("Environment", bound=TableEnvironment)

#: What Flink says of a savepoint with the state of an operator that is not in the job.
_FOREIGN_STATE = re.compile(r"checkpoint/savepoint (\S+)\. Cannot map checkpoint/savepoint state for operator")


@dataclass(frozen=True)
class JobOptions:
    """The command line of a job."""

    conf: Path
    overrides: tuple[str, ...]
    skip_topic_check: bool
    explain: bool


def parse_arguments(name: str, description: str, arguments: Sequence[str] | None = None) -> JobOptions:
    """Parse the arguments of a job, by default those of the process. Exits after --help and after a usage error."""
    parsed: list[JobOptions] = []

    @click.command(name, cls=Command, help=description)
    @conf_option()
    @set_option("state.ttl=30d")
    @click.option(
        "--skip-topic-check", is_flag=True, help="Do not check the topics, for a host that can't reach the brokers."
    )
    @click.option("--explain", is_flag=True, help="Print the plan and submit nothing.")
    def command(**given: Any) -> None:
        parsed.append(JobOptions(**given))

    exit_code = run(command, f"python -m jobs.{name}", arguments)
    if not parsed:
        sys.exit(exit_code)
    return parsed[0]


def flink_options(settings: Settings) -> dict[str, str]:
    """Flink's options for the score job from the settings; those under `flink:` take precedence."""
    return _options(settings, settings.execution.buffer_timeout, {})


def sql_options(settings: Settings) -> dict[str, str]:
    """Flink's options for a job in SQL, which calls Python in bundles; those under `flink:` take precedence."""
    background = settings.background
    sql_defaults = {
        "table.exec.state.ttl": settings.state.ttl,
        "python.fn-execution.bundle.size": background.bundle_size,
        "python.fn-execution.bundle.time": duration_ms(background.bundle_time),
        "python.fn-execution.arrow.batch.size": background.bundle_size,
    }
    # Times lose their zone on their way to Python and to milliseconds.
    return _options(settings, background.buffer_timeout, sql_defaults) | {"table.local-time-zone": "UTC"}


def _options(settings: Settings, buffer_timeout: str, more: Mapping[str, Option]) -> dict[str, str]:
    checkpoints = settings.checkpoints
    options = {
        "pipeline.name": settings.job.name,
        "parallelism.default": settings.job.parallelism,
        "state.backend.type": settings.state.backend,
        "execution.checkpointing.interval": checkpoints.interval,
        "execution.checkpointing.timeout": checkpoints.timeout,
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": checkpoints.dir,
        "execution.buffer-timeout.interval": buffer_timeout,
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        **more,
        **settings.flink,
    }
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in options.items()
        if value is not None
    }


def table_environment(settings: Settings) -> TableEnvironment:
    """A streaming environment with the options of a job in SQL."""
    return TableEnvironment.create(_streaming(_configuration(settings)))


def stream_table_environment(settings: Settings) -> StreamTableEnvironment:
    """A streaming environment for tables and streams, with the options of a job in SQL."""
    configuration = _configuration(settings)
    streams = StreamExecutionEnvironment.get_execution_environment(configuration)
    return StreamTableEnvironment.create(streams, _streaming(configuration))


def _configuration(settings: Settings) -> Configuration:
    configuration = Configuration()
    for key, value in sql_options(settings).items():
        configuration.set_string(key, value)
    return configuration


def _streaming(configuration: Configuration) -> EnvironmentSettings:
    return EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()


def submit(
    settings: Settings,
    declarations: Sequence[str],
    build: Callable[[Environment], StatementSet],
    explain: bool,
    what: str,
    environment: Callable[[Settings], Environment] = table_environment,
) -> None:
    """Submit the job that `build` makes over the declared tables and print a line with `what`; or print its plan."""
    tables = environment(settings)
    for declaration in declarations:
        tables.execute_sql(declaration)
    job = build(tables)
    if explain:
        print(job.explain(ExplainDetail.JSON_EXECUTION_PLAN))
        return
    submitted = execute(job, settings.job.name)
    print(f"submitted {settings.job.name}: {what}, job {submitted.get_job_id()}")


def execute(job: StatementSet, name: str) -> JobClient:
    """Start a job. Exits with what to do if Flink refuses the savepoint or checkpoint that it is to start from."""
    try:
        return job.execute().get_job_client()
    except TableException as error:
        refused = _FOREIGN_STATE.search(str(error))
        if refused is None:
            raise
        sys.exit(
            f"{name}: {refused[1]}: can't start from this state: it belongs to a job with other formulas or operators, "
            "or to another release, and would mean something else in this job. To go on from it, undo the change. To "
            "begin without it, leave out --fromSavepoint: docs/operations.md (Changed formulas) says what that loses "
            "and how to stop the old job first"
        )
