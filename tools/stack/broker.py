"""Kafka brokers for this machine: each a JVM in KRaft mode, from the JARs that pom.xml fetches."""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.stack.processes import HERE, Place, Process, ProcessError, start

HEAP = "1g"
#: Larger records than a production broker takes, so that the job's own limits are what rejects them. A dead letter of
#: such a record is half as large again, and fits the limit that jobs/common/topics.py gives its topic.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def broker_properties(
    port: int,
    controller_ports: Sequence[int],
    data: Path,
    partitions: int,
    sasl_port: int | None = None,
    host: str = HERE.host,
    node: int = 1,
) -> dict[str, object]:
    """server.properties of a node that keeps every record, with minimal coordination.

    `node` is its number, from 1, of as many as there are `controller_ports`. Each of several nodes holds a replica of
    every partition. All but one must have a record before it counts as written.
    With a `sasl_port`, clients may also come over TLS and SASL; the caller's options say with which certificate.
    """
    replicas = len(controller_ports)
    in_sync = max(1, replicas - 1)
    listeners, sasl = {"PLAINTEXT": port}, {}
    if sasl_port is not None:
        listeners["SASL_SSL"] = sasl_port
        sasl = {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f"{SCRAM_LOGIN} required;",
        }
    addresses = ",".join(f"{protocol}://{host}:{number}" for protocol, number in listeners.items())
    return sasl | {
        "process.roles": "broker,controller",
        "node.id": node,
        "controller.quorum.voters": ",".join(
            f"{number}@127.0.0.1:{voter}" for number, voter in enumerate(controller_ports, 1)
        ),
        "controller.listener.names": "CONTROLLER",
        # A busy machine keeps a broker from its heartbeats for longer than Kafka's 9 s. Fenced, its partitions have no
        # leader, and the marker that ends a transaction just then is lost: consumers that read committed records only
        # see nothing more until it times out. The price: after a crash, a new broker waits for so long. Of several
        # brokers, another one takes over.
        "broker.session.timeout.ms": 30_000 if replicas == 1 else 9_000,
        "listeners": f"{addresses},CONTROLLER://127.0.0.1:{controller_ports[node - 1]}",
        "advertised.listeners": addresses,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "log.retention.ms": -1,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "num.partitions": partitions,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "auto.create.topics.enable": "false",  # a mistyped topic is an error
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
    }


def format_storage(
    jars: Path,
    properties: Mapping[str, object],
    file: Path,
    cluster_id: str,
    sasl_users: Mapping[str, str] | None = None,
) -> None:
    """Write the properties to `file` and format their data directory, unless it is formatted already.

    The brokers of a cluster have the same `cluster_id`. `sasl_users` are passwords by name, for SCRAM-SHA-512. Raises
    ProcessError when Kafka refuses.
    """
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    if (Path(str(properties["log.dirs"])) / "meta.properties").exists():
        return
    # In one word: an id may begin with a hyphen, and would be taken for an option.
    command = [*_kafka(jars), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(file)]
    for name, password in (sasl_users or {}).items():
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    formatted = subprocess.run(command, capture_output=True, text=True, check=False)
    if formatted.returncode != 0:
        raise ProcessError(f"Kafka could not format {properties['log.dirs']}\n{formatted.stdout}{formatted.stderr}")


def start_broker(
    jars: Path, name: str, properties_file: Path, log: Path, ports: Mapping[str, int], place: Place = HERE
) -> Process:
    """Start a broker; it is ready a few seconds later."""
    logging = {"showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd HH:mm:ss,SSS", "showThreadName": "false"}
    options = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in logging.items()]
    command = [*place.launcher, *_kafka(jars), f"-Xmx{HEAP}", *options, "kafka.Kafka", str(properties_file)]
    return start(name, command, log, properties_file.parent, os.environ, ports)


def _kafka(jars: Path) -> list[str]:
    return [java(), "-cp", f"{jars}/*"]


def java() -> str:
    """The java command: of JAVA_HOME when it is set, else of PATH. Raises ProcessError when there is none."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin" if home else None)
    if path is None:
        raise ProcessError(f"java not found in {home or 'PATH'}: install openjdk-17-jdk-headless or set JAVA_HOME")
    return path
