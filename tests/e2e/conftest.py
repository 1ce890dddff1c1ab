"""A broker and a cluster for all end-to-end tests, and for each test a job with topics of its own."""

import shutil
from pathlib import Path

import pytest

from jobs.common.settings import load_settings
from jobs.common.topics import create_topics
from tests.support.e2e.flowing import FlowingClicks
from tests.support.e2e.pipeline import CONF, Pipeline
from tools.paths import JARS
from tools.release import build_release
from tools.stack.flink_client import newest_wheel
from tools.stack.local_stack import LocalStack

#: In the environment of the cluster, and only there: what a job may name as ${env:...}.
JOB_PASSWORD_VARIABLE, JOB_PASSWORD = "E2E_JOB_PASSWORD", "correct-horse-7391"

FLINK = "tests/flink/"

#: What takes minutes. It starts first, or a worker would be at one of it when the others have nothing left.
LONGEST = (
    FLINK,
    "test_faults.py",
    "test_state.py",
    "test_drill.py",
    "test_worker_life.py",
    "test_outcomes.py",
    "test_rollout.py",
    "test_monitoring.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: next((place for place, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST))
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With --dist loadfile, all tests that need a JVM inside their process share one.

    Such a JVM takes half a minute of CPU until it has loaded Flink's planner and compiled what it runs.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return FLINK if nodeid.startswith(FLINK) else super()._split_scope(nodeid)

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def release(run_directory) -> Path:
    """A release, unpacked elsewhere than it was made."""
    archive = build_release(newest_wheel(), JARS / "job", run_directory / "release")
    shutil.unpack_archive(archive, run_directory / "unpacked")
    (unpacked,) = (run_directory / "unpacked").iterdir()
    return unpacked


@pytest.fixture(scope="session")
def stack(run_directory, release, flink_libraries):
    """One TaskManager with four slots; the JARs of the release are in its lib/."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(JOB_PASSWORD_VARIABLE, JOB_PASSWORD)
        with LocalStack(run_directory / "stack", task_managers=1, slots=4, job_jars=release / "jars") as stack:
            yield stack


@pytest.fixture
def pipeline(stack, bundle_directory, run_directory, request):
    """A factory of pipelines; their jobs are cancelled at the end of the test."""
    made: list[Pipeline] = []

    def make(*overrides: str, partitions: int = 4) -> Pipeline:
        name = f"{request.node.name.replace('[', '-').strip(']')}-{len(made)}"[:80]
        common = [
            f"job.name={name}",
            "job.parallelism=1",  # each task has Python workers, which take seconds to start
            f"source.group_id={name}",
            f"model.bundle={bundle_directory}",
            f"archive.name={name}-archive",
            f"outcomes.name={name}-outcomes",
            f"sessions.name={name}-sessions",
            f"drift.name={name}-drift",
            f"experiments.name={name}-experiments",
            f"archive.dir={(run_directory / name).as_uri()}",
            "archive.interval=2 s",
            "checkpoints.interval=2 s",
            "decode.max_behind=36500 d",
            "flink.restart-strategy.exponential-delay.max-backoff=3 s",
            f"kafka.bootstrap.servers={stack.bootstrap_servers}",
            *(
                f"topics.{role}={name}-{role}"
                for role in (
                    "clicks",
                    "profiles",
                    "scores",
                    "dead_letters",
                    "feature_log",
                    "shadow_scores",
                    "outcomes",
                    "model_quality",
                    "sessions",
                    "kpis",
                    "experiments",
                    "drift",
                    "requeued",
                )
            ),
            *overrides,
        ]
        settings = load_settings(CONF, common, {})
        create_topics(settings, partitions, 1)
        made.append(Pipeline(stack, settings, common))
        return made[-1]

    yield make
    try:
        assert not [line for pipeline in made for line in pipeline.broken_contracts()]
    finally:
        for pipeline in made:
            pipeline.close()


@pytest.fixture
def flowing():
    """A factory of FlowingClicks, none of which flows on after the test."""
    started = []

    def start(*arguments) -> FlowingClicks:
        started.append(FlowingClicks(*arguments))
        started[-1].start()
        return started[-1]

    yield start
    for clicks in started:
        clicks.stop()
