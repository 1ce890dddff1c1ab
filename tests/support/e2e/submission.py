"""Jobs that the test's own process submits: `flink run` takes a JVM and a Python process each time."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path

import yaml

from tests.support.flink_environment import submitted_to_cluster
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack


def submit(
    stack: LocalStack,
    conf: Path,
    overrides: Sequence[str],
    savepoint: Path | None = None,
    module: str = "jobs.score_clicks",
) -> str:
    """Do what `flink_client.submit` does with `flink run`. Raises JobError with what the job printed."""
    options = yaml.safe_load((stack.directory / "conf" / "config.yaml").read_text()) | {
        "execution.attached": False,
        "python.files": flink_client.newest_wheel(),
    }
    if savepoint is not None:
        options["execution.state-recovery.path"] = savepoint.as_uri()
    printed = io.StringIO()
    try:
        with submitted_to_cluster(options), redirect_stdout(printed), redirect_stderr(printed):
            import_module(module).main(flink_client.job_arguments(stack, conf, overrides))
    except SystemExit as end:
        raise flink_client.JobError(f"{module}: {printed.getvalue()}{end.code}") from None
    match = re.search(r"job ([0-9a-f]{32})", printed.getvalue())
    if match is None:
        raise flink_client.JobError(f"{module} submitted nothing: {printed.getvalue()}")
    return match[1]
