"""Jobs on a mini cluster inside this process's JVM, over tables that a test fills."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from py4j.java_gateway import JavaObject
from pyflink.java_gateway import get_gateway

from jobs.common.serving import find_serving
from jobs.common.settings import load_settings
from jobs.common.streams import Streams
from jobs.common.submission import flink_options
from jobs.score_clicks import kafka_streams, score_clicks
from tests.support.flink_environment import flink_configuration, submitted_to_cluster
from tools.paths import CONF
from udfs.workers.decode import RAW_RECORD

PROJECT = Path(__file__).parents[2]
#: A failure ends the job, and with it the test; the shipped settings would try again and again.
ONE_TRY = ("job.parallelism=1", "feature_log.user_share=1.0", "flink.restart-strategy.type=none")
SLOTS = 4


def settings_of(bundle_directory: Path, *overrides: str):
    return load_settings(CONF, [f"model.bundle={bundle_directory}", *overrides], {})


@pytest.fixture(scope="package", autouse=True)
def cluster(flink_libraries) -> Iterator[JavaObject]:
    """One for all jobs: starting one means loading the 1,300 classes of its actor system.

    Flink splits the code that it generates into methods short enough to be compiled. That takes two fifths of the
    planning, and pays only with more rows than a test has.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(PROJECT))  # of the JVM and, through it, of Python workers
        flink = get_gateway().jvm.org.apache.flink
    options = {
        "rest.address": "127.0.0.1",
        "rest.bind-address": "127.0.0.1",
        "rest.bind-port": 0,
        "taskmanager.memory.managed.size": f"{128 * SLOTS}m",
    }
    described = flink.runtime.minicluster.MiniClusterConfiguration.Builder()
    described.setConfiguration(flink_configuration(options)._j_configuration).setNumSlotsPerTaskManager(SLOTS)
    cluster = flink.runtime.minicluster.MiniCluster(described.build())
    cluster.start()
    address = cluster.getRestAddress().get()
    of_jobs = {
        "rest.address": address.getHost(),
        "rest.port": address.getPort(),
        "table.generated-code.max-length": 64_000,
    }
    with submitted_to_cluster(of_jobs):
        yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def no_job_left(cluster) -> Iterator[None]:
    """The job of a test that fails takes no slots from others."""
    yield
    for job in cluster.listJobs().get():
        if not job.getJobState().isGloballyTerminalState():
            cluster.cancelJob(job.getJobId()).get()


@pytest.fixture
def explain(bundle_directory) -> Callable[..., list[dict]]:
    """The nodes of the job's plan as it runs on Kafka."""

    def explained(*overrides: str) -> list[dict]:
        settings = settings_of(bundle_directory, *overrides)
        streams = Streams(flink_options(settings), settings.workers)
        written = score_clicks(streams, *kafka_streams(streams, settings), settings, find_serving(settings))
        for role, stream in written.items():
            streams.write_to_kafka(stream, role, {"bootstrap.servers": "localhost:1"}, None)
        return json.loads(streams.environment.get_execution_plan())["nodes"]

    return explained


@pytest.fixture(scope="package")
def run_job(bundle_directory) -> Callable[..., dict[str, list[dict]]]:
    """Run the job over given (key, payload, timestamp in ms) clicks and profiles; returns what it wrote, by role."""

    def run(clicks: list, profiles: list = (), overrides: tuple[str, ...] = ()) -> dict[str, list[dict]]:
        settings = settings_of(bundle_directory, *ONE_TRY, *overrides)
        streams = Streams(flink_options(settings), settings.workers)
        sources = [
            streams.collection([raw_record(offset, *record) for offset, record in enumerate(records)])
            for records in (clicks, profiles)
        ]
        written = score_clicks(streams, *sources, settings, find_serving(settings))
        return collect(streams, written)

    return run


def collect(streams: Streams, written: dict) -> dict[str, list[dict]]:
    """Run the job, and return the values that it wrote, by the fields that only records of the role have."""
    records: dict[str, list[dict]] = {role: [] for role in written}
    frames = streams.union(*written.values()).executeAndCollect()
    while frames.hasNext():
        value = json.loads(value_of(frames.next()))
        role = next(role for role, field in ROLE_FIELDS.items() if field in value)
        records[role].append(value)
    return records


#: A field that only the records of a topic have, in the order to look for them.
ROLE_FIELDS = {
    "dead_letters": "original",
    "feature_log": "features",
    "shadow_scores": "shadow_scores",
    "scores": "decision",
}


def raw_record(offset: int, key: bytes | None, payload: bytes | None, time_ms: int) -> bytes:
    """A Kafka record of partition 0, as RawRecordReader.java lays it out."""
    lengths = [-1 if part is None else len(part) for part in (key, payload)]
    return np.array([(time_ms, offset, 0, *lengths)], RAW_RECORD).tobytes() + (key or b"") + (payload or b"")


def value_of(frame: bytes) -> bytes:
    """The value of a frame, as Frame.java lays it out."""
    key_bytes = int.from_bytes(frame[:4], "little", signed=True)
    return frame[4 : len(frame) - max(key_bytes, 0)]


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
