"""Settings given as KEY=VALUE, which override those of a file."""

from typing import Any

import yaml


def split_override(text: str, example: str, error: type[ValueError]) -> tuple[str, str]:
    """Split a `--set` argument into key and value. Raises `error` with the example if there is no equals sign."""
    key, equals, value = text.partition("=")
    if not equals:
        raise error(f"--set {text}: expected KEY=VALUE, for example {example}")
    return key, value


def parse_value(text: str, origin: str, error: type[ValueError]) -> Any:
    """Parse a text as a YAML value. Raises `error`, naming the origin, if it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise error(f"{origin}: not a YAML value: {' '.join(str(problem).split())}") from None
