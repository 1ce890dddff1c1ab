"""What faults happen to: a highly available cluster, one broker or several, three jobs, and the load."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

from jobs.common.settings import Settings, load_settings
from jobs.common.topics import create_topics
from jobs.ops.replay.producer import send_at_once
from tools.chaos.load import DAYS, Load, simulated
from tools.chaos.network import Network
from tools.demo.steps import check
from tools.paths import CONF
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from tools.stack.supervision import supervised
from tools.trials.answers import Answers
from tools.trials.sampling import python_workers
from tools.trials.topics import end_offsets
from training.data.sources import profile_records
from training.rollout.commands import First
from training.rollout.ledger import upload_bundle
from training.rollout.service import RolloutService
from udfs.models.bundle import directory_files
from udfs.rollout.registry import Registry

KAFKA, FLINK = "kafka", "flink"
TASK_MANAGERS, SLOTS, PARTITIONS = 2, 3, 4
MEASURING = ("jobs.measure_outcomes", "jobs.measure_sessions")
#: The checkpoints have a file system of their own, where root may mount one, so that it can be full.
CHECKPOINT_MEGABYTES = 512
RECOVERY_SECONDS = 240
DISCOVERY_SECONDS = 2
#: The simulated days pass in minutes: while a fault holds up one partition for a second, the others are a quarter of an
#: hour ahead. What is later than this is dropped by the jobs in event time.
LATENESS_HOURS = 24


@dataclass
class Chaos:
    """A running system. `job` is the id of the score job, which rescaling changes."""

    stack: LocalStack
    network: Network | None
    directory: Path
    settings: Settings
    overrides: list[str]
    registry: Registry
    load: Load
    answers: Answers
    job: str
    parallelism: int = 2
    others: list[str] = field(default_factory=list)
    additions: list[dict[int, int]] = field(default_factory=list)  # of partitions: the ends of the topic just before

    def submit(self, savepoint: Path | None = None) -> None:
        overrides = [*self.overrides, f"job.parallelism={self.parallelism}"]
        self.job = flink_client.submit(self.stack, CONF, overrides, savepoint)
        self.wait_until_running(self.job)

    def wait_until_running(self, job: str) -> None:
        flink_client.wait_until_running(self.stack, job, RECOVERY_SECONDS)

    def workers(self, name: str) -> list[psutil.Process]:
        """The Python processes of an operator of the score job: decode clicks, or score."""
        found = []
        for task_manager in self.stack.task_managers():
            with suppress(psutil.NoSuchProcess):
                workers = python_workers(psutil.Process(task_manager.pid))
                found += [worker for label, worker in workers if name in label]
        return found

    def wait_until_recovered(self) -> float:
        """Wait until clicks that are sent from now on are answered, in each partition; returns the seconds."""
        began = monotonic()
        ends = end_offsets(self.stack.bootstrap_servers, self.settings.topics.clicks)
        newest = self.answers.newest
        flink_client.wait_for(
            lambda: all(newest.get(partition, -1) >= end for partition, end in ends.items()),
            RECOVERY_SECONDS,
            "scores of clicks that were sent after the fault",
        )
        return monotonic() - began


@contextmanager
def running(
    directory: Path, bundle: Path, seed: int, rate: float, brokers: int, network: Network | None
) -> Iterator[Chaos]:
    """Start all of it in a directory, and end it."""
    places = {}
    if network is not None:
        places = {
            "broker_at": network.place(KAFKA),
            "job_manager_at": network.address,
            "task_managers_at": network.place(FLINK),
        }
    stack = LocalStack(
        directory / "stack",
        task_managers=TASK_MANAGERS,
        slots=SLOTS,
        partitions=PARTITIONS,
        brokers=brokers,
        high_availability=True,
        options={"env.java.opts.taskmanager": "-XX:TieredStopAtLevel=1"},
        log=lambda line: None,
        **places,
    )
    stream = simulated(seed)
    with _checkpoint_disk(directory, network is not None), stack:
        registry = Registry(str(directory / "registry"))
        overrides = _overrides(registry)
        settings = load_settings(CONF, [*overrides, f"kafka.bootstrap.servers={stack.bootstrap_servers}"])
        upload_bundle(registry, directory_files(bundle))
        (version,) = registry.versions()
        first = First(version)
        RolloutService(registry).execute(first, by="chaos", why="the model of the whole run")
        create_topics(settings, PARTITIONS, replication=brokers)
        check(send_at_once(stack.bootstrap_servers, settings.topics.profiles, profile_records(stream.profiles)))
        load = Load(stack.bootstrap_servers, settings.topics.clicks, stream, rate)
        answers = Answers(stack.bootstrap_servers, settings.topics.scores, settings.topics.dead_letters)
        chaos = Chaos(stack, network, directory, settings, overrides, registry, load, answers, job="")
        with supervised(stack, TASK_MANAGERS):
            chaos.submit()
            for module in MEASURING:
                chaos.others.append(flink_client.submit(stack, CONF, overrides, module=module))
                chaos.wait_until_running(chaos.others[-1])
            answers.start()
            try:
                yield chaos
            finally:
                answers.stop()


def _overrides(registry: Registry) -> list[str]:
    return [
        f"model.registry={registry.uri}",
        "model.poll=1 s",
        "model.engine=native",  # the same digits whatever the size of a batch
        "delivery.guarantee=exactly-once",
        "checkpoints.interval=2 s",
        f"source.discovery={DISCOVERY_SECONDS} s",
        f"decode.max_behind={DAYS + 5} d",  # event times are those of the simulated days
        f"event_time.lateness={LATENESS_HOURS} h",
        "flink.restart-strategy.exponential-delay.max-backoff=3 s",
        "flink.execution.checkpointing.tolerable-failed-checkpoints=1000",  # a full disk is no reason to restart
    ]


@contextmanager
def _checkpoint_disk(directory: Path, mounts: bool) -> Iterator[None]:
    checkpoints = directory / "stack" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    if not mounts:
        yield
        return
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={CHECKPOINT_MEGABYTES}m", "tmpfs", str(checkpoints)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(checkpoints)], check=True)
