"""Checks of the targets that the score job's settings name: Kafka, model and Flink cluster."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import urllib3

from jobs.common.population import find_population, newest_table_of
from jobs.common.serving import find_serving
from jobs.common.settings import ConfigError, Settings, feature_declaration, load_settings, shared_memory_bytes
from jobs.ops.doctor.finding import Finding, mebibytes
from jobs.ops.doctor.kafka import check_clock, check_kafka
from udfs.config.durations import now_ms
from udfs.config.text import one_line
from udfs.contracts.outputs import iso_time
from udfs.models.bundle import BundleError
from udfs.population.store import PopulationError
from udfs.rollout.registry import RegistryError

#: Directories that may hold the JARs of this version, from the working directory: in a release, in a checkout.
JAR_DIRECTORIES = (Path("jars"), Path("build", "jars", "job"))
#: What a cluster's lib/ needs beside Flink's own JARs: the start of each name, and where it is from.
NEEDED_JARS = {
    "flink-sql-connector-kafka-": "build/jars/job",
    "batch-operators": "build/jars/job",
    "flink-python-": "Flink's opt/",
}

#: A table is too old when so many more should have followed it.
LATE_TABLES = 2
PUBLISH = "start jobs.publish_population, or see why it publishes none: docs/runbook.md"


def check_target(conf: Path, overrides: Sequence[str], flink: str | None) -> Iterator[Finding]:
    """Run all checks of the score job's target. Raises ConfigError."""
    settings = load_settings(conf, overrides)
    yield Finding("Flink client", version("apache-flink"))
    yield check_model(settings)
    yield from check_population(settings)
    yield from check_kafka(settings)
    if flink is None:
        yield Finding("Flink cluster", "not checked: pass its address with --flink URL", unknown=True)
        yield check_checkpoint_dir(settings, None)
        yield describe_shared_memory(settings, 1)
    else:
        yield from check_cluster(settings, flink)


def check_model(settings: Settings) -> Finding:
    """Check the models that would serve, by loading them as the client does when it submits."""
    model = settings.model
    try:
        serving = find_serving(settings)
    except (ConfigError, BundleError, RegistryError) as error:
        return Finding("model", str(error), "train one, or name another in section model")
    return Finding("model", f"{', '.join(serving.rollout.versions)} of {model.registry or model.bundle}")


def check_population(settings: Settings) -> Iterator[Finding]:
    """Check that tables of the population are there and not too old; nothing if the declaration needs none."""
    publication = feature_declaration(settings).layout.publication
    try:
        if find_population(settings) is None:
            return
        newest = newest_table_of(settings)
    except (ConfigError, PopulationError) as error:
        yield Finding(
            "population", str(error), "set population.dir, and run jobs.publish_population with these settings"
        )
        return
    if newest is None:
        yield Finding("population", f"{settings.population.dir}: no tables yet", PUBLISH)
        return
    age_ms = now_ms() - newest.boundary_ms
    result = f"{settings.population.dir}: newest table of {iso_time(newest.boundary_ms)}"
    is_old = age_ms > LATE_TABLES * publication.every_ms + publication.delay_ms
    yield Finding("population", f"{result}, {age_ms // 60_000:,} min old" if is_old else result, PUBLISH * is_old)


