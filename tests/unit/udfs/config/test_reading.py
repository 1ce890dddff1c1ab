"""YAML that people write: a key that is given twice is refused, in files and in values."""

import re
from pathlib import Path

import pytest
import yaml

from udfs.config.overrides import parse_value
from udfs.config.reading import DuplicateKeyError, parse_yaml, read_yaml

CONF = Path(__file__).parents[4] / "conf"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {user_id: user}\ncolumns: {user_id: item}\n", "line 2: key columns is given twice"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n\n  c: 3\n", "line 6: key c is given twice"),
        ("- a\n- {b: 1, b: 1}\n", "line 2: key b is given twice"),
        ("a: 1\n'a': 2\n", "line 2: key a is given twice"),
        ("1: a\n1: b\n", "line 2: key 1 is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path, text, message):
    with pytest.raises(DuplicateKeyError, match=f"^{message}$"):
        parse_yaml(text)
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}$"):
        read_yaml(path, ValueError)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("a: {x: 1}\nb: {x: 2}\n", {"a": {"x": 1}, "b": {"x": 2}}),
        ("1: a\n'1': b\n", {1: "a", "1": "b"}),
        ("a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\n", {"a": {"x": 1, "y": 1}, "b": {"x": 1, "y": 2}}),
        ("a: {b: &b {<<: {x: 1}, x: 2}}\nc: {<<: *b, x: 3}\n", {"a": {"b": {"x": 2}}, "c": {"x": 3}}),
        ("", None),
    ],
)
def test_other_yaml_is_read_as_ever(text, content):
    assert parse_yaml(text) == content == yaml.safe_load(text)


def test_no_other_tags_are_read():
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.getcwd []")


def test_a_value_of_the_command_line_gives_no_key_twice_either():
    assert parse_value("{a: 1, b: 2}", "--set x", ValueError) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="^--set x: line 1: key a is given twice$"):
        parse_value("{a: 1, a: 2}", "--set x", ValueError)
    with pytest.raises(ValueError, match="^--set x: not a YAML value: "):
        parse_value("{a: 1", "--set x", ValueError)


def test_a_file_that_is_not_yaml_is_named(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: cannot be read: "):
        read_yaml(path, ValueError)


@pytest.mark.parametrize(
    "path", [path for path in CONF.rglob("*.yaml") if "kubernetes" not in path.parts], ids=lambda path: path.name
)
def test_no_shipped_file_gives_a_key_twice(path):
    assert read_yaml(path, ValueError)
