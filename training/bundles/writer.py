"""Writing of model bundles, atomically."""

import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec

from udfs.features.declaration_file import STANDARD, from_json
from udfs.features.schema import schema_hash
from udfs.measurement.labels import Label
from udfs.models.bundle import (
    FEATURES_FILE,
    FORMAT,
    MANIFEST_FILE,
    BundleError,
    Manifest,
    TrainingWindow,
    find_model_file,
    load_bundle,
)


def file_digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file, in hex, as a manifest lists them."""
    return {name: sha256(content).hexdigest() for name, content in files.items()}


def describe_model(
    files: Mapping[str, bytes],
    features: Sequence[str],
    history_length: int,
    label: Label,
    training_window: TrainingWindow,
    metrics: Mapping[str, float],
    version: str | None = None,
    **more: Any,
) -> Manifest:
    """Make the manifest for a bundle's files, including the model; `more` are its other fields.

    The features are of the declaration among the files, or the standard ones.

    The version is by default the end of the training window and the first digits of the model's hash.
    """
    digests = file_digests(files)
    declared = from_json(files[FEATURES_FILE], FEATURES_FILE) if FEATURES_FILE in files else STANDARD
    return Manifest(
        format=FORMAT,
        version=version or f"{training_window.end:%Y%m%dT%H%M%SZ}-{digests[find_model_file(files)][:8]}",
        created_at=datetime.now(UTC).replace(microsecond=0),
        features=tuple(features),
        feature_schema_hash=schema_hash(declared, features, history_length),
        history_length=history_length,
        label=label,
        training_window=training_window,
        metrics=dict(metrics),
        files=digests,
        **more,
    )


def write_bundle(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Write a bundle that `load_bundle` accepts, atomically.

    Raises BundleError when the directory exists already or the bundle would be refused, OSError when it can't be
    written.
    """
    refuse_existing(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        unfinished.chmod(0o755)
        for name, content in files.items():
            _write(unfinished / name, content)
        _write(unfinished / MANIFEST_FILE, msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        load_bundle(unfinished, manifest.history_length)
        refuse_existing(directory)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def refuse_existing(directory: Path) -> None:
    """Raises BundleError when there is something at `directory`: a bundle is never written over."""
    if os.path.lexists(directory):
        raise BundleError(f"{directory}: already exists, and a bundle is never overwritten: choose another directory")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
