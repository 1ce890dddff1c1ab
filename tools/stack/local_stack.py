"""Kafka and a Flink cluster on this machine: for development, the demo, the benchmark and the tests.

    with LocalStack(directory) as stack:
        subprocess.run([stack.flink, "run", ...], env=stack.environment)

DIR/stack.json records every process, so that any later command can find and end exactly those.
"""

import http.client
import json
import os
import random
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any, Self

from tools.paths import JARS, PROJECT, STACK
from tools.stack import broker as kafka_broker
from tools.stack import cluster as flink_cluster
from tools.stack.http_client import get_text, patch, post
from tools.stack.processes import HERE, Place, Process, is_running, kill, start, stop, wait_until
from udfs.kafka.connection import open_admin
from udfs.kafka.errors import KafkaClientError

READY_SECONDS = 180.0
#: Below the range that Linux gives to outgoing connections: one of those could take the port of a broker that is down.
PORTS = range(20_000, 32_000)


class StackError(RuntimeError):
    """The stack is not in the state that an operation needs; the message is one line with the remedy."""


class LocalStack:
    """The stack of one directory, started by this object or, when the directory has a stack.json, by an earlier one.

    `options` are Flink options over those of `flink_cluster.cluster_options`, `job_jars` what is in the cluster's lib/
    beside Flink's own, `broker_options` Kafka's over those of `kafka_broker.broker_properties`. With `sasl_users`
    (passwords by name) the broker also listens for SASL over TLS. Ports are picked when a service first starts: Kafka's
    9092 and Flink's 8081 where free and preferred, else any free one. They stay the same while the stack is up. Methods
    that start something return when it is ready, and raise ProcessError if it does not become ready.

    With several `brokers`, each partition has a replica at each of them, and all but one of these must be in sync.
    Brokers and TaskManagers may run at another place than this machine's own address, and find the JobManager at
    `job_manager_at`. With `high_availability`, ZooKeeper keeps what a JobManager has to know, and another one can be
    started when it has ended.
    """

    def __init__(
        self,
        directory: Path = STACK,
        *,
        task_managers: int = 2,
        slots: int = 2,
        task_manager_memory: str = "3456m",
        partitions: int = 4,
        brokers: int = 1,
        job_jars: Path = JARS / "job",
        options: Mapping[str, object] | None = None,
        broker_options: Mapping[str, object] | None = None,
        sasl_users: Mapping[str, str] | None = None,
        prefer_default_ports: bool = False,
        broker_at: Place = HERE,
        job_manager_at: str = HERE.host,
        task_managers_at: Place = HERE,
        high_availability: bool = False,
        log: Callable[[str], None] = print,
    ):
        self.directory = directory.resolve()
        self._task_managers = task_managers
        self._slots = slots
        self._task_manager_memory = task_manager_memory
        self._partitions = partitions
        self._broker_names = ["broker", *(f"broker-{number}" for number in range(2, brokers + 1))]
        self._job_jars = job_jars
        self._options = dict(options or {})
        self._broker_options = dict(broker_options or {})
        self._sasl_users = dict(sasl_users or {})
        self._prefer_default_ports = prefer_default_ports
        self._broker_at, self._job_manager_at, self._task_managers_at = broker_at, job_manager_at, task_managers_at
        self._high_availability = high_availability
        self._given: set[int] = set()  # ports, some of which nobody listens at yet
        self._log = log
        self._record = self.directory / "stack.json"
        self.processes = _read_record(self._record)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the broker and the cluster, or neither. Raises StackError when a process of the stack runs already."""
        if any(map(is_running, self.processes.values())):
            raise StackError(
                f"{self.directory}: a stack is already running there; stop it with `make down`, or use another --dir"
            )
        self._forget(*self.processes)
        try:
            self.start_brokers()
            self.start_cluster()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process of the stack. Topics, checkpoints and logs stay in the directory."""
        stop(self.processes.values())
        self._forget(*self.processes)

    def start_brokers(self) -> None:
        """Start all brokers. Several of them form a cluster, which is there when all have joined it."""
        ports = {name: self._broker_ports() for name in self._broker_names}
        cluster_id = kafka_broker.new_cluster_id()
        started = [self._launch_broker(name, ports, cluster_id) for name in self._broker_names]
        for broker in started:
            self._await_broker(broker)
        if len(started) > 1:
            self._await("Kafka cluster", started[0], lambda: self._joined_brokers() == len(started))

    def start_broker(self, name: str = "broker") -> None:
        """Start a broker: the only one for the first time, or one after kill_broker, on the same port and data."""
        before = self.processes.get(name)
        if before is None:
            self.start_brokers()
            return
        if is_running(before):
            raise StackError(f"{self.directory}: the {name} is already running (pid {before.pid})")
        ports = {each: self._get(each).ports for each in self._broker_names}
        self._await_broker(self._launch_broker(name, ports, kafka_broker.new_cluster_id()))

    def kill_broker(self, name: str = "broker") -> None:
        """End a broker as a crash would."""
        kill(self._get(name))

    def brokers(self) -> list[str]:
        """The names of the brokers that run."""
        return [name for name in self._broker_names if name in self.processes and is_running(self.processes[name])]

    def start_cluster(self) -> None:
        """Start the JobManager and the TaskManagers."""
        ports = {"rest": self._free_port(8081), "rpc": self._free_port(), "metrics": self._free_port()}
        options = flink_cluster.cluster_options(
            self.directory, ports["rest"], ports["rpc"], self._slots, self._task_manager_memory
        )
        options |= {
            "jobmanager.rpc.address": self._job_manager_at,
            "jobmanager.bind-host": self._job_manager_at,
            "taskmanager.host": self._task_managers_at.host,
            "taskmanager.bind-host": self._task_managers_at.host,
        }
        jars, zookeeper = [self._job_jars], (self._job_manager_at, self._free_port())
        if self._high_availability:
            jars.append(JARS / "zookeeper")
            options |= {
                "high-availability.type": "zookeeper",
                "high-availability.zookeeper.quorum": "{}:{}".format(*zookeeper),
                "high-availability.storageDir": (self.directory / "high-availability").as_uri(),
                "high-availability.jobmanager.port": ports["rpc"],
                # For so long a JobManager that has ended is taken for the leader. Flink's minute is for large networks.
                "high-availability.zookeeper.client.session-timeout": "10 s",
            }
        flink_cluster.prepare_cluster(self.directory, jars, options | self._options)
        if self._high_availability:
            started = flink_cluster.start_zookeeper(self.directory, *zookeeper)
            self._remember(started)
            self._await("ZooKeeper", started, lambda: _accepts(*reversed(zookeeper)))
        self._launch_job_manager(ports)
        started = [self._launch_task_manager() for _ in range(self._task_managers)]
        self._await_job_manager()
        for task_manager in started:
            self._await_task_manager(task_manager)

    def kill_job_manager(self) -> None:
        """End the JobManager as a crash would."""
        kill(self._get("jobmanager"))

    def start_job_manager(self) -> None:
        """Start another JobManager after kill_job_manager, at the same ports."""
        self._launch_job_manager(self._get("jobmanager").ports)
        self._await_job_manager()

    def start_task_manager(self) -> Process:
        """Start one more TaskManager, or a replacement of one that has ended."""
        started = self._launch_task_manager()
        self._await_task_manager(started)
        return started

    def kill_task_manager(self, task_manager: Process) -> None:
        """End the TaskManager as a crash would; its Python workers end by themselves, like after any crash."""
        kill(task_manager)

    def start_dashboard(self, conf: Path, overrides: Sequence[str]) -> str:
        """Start the dashboard over the broker's topics, with the settings of a job; returns its URL."""
        ports = {"page": self._free_port(8080)}
        to_set = [f"--set={override}" for override in (*overrides, f"kafka.bootstrap.servers={self.bootstrap_servers}")]
        command = [sys.executable, "-m", "dashboard", "--conf", str(conf), "--port", str(ports["page"]), *to_set]
        log = self.directory / "log" / "dashboard.log"
        dashboard = start("dashboard", command, log, PROJECT, os.environ, ports)
        self._remember(dashboard)
        self._await("Dashboard", dashboard, lambda: _accepts(ports["page"]))
        return self.dashboard_url

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self._get('dashboard').ports['page']}"

    def task_managers(self) -> list[Process]:
        """The TaskManagers that run."""
        return [process for name, process in self.processes.items() if _is_task_manager(name) and is_running(process)]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"{self._broker_at.host}:{self._get(name).ports['kafka']}" for name in self._broker_names)

    @property
    def sasl_servers(self) -> str:
        """The address of the broker's listener for SASL over TLS."""
        return f"127.0.0.1:{self._get('broker').ports['sasl']}"

    @property
    def rest_url(self) -> str:
        """Flink's REST API and web interface."""
        return f"http://127.0.0.1:{self._get('jobmanager').ports['rest']}"

    @property
    def flink(self) -> Path:
        """The `flink` command; run it in `environment`."""
        return flink_cluster.flink_home() / "bin" / "flink"

    @property
    def environment(self) -> dict[str, str]:
        return flink_cluster.flink_environment(self.directory)

    def rest(self, path: str) -> Any:
        """The JSON that Flink's REST API answers at `path`, for example /jobs/overview. Raises OSError."""
        return json.loads(get_text(self._get("jobmanager").ports["rest"], path))

    def cancel(self, job: str) -> None:
        """Ask Flink to end a job, without a savepoint. Raises OSError."""
        patch(self._get("jobmanager").ports["rest"], f"/jobs/{job}?mode=cancel")

    def stop_job(self, job: str) -> str:
        """Ask Flink to stop a job with a savepoint; returns the path at which `rest` tells of it. Raises OSError."""
        answer = json.loads(post(self._get("jobmanager").ports["rest"], f"/jobs/{job}/stop"))
        return f"/jobs/{job}/savepoints/{answer['request-id']}"

    def _launch_job_manager(self, ports: Mapping[str, int]) -> None:
        self._remember(flink_cluster.start_job_manager(self.directory, ports))

    def _await_job_manager(self) -> None:
        self._await("Flink JobManager", self._get("jobmanager"), lambda: self._registered() is not None)

    def _launch_task_manager(self) -> Process:
        number = 1 + sum(map(_is_task_manager, self.processes))
        ports = {"metrics": self._free_port()}
        started = flink_cluster.start_task_manager(
            self.directory, f"taskmanager-{number}", ports, self._task_managers_at
        )
        self._remember(started)
        return started

    def _await_task_manager(self, process: Process) -> None:
        self._await(f"Flink {process.name}", process, lambda: process.name in (self._registered() or ()))

    def _registered(self) -> set[str] | None:
        """Names of the TaskManagers that the JobManager knows; None while it does not answer."""
        try:
            return {entry["id"] for entry in self.rest("/taskmanagers")["taskmanagers"]}
        except (OSError, http.client.HTTPException):
            return None

    def _await(self, what: str, process: Process, ready: Callable[[], bool]) -> None:
        began = monotonic()
        wait_until(ready, process, READY_SECONDS)
        self._log(f"    {what} ready after {monotonic() - began:.1f} s (pid {process.pid})")

    def _launch_broker(self, name: str, ports: Mapping[str, Mapping[str, int]], cluster_id: str) -> Process:
        """Start a broker, given the ports of all; the cluster's id matters when it starts for the first time."""
        if not any((JARS / "kafka").glob("*.jar")):
            raise StackError(f"{JARS / 'kafka'}: no Kafka JARs; run `make jars`")
        own, suffix = ports[name], name.removeprefix("broker")
        file = self.directory / "conf" / f"server{suffix}.properties"
        file.parent.mkdir(parents=True, exist_ok=True)
        properties = kafka_broker.broker_properties(
            own["kafka"],
            [ports[each]["controller"] for each in self._broker_names],
            self.directory / f"kafka{suffix}",
            self._partitions,
            own.get("sasl"),
            self._broker_at.host,
            node=1 + self._broker_names.index(name),
        )
        kafka_broker.format_storage(
            JARS / "kafka", properties | self._broker_options, file, cluster_id, self._sasl_users
        )
        log = self.directory / "log" / f"{name}.log"
        self._remember(kafka_broker.start_broker(JARS / "kafka", name, file, log, own, self._broker_at))
        return self.processes[name]

    def _await_broker(self, broker: Process) -> None:
        self._await(f"Kafka {broker.name}", broker, lambda: _accepts(broker.ports["kafka"], self._broker_at.host))

    def _joined_brokers(self) -> int:
        try:
            with open_admin({"bootstrap.servers": self.bootstrap_servers}, "cluster") as admin:
                return len(admin.describe_cluster()["brokers"])
        except KafkaClientError:  # not yet
            return 0

    def _broker_ports(self) -> dict[str, int]:
        ports = {"kafka": self._free_port(9092), "controller": self._free_port()}
        return ports | ({"sasl": self._free_port()} if self._sasl_users else {})

    def _free_port(self, preferred: int | None = None) -> int:
        candidates = random.sample(PORTS, len(PORTS))
        if preferred is not None and self._prefer_default_ports:
            candidates.insert(0, preferred)
        port = next(port for port in candidates if port not in self._given and _is_free(port))
        self._given.add(port)
        return port

    def _get(self, name: str) -> Process:
        if name not in self.processes:
            raise StackError(f"{self.directory}: {name} was not started there; run `make up`")
        return self.processes[name]

    def _remember(self, process: Process) -> None:
        self.processes[process.name] = process
        self._write_record()

    def _forget(self, *names: str) -> None:
        for name in names:
            del self.processes[name]
        self._write_record()

    def _write_record(self) -> None:
        if not self.processes:
            self._record.unlink(missing_ok=True)
            return
        written = self._record.with_suffix(".new")
        written.write_text(json.dumps([asdict(process) for process in self.processes.values()], indent=1))
        written.replace(self._record)  # another command never reads half a record


def _read_record(record: Path) -> dict[str, Process]:
    if not record.exists():
        return {}
    try:
        return {entry["name"]: Process(**entry) for entry in json.loads(record.read_text())}
    except (ValueError, TypeError, KeyError) as error:
        raise StackError(
            f"{record}: invalid process record ({error}); stop the processes of the stack by hand and delete the file"
        ) from None


def _is_task_manager(name: str) -> bool:
    return name.startswith("taskmanager-")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port that only waits out its old connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _accepts(port: int, host: str = HERE.host) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