def check_cluster(settings: Settings, url: str) -> Iterator[Finding]:
    """Check version, slots, JARs, checkpoints and clock of the cluster over its REST API."""
    http = urllib3.PoolManager(timeout=10, retries=False)

    def ask(path: str) -> urllib3.BaseHTTPResponse:
        answer = http.request("GET", url.rstrip("/") + path)
        if answer.status != 200:
            raise urllib3.exceptions.HTTPError(f"{path}: {answer.status}")
        return answer

    try:
        overview = ask("/overview").json()
        options = {entry["key"]: entry["value"] for entry in ask("/jobmanager/config").json()}
        environment = ask("/jobmanager/environment").json()
        before_ms = time.time() * 1000
        jobs = ask("/jobs").json()["jobs"]
        now_ms = ask(f"/jobs/{jobs[0]['id']}").json()["now"] if jobs else None
        after_ms = time.time() * 1000
    except (urllib3.exceptions.HTTPError, json.JSONDecodeError, KeyError) as error:
        yield Finding("Flink cluster", f"{url}: {one_line(error)}", "the REST address of the JobManager")
        return
    yield check_version(overview["flink-version"], version("apache-flink"))
    yield check_slots(settings.job.parallelism, overview)
    yield describe_shared_memory(settings, slots_of_task_manager(overview))
    yield from check_jars(environment["classpath"], version("apache-flink"))
    yield check_checkpoint_dir(settings, options)
    if now_ms is None:
        yield Finding(
            "clock of Flink", "cannot be determined: the REST API reports the time only while a job runs", unknown=True
        )
    else:
        yield check_clock("Flink", before_ms, now_ms, after_ms)


def check_version(cluster: str, client: str) -> Finding:
    """Check the cluster's version: the client compiles plans for a cluster of its own version."""
    return Finding("Flink cluster", cluster, "" if cluster == client else f"the client is {client}: use one version")


def check_slots(parallelism: int, overview: Mapping) -> Finding:
    """Check the free slots; a cluster that starts TaskManagers as needed may report none."""
    total, free = overview["slots-total"], overview["slots-available"]
    result = f"{free} free of {total}, parallelism {parallelism}"
    if free >= parallelism or not total:
        return Finding("slots", result)
    return Finding("slots", result, "more TaskManagers, fewer jobs, or a cluster that starts them as needed")


def slots_of_task_manager(overview: Mapping) -> int:
    """Slots of a TaskManager, estimated by the mean, rounded up; 1 if there is none now."""
    return -(-overview["slots-total"] // max(overview["taskmanagers"], 1)) or 1


def describe_shared_memory(settings: Settings, slots: int) -> Finding:
    """Report the shared memory that each TaskManager needs; their file systems can't be checked from here."""
    needed = mebibytes(slots * shared_memory_bytes(settings))
    scope = "a slot" if slots == 1 else f"a TaskManager of {slots} slots"
    result = f"{needed} MiB in {settings.workers.memory_dir} for {scope}: not checked"
    return Finding("shared memory", result, unknown=True)


def check_jars(classpath: Sequence[str], flink: str) -> Iterator[Finding]:
    """Check the JARs in the JobManager's class path; TaskManagers are started from the same image or directory."""
    names = [Path(entry).name for entry in classpath]
    built = {jar.name for directory in JAR_DIRECTORIES for jar in directory.glob("*.jar")}
    for start, origin in NEEDED_JARS.items():
        present = [name for name in names if name.startswith(start)]
        expected = [name for name in built if name.startswith(start)] or [f"{start}{flink}.jar"] * start.endswith(
            "python-"
        )
        remedy = ""
        if len(present) != 1:
            remedy = f"one in lib/, from {origin}"
        elif expected and present != expected:
            remedy = f"replace it with {expected[0]}, from {origin}"
        yield Finding(f"JAR {start.rstrip('-')}", ", ".join(present) or "not in lib/", remedy)


def check_checkpoint_dir(settings: Settings, cluster: Mapping[str, str] | None) -> Finding:
    """Check that checkpoints are kept in a directory; without one, they are lost with the processes."""
    key = "execution.checkpointing.dir"
    directory = settings.flink.get(key) or settings.checkpoints.dir
    if directory:
        return Finding("checkpoints", str(directory))
    if cluster is None:
        return Finding(
            "checkpoints", "checkpoints.dir is not set, so the cluster's own applies: not checked", unknown=True
        )
    if cluster.get(key):
        return Finding("checkpoints", f"{cluster[key]}, the cluster's own")
    return Finding("checkpoints", "no directory: they are in the JobManager's memory", f"checkpoints.dir, or {key}")
