"""A broker behind TLS, passwords and ACLs: the job and the commands work over it, and no secret shows."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
import yaml
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from jobs.common.settings import load_settings
from jobs.common.topics import create_topics
from jobs.ops.doctor import __main__ as doctor
from jobs.ops.doctor import kafka as doctor_kafka
from jobs.ops.peek import __main__ as peek
from jobs.ops.requeue import __main__ as requeue
from tests.e2e.conftest import JOB_PASSWORD, JOB_PASSWORD_VARIABLE
from tests.support.contracts import broken
from tests.support.e2e.pipeline import CONF, Pipeline
from tools.stack import flink_client
from tools.stack.local_stack import LocalStack
from udfs.kafka.properties import client_options
from udfs.kafka.reading import read_topic

pytestmark = pytest.mark.e2e

CLICKS = 20
JOB = "secured"
OPERATOR_PASSWORD_VARIABLE = "E2E_OPERATOR_PASSWORD"


@pytest.fixture
def secured(run_directory, bundle_directory, monkeypatch) -> Iterator[SimpleNamespace]:
    """A broker, and settings files for the job's user and for an operator who may do everything."""
    monkeypatch.setenv(OPERATOR_PASSWORD_VARIABLE, "operator-secret")
    directory = run_directory / "secured"
    directory.mkdir()
    key_store, certificate = directory / "broker.p12", directory / "broker.pem"
    in_store = ["-alias", "broker", "-keystore", str(key_store), "-storetype", "PKCS12", "-storepass", "changeit"]
    names = ["-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1"]
    for command in (
        ["-genkeypair", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2", *names],
        ["-exportcert", "-rfc", "-file", str(certificate)],
    ):
        subprocess.run(["keytool", *command, *in_store], check=True, capture_output=True)
    options = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": key_store,
        "ssl.keystore.password": "changeit",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS;User:operator",  # nobody is anonymous over SASL
    }
    broker = LocalStack(
        directory, sasl_users={"job": JOB_PASSWORD, "operator": "operator-secret"}, broker_options=options
    )
    try:
        broker.start_broker()
        files = {}
        for user, variable in (("job", JOB_PASSWORD_VARIABLE), ("operator", OPERATOR_PASSWORD_VARIABLE)):
            login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
            files[user] = directory / f"{user}.yaml"
            content = {
                "extends": str(CONF),
                "job": {"name": JOB, "parallelism": 1},
                "source": {"group_id": JOB},
                "model": {"bundle": str(bundle_directory)},
                "checkpoints": {"interval": "1 s"},
                "delivery": {"guarantee": "exactly-once"},
                "kafka": {
                    "bootstrap.servers": broker.sasl_servers,
                    "security.protocol": "SASL_SSL",
                    "sasl.mechanism": "SCRAM-SHA-512",
                    "sasl.jaas.config": f'{login} username="{user}" password="${{env:{variable}}}";',
                    "ssl.truststore.type": "PEM",
                    "ssl.truststore.location": str(certificate),
                },
            }
            files[user].write_text(yaml.safe_dump(content))
        yield SimpleNamespace(broker=broker, **files)
    finally:
        broker.stop()


def test_the_job_and_the_commands_work_over_sasl_with_only_what_acls_grant(
    secured, stack, pipeline, monkeypatch, capsys
):
    job, operator = str(secured.job), str(secured.operator)
    settings = load_settings(secured.operator)
    create_topics(settings, partitions=1, replication=1)

    monkeypatch.setattr(doctor_kafka, "TIMEOUT_MS", 4_000)
    monkeypatch.setenv(JOB_PASSWORD_VARIABLE, "mistyped")
    assert doctor.main(["--conf", job]) == 1
    found = capsys.readouterr().out
    # The broker says so and hangs up; kafka-python may notice only the latter.
    assert re.search("missing  Kafka .*(invalid credentials|socket disconnected).* password", found), found
    monkeypatch.setenv(JOB_PASSWORD_VARIABLE, JOB_PASSWORD)
    assert doctor.main(["--conf", job]) == 1
    found = capsys.readouterr().out
    for refused in ("topic clicks         hidden", "READ refused", "TransactionalIdAuthorizationFailed"):
        assert refused in found, found
    grant_what_the_job_needs(settings)
    code = doctor.main(["--conf", job, "--flink", stack.rest_url])
    found = capsys.readouterr().out
    assert code == 0, found
    assert "clock of Kafka       as this machine's" in found, found

    now_ms = time.time_ns() // 1_000_000
    old = json.dumps({"user_id": "bob", "event_name": "scroll", "event_time": now_ms - 40 * 86_400_000}).encode()
    bootstrap = f"kafka.bootstrap.servers={secured.broker.sasl_servers}"
    submitted = flink_client.submit(stack, secured.job, [bootstrap])
    try:
        flink_client.wait_until_running(stack, submitted)
        with KafkaProducer(**client_options(settings.kafka)) as producer:
            for _ in range(CLICKS):
                value = json.dumps({"user_id": "ada", "event_name": "scroll", "event_time": now_ms}).encode()
                producer.send(settings.topics.clicks, value, b"ada")
            producer.send(settings.topics.clicks, old, b"bob", timestamp_ms=now_ms)
        topics = settings.topics
        wait_for_records(settings, topics.scores, CLICKS)
        wait_for_records(settings, topics.dead_letters, 1)
        assert not [*places_of_a_secret(JOB_PASSWORD, stack, secured.broker, submitted)]
    finally:
        flink_client.cancel(stack, submitted)
    run_a_job_in_sql(pipeline())
    assert not [*places_of_a_secret(JOB_PASSWORD, stack, secured.broker, submitted)]  # workers log when they end

    assert peek.main(["--conf", operator, "--user", "ada", "--limit", "1000"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["topic"] for record in shown].count("scores") == CLICKS
    assert {record["value"]["user_id"] for record in shown} == {"ada"}
    assert peek.main(["dead_letters", "--conf", operator]) == 0
    assert json.loads(capsys.readouterr().out)["decoded_original"] == json.loads(old)

    assert requeue_counts(capsys, operator) == ["time_too_old", "0", "1"]  # to send, rejected again
    fixed = ("--set", "decode.max_behind=60 d")
    assert requeue_counts(capsys, operator, *fixed, "--dry-run") == ["time_too_old", "1"]
    assert requeue_counts(capsys, operator, *fixed) == ["time_too_old", "1"]
    assert requeue_counts(capsys, operator, *fixed) == ["time_too_old", "0", "1"]  # sent before
    assert [*read_topic(settings.kafka, topics.clicks)].count(old) == 2
    assert peek.main(["clicks", "--conf", operator, "--user", "bob"]) == 0
    assert not broken("requeued", read_topic(settings.kafka, topics.requeued))
    twice = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["key"], record["timestamp"]) for record in twice] == [("bob", twice[0]["timestamp"])] * 2


