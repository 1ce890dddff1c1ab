"""YAML that people write: a key that is given twice is refused, in files and in values."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from udfs.config.overrides import parse_value
from udfs.config.reading import UNKNOWN_KEY, DuplicateKeyError, key_and_rule, parse_yaml, read_yaml

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


UNREADABLE = {
    "a: 2024-02-30": "line 1: 2024-02-30 is not a valid timestamp",
    "b: 1\na: " + "9" * 5_000: "line 2: 9+ is not a valid int",
    "a: 0x_": "line 1: 0x_ is not a valid int",
    "a: !!timestamp x": "line 1: x is not a valid timestamp",
    "a: !!bool maybe": "line 1: maybe is not a valid bool",
    'a: "\\ud800"': "line 1: '.*ud800': half of a surrogate pair",
    '"\\ud800": 1': "line 1: '.*ud800': half of a surrogate pair",
    "a: &a [*a]": "recursive",
    "a: &a {b: *a}": "recursive",
    "[" * 700: "nested too deeply",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_yaml_cannot_read_is_an_error_of_yaml(tmp_path, text):
    with pytest.raises(yaml.YAMLError, match=UNREADABLE[text]):
        parse_yaml(text)
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: cannot be read: .*{UNREADABLE[text]}.*$"):
        read_yaml(path, ValueError)
    with pytest.raises(ValueError, match=f"^--set x: not a YAML value: .*{UNREADABLE[text]}.*$"):
        parse_value(text, "--set x", ValueError)


def test_a_rule_is_one_line_even_for_a_key_of_two():
    error = msgspec.ValidationError("Object contains unknown field `a\nb` - at `$.state`")
    assert key_and_rule(error) == ("state.a b", UNKNOWN_KEY)


def test_a_path_that_no_file_can_have_is_named():
    with pytest.raises(ValueError, match="^a\0b: cannot be read: embedded null byte$"):
        read_yaml(Path("a\0b"), ValueError)


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
