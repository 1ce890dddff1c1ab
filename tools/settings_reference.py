"""The reference of settings: allowed values from jobs/common/settings.py, defaults and meaning from conf/base.yaml.

make reference       # or: python -m tools.settings_reference; writes it into docs/configuration.md
"""

import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from jobs.common.settings import OPEN_SECTIONS, Settings
from tools.paths import PROJECT

BASE = PROJECT / "conf" / "base.yaml"
PAGE = PROJECT / "docs" / "configuration.md"
BEGIN, END = "<!-- make reference writes from here -->", "<!-- to here -->"

SECTION = re.compile(r"^(\w+): *(?:# (.*))?$")
KEY = re.compile(r"^  ([\w.-]+): *(.*?) *(?: # (.*))?$")
GOES_ON = re.compile(r"^ +# (.*)$")


class Described(NamedTuple):
    """A key of base.yaml, with its value and meaning. The key of a section has no value."""

    key: str
    value: str
    meaning: str


def described(base: str) -> Iterator[Described]:
    """Sections and their keys, in the order of the file, with the comments beside and below them."""
    entries: list[list[str]] = []
    section = ""
    for line in base.splitlines():
        if match := SECTION.match(line):
            section = match[1]
            entries.append([section, "", match[2] or ""])
        elif match := KEY.match(line):
            entries.append([f"{section}.{match[1]}", match[2], match[3] or ""])
        elif (match := GOES_ON.match(line)) and entries:
            entries[-1][2] += f" {match[1]}"
    return (Described(*entry) for entry in entries)


def rule(schema: dict) -> str:
    """The allowed values of a JSON Schema, in words.

    >>> rule({"type": "integer", "minimum": 1}), rule({"enum": ["a", "b"]})
    ('integer ≥ 1', '`a`, `b`')
    """
    if "title" in schema:
        return schema["title"]
    if "anyOf" in schema:
        return " or ".join(rule(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    words = {"string": "text", "boolean": "`true`, `false`", "array": "list", "object": "mapping", "null": "`null`"}
    kind = words.get(schema["type"], schema["type"])
    return " ".join(
        [kind, ", ".join(f"{sign} {schema[name]}" for name, sign in bounds.items() if name in schema)]
    ).strip()


def reference(base: str) -> str:
    """The reference in Markdown: a table for each section of the file."""
    definitions = msgspec.json.schema(Settings)["$defs"]
    sections = definitions["Settings"]["properties"]
    lines = []
    for key, value, meaning in described(base):
        meaning = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", meaning).replace("|", "\\|")
        section, _, name = key.partition(".")
        if not name:
            lines += ["", f"### {section}", "", *([meaning[0].upper() + meaning[1:] + ".", ""] if meaning else [])]
            lines += ["| key | allowed values | default | meaning |", "|---|---|---|---|"]
            continue
        allowed = ""
        if section not in OPEN_SECTIONS:
            allowed = rule(_resolved(sections[section], definitions)["properties"][name])
        lines.append(f"| `{key}` | {allowed} | `{value}` | {meaning} |")
    return "\n".join(lines).strip() + "\n"


def with_reference(page: str, base: str) -> str:
    """The page with its reference replaced."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{reference(base)}\n{END}{after}"


def _resolved(schema: dict, definitions: dict[str, dict]) -> dict:
    """The schema that a reference points to."""
    return definitions[schema["$ref"].rpartition("/")[2]]


def main() -> int:
    PAGE.write_text(with_reference(PAGE.read_text(), BASE.read_text()))
    print(f"wrote {PAGE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
