"""The kinds of faults. Each function causes one, lets it last, and ends it; the system has to recover by itself."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tools.chaos.cluster import DISCOVERY_SECONDS, FLINK, KAFKA, RECOVERY_SECONDS, Chaos
from tools.stack import flink_client
from tools.trials.topics import end_offsets, wait_until_consumed
from training.rollout.ledger import append, next_entry
from udfs.kafka.connection import open_admin
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import entry_file

DAY_MS = 86_400_000
ADDED_PARTITIONS = 2
LATE_MS = 600_000  # within event_time.lateness
LET_GO_SECONDS = 2.0  # in which each reader of a hanging entry has noticed that it is empty


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what causes it, and for how many seconds it lasts at least and at most."""

    cause: Callable[[Chaos, float, random.Random], None]
    seconds: tuple[float, float] = (0.0, 0.0)
    needs_root: bool = False
    ends_leg: bool = False  # it is not undone until all is checked


def kill_task_manager(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    chaos.stack.kill_task_manager(rng.choice(chaos.stack.task_managers()))


def kill_job_manager(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    chaos.stack.kill_job_manager()


def kill_workers(name: str) -> Callable[[Chaos, float, random.Random], None]:
    def kill(chaos: Chaos, seconds: float, rng: random.Random) -> None:
        for worker in _some(chaos.workers(name), rng):
            with suppress(psutil.NoSuchProcess):  # it ended with another one
                worker.kill()

    return kill


def stop_workers(name: str) -> Callable[[Chaos, float, random.Random], None]:
    def stop(chaos: Chaos, seconds: float, rng: random.Random) -> None:
        workers = _some(chaos.workers(name), rng)
        _signal(workers, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            _signal(workers, signal.SIGCONT)

    return stop


def kill_broker(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    name = rng.choice(chaos.stack.brokers())
    chaos.stack.kill_broker(name)
    time.sleep(seconds)
    chaos.stack.start_broker(name)


def lose_broker(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """One of several, which does not come back."""
    chaos.stack.kill_broker(rng.choice(chaos.stack.brokers()))
    time.sleep(seconds)


def add_partitions(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """To the clicks, as docs/operations.md says: only when all earlier ones are scored does a user move."""
    topic, servers = chaos.settings.topics.clicks, chaos.stack.bootstrap_servers
    with chaos.load.paused():
        wait_until_consumed(servers, topic, chaos.settings.source.group_id, RECOVERY_SECONDS)
        ends = end_offsets(servers, topic)
        chaos.additions.append(ends)
        with open_admin(chaos.settings.kafka, f"topic {topic}") as admin:
            admin.create_partitions({topic: len(ends) + ADDED_PARTITIONS})
        flink_client.wait_for(lambda: len(end_offsets(servers, topic)) > len(ends), 60, "the new partitions")
        time.sleep(2 * DISCOVERY_SECONDS)  # or the watermark would pass what comes there first


def stop_broker(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    broker = [psutil.Process(chaos.stack.processes[rng.choice(chaos.stack.brokers())].pid)]
    _signal(broker, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        _signal(broker, signal.SIGCONT)


def cut_network(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """Between the broker and all others, or between the TaskManagers and all others."""
    with chaos.network.cut(rng.choice((KAFKA, FLINK))):
        time.sleep(seconds)


def fill_disk(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """The one with the checkpoints."""
    file = chaos.stack.directory / "checkpoints" / "of-somebody-else"
    try:
        with suppress(OSError), file.open("wb", buffering=0) as content:
            while content.write(bytes(1 << 20)):  # a shorter one is the last one before the disk is full
                pass
        time.sleep(seconds)
    finally:
        file.unlink(missing_ok=True)


def set_clock_wrong(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """The producer's: by ten minutes either way, or so far ahead that clicks are rejected."""
    chaos.load.clock_off_ms = rng.choice((-LATE_MS, LATE_MS, 36_500 * DAY_MS))
    try:
        time.sleep(seconds)
    finally:
        chaos.load.clock_off_ms = 0


def lose_registry(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    there, away = Path(chaos.registry.uri), chaos.directory / "registry-away"
    there.rename(away)
    try:
        time.sleep(seconds)
    finally:
        away.rename(there)


def damage_registry(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """The ledger names a model whose file is damaged, and then the old one again."""
    registry = chaos.registry
    serving = registry.rollout()[1]
    version = f"damaged-{next_entry(registry)}"
    source, target = (Path(registry.path("bundles", name)) for name in (serving.champion, version))
    target.mkdir()
    for file in source.iterdir():
        content = file.read_bytes()
        if file.name == "manifest.json":
            content = json.dumps(json.loads(content) | {"version": version}).encode()
        elif file.name.startswith("model."):
            place = rng.randrange(len(content))
            content = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        (target / file.name).write_bytes(content)
    _point_to(chaos, Rollout(salt=serving.salt, champion=version))
    time.sleep(seconds)
    _point_to(chaos, serving)


def slow_registry(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """The ledger's next entry hangs whoever reads it, and turns out to be empty."""
    file = Path(chaos.registry.path("ledger", entry_file(next_entry(chaos.registry))))
    os.mkfifo(file)
    time.sleep(seconds)
    file.rename(file.with_suffix(".hung"))
    enough = threading.Event()

    def let_go() -> None:  # each reader that has opened it, with an empty file
        while not enough.wait(0.05):
            with suppress(OSError):  # nobody reads it
                os.close(os.open(file.with_suffix(".hung"), os.O_WRONLY | os.O_NONBLOCK))

    releasing = threading.Thread(target=let_go)
    releasing.start()
    time.sleep(LET_GO_SECONDS)
    enough.set()
    releasing.join()
    file.with_suffix(".hung").unlink()


def rescale(chaos: Chaos, seconds: float, rng: random.Random) -> None:
    """Stop with a savepoint, and go on with another parallelism."""
    savepoint = flink_client.stop_with_savepoint(chaos.stack, chaos.job)
    chaos.parallelism = rng.choice([other for other in (1, 2, 3) if other != chaos.parallelism])
    chaos.submit(savepoint)


BROKER_LOST = "broker-lost"
KINDS = {
    "task-manager-killed": Kind(kill_task_manager),
    "job-manager-killed": Kind(kill_job_manager),
    "decode-worker-killed": Kind(kill_workers("decode clicks")),
    "decode-worker-stopped": Kind(stop_workers("decode clicks"), (2, 8)),
    "score-worker-killed": Kind(kill_workers("score")),
    "score-worker-stopped": Kind(stop_workers("score"), (2, 8)),
    "broker-killed": Kind(kill_broker, (1, 10)),
    "broker-stopped": Kind(stop_broker, (3, 15)),
    "network-cut": Kind(cut_network, (3, 15), needs_root=True),
    "checkpoint-disk-full": Kind(fill_disk, (4, 12), needs_root=True),
    "producer-clock-off": Kind(set_clock_wrong, (2, 6)),
    "registry-gone": Kind(lose_registry, (3, 10)),
    "registry-damaged": Kind(damage_registry, (3, 10)),
    "registry-slow": Kind(slow_registry, (3, 10)),
    "savepoint-and-rescale": Kind(rescale),
    "partitions-added": Kind(add_partitions),
    BROKER_LOST: Kind(lose_broker, (20, 30), ends_leg=True),
}
#: The kinds that a run draws. With several brokers, each leg also ends with the loss of one.
DRAWN = [name for name, kind in KINDS.items() if not kind.ends_leg]


def _some(workers: list[psutil.Process], rng: random.Random) -> list[psutil.Process]:
    """One of the workers, or all of them."""
    return workers if rng.random() < 0.5 else rng.sample(workers, min(1, len(workers)))


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _point_to(chaos: Chaos, rollout: Rollout) -> None:
    append(
        chaos.registry, next_entry(chaos.registry), rollout, by="chaos", command=["chaos"],
        why=f"a fault at {datetime.now(UTC):%H:%M:%S}",
    )  # fmt: skip
