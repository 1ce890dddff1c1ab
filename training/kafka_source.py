"""Topics read to their end: for commands that analyse what jobs have written."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from training.records import SourceError
from udfs.variables import SECRET_ADVICE, expand_variables, is_written_secret

#: A variable of the environment that Kafka's Java clients look up where they run; Python's are given its value.
CLUSTER_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
#: The Kafka client properties that commands take.
PROPERTIES = (
    "bootstrap.servers",
    "security.protocol",
    "sasl.mechanism",
    "sasl.jaas.config",
    "client.id",
    "ssl.truststore.location",
    "ssl.truststore.type",
)
READ_TIMEOUT_MS = 30_000
POLL_MS = 500


def client_properties(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Kafka client properties of KEY=VALUE texts, as commands take them behind --kafka. Raises SourceError.

    ${NAME} in a value is the environment variable NAME.
    """
    properties = {"bootstrap.servers": "localhost:9092"}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise SourceError(f"--kafka {key}: want KEY=VALUE, for example bootstrap.servers=localhost:9092")
        if key not in PROPERTIES:
            raise SourceError(f"--kafka {key}: unknown key; want one of {', '.join(PROPERTIES)}")
        if is_written_secret(key, value):
            raise SourceError(f"--kafka {key}: a secret on the command line shows in the process list; {SECRET_ADVICE}")
        properties[key] = expand_variables(value, "--kafka", environment, SourceError, key)
    return properties


def client_options(properties: Mapping[str, object]) -> dict[str, object]:
    """kafka-python's options for the Kafka client properties that it knows.

    Raises SourceError for a JKS trust store, and for a variable that is not in this environment.
    """
    properties = {key: _looked_up(key, value) for key, value in properties.items()}
    options: dict[str, object] = {"bootstrap_servers": str(properties["bootstrap.servers"]).split(",")}
    for key in ("security.protocol", "sasl.mechanism", "client.id"):
        if key in properties:
            options[key.replace(".", "_")] = str(properties[key])
    for field in ("username", "password"):
        found = re.search(rf'{field}="([^"]*)"', str(properties.get("sasl.jaas.config", "")))
        if found:
            options[f"sasl_plain_{field}"] = found[1]
    if "ssl.truststore.location" in properties:
        if properties.get("ssl.truststore.type") != "PEM":
            raise SourceError("kafka.ssl.truststore.location: Python can read a trust store of type PEM only")
        options["ssl_cafile"] = properties["ssl.truststore.location"]
    return options


def _looked_up(key: str, value: object) -> object:
    def look_up(match: re.Match) -> str:
        if match[1] not in os.environ:
            raise SourceError(f"kafka.{key}: environment variable {match[1]} is not set")
        return os.environ[match[1]]

    return CLUSTER_VARIABLE.sub(look_up, value) if isinstance(value, str) else value


def read_topic(properties: Mapping[str, object], topic: str, since_ms: int | None = None) -> Iterator[bytes]:
    """The values of all committed records that a topic has now, or of those that Kafka has stamped since a time.

    What follows the beginning of a transaction that is still open is not committed yet. `properties` are Kafka client
    properties. Raises SourceError when the topic is missing or can't be read.
    """
    servers = properties["bootstrap.servers"]
    try:
        consumer = KafkaConsumer(
            **client_options(properties), isolation_level="read_committed", enable_auto_commit=False
        )
    except KafkaError as error:
        raise SourceError(f"no broker answers at {servers}: {error}") from None
    try:
        yield from _values(consumer, topic, since_ms)
    except KafkaError as error:
        raise SourceError(f"topic {topic} at {servers}: {error}") from None
    finally:
        consumer.close()


def _values(consumer: KafkaConsumer, topic: str, since_ms: int | None) -> Iterator[bytes]:
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    if not partitions:
        raise SourceError(f"topic {topic}: not there")
    ends = consumer.end_offsets(partitions)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    if since_ms is not None:
        for partition, found in consumer.offsets_for_times(dict.fromkeys(partitions, since_ms)).items():
            consumer.seek(partition, ends[partition] if found is None else found.offset)
    silent_ms = 0
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        batches = consumer.poll(timeout_ms=POLL_MS)
        silent_ms = 0 if batches else silent_ms + POLL_MS
        if silent_ms >= READ_TIMEOUT_MS:
            raise SourceError(f"topic {topic}: no record for {READ_TIMEOUT_MS // 1000} s, and not at its end")
        for partition, records in batches.items():
            yield from (record.value for record in records if record.offset < ends[partition])
