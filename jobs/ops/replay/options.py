"""Parsing of replay's options: Kafka's properties, KafkaProducer's options, options of the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import msgspec
from kafka import KafkaProducer

from training.simulation.clickstream import Simulation
from udfs.config.overrides import advice_on_key
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import PROPERTIES, key_and_value

#: KafkaProducer options that take an object, which no text can be.
OBJECT_OPTIONS = (
    "key_serializer",
    "value_serializer",
    "partitioner",
    "socket_options",
    "ssl_context",
    "metric_reporters",
    "selector",
    "sasl_oauth_token_provider",
    "kafka_client",
)
#: The other options, with dots for underscores. Most are producer properties of Kafka by the same name. What Kafka does
#: not have, or only in a form for Java, goes by kafka-python's name: proxies, client certificates, a user's password.
PRODUCER_OPTIONS = {name.replace("_", "."): name for name in KafkaProducer.DEFAULT_CONFIG if name not in OBJECT_OPTIONS}
KEYS = (*PROPERTIES, *(key for key in PRODUCER_OPTIONS if key not in PROPERTIES))
SIMULATION_OPTIONS = tuple(field.name for field in fields(Simulation))


class OptionError(ValueError):
    """An option that can't be used; the message is one line that names it and the rule."""


def producer_options(texts: Sequence[str], environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Client properties, and options of KafkaProducer beside them, of KEY=VALUE texts. Raises KafkaClientError."""
    properties: dict[str, str] = {}
    options: dict[str, Any] = {}
    for text in texts:
        key, value = key_and_value(text, KEYS, environment)
        if key in PROPERTIES:
            properties[key] = value
        else:
            options[PRODUCER_OPTIONS[key]] = _typed(key, value)
    return properties, options


def simulation(text: str) -> Simulation:
    """Parse the options of a simulation from a text such as users=2000,hours=24,seed=1."""
    values = dict(_simulation_option(part.strip()) for part in text.split(","))
    try:
        return msgspec.convert(values, Simulation, strict=False)
    except msgspec.ValidationError as error:
        raise OptionError(f"--simulate {text}: {error}") from None


def _simulation_option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"--simulate {key}: expected KEY=VALUE")
    if key not in SIMULATION_OPTIONS:
        raise OptionError(f"--simulate {key}: unknown key; {advice_on_key(key, SIMULATION_OPTIONS)}")
    return key, value


def _typed(key: str, value: str) -> Any:
    """Convert `value` to the type of the option's default."""
    name = PRODUCER_OPTIONS[key]
    default = KafkaProducer.DEFAULT_CONFIG[name]
    kind = int if name.endswith("_bytes") else type(default)
    if (name, value) == ("acks", "all"):
        return value
    if (name, value) == ("compression_type", "none"):
        return None
    if kind not in (bool, int, float):
        return value
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError:
        rule = "true or false" if kind is bool else "a number"
        raise KafkaClientError(f"--kafka {key}: {value!r}: expected {rule}") from None
