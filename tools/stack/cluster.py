"""A standalone Flink cluster for this machine, from the distribution inside the apache-flink package."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import yaml

from tools.paths import PROJECT
from tools.stack.processes import HERE, Place, Process, ProcessError, start

JOB_MANAGER_MEMORY = "1024m"


def flink_home() -> Path:
    """The directory of Flink's scripts and JARs in the apache-flink package."""
    spec = find_spec("pyflink")  # finds without importing: pyflink takes seconds
    if spec is None:
        raise ProcessError(f"apache-flink is not installed for {sys.executable}: run `make venv`")
    return Path(spec.submodule_search_locations[0])


def cluster_options(
    directory: Path, rest_port: int, rpc_port: int, slots: int, task_manager_memory: str
) -> dict[str, object]:
    """config.yaml of the cluster. Keys are flat, which Flink accepts; every address is this machine's own."""
    stock = yaml.safe_load((flink_home() / "conf" / "config.yaml").read_text())
    return {
        "env.java.opts.all": stock["env"]["java"]["opts"]["all"],  # what Flink needs opened in JDK 17
        # These two run for seconds, or do little: the optimising compiler would only take cores from the job.
        "env.java.opts.client": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "env.java.opts.jobmanager": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "jobmanager.bind-host": "127.0.0.1",
        "jobmanager.rpc.address": "127.0.0.1",
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.memory.process.size": JOB_MANAGER_MEMORY,
        "taskmanager.bind-host": "127.0.0.1",
        "taskmanager.host": "127.0.0.1",
        "taskmanager.memory.process.size": task_manager_memory,
        "taskmanager.memory.managed.fraction": 0.4,
        "taskmanager.memory.task.off-heap.size": "384m",  # gRPC's buffers to the Python workers of several jobs
        "taskmanager.numberOfTaskSlots": slots,
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.port": rest_port,
        "rest.flamegraph.enabled": True,
        # A TaskManager that is gone is noticed by two refused heartbeats, not by the 50 s of silence that a busy
        # machine may well cause.
        "heartbeat.interval": "3 s",
        "pekko.ask.timeout": "60 s",  # also how long a TaskManager may take to set up its actors, on a busy machine too
        # Who starts before the JobManager answers asks again after this time. By default it is 10 s.
        "cluster.registration.error-delay": "500 ms",
        # The JARs of the job are in lib/: resolved there first, their classes are loaded once however often a job is
        # submitted, and those of flink-python are the same for all of them.
        "classloader.resolve-order": "parent-first",
        "execution.checkpointing.dir": (directory / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (directory / "savepoints").as_uri(),
        "io.tmp.dirs": str(directory / "tmp"),
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "metrics.reporter.prom.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
    }


def prepare_cluster(directory: Path, job_jars: Sequence[Path], options: Mapping[str, object]) -> None:
    """Create conf/, lib/ and the working directories of a cluster under `directory`."""
    if " " in f"{directory}{flink_home()}":
        raise ProcessError(f"{directory}: Flink's start scripts fail on paths with spaces; use a directory without any")
    home = flink_home()
    for name in ("tmp", "lib"):  # left by a cluster that was killed, or of other JARs
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in ("conf", "lib", "log", "tmp", "checkpoints", "savepoints"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / "conf" / "config.yaml").write_text(yaml.safe_dump(dict(options), width=float("inf")))
    shutil.copy(LOGGING, directory / "conf")
    shutil.copy(home / "conf" / "log4j-cli.properties", directory / "conf")
    jars = [*_jars(home / "lib"), *_jars(home / "opt", "flink-python-*.jar"), *chain(*map(_jars, job_jars))]
    for jar in jars:
        (directory / "lib" / jar.name).symlink_to(jar)


LOGGING = PROJECT / "conf" / "log4j-console.properties"


#: Python workers inherit this from their TaskManager. A batch is megabytes, which glibc would take from the system and
#: give back each time, and each time the kernel would clear the pages.
WORKER_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def flink_environment(directory: Path) -> dict[str, str]:
    """The environment in which Flink's scripts, including `flink`, use the cluster under `directory`.

    It has no PYTHONPATH: Python workers import the job from the submitted wheel, not from the caller's directory.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FLINK_", "PYTHONPATH"))}
    return inherited | {
        "FLINK_CONF_DIR": str(directory / "conf"),
        "FLINK_LIB_DIR": str(directory / "lib"),
        "FLINK_LOG_DIR": str(directory / "log"),
        "FLINK_PID_DIR": str(directory / "tmp"),
        **WORKER_MEMORY,
    }


def start_job_manager(directory: Path, ports: Mapping[str, int]) -> Process:
    """Start the JobManager of a prepared cluster. `ports` are those of the options, and `metrics`."""
    log = directory / "log" / "jobmanager.log"
    return _start(directory, "jobmanager", "jobmanager.sh", ports, [f"web.log.path={log}"])


def start_zookeeper(directory: Path, host: str, port: int) -> Process:
    """Start the ZooKeeper of a prepared cluster, in which JobManagers find what one before them has left."""
    data = directory / "zookeeper"
    data.mkdir(exist_ok=True)
    settings = {"dataDir": data, "clientPort": port, "clientPortAddress": host, "tickTime": 2000}
    settings |= {"admin.enableServer": "false"}
    (directory / "conf" / "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    command = [str(flink_home() / "bin" / "zookeeper.sh"), "start-foreground", "1"]
    log = directory / "log" / "zookeeper.log"
    return start("zookeeper", command, log, directory, flink_environment(directory), {"zookeeper": port})


def start_task_manager(directory: Path, name: str, ports: Mapping[str, int], place: Place = HERE) -> Process:
    """Start a TaskManager that the cluster shows as `name`; it serves its metrics at port `metrics`."""
    log = directory / "log" / f"{name}.log"
    return _start(
        directory, name, "taskmanager.sh", ports, [f"taskmanager.resource-id={name}", f"taskmanager.log.path={log}"],
        place,
    )  # fmt: skip


def _start(
    directory: Path, name: str, script: str, ports: Mapping[str, int], options: Sequence[str], place: Place = HERE
) -> Process:
    command = [*place.launcher, str(flink_home() / "bin" / script), "start-foreground"]
    for option in [*options, f"metrics.reporter.prom.port={ports['metrics']}"]:
        command += ["-D", option]
    # Python workers import from where their TaskManager was started, which must not be the repository.
    return start(name, command, directory / "log" / f"{name}.log", directory, flink_environment(directory), ports)


def _jars(directory: Path, pattern: str = "*.jar") -> list[Path]:
    jars = sorted(directory.resolve().glob(pattern))
    if not jars:
        raise ProcessError(f"{directory}: no {pattern} found; run `make jars`")
    return jars
