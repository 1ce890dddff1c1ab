"""Bundles of GRUs with random weights."""

from pathlib import Path

import msgspec

from tests.support.bundles import manifest_of
from tools.fuzz.small_gru import EVENTS, random_codes, random_gru
from training.bundles.drift_reference import warm_up_rows
from training.bundles.writer import write_bundle
from training.modeling.gru_model import GruModel
from training.modeling.onnx_export import export
from udfs.features.declaration import with_event_codes
from udfs.features.declaration_file import read_declaration, to_json
from udfs.models.bundle import EXPORT_FILE, FEATURES_FILE, GRU_FILE, WARM_UP_FILE
from udfs.models.gru import GruFile

_ENTRY = {"unit": "events", "doc": "d"}
#: A declaration that compiles in a moment: two features, and the codes of the last events.
FEW = with_event_codes(
    read_declaration(
        {"features": {"a": {"seen": {"value": "count()"} | _ENTRY, "views": {"value": "sum(value)"} | _ENTRY}}}, "few"
    ),
    EVENTS,
)
CODE_NAMES = FEW.names[-EVENTS:]


def gru_files(file: GruFile, names: tuple[str, ...] = CODE_NAMES) -> dict[str, bytes]:
    model = GruModel(file, names, 7)
    rows = random_codes(100, len(names))
    return {
        GRU_FILE: model.content(),
        EXPORT_FILE: export(GRU_FILE, model.content(), len(names)),
        WARM_UP_FILE: warm_up_rows(names, rows, model.predict(rows), 1),
        FEATURES_FILE: to_json(FEW),
    }


def write_gru_bundle(directory: Path, version: str, file: GruFile | None = None, names: tuple[str, ...] = CODE_NAMES):
    """A bundle of a GRU in directory/version."""
    files = gru_files(file or random_gru(), names)
    write_bundle(directory / version, manifest_of(version, files, names=names), files)
    return directory / version


def changed(file: GruFile, **changes) -> bytes:
    """The content of a file with other keys."""
    return msgspec.json.encode(msgspec.structs.replace(file, **changes))
