"""Values of settings that are taken from the environment as ${NAME}, the only way to pass secrets."""

import re
from collections.abc import Callable, Mapping
from typing import Any

VARIABLE = re.compile(r"\$\{(\w+)\}")
NAMED = re.compile(r"\$\{(?:env:)?(\w+)\}")  # with env:, Kafka's clients look it up where they run
SECRET_ADVICE = "write ${NAME} or ${env:NAME} and set the environment variable NAME"


def is_secret(key: str) -> bool:
    """Whether an option of this name holds a secret: its value is neither written in a file nor printed.

    >>> is_secret("sasl.oauthbearer.token"), is_secret("sasl.oauthbearer.token.endpoint.url")
    (True, False)
    """
    if re.search(r"\.(endpoint\.url|enabled|class)$", key):
        return False
    return re.search(r"password|secret|jaas|token|credential|keystore\.key|\.key\.pem", key, re.IGNORECASE) is not None


def is_written_secret(key: str, value: object) -> bool:
    """Whether an option is a secret whose value is written out instead of taken from the environment."""
    return value is not None and is_secret(key) and not NAMED.search(str(value))


def refuse_written_secrets(section: object, name: str, origin: str, error: type[ValueError]) -> None:
    """Raise `error`, naming file and key, if a secret is written out in what a file has as a section of options."""
    for key, value in section.items() if isinstance(section, dict) else ():
        if is_written_secret(str(key), value):
            raise error(f"{origin}: key {name}.{key}: a secret does not belong in a file; {SECRET_ADVICE}")


def expand_variables(
    value: Any, origin: str, environment: Mapping[str, str], error: type[ValueError], key: str = ""
) -> Any:
    """Replace each ${NAME} in settings. Raises `error`, naming file, key and variable, if one is not set."""
    if isinstance(value, dict):
        return {
            name: expand_variables(inner, origin, environment, error, f"{key}.{name}".lstrip("."))
            for name, inner in value.items()
        }
    if not isinstance(value, str):
        return value

    return substitute(VARIABLE, value, environment, lambda problem: error(f"{origin}: key {key}: {problem}"))


def substitute(
    variable: re.Pattern[str], text: str, environment: Mapping[str, str], refuse: Callable[[str], Exception]
) -> str:
    """Replace each variable in a text; its first group is the name.

    Raises what `refuse` makes of the problem if one is not set.
    """

    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environment:
            raise refuse(f"environment variable {name} is not set")
        return environment[name]

    return variable.sub(look_up, text)
