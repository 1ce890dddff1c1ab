"""Bundles of models: damaged manifests, models, features, warm-up rows and exports.

Contract: a bundle is refused with BundleError, or it serves: it scores its warm-up rows as at training. The manifest's
hash of a damaged file is right, as if its writer had damaged it. What serves gives each row a probability: the score
operator ends at anything else. Trees are refused with ValueError, or XGBoost loads, scores and explains with them. A
GRU likewise, in NumPy.
"""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import msgspec
import numpy as np

from tools.fuzz.engine import ContractError
from tools.fuzz.small_gru import EVENTS, random_codes, random_gru
from tools.fuzz.target import Target
from training.bundles.drift_reference import warm_up_rows
from training.bundles.writer import describe_model
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting, ServedModel
from training.modeling.gru_model import GruModel
from training.modeling.onnx_export import export
from udfs.features.declaration import Declaration, with_event_codes
from udfs.features.declaration_file import STANDARD, to_json
from udfs.measurement.labels import CONVERTED
from udfs.models.attributions import xgboost_contributions
from udfs.models.backends import build_engine
from udfs.models.bundle import (
    ENDPOINT_FILE,
    EXPORT_FILE,
    EXPORT_LIMIT,
    FEATURES_FILE,
    MANIFEST_FILE,
    WARM_UP_FILE,
    XGBOOST_FILE,
    Bundle,
    BundleError,
    TrainingWindow,
    load_booster,
    read_bundle,
)
from udfs.models.gru import decode_gru
from udfs.models.lean_xgboost import xgboost
from udfs.models.remote import Endpoint
from udfs.models.xgboost_ubjson import OBJECTIVE, check_model

_NAMES = STANDARD.names[:3]
#: Few features: reading all of them takes longer than the rest of an input, and the target `declarations` does it.
_DECLARATION = with_event_codes(
    Declaration(STANDARD.features[: len(_NAMES)], STANDARD.layout, STANDARD.session_gap_ms), EVENTS
)
_CODE_NAMES = _DECLARATION.names[-EVENTS:]
_KINDS = ("xgboost", "lightgbm", "logistic", "blend", "gru")


def bundles() -> Target:
    """A bundle with one file changed: its kind of model and the file's name in the first line, the content behind.

    Of each kind, there is also a bundle without warm-up rows, which refuse most of what is changed in a model.
    """
    files = {kind: _files(kind) for kind in _KINDS}
    files |= {f"unchecked-{kind}": _without_warm_up(named) for kind, named in files.items()}
    files["remote"] = _remote()
    corpus = [f"{kind} {name}\n".encode() + content for kind, named in files.items() for name, content in named.items()]

    def run(data: bytes) -> str:
        head, _, content = data.partition(b"\n")
        kind, _, name = head.decode(errors="replace").partition(" ")
        if kind not in files or name not in files[kind]:
            return "no such file"
        changed = files[kind] | {name: content}
        if name != MANIFEST_FILE:
            manifest = json.loads(changed[MANIFEST_FILE])
            manifest["files"][name] = sha256(content).hexdigest()
            changed[MANIFEST_FILE] = json.dumps(manifest).encode()
        bundle = read_bundle(_reading(changed), "bundle", None)
        if bundle.manifest.is_remote:
            return "another process serves it"
        _check_probabilities(build_engine(bundle, "native")(_extreme_rows(len(bundle.manifest.features))))
        if bundle.export is not None and bundle.warm_up is not None:
            build_engine(bundle, "onnx")
        return f"{kind} {name} serves"

    return Target(tuple(corpus), run, (BundleError,))


def trees() -> Target:
    """A model of XGBoost without the rest of its bundle, so that many inputs take little time."""
    matrix = _matrix()
    data = xgboost.DMatrix(matrix, matrix[:, 0] > 0.5)
    corpus = [_files("xgboost")[XGBOOST_FILE]]
    for rounds, depth in ((1, 2), (3, 4), (12, 6), (40, 1)):
        parameters = {"objective": OBJECTIVE, "max_depth": depth, "nthread": 1}
        corpus.append(bytes(xgboost.train(parameters, data, rounds).save_raw("ubj")))

    def run(content: bytes) -> str:
        check_model(content)
        booster = load_booster(content)
        booster.set_param({"nthread": 1})
        _check_probabilities(booster.inplace_predict(matrix[:20], missing=np.nan))
        xgboost_contributions(booster, matrix[:20])
        return "serves"

    return Target(tuple(corpus), run, (ValueError,))


