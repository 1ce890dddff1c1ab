"""Log and wait: what was logged gives the examples that recomputing gives; and a log that is not as it should be."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from tests.conftest import QUICK
from tests.unit.training.data.test_preparation import archive
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.examples import load_examples
from training.data.feature_log import FeatureLog
from training.data.preparation import Preparation, PrepareError, prepare
from training.data.sources import SourceError
from training.modeling.settings import TrainingError, for_logged
from training.simulation.clickstream import Simulation, simulate
from training.train import main
from udfs.features.declaration_file import STANDARD
from udfs.measurement.bots import Bots
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

NAMES = ("events_30m", "value", "since_last_visit_s", "country")
HASH = "a" * 64


def preparation(log: FeatureLog | None = None) -> Preparation:
    return Preparation(CONVERTED, features=NAMES, workers=1, bucket_events=600, log=log)


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    stream = simulate(Simulation(users=200, hours=12, seed=8, late_share=0.1))
    path = tmp_path_factory.mktemp("clicks") / "part-0"
    archive(path, list(stream.clicks()), stream.arrival_ms)
    return path


@pytest.fixture(scope="module")
def recomputed(clicks, tmp_path_factory):
    directories, _ = prepare(clicks, tmp_path_factory.mktemp("examples"), preparation())
    return load_examples(directories)


@pytest.fixture
def logged(recomputed) -> pa.Table:
    """What a job with these features would have logged of every second user, in no order."""
    rows = np.flatnonzero(recomputed.user % 2 == 0)
    return log_table(recomputed.take(np.random.default_rng(1).permutation(rows)))


def log_table(examples) -> pa.Table:
    return pa.table(
        {
            "user_id": pa.array(examples.user_ids[examples.user].tolist(), pa.string()),
            "event_id": pa.nulls(len(examples), pa.string()),
            "event_time": pa.array(examples.time_ms, pa.int64()),
            "score": pa.array(np.zeros(len(examples)), pa.float32()),
            "model_version": pa.array(["v1"] * len(examples)),
            "feature_schema_hash": pa.array([HASH] * len(examples)),
            "features": pa.array([vector.tobytes() for vector in examples.features], pa.binary()),
            "source_partition": pa.array(examples.partition, pa.int32()),
            "source_offset": pa.array(examples.offset, pa.int64()),
        }
    )


def changed(table: pa.Table, name: str, values: list) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


def examples_of_log(tmp_path, clicks, *tables: pa.Table, workers: int = 1):
    for number, table in enumerate(tables):
        file = tmp_path / "log" / f"day=2026-01-0{number + 5}" / f"part-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, row_group_size=100)
    log = FeatureLog(tmp_path / "log", HASH, NAMES)
    directories, summary = prepare(clicks, tmp_path / "out", dataclasses.replace(preparation(log), workers=workers))
    return load_examples(directories), summary


def keyed(examples) -> dict:
    places = zip(examples.partition.tolist(), examples.offset.tolist())
    return {
        place: (vector.tobytes(), bool(label))
        for place, vector, label in zip(places, examples.features, examples.labels)
    }


@pytest.fixture(scope="module")
def logging_bundle(recomputed, tmp_path_factory):
    trained = train_model(recomputed, replace(QUICK, features=NAMES))
    directory = tmp_path_factory.mktemp("models") / "logging"
    write_bundle(directory, trained.manifest, trained.files)
    return directory


@pytest.mark.slow
def test_logged_vectors_give_the_examples_that_recomputing_gives(tmp_path, clicks, recomputed, logged):
    hidden = tmp_path / "log" / ".part-9.inprogress"
    hidden.parent.mkdir()
    hidden.write_bytes(b"not yet written")
    tables = logged.slice(0, 200), logged.slice(200), logged.slice(0, 0)
    found, summary = examples_of_log(tmp_path, clicks, *tables, workers=2)
    assert keyed(found) == keyed(recomputed.take(recomputed.user % 2 == 0))
    assert found.names == NAMES
    assert summary.logged == {"rows": len(logged), "matched": len(logged)}


def test_the_vectors_are_used_as_they_are(tmp_path, clicks, logged):
    strange = np.array([np.nan, -0.0, 1e-45, np.inf], np.float32)
    found, _ = examples_of_log(tmp_path, clicks, changed(logged, "features", [strange.tobytes()] * len(logged)))
    assert {vector.tobytes() for vector in found.features} == {strange.tobytes()}


def test_a_row_delivered_twice_or_logged_by_two_models_counts_once(tmp_path, clicks, logged):
    other_model = changed(logged, "model_version", ["v2"] * len(logged))
    found, summary = examples_of_log(tmp_path, clicks, logged, logged.slice(0, 100), other_model)
    assert len(found) == len(logged)
    assert summary.logged["repeated"] == 100 + len(logged)


def test_logged_rows_of_bots_are_left_out_and_those_of_others_stay(tmp_path, clicks, recomputed, logged):
    pq.write_table(logged, tmp_path / "log.parquet")
    log = FeatureLog(tmp_path / "log.parquet", HASH, NAMES)
    few = dataclasses.replace(preparation(log), bots=Bots(events_per_hour=40, min_gap=None))
    directories, summary = prepare(clicks, tmp_path / "out", few)
    found = load_examples(directories)
    assert summary.bot_users > 0
    assert 0 < len(found) < len(logged)
    people = np.isin(recomputed.user_ids[recomputed.user], found.user_ids[found.user])
    assert keyed(found) == keyed(recomputed.take(people))


def test_of_rows_that_differ_the_first_counts_and_the_others_are_counted(tmp_path, clicks, logged):
    changed_vectors = changed(logged, "features", [bytes(16)] * len(logged)).slice(0, 50)
    found, summary = examples_of_log(tmp_path, clicks, logged, changed_vectors)
    assert bytes(16) not in {vector.tobytes() for vector in found.features}
    assert (len(found), summary.logged["differing"]) == (len(logged), 50)


def test_rows_of_another_schema_are_left_out_and_counted(tmp_path, clicks, logged):
    other = changed(logged, "feature_schema_hash", ["b" * 64] * len(logged))
    found, summary = examples_of_log(tmp_path, clicks, logged.slice(100), other)
    assert len(found) == len(logged) - 100
    assert summary.other_schemas == {"b" * 64: len(logged)}


def test_a_log_of_another_schema_alone_is_an_error_that_names_what_it_has(tmp_path, clicks, logged):
    other = changed(logged, "feature_schema_hash", ["b" * 64] * len(logged))
    with pytest.raises(PrepareError, match=f"no row with the feature_schema_hash {HASH} .* have {len(logged)} bbb"):
        examples_of_log(tmp_path, clicks, other)


@pytest.mark.parametrize("name", ["user_id", "event_time", "source_partition", "source_offset"])
def test_a_log_of_other_clicks_is_an_error(tmp_path, clicks, logged, name):
    values = [f"{value}x" if name == "user_id" else value + 10**6 for value in logged.column(name).to_pylist()]
    with pytest.raises(PrepareError, match=f"none of its {len(logged)} rows is of a click in"):
        examples_of_log(tmp_path, clicks, changed(logged, name, values))


def test_rows_of_clicks_that_were_not_read_are_counted(tmp_path, clicks, logged):
    users = logged.column("user_id").to_pylist()
    _, summary = examples_of_log(tmp_path, clicks, changed(logged, "user_id", ["nobody"] * 3 + users[3:]))
    assert (summary.logged["absent"], summary.logged["matched"]) == (3, len(logged) - 3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features", bytes(12), "offset .*: features has 12 bytes, expected 4 for each of the 4 features"),
        ("features", None, "column features: a row has no value"),
        ("user_id", None, "column user_id: a row has no value"),
    ],
)
def test_a_broken_row_is_an_error_that_names_the_file(tmp_path, clicks, logged, name, value, message):
    values = logged.column(name).to_pylist()
    with pytest.raises(SourceError, match=f"part-0: .*{message}"):
        examples_of_log(tmp_path, clicks, changed(logged, name, [*values[:-1], value]))


def test_a_file_that_is_not_of_a_feature_log_is_an_error(tmp_path, clicks, logged):
    with pytest.raises(SourceError, match="part-0: not of a feature_log: column features is missing"):
        examples_of_log(tmp_path, clicks, logged.drop_columns("features"))


def test_clicks_without_offsets_cannot_be_met_with_a_log(tmp_path, logged):
    (tmp_path / "clicks.jsonl").write_text("{}\n")
    with pytest.raises(PrepareError, match=r"clicks\.jsonl: not an archive: --feature-log needs"):
        examples_of_log(tmp_path, tmp_path / "clicks.jsonl", logged)


@pytest.mark.slow
def test_the_command_trains_on_what_a_bundle_logged(tmp_path, clicks, logged, logging_bundle, capsys):
    manifest = load_bundle(logging_bundle, None).manifest
    hashes = [manifest.feature_schema_hash] * (len(logged) - 1)
    pq.write_table(changed(logged, "feature_schema_hash", [*hashes, HASH]), tmp_path / "log")
    files = ["--clicks", clicks, "--feature-log", tmp_path / "log", "--logged-by", logging_bundle]
    settings = ["--set", "repeats=0", "--set", "rounds=5", "--set", "folds=2", "--set", "threads=1"]
    assert main([*map(str, files), *settings, "--out", str(tmp_path / "bundle")]) == 0
    assert set(load_bundle(tmp_path / "bundle", None).manifest.features) <= set(NAMES)
    told = capsys.readouterr()
    assert f"feature log: {len(logged) - 1} rows, 0 of them repeated, match {len(logged) - 1} clicks\n" in told.out
    assert f"log: 1 rows have another feature_schema_hash and are skipped: 1 {HASH}\n" in told.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clicks", "x", "--feature-log", "log"], "--feature-log and --logged-by require each other"),
        (
            ["--simulate", "--feature-log", "log", "--logged-by", "b"],
            "--feature-log can only be combined with --clicks",
        ),
        (["--clicks", "x", "--feature-log", "log", "--logged-by", "none"], "none: bundle directory not found"),
    ],
)
def test_the_command_refuses_a_log_without_what_it_needs(tmp_path, capsys, options, message):
    assert main([*options, "--out", str(tmp_path / "bundle")]) == 2
    assert message in capsys.readouterr().err


def test_a_feature_that_was_not_logged_cannot_be_trained_on():
    with pytest.raises(TrainingError, match="feature searches_24h is not among the 4 that were logged"):
        for_logged(replace(QUICK, features=("value", "searches_24h")), STANDARD, NAMES, 64)
    assert for_logged(QUICK, STANDARD, NAMES, 32).names == NAMES
    with pytest.raises(TrainingError, match=r"feature event_code_1, which a sequence model needs, is not among the "):
        for_logged(replace(QUICK, model="auto", sequence=True), STANDARD, NAMES, 2)
