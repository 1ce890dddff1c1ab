"""Application mode: the JobManager itself runs the job's main(), with the arguments that conf/kubernetes has."""

import json
import time
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tools.release import PROJECT
from tools.stack.cluster import cluster_options, flink_environment, flink_home, prepare_cluster, start_task_manager
from tools.stack.flink_client import wait_for
from tools.stack.http_client import get_text
from tools.stack.processes import start, stop

pytestmark = pytest.mark.e2e

DEPLOYMENT = PROJECT / "conf" / "kubernetes" / "score-clicks.yaml"


@pytest.fixture
def started():
    """Processes that are gone after the test."""
    processes = []
    yield processes
    stop(processes)


def test_a_cluster_of_its_own_runs_the_job_as_kubernetes_would(release, stack, pipeline, run_directory, started):
    pipe = pipeline("job.parallelism=1")
    directory = run_directory / "application"
    ports = {name: stack._free_port() for name in ("rest", "rpc", "metrics")}
    options = cluster_options(directory, ports["rest"], ports["rpc"], 1, "2g")
    prepare_cluster(directory, [release / "jars"], options)
    job = next(yaml.safe_load_all(DEPLOYMENT.read_text()))["spec"]["job"]
    script = flink_home() / "bin" / "standalone-job.sh"
    command = [str(script), "start-foreground", "--job-classname", job["entryClass"]]
    command += ["-D", f"metrics.reporter.prom.port={ports['metrics']}"]
    command += here(job["args"], release)
    for override in pipe.overrides:
        command += ["--set", override]
    log = directory / "log" / "jobmanager.log"
    started.append(start("jobmanager", command, log, directory, flink_environment(directory), ports))
    started.append(start_task_manager(directory, "taskmanager-1", {"metrics": stack._free_port()}))

    wait_for(lambda: state(ports["rest"]) == ["RUNNING"], 120, f"the job to run, see {log}")
    click = {"user_id": "ada", "event_name": "view_item", "event_time": time.time_ns() // 1_000_000}
    pipe.send("clicks", [(b"ada", json.dumps(click).encode(), None)])
    assert pipe.read("scores", at_least=1)[0]["user_id"] == "ada"


def here(arguments: list[str], release: Path) -> list[str]:
    """The arguments with the files of the release where the image has them."""
    (wheel,) = (release / "wheel").iterdir()
    local = {"/opt/intent/wheel": wheel, "/opt/intent/mine": release / "conf" / "local.yaml"}
    return [str(local.get(str(PurePosixPath(argument).parent), argument)) for argument in arguments]


def state(rest_port: int) -> list[str]:
    """The states of the cluster's jobs; empty while it does not answer."""
    try:
        return [job["state"] for job in json.loads(get_text(rest_port, "/jobs/overview"))["jobs"]]
    except OSError:
        return []
