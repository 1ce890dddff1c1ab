"""The job on a mini cluster inside this process's JVM, over tables that a test fills."""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyflink.table import TableEnvironment

from jobs.score_clicks import find_serving, score_clicks
from jobs.settings import load_settings
from jobs.submission import table_environment
from jobs.tables import (
    CLICKS_COLUMNS,
    DEAD_LETTERS_COLUMNS,
    FEATURE_LOG_COLUMNS,
    KAFKA_METADATA,
    PROFILES_COLUMNS,
    SCORES_COLUMNS,
    create_table,
    kafka_tables,
)

PROJECT = Path(__file__).parents[2]
JARS = PROJECT / "build" / "jars" / "job"
CONF = PROJECT / "conf" / "local.yaml"
#: A failure ends the job, and with it the test; the shipped settings would try again and again.
ONE_TRY = ("job.parallelism=1", "feature_log.user_share=1.0", "flink.restart-strategy.type=none")


def settings_of(bundle_directory: Path, *overrides: str):
    return load_settings(CONF, [f"model.bundle={bundle_directory}", *overrides], {})


def environment(settings) -> TableEnvironment:
    tables = table_environment(settings)
    for jar in sorted(JARS.glob("*.jar")):
        tables.execute_sql(f"ADD JAR '{jar.as_uri()}'")
    return tables


@pytest.fixture(scope="package", autouse=True)
def workers_of_their_own():
    """Python workers as processes, as on a cluster.

    By default a mini cluster runs them inside the process of the client, here of the tests, and changes its environment
    variables, working directory and logging for good.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_python_worker_execution_mode", "process")
        patch.setenv("PYTHONPATH", str(PROJECT))
        yield


@pytest.fixture
def explain(bundle_directory) -> Callable[..., str]:
    """The optimised execution plan of the job as it runs on Kafka."""

    def explained(*overrides: str) -> str:
        settings = settings_of(bundle_directory, *overrides)
        tables = environment(settings)
        for statement in kafka_tables(settings):
            tables.execute_sql(statement)
        plan = score_clicks(tables, settings, find_serving(settings)).explain()
        return plan.split("== Optimized Execution Plan ==")[1]

    return explained


@pytest.fixture
def run_job(bundle_directory, tmp_path) -> Callable[..., dict[str, list[dict]]]:
    """Run the job over given (key, payload, timestamp in ms) clicks and profiles; returns what it wrote, by table."""

    def run(clicks: list, profiles: list = (), overrides: tuple[str, ...] = ()) -> dict[str, list[dict]]:
        settings = settings_of(bundle_directory, *ONE_TRY, *overrides)
        tables = environment(settings)
        sources = {"clicks": (CLICKS_COLUMNS, clicks), "profiles": (PROFILES_COLUMNS, profiles)}
        for name, (columns, records) in sources.items():
            file = tmp_path / f"{name}.json"
            file.write_text("".join(json_line(offset, *record) for offset, record in enumerate(records)))
            no_metadata = dict.fromkeys(KAFKA_METADATA, "")
            tables.execute_sql(create_table(name, columns.format(**no_metadata), files(file)))
        sinks = {"scores": SCORES_COLUMNS, "dead_letters": DEAD_LETTERS_COLUMNS, "feature_log": FEATURE_LOG_COLUMNS}
        for name, columns in sinks.items():
            tables.execute_sql(create_table(name, columns, files(tmp_path / name)))
        score_clicks(tables, settings, find_serving(settings)).execute().wait()
        return {name: read_json_lines(tmp_path / name) for name in sinks}

    return run


def files(path: Path) -> dict[str, object]:
    """The options of a table of JSON files."""
    return {
        "connector": "filesystem",
        "path": path.as_uri(),
        "format": "json",
        "json.timestamp-format.standard": "ISO-8601",
    }


def json_line(offset: int, key: bytes | None, payload: bytes | None, time_ms: int) -> str:
    """A Kafka record as a row; bytes are base64 in Flink's JSON."""
    row = {
        "record_key": None if key is None else b64encode(key).decode(),
        "payload": None if payload is None else b64encode(payload).decode(),
        "record_time": datetime.fromtimestamp(time_ms / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "source_partition": 0,
        "source_offset": offset,
    }
    return json.dumps(row) + "\n"


def read_json_lines(directory: Path) -> list[dict]:
    files = [file for file in directory.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
