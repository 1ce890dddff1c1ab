"""Consumers, producers and admin clients with shared defaults, as context managers that raise KafkaClientError."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import AuthorizationError, KafkaConfigurationError, KafkaError

from udfs.config.text import one_line
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options

#: Options of every consumer: it reads by position, without a group, and changes nothing on the brokers.
CONSUMER_OPTIONS = {
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    "allow_auto_create_topics": False,
    "auto_offset_reset": "earliest",  # when retention overtakes it, it goes on at the first record, not at the end
    "metrics_enabled": False,
}
PRODUCER_OPTIONS = {"metrics_enabled": False}
#: What kafka-python logs when a connection fails; the CONSEQUENCE follows any other cause.
FAILED_CONNECTION = re.compile(r"Connection (?:lost|failed): (.*)")
CONSEQUENCE = "socket disconnected"

Client = TypeVar("Client", KafkaConsumer, KafkaProducer, KafkaAdminClient)


@contextmanager
def open_consumer(properties: Mapping[str, object], subject: str, **options: object) -> Iterator[KafkaConsumer]:
    """A consumer with CONSUMER_OPTIONS and the given options of kafka-python.

    Raises KafkaClientError, which names the subject, for every Kafka error while the consumer is open.
    """
    with _open(KafkaConsumer, properties, subject, CONSUMER_OPTIONS | options) as consumer:
        yield consumer


@contextmanager
def open_producer(
    properties: Mapping[str, object], subject: str, remedy: str = "", **options: object
) -> Iterator[KafkaProducer]:
    """A producer, like `open_consumer`; the remedy applies to errors after it has connected."""
    with _open(KafkaProducer, properties, subject, PRODUCER_OPTIONS | options, remedy) as producer:
        yield producer


@contextmanager
def open_admin(properties: Mapping[str, object], subject: str, **options: object) -> Iterator[KafkaAdminClient]:
    """An admin client, like `open_consumer`."""
    with _open(KafkaAdminClient, properties, subject, options) as admin:
        yield admin


@contextmanager
def kafka_failures(subject: str, remedy: str = "") -> Iterator[None]:
    """Convert kafka-python's errors to KafkaClientError, which names the subject."""
    try:
        yield
    except KafkaError as error:
        raise KafkaClientError(f"{subject}: {one_line(error)}", remedy or _remedy(error)) from error


@contextmanager
def _open(
    make: Callable[..., Client],
    properties: Mapping[str, object],
    subject: str,
    options: Mapping[str, object],
    remedy: str = "",
) -> Iterator[Client]:
    client = _connect(make, properties, options)
    with kafka_failures(f"{subject} at {properties['bootstrap.servers']}", remedy), closing(client):
        yield client


def _connect(make: Callable[..., Client], properties: Mapping[str, object], options: Mapping[str, object]) -> Client:
    servers, protocol = properties["bootstrap.servers"], properties.get("security.protocol") or "PLAINTEXT"
    options = client_options(properties) | options
    with _failed_connections() as causes:
        try:
            return make(**options)
        except (KafkaConfigurationError, ValueError, RuntimeError) as error:  # before anything is connected
            raise KafkaClientError(f"Kafka at {servers}: {one_line(error)}", "correct the client properties") from error
        except KafkaError as error:
            cause = next((words for words in causes if CONSEQUENCE not in words), next(iter(causes), one_line(error)))
            raise KafkaClientError(
                f"no broker answers at {servers} over {protocol}: {cause}",
                "check bootstrap.servers, security.protocol, the trust store, user and password",
            ) from error


@contextmanager
def _failed_connections() -> Iterator[list[str]]:
    """Collect the causes of failed connections from kafka-python's log; its exception does not contain them."""
    causes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: causes.extend(FAILED_CONNECTION.findall(record.getMessage()))
    logger = logging.getLogger("kafka")
    logger.addHandler(handler)
    try:
        yield causes
    finally:
        logger.removeHandler(handler)


def _remedy(error: KafkaError) -> str:
    if isinstance(error, AuthorizationError):
        return "grant this user the right to do so"
    return "check that the brokers are up, and try again" if error.retriable else ""
