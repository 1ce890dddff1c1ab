"""Model bundles: a model, its `manifest.json` and further files, read and checked.

All errors in a bundle's files are found when it is read, before it serves. The result is plain data that is sent to the
workers, where a `Scorer` uses it.
"""

import errno
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from udfs.config.reading import NOT_JSON
from udfs.config.text import END, one_line
from udfs.contracts.event_layout import EventLayout
from udfs.features import declaration_file
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD, DeclarationError
from udfs.features.expressions import EventCode, ExpressionError, Function
from udfs.features.own_functions import load_function
from udfs.features.schema import schema_hash
from udfs.measurement.labels import Label, LabelError, check_label, label_of_sentence
from udfs.models import blend, gru, lightgbm_text, regression, remote, xgboost_ubjson
from udfs.models.lean_xgboost import xgboost
from udfs.models.signatures import SIGNATURE_FILE, PublicKey, SignatureError, check_signature

FORMAT = 2
_WITH_SENTENCES = 1  # the format whose manifests had the label as an English sentence
MANIFEST_FILE = "manifest.json"
XGBOOST_FILE = "model.ubj"  # of XGBoost, in UBJSON
LIGHTGBM_FILE = "model.txt"
LOGISTIC_FILE = "logistic.json"  # of a logistic regression, see udfs/models/regression.py
BLEND_FILE = "blend.json"  # of XGBoost and a logistic regression, see udfs/models/blend.py
GRU_FILE = "gru.json"  # of a sequence model, see udfs/models/gru.py
ENDPOINT_FILE = "endpoint.json"  # of a model that another process serves
#: The files that can hold a bundle's model; each bundle has exactly one of them.
MODEL_FILES = (XGBOOST_FILE, LIGHTGBM_FILE, LOGISTIC_FILE, BLEND_FILE, GRU_FILE, ENDPOINT_FILE)
EXPORT_FILE = "model.onnx"
WARM_UP_FILE = "warm_up.json"
FEATURES_FILE = "features.json"  # the declaration of the features; without it, they are the standard ones
VERSION_PATTERN = "^[A-Za-z0-9._-]{1,64}" + END

#: The largest file of a bundle, in bytes. A model of 1,000 deep trees has some 10 MiB.
LARGEST_FILE = 1 << 30

#: Gives the content of a bundle's file by its name, or raises OSError.
Read = Callable[[str], bytes]

#: The tolerance of a model's own scores of its warm-up rows: equal but for the last digit of another machine's `exp`.
OWN_TOLERANCE = 1e-6

#: The largest difference of a probability that an export may show. float32 has a relative precision of 6e-8; the two
#: libraries add up hundreds of leaves in different orders.
EXPORT_LIMIT = 1e-5

Time = Annotated[datetime, Meta(tz=True)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}" + END)]


class TrainingWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Event times of the first and last click that the model was trained on."""

    start: Time
    end: Time


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The description of a model and its bundle."""

    format: Annotated[int, Meta(description="of the bundle: 2")]
    version: Annotated[str, Meta(pattern=VERSION_PATTERN, description="of the model; every score carries it")]
    created_at: Time
    features: Annotated[tuple[str, ...], Meta(min_length=1, description="names, in the order of the model's columns")]
    feature_schema_hash: Annotated[Sha256, Meta(description="of the features' meaning, see udfs.features")]
    history_length: Annotated[int, Meta(ge=1, description="events of a user that the features saw")]
    label: Annotated[Label, Meta(description="what a score is the probability of")]
    training_window: TrainingWindow
    metrics: dict[str, float]
    rows: Annotated[dict[str, int], Meta(description="how many events each part of the data had")] = {}
    seed: int | None = None
    libraries: Annotated[dict[str, str], Meta(description="their versions at training")] = {}
    git_commit: str | None = None
    export: Annotated[
        dict[str, float], Meta(description="certificate of model.onnx, see training/modeling/onnx_export.py")
    ] = {}
    files: Annotated[dict[str, Sha256], Meta(description="SHA-256 of each file of the bundle but this one")]

    @property
    def is_remote(self) -> bool:
        """Whether another process serves the model."""
        return ENDPOINT_FILE in self.files


