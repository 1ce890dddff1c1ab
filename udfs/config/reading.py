"""Read YAML files that people write, and describe their errors and those of JSON."""

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from udfs.config.text import one_line

UNKNOWN_KEY, MISSING_KEY = "unknown key", "missing"
#: What msgspec raises for bytes that are not the JSON that is expected.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class DuplicateKeyError(yaml.YAMLError):
    """A key that is given twice; the message names its line."""


class UnreadableValueError(yaml.YAMLError):
    """A value that is not what its form or tag says, such as a 30th of February; the message names its line."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice. YAML forbids it, but PyYAML takes the last value without a word.

    Refuses values that PyYAML fails to read with errors of other kinds, and texts that can't be written in UTF-8.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=True)  # refuses what contains itself
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as problem:
            kind, value = node.tag.rpartition(":")[2], one_line(node.value)[:60]
            raise UnreadableValueError(
                f"{_line(node)}: {value} is not a valid {kind} ({one_line(problem)}); quote it if it is a text"
            ) from None

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise UnreadableValueError(f"{_line(node)}: {ascii(node.value)[:60]}: half of a surrogate pair") from None
        return node

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        mapping = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in mapping.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise DuplicateKeyError(f"{_line(key)}: key {key.value} is given twice")
                seen.add((key.tag, key.value))
        return mapping


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"


def parse_yaml(text: str) -> Any:
    """The content of a YAML document. Raises yaml.YAMLError, for a key that is given twice DuplicateKeyError."""
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None


def read_yaml(path: Path, error: type[ValueError]) -> Any:
    """The content of a YAML file.

    Raises `error`, naming the file, if it can't be read, is not YAML or gives a key twice.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except DuplicateKeyError as problem:
        raise error(f"{path}: {problem}") from None
    except (OSError, ValueError, yaml.YAMLError) as problem:  # a path may hold a null byte
        raise error(f"{path}: cannot be read: {one_line(problem)}") from None


def key_and_rule(error: msgspec.ValidationError) -> tuple[str, str]:
    """The dotted key of the invalid value, "" for the whole document, and the rule that it breaks.

    >>> key_and_rule(msgspec.ValidationError("Object missing required field `ttl` - at `$.state`"))
    ('state.ttl', 'missing')
    """
    rule, _, path = one_line(error).partition(" - at `$")
    key = path.strip("`.")
    named = re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", rule)
    if named is None:
        return key, rule
    return f"{key}.{named[2]}".lstrip("."), UNKNOWN_KEY if named[1] == "contains unknown" else MISSING_KEY


def in_words(error: msgspec.ValidationError) -> str:
    """msgspec's message with the key first: `$.state.ttl` becomes `key state.ttl`."""
    key, rule = key_and_rule(error)
    key = key.replace("[...]", "")
    if "at `key` in" in str(error):
        place = str(error).rpartition("`$.")[2].strip("`").replace("[...]", "")
        return f"key {place}: each name in it must be a text: quote numbers, yes and no"
    if "regex" in rule and "ms|s|min" in rule:
        rule = "expected a number and a unit (ms, s, min, h or d), such as 10 s"
    if name := re.search(r"regex '\^\[A-Za-z0-9\._-\]\{1,(\d+)\}", rule):
        rule = f"expected 1 to {name[1]} of the characters A-Z, a-z, 0-9, '.', '_' and '-'"
    if "regex '^MCowBQYDK2VwAyEA" in rule:
        rule = "expected a public key of Ed25519 in Base64, as `intent sign key` prints it"
    return f"key {key}: {rule}" if key else rule
