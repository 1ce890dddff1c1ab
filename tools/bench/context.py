"""Shared by the parts of the benchmark, and made on first use: model, clicks, broker, clusters."""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jobs.common.settings import Settings, TopicNames, load_settings
from jobs.common.topics import create_topics
from jobs.ops.replay.producer import send_at_once
from tools.bench.hot_swap import two_models
from tools.bench.rates import BenchError, report_every
from tools.console import note, step
from tools.paths import CONF, PROJECT
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack, StackError
from tools.stack.processes import ProcessError, stop
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.examples import Examples
from training.data.sources import Record, click_records
from training.modeling.settings import Training
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.kafka.errors import KafkaClientError

EVENTS = 1_000_000
USERS, HOURS = 20_000, 48
COUNTED_FROM, COUNTED_TO = 200_000, 950_000  # the end is left out: partitions do not end together
PARTITIONS = 4
SLOTS, TASK_MANAGER_MEMORY = 4, "6g"
PROGRESS_RECORDS = 500_000  # between two lines of progress
ALL_TREES = Training(
    model="xgboost",
    rounds=200,
    patience=200,
    folds=2,
    repeats=0,
    prune=False,
    compare=(),
    parameters={"learning_rate": 0.02, "max_depth": 4, "teacher_share": 0.6},
)
CLUSTER_PROCESSES = ("jobmanager", "taskmanager")
ENDED = ("FINISHED", "CANCELED", "FAILED")
#: What a run in a context may raise, and a command reports in a line.
FAILURES = (BenchError, StackError, ProcessError, KafkaClientError, flink_client.JobError, OSError)


@dataclass(frozen=True)
class BenchModel:
    """The model of all features that all parts use, and its training examples."""

    bundle: Path
    examples: Examples
    features: int
    trees: int


class BenchContext:
    """The resources that parts share, each made on first use."""

    def __init__(self, directory: Path, **stack_options: Any):
        """`directory` is for all files: models, topics, checkpoints, logs; `stack_options` are LocalStack's."""
        self.directory = directory
        self._stack_options = stack_options
        self.keep = False  # the directory, when all is done
        self._broker_started = False

    @cached_property
    def model(self) -> BenchModel:
        step("Training a model with all features and 200 trees")
        examples = simulated_examples(simulate(Simulation(3_000, 24)))
        trained = train_model(examples, ALL_TREES)
        write_bundle(self.directory / "model", trained.manifest, trained.files)
        trees = int(trained.manifest.metrics["rounds"])
        return BenchModel(self.directory / "model", examples, len(trained.manifest.features), trees)

    @cached_property
    def registry(self) -> Path:
        """A registry with the model under two versions, one of which serves."""
        return two_models(self.model.bundle, self.directory / "registry")

    @cached_property
    def records(self) -> list[Record]:
        """EVENTS simulated clicks of USERS users, in order of arrival."""
        step(f"Simulating {EVENTS:,} clicks of {USERS:,} users")
        return list(islice(click_records(simulate(Simulation(USERS, HOURS)).clicks()), EVENTS))

    @cached_property
    def key_bytes(self) -> float:
        """The key bytes of the average click."""
        return float(np.mean([len(key) for key, _, _ in self.records]))

    @cached_property
    def stack(self) -> LocalStack:
        """The broker; `cluster` starts Flink beside it."""
        step("Starting a Kafka broker")
        stack = LocalStack(
            self.directory / "stack",
            task_managers=1,
            slots=SLOTS,
            task_manager_memory=TASK_MANAGER_MEMORY,
            log=note,
            **self._stack_options,
        )
        self._broker_started = True
        stack.start_broker()
        return stack

    def cluster(self) -> LocalStack:
        """A new cluster, so that the results of a part do not depend on the parts before it."""
        stack = self.stack
        self.stop_cluster()
        step("Starting a Flink cluster")
        stack.start_cluster()
        return stack

    def stop_cluster(self) -> None:
        """End the cluster, if there is one."""
        if self._broker_started:
            stop([process for name, process in self.stack.processes.items() if name.startswith(CLUSTER_PROCESSES)])

    def close(self) -> None:
        """End the broker and the cluster, if they were started."""
        if self._broker_started:
            self.stack.stop()

    @cached_property
    def common(self) -> list[str]:
        """The settings of every job that is measured, over CONF: KEY=VALUE."""
        return [f"model.bundle={self.model.bundle}", "decode.max_behind=36500 d"]

    @cached_property
    def waiting_clicks(self) -> str:
        """The topic of the simulated clicks, for parts that read them from the beginning."""
        settings = self.create_topics(topics_of("waiting", "clicks"))
        self.send(settings.topics.clicks, self.records)
        return settings.topics.clicks

    def create_topics(self, overrides: Sequence[str]) -> Settings:
        """The settings of a job, and its topics at the broker."""
        settings = load_settings(
            CONF, [*self.common, *overrides, f"kafka.bootstrap.servers={self.stack.bootstrap_servers}"]
        )
        create_topics(settings, PARTITIONS, replication=1)
        return settings

    def send(self, topic: str, records: Iterable[Record], count: int | None = None) -> None:
        """Send records, `count` of them where they have no length, as fast as the broker takes them."""
        count = len(records) if count is None else count
        step(f"Sending {count:,} clicks to Kafka")
        reported = report_every(records, PROGRESS_RECORDS, lambda sent: note(f"sent {sent:,}/{count:,}"))
        send_at_once(self.stack.bootstrap_servers, topic, reported)

    @contextmanager
    def running(self, overrides: Sequence[str], module: str = "jobs.score_clicks") -> Iterator[str]:
        """A job on the cluster, from when all of its tasks run; it is cancelled at the end."""
        job = flink_client.submit(self.stack, CONF, [*self.common, *overrides], module=module)
        try:
            flink_client.wait_until_running(self.stack, job)
            yield job
        except BaseException:
            with suppress(flink_client.JobError, OSError):  # the first error says more
                flink_client.cancel(self.stack, job)
            raise
        if self.stack.rest(f"/jobs/{job}")["state"] not in ENDED:
            flink_client.cancel(self.stack, job)


@contextmanager
def bench_context(prefix: str, **stack_options: Any) -> Iterator[BenchContext]:
    """A context in a directory of its own under build/, which stays there when something has failed."""
    context = BenchContext(Path(tempfile.mkdtemp(prefix=prefix, dir=PROJECT / "build")), **stack_options)
    try:
        yield context
    except BaseException:
        context.keep = True
        raise
    finally:
        context.close()
        if not context.keep:
            shutil.rmtree(context.directory)


def topics_of(run: str, *roles: str) -> list[str]:
    """Settings that give a run topics of its own: in those roles, or in all.

    >>> topics_of("first", "scores")
    ['topics.scores=first-scores']
    """
    return [f"topics.{role}={run}-{role}" for role in roles or TopicNames.__struct_fields__]


def fresh_run(name: str, *roles: str) -> list[str]:
    """Settings that isolate a run: a consumer group of its own, and topics of its own in those roles, or in all."""
    return [f"source.group_id={name}", *topics_of(name, *roles)]