def run_a_job_in_sql(pipe: Pipeline) -> None:
    """Start workers of Beam and end them: it would log their environment, which has the password."""
    click = {"user_id": "ada", "event_name": "scroll", "event_time": time.time_ns() // 1_000_000}
    pipe.send("clicks", [(b"ada", json.dumps(click).encode(), None)])
    pipe.start_other("jobs.archive_clicks")
    pipe.wait_until_archived("clicks")
    flink_client.cancel(pipe.stack, pipe.other_jobs.pop())


def requeue_counts(capsys, conf: str, *arguments: str) -> list[str]:
    """The row of the reason in the table that the command prints."""
    assert requeue.main(["--conf", conf, *arguments]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "time_too_old" in line)
    return [cell.strip() for cell in row.strip("│ ").split("│")]


def grant_what_the_job_needs(settings) -> None:
    topics, any_id = settings.topics, ACLResourcePatternType.PREFIXED
    wanted = [
        *((ResourceType.TOPIC, name, "READ") for name in (topics.clicks, topics.profiles)),
        *((ResourceType.TOPIC, name, "WRITE") for name in (topics.scores, topics.dead_letters)),
        *(
            (ResourceType.TOPIC, name, "DESCRIBE_CONFIGS")
            for name in (topics.clicks, topics.profiles, topics.dead_letters)
        ),
        (ResourceType.GROUP, settings.source.group_id, "READ"),
        (ResourceType.TRANSACTIONAL_ID, settings.job.name, "WRITE"),
    ]
    acls = [
        ACL("User:job", "*", ACLOperation[operation], ACLPermissionType.ALLOW, ResourcePattern(kind, name, any_id))
        for kind, name, operation in wanted
    ]
    admin = KafkaAdminClient(**client_options(settings.kafka))
    assert not admin.create_acls(acls)["failed"]
    admin.close()


def wait_for_records(settings, topic: str, count: int) -> None:
    flink_client.wait_for(lambda: len([*read_topic(settings.kafka, topic)]) >= count, 60, f"{count} records of {topic}")


def places_of_a_secret(secret: str, stack: LocalStack, broker: LocalStack, job: str) -> Iterator[str]:
    """Where the secret can be read: command lines, files of cluster and broker, answers of Flink's REST API."""
    for process in psutil.process_iter(["cmdline"]):
        if secret in " ".join(process.info["cmdline"] or ()):
            yield f"process {process.info['cmdline']}"
    for directory in (stack.directory, broker.directory):
        for file in directory.rglob("*"):
            if file.is_symlink() or file.suffix in (".index", ".timeindex"):  # JARs, and what has only numbers
                continue
            with suppress(FileNotFoundError):  # of a checkpoint that the next one has replaced
                if file.is_file() and secret.encode() in file.read_bytes():
                    yield str(file)
    of_job = ("", "/config", "/plan", "/exceptions", "/checkpoints/config", "/jobmanager/config")
    manager = stack.rest("/taskmanagers")["taskmanagers"][0]["id"]
    for path in (
        *(f"/jobs/{job}{part}" for part in of_job),
        "/jobmanager/config",
        "/jobmanager/environment",
        f"/taskmanagers/{manager}",
    ):
        if secret in json.dumps(stack.rest(path)):
            yield path
