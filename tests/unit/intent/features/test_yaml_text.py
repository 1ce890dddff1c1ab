"""Additions to YAML text: they say what they should, and nothing else of the text changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intent.features.yaml_text import BracesError, insert, scalar
from udfs.config.reading import parse_yaml

ENTRY = {"value": "count()", "unit": "events", "doc": "all: of them # really"}

COMMENTED = """\
# first
extends: standard  # the base

windows: [30m, 24h]
# own features
features:  # by group
  own:
    # about a
    a: {value: now.value, unit: u, doc: d}   # a in braces
    b:
      value: |
        now.value
        + 1
      unit: u
      doc: last of own  # with a comment
    # below b

  # about other
  other:
    c:
      value: "count()"
      unit: u
      doc: d
# the end
"""


def expected(text: str, keys: tuple[str, ...], name: str, value) -> dict:
    content = parse_yaml(text) or {}
    section = content
    for key in keys:
        section = section.setdefault(key, {})
    section[name] = value
    return content


@pytest.mark.parametrize(
    ("keys", "name", "value"),
    [
        (("features", "own"), "n", ENTRY),
        (("features", "other"), "n_{window}", ENTRY),
        (("features", "third group"), "n", ENTRY),
        (("kinds",), "quiz", 100),
    ],
)
@pytest.mark.parametrize(
    "text",
    [
        COMMENTED,
        COMMENTED.rstrip("\n"),
        COMMENTED.replace("\n", "\r\n"),
        "\ufeff" + COMMENTED,
        f"---\n{COMMENTED}...\n",
        COMMENTED.replace("  ", "    "),
        COMMENTED + "kinds:\n  other: 101\n",
        "extends: standard\nkinds: {}\nfeatures: {}  # none yet\n",
        "extends: standard\nfeatures:\n  own: {}\n",
        "# nothing\n",
        "---\n",
        "",
        "extends: standard",
        "features:\n- not a mapping\n",
    ],
)
def test_an_entry_is_added_and_every_line_stays(text, keys, name, value):
    if "- not" in text and keys[0] == "features":
        with pytest.raises(BracesError):
            insert(text, keys, name, value)
        return
    added = insert(text, keys, name, value)
    assert parse_yaml(added) == expected(text, keys, name, value)
    assert added.count("\r\n") == (added.count("\n") if "\r" in text else 0)
    rest = iter(line.replace(" {}", "").rstrip() for line in added.splitlines())
    assert [line for line in text.replace(" {}", "").splitlines() if line.rstrip() not in rest] == []


def test_an_entry_goes_behind_those_of_its_group_and_their_comments():
    added = insert(COMMENTED, ("features", "own"), "n", ENTRY).splitlines()
    at = added.index("    n:")
    assert added[at - 1] == "    # below b"
    assert added[at + 1 : at + 4] == [
        "      value: count()",
        "      unit: events",
        '      doc: "all: of them # really"',
    ]
    assert added[at + 4 : at + 6] == ["", "  # about other"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('{"extends": "standard", "features": {}}', ("features", "own")),
        ("features: {own: {a: {value: x, unit: u, doc: d}}}", ("features", "own")),
        ("features:\n  own: {a: {value: x, unit: u, doc: d}}", ("features", "own")),
        ("kinds: {a: 100}", ("kinds",)),
    ],
)
def test_a_mapping_in_braces_is_not_added_to(text, keys):
    with pytest.raises(BracesError):
        insert(text, keys, "n", ENTRY)


@given(st.text())
def test_any_text_is_written_so_that_it_is_read_again(text):
    assert parse_yaml(f"key: {scalar(text)}\n") == {"key": text}
    assert parse_yaml(f"{scalar(text)}: 1\n") == {text: 1}


@pytest.mark.parametrize(
    "text", ["no", "1", "1.5", "null", "~", "2026-01-01", "- a", "a: b", "#", " a", "'a", "&a", "*"]
)
def test_a_text_that_looks_like_something_else_is_quoted(text):
    assert scalar(text) == f'"{text}"'