class BundleError(ValueError):
    """A bundle that must not be used. The message is one line: file, rule and value."""


@dataclass(frozen=True, eq=False)
class WarmUp:
    """Rows to warm up with, float32[m, k], and the scores that the model has to give them, float32[m]."""

    features: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked model as plain data: cheap to pickle, without objects of the model's library."""

    manifest: Manifest
    model: bytes  # the content of `model_file`
    declaration: Declaration = STANDARD  # of the features
    export: bytes | None = None  # the same model as ONNX
    warm_up: WarmUp | None = None

    @property
    def model_file(self) -> str:
        """Which of MODEL_FILES the model is."""
        return find_model_file(self.manifest.files)

    @property
    def own_tolerance(self) -> float:
        """The tolerance of the model's own scores of its warm-up rows."""
        return remote.TOLERANCE if self.manifest.is_remote else OWN_TOLERANCE

    @property
    def certified_limit(self) -> float | None:
        """The largest difference of the export's scores from the model's; None when the export has no certificate."""
        return self.manifest.export.get("limit")


def load_bundle(directory: Path, history_length: int | None, trusted_keys: Sequence[PublicKey] = ()) -> Bundle:
    """Read a bundle from a directory and check it against this code and the job's history length, None for any.

    With trusted keys, one of them must have signed the bundle. Raises BundleError naming file, rule and value when the
    bundle is incomplete, damaged, not signed, or made for other features.
    """
    return read_bundle(_directory_reader(directory), str(directory), history_length, trusted_keys)


def directory_files(directory: Path, trusted_keys: Sequence[PublicKey] = ()) -> dict[str, bytes]:
    """`read_files` of a bundle in a directory."""
    return read_files(_directory_reader(directory), str(directory), trusted_keys)


def _directory_reader(directory: Path) -> Read:
    """`read` of a bundle in a directory. Raises BundleError when there is no such directory."""
    if not directory.is_dir():
        raise BundleError(f"{directory}: bundle directory not found; `intent train` creates one")

    def read(name: str) -> bytes:
        check_size((directory / name).stat().st_size)
        return (directory / name).read_bytes()

    return read


def check_size(size: int | None) -> None:
    """Raises OSError for a file that is larger than any file of a bundle: reading it could exhaust the memory."""
    if size is not None and size > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"it has {size >> 20} MiB, a file may have {LARGEST_FILE >> 20} MiB")


def read_bundle(read: Read, origin: str, history_length: int | None, trusted_keys: Sequence[PublicKey] = ()) -> Bundle:
    """`load_bundle` for files that lie anywhere. Messages call the bundle `origin`."""
    manifest = read_manifest(read, origin, trusted_keys)
    files = {name: _read_file(read, origin, name, digest) for name, digest in manifest.files.items()}
    try:
        model_file = find_model_file(files)
    except ValueError as error:
        raise BundleError(f"{origin}/{MANIFEST_FILE}: {error}") from None
    features = read_features(read, origin, manifest)
    _check_features(manifest, features, f"{origin}/{MANIFEST_FILE}", history_length or manifest.history_length)
    _CHECKS[model_file](files[model_file], manifest, f"{origin}/{model_file}")
    if model_file == GRU_FILE:
        _check_event_codes(features, manifest, f"{origin}/{MANIFEST_FILE}")
    warm_up = _read_warm_up(files[WARM_UP_FILE], manifest, origin) if WARM_UP_FILE in files else None
    return Bundle(manifest, files[model_file], features, files.get(EXPORT_FILE), warm_up)