def grus() -> Target:
    """A GRU without the rest of its bundle: its numbers as JSON in the first line, the bytes of its weights behind."""
    fields = msgspec.structs.asdict(random_gru())
    sizes = {name: len(value) for name, value in fields.items() if isinstance(value, bytes)}
    numbers = {name: value for name, value in fields.items() if name not in sizes}
    codes = random_codes(20)

    def run(data: bytes) -> str:
        head, _, weights = data.partition(b"\n")
        rest = memoryview(weights)
        parts = [head.removesuffix(b"}")]
        for name, size in sizes.items():
            parts.append(b'"%s":"%s"' % (name.encode(), b64encode(rest[:size])))
            rest = rest[size:]
        gru = decode_gru(b",".join(parts) + b"}")
        rows = np.resize(codes, (len(codes), gru.file.events))
        logit, contributions = gru.logit(rows), gru.contributions(rows)
        _check_probabilities(gru.predict(rows))
        if not np.allclose(contributions.sum(axis=1), logit, rtol=1e-6, atol=1e-9 * np.abs(contributions).max()):
            raise ContractError("contributions do not add up to the logit")
        return "serves"

    corpus = json.dumps(numbers).encode() + b"\n" + b"".join(fields[name] for name in sizes)
    return Target((corpus,), run, (ValueError,))


def small_bundle(kind: str = "logistic") -> Bundle:
    """An undamaged bundle of a kind of model."""
    return read_bundle(_reading(_files(kind)), "bundle", None)


def _reading(files: dict[str, bytes]) -> Callable[[str], bytes]:
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    return read


def _check_probabilities(scores: np.ndarray) -> None:
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ContractError(f"scores from {scores.min()} to {scores.max()}")


def _extreme_rows(features: int) -> np.ndarray:
    largest = np.finfo(np.float32).max
    values = np.array([np.nan, 0, 1, -1, 1e6, largest, -largest], np.float32)
    return np.random.default_rng(1).choice(values, (50, features))


def _files(kind: str) -> dict[str, bytes]:
    """The files of a small bundle."""
    model, rows = _random_gru_model() if kind == "gru" else _fitted(kind)
    content = model.content()
    files = {
        model.file: content,
        EXPORT_FILE: export(model.file, content, len(model.names)),
        WARM_UP_FILE: warm_up_rows(model.names, rows, model.predict(rows), 1),
        FEATURES_FILE: to_json(_DECLARATION),
    }
    return files | {MANIFEST_FILE: _manifest(files, model.names)}


def _remote() -> dict[str, bytes]:
    """The files of a bundle of a remote model."""
    matrix = _matrix()
    files = {
        ENDPOINT_FILE: msgspec.json.encode(Endpoint(url="http://h:8000", model="m", column=1, token_env="TOKEN")),
        WARM_UP_FILE: warm_up_rows(_NAMES, matrix, np.full(len(matrix), 0.5), 1),
        FEATURES_FILE: to_json(_DECLARATION),
    }
    return files | {MANIFEST_FILE: _manifest(files, _NAMES)}


def _manifest(files: dict[str, bytes], names: tuple[str, ...]) -> bytes:
    day = datetime(2026, 1, 1, tzinfo=UTC)
    window, metrics = TrainingWindow(day, day), {"test_roc_auc": 0.8}
    manifest = describe_model(files, names, 64, CONVERTED, window, metrics, "v1", export={"limit": EXPORT_LIMIT})
    return msgspec.json.encode(msgspec.structs.replace(manifest, created_at=day))  # the same for the same seed


def _without_warm_up(files: dict[str, bytes]) -> dict[str, bytes]:
    manifest = json.loads(files[MANIFEST_FILE])
    left_out = {WARM_UP_FILE, EXPORT_FILE}
    manifest["files"] = {name: digest for name, digest in manifest["files"].items() if name not in left_out}
    kept = {name: files[name] for name in manifest["files"]}
    return kept | {MANIFEST_FILE: json.dumps(manifest).encode()}


def _fitted(kind: str) -> tuple[ServedModel, np.ndarray]:
    """A model, and rows to warm up with."""
    family, matrix = FAMILIES[kind], _matrix()
    fitting = Fitting(_NAMES, family.defaults, rounds=5, threads=1)
    return family.fit(FitRows(matrix, matrix[:, 0] > 0.5, np.ones(len(matrix))), fitting), matrix


def _random_gru_model() -> tuple[ServedModel, np.ndarray]:
    return GruModel(random_gru(), _CODE_NAMES, 1), random_codes(200)


def _matrix() -> np.ndarray:
    matrix = np.random.default_rng(1).random((200, len(_NAMES)), np.float32)
    matrix[::9, 1] = np.nan
    return matrix
