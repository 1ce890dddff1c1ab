"""Settings given as KEY=VALUE, over those of a file."""

from typing import Any

import yaml


def split_override(text: str, example: str, error: type[ValueError]) -> tuple[str, str]:
    """Key and value of a `--set` argument; raises `error` showing the example when there is no equals sign."""
    key, equals, value = text.partition("=")
    if not equals:
        raise error(f"--set {text}: want KEY=VALUE, for example {example}")
    return key, value


def parse_value(text: str, origin: str, error: type[ValueError]) -> Any:
    """The value that the text is in YAML; raises `error` naming the origin when it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise error(f"{origin}: not a YAML value: {' '.join(str(problem).split())}") from None
