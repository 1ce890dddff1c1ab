"""A Kafka broker for this machine: one JVM in KRaft mode, from the JARs that pom.xml fetches."""

import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from tools.stack.processes import HERE, Place, Process, ProcessError, start

HEAP = "1g"
#: Larger records than a production broker takes, so that the job's own limits are what rejects them. A dead letter of
#: such a record is half as large again, and fits the limit that jobs/common/topics.py gives its topic.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
SCRAM_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"


def broker_properties(
    port: int, controller_port: int, data: Path, partitions: int, sasl_port: int | None = None, host: str = HERE.host
) -> dict[str, object]:
    """server.properties of a single node that keeps every record, with minimal coordination.

    With a `sasl_port`, clients may also come over TLS and SASL; the caller's options say with which certificate.
    """
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
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        # A busy machine keeps a broker from its heartbeats for longer than Kafka's 9 s. Fenced, its partitions have no
        # leader, and the marker that ends a transaction just then is lost: consumers that read committed records only
        # see nothing more until it times out. The price: after a crash, a new broker waits for so long.
        "broker.session.timeout.ms": 30_000,
        "listeners": f"{addresses},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": addresses,
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "log.retention.ms": -1,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "num.partitions": partitions,
        "auto.create.topics.enable": "false",  # a mistyped topic is an error
        "offsets.topic.num.partitions": 4,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    }


def format_storage(
    jars: Path, properties: Mapping[str, object], file: Path, sasl_users: Mapping[str, str] | None = None
) -> None:
    """Write the properties to `file` and format their data directory, unless it is formatted already.

    `sasl_users` are passwords by name, for SCRAM-SHA-512. Raises ProcessError when Kafka refuses.
    """
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    if (Path(str(properties["log.dirs"])) / "meta.properties").exists():
        return
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # In one word: an id may begin with a hyphen, and would be taken for an option.
    command = [*_kafka(jars), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(file)]
    for name, password in (sasl_users or {}).items():
        command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
    formatted = subprocess.run(command, capture_output=True, text=True, check=False)
    if formatted.returncode != 0:
        raise ProcessError(f"Kafka could not format {properties['log.dirs']}\n{formatted.stdout}{formatted.stderr}")


def start_broker(
    jars: Path, properties_file: Path, log: Path, ports: Mapping[str, int], place: Place = HERE
) -> Process:
    """Start the broker; it is ready a few seconds later."""
    logging = {"showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd HH:mm:ss,SSS", "showThreadName": "false"}
    options = [f"-Dorg.slf4j.simpleLogger.{key}={value}" for key, value in logging.items()]
    command = [*place.launcher, *_kafka(jars), f"-Xmx{HEAP}", *options, "kafka.Kafka", str(properties_file)]
    return start("broker", command, log, properties_file.parent, os.environ, ports)


def _kafka(jars: Path) -> list[str]:
    return [java(), "-cp", f"{jars}/*"]


def java() -> str:
    """The java command: of JAVA_HOME when it is set, else of PATH. Raises ProcessError when there is none."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin" if home else None)
    if path is None:
        raise ProcessError(f"java not found in {home or 'PATH'}: install openjdk-17-jdk-headless or set JAVA_HOME")
    return path
