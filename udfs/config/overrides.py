"""Settings given as KEY=VALUE, which override those of a file."""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

import yaml

from udfs.config.reading import DuplicateKeyError, parse_yaml
from udfs.config.text import one_line
from udfs.config.variables import SECRET_ADVICE, is_written_secret


def split_override(text: str, example: str, error: type[ValueError]) -> tuple[str, str]:
    """Split a `--set` argument into key and value.

    Raises `error`, with the example, if there is no equals sign, and for a secret that is written out.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise error(f"--set {text}: expected KEY=VALUE, for example {example}")
    if is_written_secret(key, value):
        raise error(f"--set {key}: a secret on the command line shows in the process list; {SECRET_ADVICE}")
    return key, value


def advice_on_key(key: str, known: Collection[str]) -> str:
    """What to write instead of an unknown key: the known one that is similar, or else all of them."""
    similar = get_close_matches(key, known, n=1)
    return f"did you mean {similar[0]}?" if similar else f"expected one of {', '.join(known)}"


def parse_value(text: str, origin: str, error: type[ValueError]) -> Any:
    """Parse a text as a YAML value. Raises `error`, naming the origin, if it is not YAML or gives a key twice."""
    try:
        return parse_yaml(text)
    except DuplicateKeyError as problem:
        raise error(f"{origin}: {problem}") from None
    except yaml.YAMLError as problem:
        raise error(f"{origin}: not a YAML value: {one_line(problem)}") from None
