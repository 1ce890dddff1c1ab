"""A shop's declaration file: what can be added to it, checked and without damage to the rest of its text."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from intent.features.yaml_text import BracesError, Content, inline, insert
from udfs.config.reading import read_yaml
from udfs.contracts.packed_events import OWN_KIND_CODES
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import DeclarationError, FeatureFile, read_declaration, read_file

#: The text of a new file.
START = """\
# Kinds of events and features of this shop. docs/features.md explains the keys and the language of the expressions.
extends: standard
"""


@dataclass(frozen=True)
class Addition:
    """An entry to add to a file, under keys."""

    keys: tuple[str, ...]
    name: str
    value: Content

    def content(self, file: FeatureFile) -> dict:
        """The content of the file with the entry, as plain data."""
        content = msgspec.to_builtins(file)
        section = content
        for key in self.keys:
            section = section.setdefault(key, {})
        section[self.name] = self.value
        return content

    def __str__(self) -> str:
        return f"{inline(self.name, self.value)} under {'.'.join(self.keys)}"


def read_or_start(path: Path) -> FeatureFile:
    """The content of a file; that of a new one, if there is none or it is empty. Raises DeclarationError."""
    if not path.exists():
        if not path.parent.is_dir():
            raise DeclarationError(
                f"{path}: there is no directory {path.parent}; create it, or name another file with --declaration"
            )
        return FeatureFile(extends="standard")
    return FeatureFile(extends="standard") if read_yaml(path, DeclarationError) is None else read_file(path)


def feature_addition(file: FeatureFile, origin: str, group: str, name: str, entry: dict[str, str]) -> Addition:
    """The addition of a feature to a file with this content. Raises DeclarationError for a name that it has."""
    if name in file.features.get(group, {}):
        raise DeclarationError(f"{origin}: key features: {name} is declared twice: rename one")
    return Addition(("features", group), name, entry)


def kind_addition(file: FeatureFile, origin: str, name: str) -> Addition:
    """The addition of a kind of event, with the next free code. Raises DeclarationError for a name that it has.

    A code below the highest one may be that of a kind that was removed, and histories still hold its events. So it is
    the last resort.
    """
    if name in file.kinds:
        raise DeclarationError(f"{origin}: key kinds: {name} is declared already, with the code {file.kinds[name]}")
    taken = set(file.kinds.values())
    code = max(taken, default=OWN_KIND_CODES[0] - 1) + 1
    if code not in OWN_KIND_CODES:
        code = next((free for free in OWN_KIND_CODES if free not in taken), None)
    if code is None:
        raise DeclarationError(
            f"{origin}: key kinds: all {len(OWN_KIND_CODES)} codes from {OWN_KIND_CODES[0]} are taken; remove a kind"
        )
    return Addition(("kinds",), name, code)


def declaration_with(file: FeatureFile, origin: str, addition: Addition) -> Declaration:
    """The declaration that a file makes with an addition. Raises DeclarationError if it makes none."""
    return read_declaration(addition.content(file), origin)


def write_addition(path: Path, addition: Addition) -> None:
    """Add to a file, or to a new one. Raises DeclarationError, OSError; the file is then as it was."""
    expected = msgspec.convert(addition.content(read_or_start(path)), FeatureFile)
    text = path.read_bytes().decode() if path.exists() else START
    if path.exists() and read_yaml(path, DeclarationError) is None:
        text = f"{text.rstrip()}\n{START}".lstrip()
    by_hand = DeclarationError(f"{path}: it is written in a way that this command can't add to; add by hand {addition}")
    try:
        text = insert(text, addition.keys, addition.name, addition.value)
    except BracesError:
        raise by_hand from None
    with _replacement(path.resolve()) as beside:
        beside.write_bytes(text.encode())
        try:
            is_right = read_file(beside) == expected
        except DeclarationError:
            is_right = False
        if not is_right:
            raise by_hand


@contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """A file beside another one, which it replaces unless an error is raised."""
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".unfinished", delete=False) as file:
        beside = Path(file.name)
    try:
        if path.exists():
            shutil.copymode(path, beside)
        else:
            beside.chmod(0o644)
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
