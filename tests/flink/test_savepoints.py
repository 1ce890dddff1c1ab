"""A job in SQL goes on from a savepoint of its own, and refuses one of another formula."""

import json
from pathlib import Path

import msgspec
import pytest
from pyflink.java_gateway import get_gateway

from jobs.common.event_time import click_tables
from jobs.common.settings import session_settings
from jobs.common.submission import execute, table_environment
from jobs.common.tables import KAFKA_METADATA, columns, create_table
from jobs.measure_sessions import measure_sessions, score_columns
from tests.flink.conftest import files, json_line, read_json_lines, settings_of
from tools.stack.flink_client import wait_for
from udfs.contracts.outputs import KpiValue, Session
from udfs.measurement.kpis import Kpi

pytestmark = pytest.mark.flink

MINUTE_MS = 60_000
NOW = 1_800_000_000_000  # a full hour
CONVERSION = Kpi(formula="buyers", numerator="purchases > 0", denominator="sessions", direction="up")
BOUNCES = msgspec.structs.replace(CONVERSION, numerator="pages = 1")


class RunningJob:
    """The job over directories of files that grow, which an instance sends clicks with scores to."""

    def __init__(self, bundle: Path, directory: Path):
        self._bundle, self._directory, self._sent = bundle, directory, 0
        for name in ("clicks", "scores"):
            (directory / name).mkdir()

    def send(self, *views: tuple[str, int]) -> None:
        """Views of a page by users, at minutes in rising order."""
        clicks, scores = [], []
        for user, minute in views:
            position = {"source_partition": 0, "source_offset": self._sent}
            action = {"user_id": user, "event_time": NOW + minute * MINUTE_MS}
            click = action | {"event_name": "page_view", "page_location": "/"}
            score = action | position | {"arm": "champion", "model_version": "v1", "score": 0.5}
            clicks.append(json_line(self._sent, None, json.dumps(click).encode(), action["event_time"]))
            scores.append(json.dumps(score) + "\n")
            self._sent += 1
        for name, lines in (("clicks", clicks), ("scores", scores)):
            whole = self._directory / f"whole-{name}"  # a reader never sees half a file
            whole.write_text("".join(lines))
            whole.rename(self._directory / name / str(self._sent))

    def start(self, kpi: Kpi, savepoint: str | None = None) -> None:
        overrides = [
            "flink.restart-strategy.type=none",
            "flink.pipeline.auto-generate-uids=false",  # Flink refuses operators without ids
            "decode.max_behind=36500 d",
            "checkpoints.interval=200 ms",
            f"checkpoints.dir={(self._directory / 'checkpoints').as_uri()}",
            f"flink.execution.state-recovery.path={savepoint or 'null'}",
        ]
        settings = session_settings(settings_of(self._bundle, *overrides))
        tables = table_environment(settings)
        clicks, scores, sessions, kpis = (
            files(self._directory / name) for name in ("clicks", "scores", "sessions", "kpis")
        )
        grows = {"source.monitor-interval": "100 ms"}
        rolls = {"sink.rolling-policy.rollover-interval": "1 ms", "sink.rolling-policy.check-interval": "50 ms"}
        for statement in (
            *click_tables(settings, clicks | grows, dict.fromkeys(KAFKA_METADATA, "")),
            create_table("timed_scores", score_columns(settings), scores | grows),
            create_table("sessions", columns(Session), sessions | rolls),
            create_table("kpis", columns(KpiValue), kpis | rolls),
        ):
            tables.execute_sql(statement)
        number_operators_from_one()
        self._job = execute(measure_sessions(tables, settings, {"rate": kpi}), "measure_sessions")

    def stop(self) -> str:
        """End the job with a savepoint; returns its URI."""
        kind = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.NATIVE
        directory = (self._directory / "savepoints").as_uri()
        return self._job._j_job_client.stopWithSavepoint(False, directory, kind).get()

    def wait_for_row(self, name: str, **fields: object) -> dict:
        """The first row of a table with these fields."""

        def found() -> list[dict]:
            rows = read_json_lines(self._directory / name)
            return [row for row in rows if row.items() >= fields.items()]

        wait_for(found, 60, f"{name} with {fields}")
        return found()[0]


def number_operators_from_one() -> None:
    """Do as a JVM of its own does, which `flink run` starts for each job: Flink counts operators per JVM."""
    planner = get_gateway().jvm.org.apache.flink.table.planner.loader.PlannerModule.getInstance()
    context = planner.getSubmoduleClassLoader().loadClass(
        "org.apache.flink.table.planner.plan.nodes.exec.ExecNodeContext"
    )
    context.getMethod("resetIdCounter", None).invoke(None, None)


def test_a_savepoint_is_refused_by_another_formula_and_continued_by_the_same(bundle_directory, tmp_path):
    job = RunningJob(bundle_directory, tmp_path)
    job.send(("ada", 0), ("bob", 5), ("cleo", 32))
    job.start(CONVERSION)
    job.wait_for_row("kpis", window="minute")  # of ada's session: the sum of its hour is in the state
    savepoint = job.stop()

    with pytest.raises(
        SystemExit, match=rf"^measure_sessions: {savepoint}: can't start from this state: it belongs to"
    ):
        job.start(BOUNCES, savepoint)

    job.start(CONVERSION, savepoint)
    job.send(("dora", 125))
    row = job.wait_for_row("kpis", window="hour", window_start=NOW)
    assert (row["numerator"], row["denominator"]) == (0, 2)  # with the session that was closed before, and an open one
    job.stop()
