"""Command-line texts as options of KafkaProducer and of the simulator."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

import msgspec
from kafka import KafkaProducer

from training.simulate import Simulation
from udfs.variables import VARIABLE, is_written_secret

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
KAFKA_OPTIONS = tuple(name for name in KafkaProducer.DEFAULT_CONFIG if name not in OBJECT_OPTIONS)
SIMULATION_OPTIONS = tuple(field.name for field in fields(Simulation))


class OptionError(ValueError):
    """An option that can't be used; the message is one line that names it and the rule."""


def kafka_options(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """KafkaProducer options from KEY=VALUE texts; ${NAME} in a value stands for the environment variable NAME."""
    options = {}
    for text in texts:
        key, value = _key_and_value(text, "--kafka", KAFKA_OPTIONS)
        if is_written_secret(key, value):
            raise OptionError(
                f"--kafka {key}: a secret on the command line shows in the process list; "
                f"write '{key}=${{NAME}}' and set the environment variable NAME"
            )
        options[key] = _typed(key, _expand(key, value, environment))
    return options


def simulation(text: str) -> Simulation:
    """The simulation that a text such as users=2000,hours=24,seed=1 asks for."""
    values = dict(_key_and_value(part.strip(), "--simulate", SIMULATION_OPTIONS) for part in text.split(","))
    try:
        return msgspec.convert(values, Simulation, strict=False)
    except msgspec.ValidationError as error:
        raise OptionError(f"--simulate {text}: {error}") from None


def _key_and_value(text: str, option: str, known: Sequence[str]) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"{option} {key}: want KEY=VALUE")
    if key not in known:
        similar = get_close_matches(key.replace(".", "_"), known, n=1)
        advice = f"did you mean {similar[0]}?" if similar else f"want one of {', '.join(known)}"
        raise OptionError(f"{option} {key}: unknown key; {advice}")
    return key, value


def _expand(key: str, value: str, environment: Mapping[str, str]) -> str:
    for name in VARIABLE.findall(value):
        if name not in environment:
            raise OptionError(f"--kafka {key}: environment variable {name} is not set")
    return VARIABLE.sub(lambda match: environment[match[1]], value)


def _typed(key: str, value: str) -> Any:
    """`value` as the type of the option's default."""
    default = KafkaProducer.DEFAULT_CONFIG[key]
    wanted = int if key.endswith("_bytes") else type(default)
    if (wanted, value) == (int, "all") and key == "acks":
        return value
    if wanted not in (bool, int, float):
        return value
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError:
        rule = "true or false" if wanted is bool else "a number"
        raise OptionError(f"--kafka {key}: {value!r}: want {rule}") from None
