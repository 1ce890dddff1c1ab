"""Kafka's client properties: as commands and settings write them, and as options of kafka-python.

Properties have the names that Kafka documents for its Java clients. Every submitted job imports this module, which
therefore doesn't import kafka-python.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence

from udfs.config.overrides import advice_on_key
from udfs.config.variables import NAMED, SECRET_ADVICE, is_written_secret, substitute
from udfs.kafka.errors import KafkaClientError

#: A variable of the environment that Kafka's Java clients look up where they run; Python's are given its value.
CLUSTER_VARIABLE = re.compile(r"\$\{env:(\w+)\}")
#: The client properties that commands take.
PROPERTIES = (
    "bootstrap.servers",
    "security.protocol",
    "sasl.mechanism",
    "sasl.jaas.config",
    "client.id",
    "ssl.truststore.location",
    "ssl.truststore.type",
)
#: Properties that kafka-python takes unchanged, under the same name with underscores.
SAME_IN_PYTHON = ("security.protocol", "sasl.mechanism", "client.id")
LOCAL_SERVERS = "localhost:9092"


def client_properties(texts: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Client properties of KEY=VALUE texts, as commands take them behind --kafka. Raises KafkaClientError."""
    properties = {"bootstrap.servers": LOCAL_SERVERS}
    return properties | dict(key_and_value(text, PROPERTIES, environment) for text in texts)


def key_and_value(text: str, known: Collection[str], environment: Mapping[str, str]) -> tuple[str, str]:
    """The parts of a KEY=VALUE text behind --kafka; ${NAME} in the value is the environment variable NAME.

    A key may have underscores for dots, as kafka-python writes it. Raises KafkaClientError for an unknown key, an unset
    variable, and a secret that is written out.
    """
    written, equals, value = text.partition("=")
    key = written.replace("_", ".")
    if not equals:
        raise KafkaClientError(f"--kafka {written}: expected KEY=VALUE, such as bootstrap.servers={LOCAL_SERVERS}")
    if key not in known:
        raise KafkaClientError(f"--kafka {written}: unknown key", advice_on_key(key, known))
    if is_written_secret(key, value):
        raise KafkaClientError(
            f"--kafka {written}: a secret on the command line shows in the process list", SECRET_ADVICE
        )
    return key, _substitute(NAMED, value, f"--kafka {written}", environment)


def client_options(properties: Mapping[str, object]) -> dict[str, object]:
    """kafka-python's options for the client properties; properties that only Java clients have are left out.

    Raises KafkaClientError for a trust store that Python can't read, a login without a name, and an unset ${env:NAME}.
    """
    given = {
        key: _substitute(CLUSTER_VARIABLE, str(value), f"kafka.{key}", os.environ)
        for key, value in properties.items()
        if key in PROPERTIES and value is not None
    }
    options: dict[str, object] = {"bootstrap_servers": given["bootstrap.servers"].split(",")}
    options |= {key.replace(".", "_"): given[key] for key in SAME_IN_PYTHON if key in given}
    for field in ("username", "password"):
        login = re.search(rf"""\b{field}\s*=\s*(?:"([^"]*)"|'([^']*)')""", given.get("sasl.jaas.config", ""))
        if login:
            options[f"sasl_plain_{field}"] = login[1] if login[1] is not None else login[2]
        elif "sasl.jaas.config" in given and given.get("sasl.mechanism", "").startswith(("PLAIN", "SCRAM")):
            raise KafkaClientError(f"kafka.sasl.jaas.config: no {field} in it", f'write {field}="..."')
    if "ssl.truststore.location" in given:
        if given.get("ssl.truststore.type") != "PEM":
            raise KafkaClientError(
                "kafka.ssl.truststore.location: Python reads a trust store of type PEM only",
                "export the certificates to a PEM file and set ssl.truststore.type=PEM",
            )
        options["ssl_cafile"] = given["ssl.truststore.location"]
    return options


def _substitute(variable: re.Pattern[str], value: str, place: str, environment: Mapping[str, str]) -> str:
    def refuse(problem: str) -> KafkaClientError:
        return KafkaClientError(f"{place}: {problem}", "set it where this command runs")

    return substitute(variable, value, environment, refuse)
