"""The model registry, read without side effects: bundles, and the ledger of the models that serve.

    bundles/<version>/...       immutable; without its manifest.json, which is uploaded last, a bundle is not there
    ledger/<8 digits>.json      one file per change of the serving models; the newest complete one is in force

It lies on any file system that fsspec knows. training/rollout/ledger.py writes it.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from fsspec.core import url_to_fs
from msgspec import Meta

from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line
from udfs.features.declaration import Declaration
from udfs.models.bundle import (
    MANIFEST_FILE,
    Bundle,
    BundleError,
    Manifest,
    Read,
    check_size,
    check_version,
    read_bundle,
    read_features,
    read_files,
    read_listed_file,
    read_manifest,
)
from udfs.models.signatures import PublicKey
from udfs.rollout.plan import Rollout, RolloutError, check_rollout

ENTRY_FORMAT = 1


class RegistryError(ValueError):
    """A registry that can't be read or has no serving models; callers keep serving the current ones."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A change of the serving models: who made it, when, by which command, why; and the whole rollout after it."""

    format: int
    number: Annotated[int, Meta(ge=1)]
    at: Annotated[datetime, Meta(tz=True)]
    by: str
    command: tuple[str, ...]
    why: str
    forced: bool = False  # the comparison with the champion on the holdout, or guardrails, were overridden
    restores: int | None = None  # the entry whose rollout a rollback brought back
    rollout: Rollout


