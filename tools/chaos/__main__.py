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
from itertools import chain
from pathlib import Path
from zlib import crc32

import msgspec

from jobs.ops.replay.producer import send_at_once
from tools.chaos import network
from tools.chaos.cluster import FLINK, KAFKA, LATENESS_HOURS, Chaos, running
from tools.chaos.faults import DRAWN, KINDS
from tools.chaos.load import simulated
from tools.chaos.report import Leg, Result, markdown
from tools.chaos.schedule import Fault, draw, with_losses
from tools.console import console, note, step
from tools.demo.steps import check, train
from tools.paths import CONF, PROJECT
from tools.stack import flink_client
from tools.stack.processes import ProcessError
from tools.trials.topics import read_all, wait_until_consumed
from tools.trials.verdict import (
    Clicks,
    differences,
    in_order_of_arrival,
    newest_profiles,
    outcomes_before,
    sessions_before,
)
from training.data.sources import click_records
from training.modeling.settings import Training
from training.simulation.clickstream import Clickstream, Simulation, simulate
from udfs.measurement.labels import LABELS_FILE, find_label
from udfs.models.bundle import load_bundle

OUT = PROJECT / "build" / "chaos"
RATE, LEG = 100, 25
DRAIN_SECONDS = 240
TRAINING = Training(model="xgboost", folds=2, repeats=0, rounds=60, prune=False, compare=())
HOUR_MS = 3_600_000
#: Users whose clicks come last: so many that each partition has one.
CLOCKS = [f"clock {number}" for number in range(60)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.chaos", description="Cause faults under load; check every record.")
    parser.add_argument("--faults", type=int, default=100, help="number of faults (default: 100)")
    parser.add_argument("--seed", type=int, default=7, help="of the faults and of the clicks (default: 7)")
    parser.add_argument("--leg", type=int, default=LEG, help=f"faults between two checks (default: {LEG})")
    parser.add_argument("--rate", type=float, default=RATE, help=f"clicks per second (default: {RATE})")
    parser.add_argument("--kinds", nargs="+", choices=DRAWN, default=DRAWN, help="kinds of faults (default: all)")
    parser.add_argument(
        "--brokers", type=int, default=1, help="number of brokers; of several, each leg loses one (default: 1)"
    )
    options = parser.parse_args(arguments)
    for name in ("faults", "leg", "brokers"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1 (got {getattr(options, name)})")
    if options.brokers == 2:
        parser.error("--brokers must be 1 or at least 3 (got 2): of two, neither may be lost")
    possible = [kind for kind in options.kinds if network.is_possible() or not KINDS[kind].needs_root]
    left_out = [kind for kind in options.kinds if kind not in possible]
    if not possible:
        parser.error(f"{', '.join(left_out)}: these need root on Linux")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to end what has been started, then too
    faults = draw(options.seed, options.faults, possible)
    legs = [faults[first : first + options.leg] for first in range(0, len(faults), options.leg)]
    out = OUT / f"{options.seed}-{options.faults}"
    if options.brokers > 1:
        legs = with_losses(options.seed, legs)
        out = out.with_name(f"{out.name}-{options.brokers}-brokers")
    try:
        return _run(out, legs, options.seed, options.rate, options.brokers, left_out)
    except (ProcessError, flink_client.JobError, RuntimeError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("chaos: interrupted; the same command goes on after the last complete leg", file=sys.stderr)
        return 130


def _run(
    out: Path, schedule: Sequence[Sequence[Fault]], seed: int, rate: float, brokers: int, left_out: Sequence[str]
) -> int:
    out.mkdir(parents=True, exist_ok=True)
    faults = list(chain.from_iterable(schedule))
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
    for planned in schedule:
        first = planned[0].number
        file = out / f"leg-{first:04d}-{_key(planned, rate)}.json"
        if file.exists():
            legs.append(msgspec.json.decode(file.read_bytes(), type=Leg))
            note(f"faults {first} to {planned[-1].number} are done, in {file.relative_to(PROJECT)}")
            continue
        leg = _leg(planned, bundle, seed + first - 1, rate, brokers)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(leg)) + b"\n")
        legs.append(leg)
        report = markdown(seed, len(faults), legs, left_out)
        (out / "report.md").write_text(report)
        console.print(report)
        if leg.problems:
            return 1
    note(f"wrote {(out / 'report.md').relative_to(PROJECT)}")
    return int(any(leg.problems for leg in legs))


def _key(planned: Sequence[Fault], rate: float) -> str:
    """What tells a leg from one of other faults or under another load, which does not stand for it."""
    return f"{crc32(msgspec.json.encode((planned, float(rate)))):08x}"


def _leg(faults: Sequence[Fault], bundle: Path, seed: int, rate: float, brokers: int) -> Leg:
    """Cause faults on a cluster of their own, and check what it wrote. The directory is kept if anything is wrong."""
    step(f"Starting ZooKeeper, Kafka, Flink and three jobs for faults {faults[0].number} to {faults[-1].number}")
    directory = Path(tempfile.mkdtemp(prefix="leg-", dir=OUT))
    cables = network.Network(KAFKA, FLINK) if network.is_possible() else None
    try:
        if cables is not None:
            cables.create()
        with running(directory, bundle, seed, rate, brokers, cables) as chaos:
            settings = chaos.settings
            wait_until_consumed(
                chaos.stack.bootstrap_servers, settings.topics.profiles, settings.source.group_id, DRAIN_SECONDS
            )
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
    records = read_all(servers, topics.clicks, DRAIN_SECONDS)
    bundle = load_bundle(bundle_directory, chaos.settings.state.history_length)
    records = in_order_of_arrival(records, chaos.additions)
    clicks = Clicks(records, newest_profiles(stream), chaos.settings, bundle)
    scores = clicks.scores()
    _await(lambda: len(answers.scores) >= len(scores))
    _await(lambda: len(answers.dead_letters) >= len(clicks.dead_letters))
    label = find_label(chaos.settings.outcomes.label, CONF.with_name(LABELS_FILE))
    labels, sessions = clicks.labels(label, over_ms), clicks.sessions(over_ms)
    outcomes = read_all(servers, topics.outcomes, DRAIN_SECONDS, lambda count: count >= len(labels))
    found_outcomes = outcomes_before(over_ms, outcomes)
    ended = read_all(servers, topics.sessions, DRAIN_SECONDS, lambda count: count >= len(sessions))
    found_sessions = sessions_before(over_ms, ended)
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
        for time_ms in (over_ms + (LATENESS_HOURS + hours) * HOUR_MS for hours in (1, 2))
        for user in CLOCKS
    ]
    check(send_at_once(chaos.stack.bootstrap_servers, chaos.settings.topics.clicks, click_records(later)))
    return over_ms


if __name__ == "__main__":
    sys.exit(main())
