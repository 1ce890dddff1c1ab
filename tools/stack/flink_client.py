"""Submit jobs to the local cluster with `flink run`; watch and stop them over REST."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse

from tools.paths import PROJECT
from tools.stack.local_stack import LocalStack


class JobError(RuntimeError):
    """A job that could not be submitted, failed, or did not reach a state in time."""


def newest_wheel() -> Path:
    """The wheel that `make wheel` built. Raises JobError when there is none."""
    wheels = sorted((PROJECT / "dist").glob("*.whl"), key=lambda wheel: wheel.stat().st_mtime)
    if not wheels:
        raise JobError("dist: no wheel; run `make wheel`")
    return wheels[-1]


def submit(
    stack: LocalStack,
    conf: Path,
    overrides: Sequence[str] = (),
    savepoint: Path | None = None,
    wheel: Path | None = None,
    module: str = "jobs.score_clicks",
) -> str:
    """Run `flink run` for the scoring job; returns the job's id. Raises JobError with what it printed."""
    command = [str(stack.flink), "run", "--detached"]
    if savepoint is not None:
        command += ["--fromSavepoint", str(savepoint)]
    command += ["-pym", module, "-pyfs", str(wheel or newest_wheel()), *job_arguments(stack, conf, overrides)]
    ran = subprocess.run(
        command, cwd=stack.directory, env=stack.environment, capture_output=True, text=True, check=False
    )
    job = re.search(r"JobID ([0-9a-f]{32})", ran.stdout)
    if ran.returncode != 0 or not job:
        raise JobError(f"flink run failed (exit code {ran.returncode}):\n{ran.stdout}{ran.stderr}")
    return job[1]


def job_arguments(stack: LocalStack, conf: Path, overrides: Sequence[str]) -> list[str]:
    """The command line of a job on the stack."""
    settings = [f"kafka.bootstrap.servers={stack.bootstrap_servers}", *overrides]
    return ["--conf", str(conf), *(word for setting in settings for word in ("--set", setting))]


def wait_until_running(stack: LocalStack, job: str, timeout_seconds: float = 120) -> None:
    """Wait until every task of the job runs."""

    def runs() -> bool:
        described = stack.rest(f"/jobs/{job}")
        if described["state"] in ("FAILED", "CANCELED"):
            raise JobError(f"job {job} {described['state']}: {failure(stack, job)}")
        return all(vertex["status"] in ("RUNNING", "FINISHED") for vertex in described["vertices"])

    wait_for(runs, timeout_seconds, f"job {job} to run")


def stop_with_savepoint(stack: LocalStack, job: str) -> Path:
    """Stop the job; returns the savepoint's directory. Raises JobError."""
    try:  # as `flink stop` does, which takes seconds to start
        savepoint = stack.stop_job(job)
    except OSError as error:
        raise JobError(f"job {job} could not be stopped: {error}") from None
    told = {}

    def is_complete() -> bool:
        with suppress(OSError):  # the JobManager is busy for a moment
            told.update(stack.rest(savepoint))
        return bool(told) and told["status"]["id"] == "COMPLETED"

    wait_for(is_complete, 120, f"the savepoint of job {job}")
    operation = told["operation"]
    if "location" not in operation:
        raise JobError(f"job {job}: the savepoint failed: {operation['failure-cause']['stack-trace']}")
    return Path(urlparse(operation["location"]).path)


def cancel(stack: LocalStack, job: str) -> None:
    """End the job without a savepoint. Raises JobError."""
    try:
        stack.cancel(job)
    except OSError as error:
        raise JobError(f"job {job} could not be cancelled: {error}") from None
    wait_for(lambda: stack.rest(f"/jobs/{job}")["state"] == "CANCELED", 60, f"job {job} to end")


def failure(stack: LocalStack, job: str) -> str:
    """The stack trace of the job's last failure."""
    entries = stack.rest(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"]
    return entries[0]["stacktrace"] if entries else "no exception recorded"


def wait_for(condition: Callable[[], bool], timeout_seconds: float, what: str, poll_seconds: float = 0.2) -> None:
    """Poll until the condition holds; raise JobError when the time is up."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise JobError(f"timed out after {timeout_seconds:.0f} s waiting for {what}")
        time.sleep(poll_seconds)