class Registry:
    """A registry at a path or an fsspec URL, such as s3://bucket/models; polling it lists one directory."""

    def __init__(self, uri: str, trusted_keys: Sequence[PublicKey] = ()):
        """Open a registry, whose bundles one of the trusted keys must have signed, if there are any.

        Raises RegistryError when no installed file system can read such a URL.
        """
        self.uri = uri.rstrip("/")
        self.trusted_keys = tuple(trusted_keys)
        try:
            # A listing that is kept would hide what others write.
            self.files, self._root = url_to_fs(self.uri, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise RegistryError(f"{uri}: {error}") from None
        self._newest: Entry | None = None

    def rollout(self) -> tuple[int, Rollout]:
        """Number and rollout of the ledger entry in force; raises like `newest`."""
        newest = self.newest()
        return newest.number, newest.rollout

    def newest(self) -> Entry:
        """The newest complete entry of the ledger, which is the one in force.

        Raises RegistryError when there is none, when this code can't use it, and when the last one in force is gone.
        """
        newest, numbers = self._newest, self.numbers()
        for number in reversed(numbers):
            if newest is not None and number <= newest.number:
                break
            entry = self.entry(number)
            if entry is not None:
                self._newest = entry
                return entry
        if newest is None:
            raise RegistryError(f"{self.uri}/ledger: no entry: `intent promote start` makes a champion")
        if newest.number not in numbers:
            raise RegistryError(f"{self.uri}/ledger: entry {newest.number}, which serves, is gone")
        return newest

    def local_champion(self) -> str | None:
        """The newest champion, current or earlier, that is not a remote model; raises like `newest`."""
        newest = self.newest()
        for number in reversed(self.numbers()):
            entry = self.entry(number) if number <= newest.number else None
            if entry is not None and not self.manifest(entry.rollout.champion).is_remote:
                return entry.rollout.champion
        return None

    def bundle(self, version: str, history_length: int | None = None) -> Bundle:
        """Read a staged bundle, with the checks of `udfs.models.bundle.load_bundle`.

        Raises BundleError if it must not serve, RegistryError if the registry can't be read.
        """
        self._check_staged(version)
        bundle = read_bundle(self._reader(version), self.origin(version), history_length, self.trusted_keys)
        self._check_name(version, bundle.manifest)
        return bundle

    def bundle_files(self, version: str) -> dict[str, bytes]:
        """All files of a staged bundle, checked but not loaded, as `udfs.models.bundle.read_files`.

        Raises like `bundle`.
        """
        self._check_staged(version)
        files = read_files(self._reader(version), self.origin(version), self.trusted_keys)
        self._check_name(version, read_manifest(files.__getitem__, self.origin(version)))
        return files

    def file(self, version: str, name: str) -> bytes:
        """Read one file of a staged bundle, checked by its hash, without reading the others. Raises like `bundle`."""
        manifest = self.manifest(version)
        return read_listed_file(self._reader(version), self.origin(version), manifest, name)

    def declaration(self, version: str) -> Declaration:
        """The declaration of a staged bundle's features, without reading its other files. Raises like `bundle`."""
        return read_features(self._reader(version), self.origin(version), self.manifest(version))

    def manifest(self, version: str) -> Manifest:
        """The manifest of a staged bundle, without reading its other files. Raises like `bundle`."""
        self._check_staged(version)
        manifest = read_manifest(self._reader(version), self.origin(version), self.trusted_keys)
        self._check_name(version, manifest)
        return manifest

    def versions(self) -> list[str]:
        """The versions of the staged bundles."""
        return [name for name in self.names("bundles") if self._is_staged(name)]

    def numbers(self) -> list[int]:
        """The numbers of the ledger's entries, in order, complete or not."""
        return [int(name[:8]) for name in self.names("ledger") if re.fullmatch(r"\d{8}\.json", name)]

    def entry(self, number: int) -> Entry | None:
        """An entry of the ledger; None if it is not completely written, or was changed since.

        Raises RegistryError for a complete entry that this code can't use.
        """
        name = entry_file(number)
        try:
            content = unseal(self.read("ledger", name))
        except FileNotFoundError:
            raise RegistryError(f"{self.uri}/ledger/{name}: no such entry") from None
        if content is None:
            return None
        try:
            return decode_entry(content, number)
        except RolloutError as error:
            raise RegistryError(f"{self.uri}/ledger/{name}: {error}") from None

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted; none when it does not exist."""
        try:
            paths = self._try(self.files.ls, self.path(directory), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def read(self, *names: str) -> bytes:
        """The content of a file. Raises FileNotFoundError, or RegistryError when it can't be read."""
        return self._try(self.files.cat_file, self.path(*names))

    def path(self, *names: str) -> str:
        """The path of a file or directory in the file system of the registry."""
        return "/".join((self._root, *names))

    def origin(self, version: str) -> str:
        """What messages call a staged bundle."""
        return f"{self.uri}/bundles/{version}"

    def _check_staged(self, version: str) -> None:
        check_version(version)
        if not self._is_staged(version):
            raise BundleError(f"{self.origin(version)}: no such bundle is staged")

    def _check_name(self, version: str, manifest: Manifest) -> None:
        if manifest.version != version:
            raise BundleError(
                f"{self.origin(version)}/{MANIFEST_FILE}: version is {manifest.version!r}, expected {version!r}"
            )

    def _reader(self, version: str) -> Read:
        def read(name: str) -> bytes:
            check_size(self._try(self.files.size, self.path("bundles", version, name)))
            return self.read("bundles", version, name)

        return read

    def _is_staged(self, version: str) -> bool:
        return self._try(self.files.exists, self.path("bundles", version, MANIFEST_FILE))

    def _try(self, operation: Callable, path: str, **options) -> Any:
        """Run an operation on a path. Raises FileNotFoundError if nothing is there, RegistryError if it fails."""
        try:
            return operation(path, **options)
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has its own
            message = one_line(error) or type(error).__name__
            raise RegistryError(f"{self.uri}: {path} cannot be read: {message}") from error


def entry_file(number: int) -> str:
    """The name of an entry's file in the ledger."""
    return f"{number:08d}.json"


def decode_entry(content: bytes, number: int) -> Entry:
    """Decode an entry from JSON. Raises RolloutError if this code can't use it."""
    try:
        entry_format = msgspec.json.decode(content, type=_AnyFormat).format
        if entry_format != ENTRY_FORMAT:
            raise RolloutError(f"format is {entry_format}, this code reads {ENTRY_FORMAT}")
        entry = msgspec.json.decode(content, type=Entry)
    except NOT_JSON as error:
        raise RolloutError(one_line(error)) from None
    if entry.number != number:
        raise RolloutError(f"number is {entry.number}, expected {number}")
    check_rollout(entry.rollout)
    return entry


def seal(content: bytes) -> bytes:
    """Wrap JSON content with its SHA-256, so that a partly written file is detected."""
    return b'{"sha256": "%s", "entry": %s}\n' % (sha256(content).hexdigest().encode(), content)


def unseal(sealed: bytes) -> bytes | None:
    """The content that was passed to `seal`, byte for byte; None if it is incomplete or changed."""
    try:
        parsed = msgspec.json.decode(sealed, type=_Sealed)
    except NOT_JSON:
        return None
    content = bytes(parsed.entry)
    return content if sha256(content).hexdigest() == parsed.sha256 else None


class _Sealed(msgspec.Struct):
    sha256: str
    entry: msgspec.Raw


class _AnyFormat(msgspec.Struct):
    format: int
