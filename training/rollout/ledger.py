"""Writing of the registry: bundles and the ledger. udfs/rollout/registry.py reads it.

A change is written as one new file under the next number, which only one writer can create. On a local file system the
file appears whole (it is written beside and then linked); object stores create objects whole; elsewhere a reader knows
by the checksum that an entry is not complete yet, and a writer that fails half-way uses up a number, no more.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from training.rollout.atomic_files import create_file, make_directory, replace_file
from udfs.models.bundle import MANIFEST_FILE, BundleError, read_manifest
from udfs.models.signatures import SIGNATURE_FILE
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import ENTRY_FORMAT, Entry, Registry, RegistryError, decode_entry, entry_file, seal


class LostRace(RegistryError):
    """Another process has changed the registry in the meantime."""


def next_entry(registry: Registry) -> int:
    """The number of the next change. Read it before the current rollout: a change in between is then noticed."""
    return max(registry.numbers(), default=0) + 1


def append(
    registry: Registry,
    number: int,
    rollout: Rollout,
    *,
    by: str,
    command: Sequence[str],
    why: str,
    forced: bool = False,
    restores: int | None = None,
) -> Entry:
    """Append a rollout to the ledger as entry `number`; it then serves.

    Raises RolloutError for a rollout that readers would reject, LostRace when the number is taken.
    """
    entry = Entry(
        format=ENTRY_FORMAT,
        number=number,
        at=datetime.now(UTC).replace(microsecond=0),
        by=by,
        command=tuple(command),
        why=why,
        forced=forced,
        restores=restores,
        rollout=rollout,
    )
    content = msgspec.json.encode(entry)
    decode_entry(content, number)
    try:
        create_file(registry, ("ledger", entry_file(number)), seal(content))
    except FileExistsError:
        raise LostRace(
            f"{registry.uri}: someone else wrote entry {number} in the meantime; look at it with `show`, then retry"
        ) from None
    return entry


def upload_bundle(registry: Registry, files: Mapping[str, bytes]) -> bool:
    """Upload a checked bundle, given all its files, its manifest last; False if it was there already.

    A bundle that was there gets the signature of this one, if it has one. Raises BundleError when the version is taken
    by another bundle, or what arrived is not what was sent.
    """
    version = read_manifest(files.__getitem__, registry.uri).version
    if version not in registry.versions():
        make_directory(registry, ("bundles", version))
        for name in files.keys() - {MANIFEST_FILE}:
            registry.files.pipe_file(registry.path("bundles", version, name), files[name])
        try:
            create_file(registry, ("bundles", version, MANIFEST_FILE), files[MANIFEST_FILE])
        except FileExistsError:
            raise LostRace(f"{registry.uri}: someone else staged {version} in the meantime; retry") from None
        registry.bundle(version)
        return True
    if registry.read("bundles", version, MANIFEST_FILE) != files[MANIFEST_FILE]:
        raise BundleError(
            f"{registry.uri}: version {version} is already staged with different content; "
            "give this bundle a version of its own"
        )
    if SIGNATURE_FILE in files:
        replace_file(registry, ("bundles", version, SIGNATURE_FILE), files[SIGNATURE_FILE])
    return False
