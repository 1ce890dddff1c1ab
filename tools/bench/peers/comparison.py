"""Throughput of other stream processors: Quix Streams, Bytewax and a plain consumer, with the same Python functions.

All read the same clicks in Kafka from the beginning, keep the same histories, use the same model and write the same
records to Kafka; their rates are taken between the same two marks, by the records in their output topics.
"""

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.bench.context import COUNTED_FROM, COUNTED_TO, BenchContext
from tools.bench.rates import BenchError, rate_between, records_in
from tools.bench.throughput import bare_loop, reading
from tools.console import note, step
from tools.paths import PROJECT
from tools.stack.processes import Process, ProcessError, is_running, log_tail, start, stop

PYTHON = PROJECT / "build" / "peers" / "bin" / "python"  # of an environment of their own, which make builds
INSTALL = "make bench PART=peers"
PACKAGES = {"quix": "quixstreams", "bytewax": "bytewax"}
PROCESSES = (1, 2)
WAIT_SECONDS = 300.0  # to the first mark
MAX_SECONDS = 120.0  # from the first mark: slow peers are not run to the last mark
SNAPSHOT_SECONDS = 10  # of Bytewax, as checkpoints.interval
IN_WORDS = {
    "plain": "kafka-python and a dict",
    "quix": "Quix Streams {quixstreams}",
    "bytewax": "Bytewax {bytewax}",
    "job": "this project's job, state in RocksDB",
}


@dataclass(frozen=True)
class PeerRun:
    """The arguments of the processes of one measurement."""

    servers: str
    clicks: str
    scores: str
    bundle: Path
    directory: Path  # their state
    processes: int

    @property
    def options(self) -> list[str]:
        """The arguments of a script, except for its directory."""
        return [
            "--servers",
            self.servers,
            "--clicks",
            self.clicks,
            "--scores",
            self.scores,
            "--bundle",
            str(self.bundle),
        ]


def measure(context: BenchContext) -> dict:
    """Events per second by peer and number of processes, of the job by parallelism, and of the bare loop; versions."""
    if not PYTHON.exists():
        raise BenchError(f"Quix Streams and Bytewax are not installed in build/peers; install them with `{INSTALL}`")
    figures: dict = {"versions": _versions(), "bare_loop": bare_loop(context)}
    clicks = context.waiting_clicks
    context.stop_cluster()  # which would only take memory
    for peer, commands in COMMANDS.items():
        figures[peer] = {}
        for processes in PROCESSES:
            step(f"Peers: {_name(peer, processes, figures['versions'])}")
            run = _run_of(context, peer, clicks, processes)
            rate = _measured(context, run, commands(run))
            figures[peer][str(processes)] = rate
            note(f"{rate:,} events/s, {rate / figures['bare_loop']:.2f} of the bare loop")
    stack = context.cluster()
    figures["job"] = {}
    for parallelism in PROCESSES:
        step(f"Peers: {_name('job', parallelism, figures['versions'])}")
        overrides = reading(clicks, f"peers-job-{parallelism}", parallelism)
        topics = context.create_topics(overrides).topics
        with context.running(overrides), records_in(stack.bootstrap_servers, topics.scores) as count:
            rate = round(rate_between(count, COUNTED_FROM, COUNTED_TO, note, wait_seconds=WAIT_SECONDS))
        figures["job"][str(parallelism)] = rate
        note(f"{rate:,} events/s, {rate / figures['bare_loop']:.2f} of the bare loop")
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    bare_loop = figures["bare_loop"]
    rates = [
        (_name(peer, int(number), figures["versions"]), f"{rate:,} events/s, {rate / bare_loop:.2f} of the bare loop")
        for peer in IN_WORDS
        for number, rate in figures[peer].items()
    ]
    return [("bare loop: one process, no Kafka", f"{bare_loop:,} events/s"), *rates]


def _name(peer: str, number: int, versions: dict[str, str]) -> str:
    """A peer and its number of processes in words."""
    processes = f"{number} process{'es' if number > 1 else ''}"
    return f"{IN_WORDS[peer].format(**versions)}, {f'parallelism {number}' if peer == 'job' else processes}"


def _run_of(context: BenchContext, peer: str, clicks: str, processes: int) -> PeerRun:
    name = f"peers-{peer}-{processes}"
    topics = context.create_topics([f"topics.scores={name}-scores"]).topics
    directory = context.directory / name
    directory.mkdir()
    return PeerRun(context.stack.bootstrap_servers, clicks, topics.scores, context.model.bundle, directory, processes)


def _measured(context: BenchContext, run: PeerRun, commands: Sequence[Sequence[str]]) -> int:
    """Events per second of the processes that the commands start, by the records they write."""
    started: list[Process] = []
    try:
        for number, command in enumerate(commands, 1):
            name = f"{run.directory.name}-{number}"
            log = context.directory / "log" / f"{name}.log"
            started.append(start(name, command, log, PROJECT, os.environ, ports={}))
        with records_in(run.servers, run.scores) as count:

            def counted() -> int:
                _check(started)
                return count()

            return round(
                rate_between(
                    counted, COUNTED_FROM, COUNTED_TO, note, wait_seconds=WAIT_SECONDS, max_seconds=MAX_SECONDS
                )
            )
    finally:
        stop(started)


def _check(processes: Sequence[Process]) -> None:
    """Raise ProcessError if a process has ended."""
    for process in processes:
        if not is_running(process):
            raise ProcessError(f"{process.name} exited\n{log_tail(process)}")


def _versions() -> dict[str, str]:
    """The versions of the peers' packages. Raises BenchError when they are not installed."""
    program = "import importlib.metadata as m, json, sys; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    ran = subprocess.run([str(PYTHON), "-c", program, *PACKAGES.values()], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise BenchError(f"build/peers is incomplete; delete it and run `{INSTALL}`\n{ran.stderr}")
    return json.loads(ran.stdout)


def script_commands(module: str, run: PeerRun) -> list[list[str]]:
    """The commands of a peer whose processes share the work as a consumer group."""
    return [
        [str(PYTHON), "-m", f"tools.bench.peers.{module}", *run.options, "--state", str(run.directory / str(number))]
        for number in range(run.processes)
    ]


def bytewax_commands(run: PeerRun) -> list[list[str]]:
    """The commands of Bytewax, whose processes know each other by their addresses; its recovery store is prepared."""
    recovery = run.directory / "recovery"
    recovery.mkdir()
    subprocess.run([str(PYTHON), "-m", "bytewax.recovery", str(recovery), str(run.processes)], cwd=PROJECT, check=True)
    flow = ", ".join(map(repr, (run.servers, run.clicks, run.scores, str(run.bundle))))
    command = [
        *(str(PYTHON), "-m", "bytewax.run", f"tools/bench/peers/bytewax_peer.py:flow({flow})"),
        *("--recovery-directory", str(recovery)),
        *("--snapshot-interval", str(SNAPSHOT_SECONDS), "--backup-interval", "0"),
    ]
    if run.processes == 1:
        return [command]
    addresses = ";".join(f"127.0.0.1:{port}" for port in _free_ports(run.processes))
    return [[*command, "--process-id", str(number), "--addresses", addresses] for number in range(run.processes)]


def _free_ports(count: int) -> list[int]:
    """Free ports."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


#: How the processes of each peer are started.
COMMANDS = {
    "plain": partial(script_commands, "plain_peer"),
    "quix": partial(script_commands, "quix_peer"),
    "bytewax": bytewax_commands,
}
