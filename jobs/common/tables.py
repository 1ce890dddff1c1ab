"""Kafka topics as tables of Flink SQL, and the options of Kafka's clients."""

import re

import msgspec

from jobs.common.settings import Settings
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import FeatureVector
from udfs.contracts.sql_types import sql_types
from udfs.kafka.properties import CLUSTER_VARIABLE

CLICKS_COLUMNS = """
    payload BYTES,
    record_time TIMESTAMP_LTZ(3) {timestamp},
    source_partition INT {partition},
    source_offset BIGINT {offset},
    arrival AS PROCTIME()
"""

PROFILES_COLUMNS = """
    record_key BYTES,
    payload BYTES,
    record_time TIMESTAMP_LTZ(3) {timestamp},
    source_partition INT {partition},
    source_offset BIGINT {offset},
    arrival AS PROCTIME()
"""

#: Where Kafka has the columns that are not in the record's bytes; a test's table leaves these out.
KAFKA_METADATA = {name: f"METADATA FROM '{name}' VIRTUAL" for name in ("timestamp", "partition", "offset")}


def columns(record: type[msgspec.Struct], *added: str) -> str:
    """The column definitions of a table of a topic's records: the record's fields, then those that the table adds."""
    fields = (f"`{name}` {kind}" for name, kind in sql_types(record).items())
    return "\n    " + ",\n    ".join((*fields, *added)) + "\n"


def create_table(name: str, definitions: str, options: dict[str, object], partitioned_by: str = "") -> str:
    """The CREATE TABLE statement."""
    written = ",\n    ".join(f"{_quote(key)} = {_quote(value)}" for key, value in options.items())
    partitions = f" PARTITIONED BY ({partitioned_by})" if partitioned_by else ""
    return f"CREATE TEMPORARY TABLE {name} ({definitions}){partitions} WITH (\n    {written}\n)"


def source_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the topics that the job reads."""
    topics = settings.topics
    clicks = kafka_source(settings, topics.clicks) | {"format": "raw"}
    profiles = kafka_source(settings, topics.profiles) | {
        "scan.startup.mode": "earliest-offset",  # compacted: the newest profile of a user may be old
        "key.format": "raw",
        "key.fields": "record_key",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
    }
    return [
        create_table("clicks", CLICKS_COLUMNS.format(**KAFKA_METADATA), clicks),
        create_table("profiles", PROFILES_COLUMNS.format(**KAFKA_METADATA), profiles),
    ]


def feature_log_source(settings: Settings) -> str:
    """CREATE TABLE statement of the feature log, to be read."""
    options = kafka_source(settings, settings.topics.feature_log) | {"format": "json"}
    record_time = f"record_time TIMESTAMP_LTZ(3) {KAFKA_METADATA['timestamp']}"
    return create_table("feature_log", columns(FeatureVector, record_time), options)


#: The largest record that the job may have to write: a dead letter holds its original as base64.
MAX_REQUEST_BYTES = 16 * 1024 * 1024


def consumer_properties(settings: Settings) -> dict[str, object]:
    """The options of Kafka's consumers."""
    return {
        "group.id": settings.source.group_id,
        "auto.offset.reset": "earliest",  # a group without offsets starts here instead of failing
        "isolation.level": "read_committed",  # records of an aborted transaction come again
        "partition.discovery.interval.ms": duration_ms(settings.source.discovery),  # the connector's
        **_client_properties(settings),
    }


def producer_properties(settings: Settings) -> dict[str, object]:
    """The options of Kafka's producers."""
    properties = {"linger.ms": 0, "max.request.size": MAX_REQUEST_BYTES, **_client_properties(settings)}
    if settings.delivery.guarantee == "exactly-once":
        properties["transaction.timeout.ms"] = duration_ms(settings.delivery.transaction_timeout)
    return properties


def transactional_prefix(settings: Settings, topic: str) -> str | None:
    """The prefix of transactional ids; None without transactions."""
    return f"{settings.job.name}-{topic}" if settings.delivery.guarantee == "exactly-once" else None


def kafka_source(settings: Settings, topic: str) -> dict[str, object]:
    """The connector's options to read a topic; the format is the caller's."""
    start = {"committed": "group-offsets", "earliest": "earliest-offset", "latest": "latest-offset"}
    options = {
        "connector": "kafka",
        "topic": topic,
        "scan.startup.mode": start[settings.source.start],
        # The connector overwrites the property of the same meaning with this.
        "scan.topic-partition-discovery.interval": f"{duration_ms(settings.source.discovery)} ms",
        **_as_options(consumer_properties(settings)),
    }
    if settings.source.bounded:
        options["scan.bounded.mode"] = "latest-offset"
    return options


def kafka_sink(settings: Settings, topic: str) -> dict[str, object]:
    """The connector's options to write a topic; the format is the caller's."""
    options = {
        "connector": "kafka",
        "topic": topic,
        "sink.delivery-guarantee": settings.delivery.guarantee,
        **_as_options(producer_properties(settings)),
    }
    prefix = transactional_prefix(settings, topic)
    return options if prefix is None else {**options, "sink.transactional-id-prefix": prefix}


def keyed_sink(settings: Settings, topic: str, key: str = "user_id") -> dict[str, object]:
    """The connector's options to write records as JSON, keyed by a field of text."""
    return {**kafka_sink(settings, topic), "key.format": "raw", "key.fields": key, "value.format": "json"}


#: Where the connector's JAR has Kafka's classes.
SHADED = "org.apache.flink.kafka.shaded."
LOGIN_MODULE = re.compile(r"(?<![\w.])org\.apache\.kafka\.common\.security\.")
CONFIG_PROVIDER = {
    "config.providers": "env",
    "config.providers.env.class": f"{SHADED}org.apache.kafka.common.config.provider.EnvVarConfigProvider",
}


def _client_properties(settings: Settings) -> dict[str, object]:
    given = {key: value for key, value in settings.kafka.items() if value is not None}
    if "sasl.jaas.config" in given:
        given["sasl.jaas.config"] = LOGIN_MODULE.sub(rf"{SHADED}\g<0>", str(given["sasl.jaas.config"]))
    from_environment = any(CLUSTER_VARIABLE.search(str(value)) for value in given.values())
    return (CONFIG_PROVIDER if from_environment else {}) | given


def _as_options(properties: dict[str, object]) -> dict[str, object]:
    return {f"properties.{key}": value for key, value in properties.items()}


def _quote(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "'" + text.replace("'", "''") + "'"
