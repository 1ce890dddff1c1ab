"""Cause faults on a real broker and cluster under load, and check every record afterwards.

    make chaos FAULTS=100 SEED=7       # or: python -m tools.chaos --faults 100 --seed 7

The faults are drawn from the seed and printed first. They happen in legs, each on a cluster and with topics of its own,
which are checked at its end. Run the same command again to go on after the last complete leg. The report is
build/chaos/<seed>-<faults>/report.md. The exit code is 1 if anything is wrong.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from jobs.ops.replay.producer import send_at_once
from tools.chaos import network
from tools.chaos.answers import committed_consumer
from tools.chaos.cluster import FLINK, KAFKA, Chaos, running
from tools.chaos.faults import KINDS
from tools.chaos.load import simulated
from tools.chaos.report import Leg, Result, markdown
from tools.chaos.schedule import Fault, draw
from tools.chaos.verdict import Clicks, differences, newest_profiles, outcomes_before, sessions_before
from tools.console import console, note, step
from tools.demo.steps import check, train
from tools.paths import CONF, PROJECT
from tools.stack import flink_client
from tools.stack.processes import ProcessError
from training.data.sources import click_records
from training.modeling.settings import Training
from training.simulation.clickstream import Clickstream, Simulation, simulate
from udfs.measurement.labels import LABELS_FILE, find_label
from udfs.models.bundle import load_bundle

OUT = PROJECT / "build" / "chaos"
RATE, LEG = 100, 25
DRAIN_SECONDS = 240
TRAINING = Training(model="xgboost", folds=2, repeats=0, rounds=60, prune=False, compare=())
QUIET_POLLS = 4
HOUR_MS = 3_600_000
#: Users whose clicks come last: so many that each partition has one.
CLOCKS = [f"clock {number}" for number in range(20)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.chaos", description="Cause faults under load; check every record.")
    parser.add_argument("--faults", type=int, default=100, help="number of faults (default: 100)")
    parser.add_argument("--seed", type=int, default=7, help="of the faults and of the clicks (default: 7)")
    parser.add_argument("--leg", type=int, default=LEG, help=f"faults between two checks (default: {LEG})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"clicks per second (default: {RATE})")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=None, help="kinds of faults (default: all)")
    options = parser.parse_args(arguments)
    for name in ("faults", "leg"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1 (got {getattr(options, name)})")
    possible = [kind for kind in options.kinds or KINDS if network.is_possible() or not KINDS[kind].needs_root]
    left_out = [kind for kind in options.kinds or KINDS if kind not in possible]
    if not possible:
        parser.error(f"{', '.join(left_out)}: these need root on Linux")
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))  # to end what has been started, then too
    faults = draw(options.seed, options.faults, possible)
    out = OUT / f"{options.seed}-{options.faults}"
    try:
        return _run(out, faults, options.leg, options.seed, options.rate, left_out)
    except (ProcessError, flink_client.JobError, RuntimeError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: interrupted; the same command goes on after the last complete leg", file=sys.stderr)
        return 130


def _run(out: Path, faults: Sequence[Fault], size: int, seed: int, rate: float, left_out: Sequence[str]) -> int:
    out.mkdir(parents=True, exist_ok=True)
    step(f"{len(faults)} faults of seed {seed}")
    for fault in faults:
        note(f"{fault.number:4} {fault.kind:24} after {fault.after_s:.1f} s, for {fault.seconds:.1f} s")
    if left_out:
        note(f"left out, since they need root on Linux: {', '.join(left_out)}")
    bundle = out / "models" / "chaos"
    if not bundle.exists():
        step("Training the model that serves")
        train(simulate(Simulation(1_000, 12, seed=5)), TRAINING, "chaos", bundle.parent)
    legs = []
    for first in range(0, len(faults), size):
        file = out / f"leg-{first + 1:04d}-of-{size}.json"
        if file.exists():
            legs.append(msgspec.json.decode(file.read_bytes(), type=Leg))
            note(f"faults {first + 1} to {first + len(legs[-1].results)} are done, in {file.relative_to(PROJECT)}")
            continue
        leg = _leg(faults[first : first + size], bundle, seed + first, rate)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(leg)) + b"\n")
        legs.append(leg)
        report = markdown(seed, len(faults), legs, left_out)
        (out / "report.md").write_text(report)
        console.print(report)
        if leg.problems:
            return 1
    note(f"wrote {(out / 'report.md').relative_to(PROJECT)}")
    return int(any(leg.problems for leg in legs))


def _leg(faults: Sequence[Fault], bundle: Path, seed: int, rate: float) -> Leg:
    """Cause faults on a cluster of their own, and check what it wrote. The directory is kept if anything is wrong."""
    step(f"Starting ZooKeeper, Kafka, Flink and three jobs for faults {faults[0].number} to {faults[-1].number}")
    directory = Path(tempfile.mkdtemp(prefix="leg-", dir=OUT))
    cables = network.Network(KAFKA, FLINK) if network.is_possible() else None
    try:
        if cables is not None:
            cables.create()
        with running(directory, bundle, seed, rate, cables) as chaos:
            flink_client.wait_for(lambda: _is_consumed(chaos, chaos.settings.topics.profiles), 60, "the profiles")
            chaos.load.start()
            chaos.wait_until_recovered()
            results = [_cause(chaos, fault) for fault in faults]
            leg = _check(chaos, results, bundle, seed)
    finally:
        if cables is not None:
            cables.remove()
    if leg.problems:
        note(f"logs and state: {directory.relative_to(PROJECT)}")
    else:
        shutil.rmtree(directory)
    return leg


def _cause(chaos: Chaos, fault: Fault) -> Result:
    time.sleep(fault.after_s)
    rng = random.Random(fault.seed)
    began = time.monotonic()
    KINDS[fault.kind].cause(chaos, fault.seconds, rng)
    lasted = time.monotonic() - began
    for job in (chaos.job, *chaos.others):
        flink_client.wait_for(lambda job=job: _runs(chaos, job), DRAIN_SECONDS, f"job {job} to run again")
    chaos.wait_until_recovered()
    recovered = time.monotonic() - began
    note(f"{fault.number:4} {fault.kind:24} lasted {lasted:5.1f} s, answered again after {recovered:5.1f} s")
    if chaos.load.problem:
        raise RuntimeError(chaos.load.problem)
    return Result(fault.number, fault.kind, round(lasted, 1), round(recovered, 1))


def _runs(chaos: Chaos, job: str) -> bool:
    try:
        described = chaos.stack.rest(f"/jobs/{job}")
    except (OSError, ValueError):  # the JobManager is away
        return False
    if described["state"] in ("FAILED", "CANCELED", "SUSPENDED"):
        raise flink_client.JobError(f"job {job} {described['state']}: {flink_client.failure(chaos.stack, job)}")
    return all(vertex["status"] in ("RUNNING", "FINISHED") for vertex in described["vertices"])


def _check(chaos: Chaos, results: list[Result], bundle_directory: Path, seed: int) -> Leg:
    """End the load, wait for the rest, and compare all records with those of an offline run."""
    step("Checking every record")
    chaos.load.stop()
    topics, servers, answers = chaos.settings.topics, chaos.stack.bootstrap_servers, chaos.answers
    stream = simulated(seed)
    over_ms = _send_later_clicks(chaos, stream)
    records = _read(servers, topics.clicks, lambda count: True)
    bundle = load_bundle(bundle_directory, chaos.settings.state.history_length)
    clicks = Clicks(records, newest_profiles(stream), chaos.settings, bundle)
    scores = clicks.scores()
    _await(lambda: len(answers.scores) >= len(scores))
    _await(lambda: len(answers.dead_letters) >= len(clicks.dead_letters))
    label = find_label(chaos.settings.outcomes.label, CONF.with_name(LABELS_FILE))
    labels, sessions = clicks.labels(label, over_ms), clicks.sessions(over_ms)
    found_outcomes = outcomes_before(over_ms, _read(servers, topics.outcomes, lambda count: count >= len(labels)))
    found_sessions = sessions_before(over_ms, _read(servers, topics.sessions, lambda count: count >= len(sessions)))
    problems = [
        *differences("scores", scores, answers.scores),
        *differences("dead letters", clicks.dead_letters, answers.dead_letters),
        *differences("outcomes", labels, found_outcomes),
        *differences("sessions", sessions, found_sessions),
    ]
    return Leg(
        seed, results, len(records), len(answers.scores), len(answers.dead_letters), len(found_outcomes),
        len(found_sessions), problems,
    )  # fmt: skip


def _await(condition: Callable[[], bool]) -> None:
    """Wait as long as it may take; what is missing then is reported."""
    with suppress(flink_client.JobError):
        flink_client.wait_for(condition, DRAIN_SECONDS, "")


def _send_later_clicks(chaos: Chaos, stream: Clickstream) -> int:
    """Send clicks that are later than all others and close all sessions, of users in each partition; returns the time.

    What becomes of these clicks themselves is not checked.
    """
    over_ms = int(stream.events["time_ms"].max()) + 1
    later = [
        {"user_id": user, "event_name": "purchase", "event_time": time_ms}
        for time_ms in (over_ms + HOUR_MS, over_ms + 2 * HOUR_MS)
        for user in CLOCKS
    ]
    check(send_at_once(chaos.stack.bootstrap_servers, chaos.settings.topics.clicks, click_records(later)))
    return over_ms


def _is_consumed(chaos: Chaos, topic: str) -> bool:
    """Whether a checkpoint says that the score job has read all of a topic."""
    consumer = KafkaConsumer(
        bootstrap_servers=chaos.stack.bootstrap_servers,
        group_id=chaos.settings.source.group_id,
        enable_auto_commit=False,
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        ends = consumer.end_offsets(partitions)
        return all((consumer.committed(partition) or 0) >= ends[partition] for partition in partitions)
    finally:
        consumer.close()


def _read(servers: str, topic: str, is_enough: Callable[[int], bool]) -> list[ConsumerRecord]:
    """All committed records of a topic by partition and offset, once there are enough and no more have come a while."""
    consumer = committed_consumer(servers, [topic])
    records, quiet, deadline = [], 0, time.monotonic() + DRAIN_SECONDS
    try:
        while quiet < QUIET_POLLS or not is_enough(len(records)):
            if time.monotonic() > deadline:
                break  # what is missing is reported
            polled = [record for some in consumer.poll(timeout_ms=500).values() for record in some]
            quiet = 0 if polled else quiet + 1
            records += polled
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition, record.offset))


if __name__ == "__main__":
    sys.exit(main())