def read_manifest(read: Read, origin: str, trusted_keys: Sequence[PublicKey] = ()) -> Manifest:
    """The manifest of a bundle, signed by one of the trusted keys if there are any.

    Raises BundleError naming file, rule and value.
    """
    content, path = _read(read, origin, MANIFEST_FILE), f"{origin}/{MANIFEST_FILE}"
    if trusted_keys:
        _check_signature(content, read, origin, trusted_keys)
    try:
        bundle_format = msgspec.json.decode(content, type=_AnyFormat).format
        if bundle_format == _WITH_SENTENCES:
            return _upgraded(content, path)
        if bundle_format != FORMAT:
            raise BundleError(
                f"{path}: format is {bundle_format}, this code reads {FORMAT}: train again or use matching code"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
        check_label(manifest.label, "key label")
        return manifest
    except NOT_JSON as error:
        raise BundleError(f"{path}: not a valid manifest: {one_line(error)}") from error
    except LabelError as error:
        raise BundleError(f"{path}: {error}") from None


def check_version(version: str) -> None:
    """Raises BundleError when a manifest can't have this version."""
    if not re.fullmatch(VERSION_PATTERN, version):
        raise BundleError(f"version must be 1 to 64 letters, digits, dots, underscores or hyphens (got {version!r})")


def read_files(read: Read, origin: str, trusted_keys: Sequence[PublicKey] = ()) -> dict[str, bytes]:
    """All files of a bundle by name, with manifest and signature, checked by hash and signature but not loaded.

    Raises BundleError.
    """
    files: dict[str, bytes] = {}

    def keep(name: str) -> bytes:
        files[name] = read(name)
        return files[name]

    for name, digest in read_manifest(keep, origin, trusted_keys).files.items():
        _read_file(keep, origin, name, digest)
    with suppress(FileNotFoundError):
        keep(SIGNATURE_FILE)
    return files


def read_listed_file(read: Read, origin: str, manifest: Manifest, name: str) -> bytes:
    """One file of a bundle with this manifest, checked by its hash. Raises BundleError."""
    if name not in manifest.files:
        raise BundleError(f"{origin}/{MANIFEST_FILE}: files must list {name}: train again")
    return _read_file(read, origin, name, manifest.files[name])


def check_layout(bundle: Bundle, layout: EventLayout) -> None:
    """Raises BundleError when features are about own kinds or columns that a job's events do not have, or not alike."""
    lacking = layout.without(bundle.declaration.layout)
    if lacking:
        raise BundleError(
            f"{bundle.manifest.version}: its features need {lacking[0]}, which the job does not keep: set "
            "clicks.declaration to what the model was trained with, and submit the job again"
        )


def check_functions(bundle: Bundle) -> None:
    """Raises BundleError when a Python function of the features is not there, or not what it was at the training."""
    for feature in bundle.declaration.features:
        if isinstance(feature.value, Function):
            try:
                load_function(feature.value)
            except ExpressionError as error:
                raise BundleError(f"{bundle.manifest.version}: feature {feature.name}: {error}") from None


def find_model_file(files: Collection[str]) -> str:
    """The one of MODEL_FILES that is among a bundle's files. Raises ValueError when there is none, or more than one."""
    matches = [name for name in MODEL_FILES if name in files]
    if len(matches) != 1:
        raise ValueError(f"files must list one of {', '.join(MODEL_FILES)}, got {sorted(files)}")
    return matches[0]


def check_scores(bundle: Bundle, scores: np.ndarray, tolerance: float, scorer: str | None = None) -> None:
    """Check the scores float32[m] of the warm-up rows. Raises BundleError if one is off by more than the tolerance.

    `scorer` is the file that the scores are from, by default the model's own.
    """
    off = np.abs(scores.astype(np.float64) - bundle.warm_up.scores)
    row = int(off.argmax())  # NaN counts as the largest
    if not off[row] <= tolerance:
        raise BundleError(
            f"{bundle.manifest.version}: {scorer or bundle.model_file} scores row {row} of {WARM_UP_FILE} "
            f"{scores[row]:.9g}, expected {bundle.warm_up.scores[row]:.9g} within {tolerance:.0e}: the model does "
            "not reproduce its training-time scores"
        )


class _AnyFormat(msgspec.Struct):
    format: int


def _upgraded(content: bytes, path: str) -> Manifest:
    """The manifest of a bundle that an earlier release wrote. Raises BundleError, msgspec.DecodeError."""
    fields = msgspec.json.decode(content, type=dict)
    try:
        label = label_of_sentence(str(fields.get("label")))
    except LabelError as error:
        raise BundleError(f"{path}: {error}: train again") from None
    return msgspec.convert(fields | {"format": FORMAT, "label": msgspec.to_builtins(label)}, Manifest)


class _WarmUpFile(msgspec.Struct):
    features: tuple[str, ...]
    rows: list[list[float | None]]
    scores: list[float]


def _check_signature(manifest: bytes, read: Read, origin: str, trusted_keys: Sequence[PublicKey]) -> None:
    try:
        check_signature(manifest, read(SIGNATURE_FILE), trusted_keys)
    except FileNotFoundError:
        raise BundleError(
            f"{origin}: not signed: {SIGNATURE_FILE} is missing, and trusted_keys requires it; `intent sign` makes one"
        ) from None
    except OSError as error:
        raise _unreadable(origin, SIGNATURE_FILE, error) from error
    except SignatureError as error:
        raise BundleError(f"{origin}/{SIGNATURE_FILE}: {error}") from None


def _read_file(read: Read, origin: str, name: str, digest: str) -> bytes:
    if Path(name).name != name or not name.isprintable():
        raise BundleError(f"{origin}/{MANIFEST_FILE}: files must be plain names in the bundle, got {name!r}")
    content = _read(read, origin, name)
    actual = sha256(content).hexdigest()
    if actual != digest:
        raise BundleError(f"{origin}/{name}: sha256 is {actual}, the manifest says {digest}: the file was changed")
    return content


def _read(read: Read, origin: str, name: str) -> bytes:
    try:
        return read(name)
    except OSError as error:
        raise _unreadable(origin, name, error) from error


def _unreadable(origin: str, name: str, error: OSError) -> BundleError:
    return BundleError(f"{origin}/{name}: cannot be read: {error.strerror or type(error).__name__}")


def _read_warm_up(content: bytes, manifest: Manifest, origin: str) -> WarmUp:
    path = f"{origin}/{WARM_UP_FILE}"
    try:
        parsed = msgspec.json.decode(content, type=_WarmUpFile)
    except NOT_JSON as error:
        raise BundleError(f"{path}: not valid warm-up rows: {one_line(error)}") from error
    if parsed.features != manifest.features:
        raise BundleError(f"{path}: the features are not the manifest's, in its order")
    if not parsed.rows or len(parsed.rows) != len(parsed.scores):
        raise BundleError(
            f"{path}: expected at least one row and as many scores as rows, got {len(parsed.rows)} rows and "
            f"{len(parsed.scores)} scores"
        )
    width = len(manifest.features)
    if any(len(row) != width for row in parsed.rows):
        raise BundleError(f"{path}: a row does not have {width} values, one for each feature")
    return WarmUp(np.array(parsed.rows, np.float32), np.array(parsed.scores, np.float32))


def read_features(read: Read, origin: str, manifest: Manifest) -> Declaration:
    """The declaration of a bundle's features, given its manifest. Raises BundleError."""
    if FEATURES_FILE not in manifest.files:
        return STANDARD
    content = _read_file(read, origin, FEATURES_FILE, manifest.files[FEATURES_FILE])
    try:
        return declaration_file.from_json(content, f"{origin}/{FEATURES_FILE}")
    except DeclarationError as error:
        raise BundleError(str(error)) from None


def _check_features(manifest: Manifest, features: Declaration, path: str, history_length: int) -> None:
    try:
        features.find(manifest.features)
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    if manifest.history_length != history_length:
        raise BundleError(
            f"{path}: history_length is {manifest.history_length}, the job keeps {history_length}: "
            "set the job's to match or train again"
        )
    expected = schema_hash(features, manifest.features, history_length)
    if manifest.feature_schema_hash != expected:
        raise BundleError(
            f"{path}: feature_schema_hash is {manifest.feature_schema_hash}, this code computes {expected}: "
            "the meaning of a feature has changed, train again"
        )


def _check_xgboost(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        names, count = xgboost_ubjson.check_model(model)
    except ValueError as error:
        raise BundleError(f"{path}: not an XGBoost model that can serve: {error}") from error
    _check_names(names or None, count, manifest, path)
    try:
        load_booster(model)
    except xgboost.core.XGBoostError as error:
        raise BundleError(f"{path}: XGBoost can't load it: {_essence(error)}") from error


def _check_lightgbm(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        names, objective = lightgbm_text.check_text(model)
    except ValueError as error:
        raise BundleError(f"{path}: not a LightGBM model: {error}") from error
    _check_names(names, len(names), manifest, path)
    if objective != lightgbm_text.OBJECTIVE:
        raise BundleError(f"{path}: the model's objective is {objective!r}, expected {lightgbm_text.OBJECTIVE!r}")
    try:
        lightgbm_text.load_text(model)
    except Exception as error:  # its own class can't be named without importing it
        raise BundleError(f"{path}: LightGBM can't load it: {one_line(error)}") from error


def _check_logistic(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        names = regression.decode_regression(model).names
    except ValueError as error:
        raise BundleError(f"{path}: not a logistic regression: {error}") from None
    _check_names(names, len(names), manifest, path)


def _check_blend(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        parts = blend.decode_blend(model)
    except ValueError as error:
        raise BundleError(f"{path}: not a blend: {error}") from None
    names = parts.regression.names
    _check_names(names, len(names), manifest, f"{path}: key regression")
    _check_xgboost(parts.trees, manifest, f"{path}: key trees")


def _check_gru(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        events = gru.decode_gru(model).file.events
    except ValueError as error:
        raise BundleError(f"{path}: not a GRU: {error}") from None
    _check_names(None, events, manifest, path)


def _check_event_codes(features: Declaration, manifest: Manifest, path: str) -> None:
    """Raises BundleError unless the features are the codes of a user's last events, the oldest first."""
    for back, name in zip(reversed(range(len(manifest.features))), manifest.features):
        if features[name].value != EventCode(back):
            raise BundleError(
                f"{path}: feature {name} is {features[name].text}, expected event({back}): a GRU reads the codes of a "
                "user's last events, the oldest first"
            )


def _check_endpoint(model: bytes, manifest: Manifest, path: str) -> None:
    try:
        msgspec.json.decode(model, type=remote.Endpoint)
    except NOT_JSON as error:
        raise BundleError(f"{path}: not a valid endpoint: {one_line(error)}") from error
    if WARM_UP_FILE not in manifest.files:
        raise BundleError(f"{path}: a remote model needs {WARM_UP_FILE}: nothing else identifies the right model")


_CHECKS = {
    XGBOOST_FILE: _check_xgboost,
    LIGHTGBM_FILE: _check_lightgbm,
    LOGISTIC_FILE: _check_logistic,
    BLEND_FILE: _check_blend,
    GRU_FILE: _check_gru,
    ENDPOINT_FILE: _check_endpoint,
}


def _check_names(names: Sequence[str] | None, count: int, manifest: Manifest, path: str) -> None:
    if count != len(manifest.features):
        raise BundleError(f"{path}: the model has {count} features, the manifest names {len(manifest.features)}")
    if names is not None and tuple(names) != manifest.features:
        pairs = zip(names, manifest.features)
        column, (name, listed) = next(entry for entry in enumerate(pairs) if entry[1][0] != entry[1][1])
        raise BundleError(f"{path}: feature {column} of the model is {name!r}, the manifest has {listed!r} there")


def load_booster(model: bytes) -> xgboost.Booster:
    """Load an XGBoost model from the content of XGBOOST_FILE. Raises XGBoostError."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    return booster


def _essence(error: Exception) -> str:
    """The first line of XGBoost's message, without time and place in its source."""
    return re.sub(r"^\[[\d:]+\] \S+: ", "", str(error).strip().partition("\n")[0])
