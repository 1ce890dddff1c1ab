"""A GRU as the model of a bundle: scored, exported, checked, explained and served. PyTorch has no part in it."""

import math
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import files_of, manifest_of
from tests.support.examples import examples
from tests.support.gru import (
    CODE_NAMES,
    EVENTS,
    FEW,
    changed,
    gru_files,
    random_codes,
    random_gru,
    write_gru_bundle,
)
from training.bundles.drift_reference import Sampling, reference_distributions
from training.bundles.writer import write_bundle
from training.modeling.calibration import Calibration
from training.modeling.gru_model import GruModel
from training.modeling.onnx_export import certify, export
from training.rollout.transitions import add_shadow, first
from udfs.contracts.packed_events import EVENT, EVENT_KINDS
from udfs.contracts.profiles import NO_PROFILE, PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import to_json
from udfs.features.event_codes import CODES, CODES_OF_KIND, FIELDS, code_text, fields_of
from udfs.features.user_slots import EVENT_ROW, USER_ROW, UserSlots
from udfs.measurement.drift import NEW, Reference
from udfs.models.attributions import contributions_of
from udfs.models.backends import BLOCK_ROWS, OnnxScorer, Scorer, build_engine
from udfs.models.bundle import EXPORT_FILE, FEATURES_FILE, GRU_FILE, BundleError, load_bundle
from udfs.models.gru import BLOCK_ROWS as NUMPY_ROWS
from udfs.models.gru import LARGEST_WEIGHT, OFFSETS, Gru, GruFile
from udfs.rollout.plan import Challenger, Rollout
from udfs.serving.deployment import Deployment, Options, load_model

SIZES = list(FIELDS.values())


@cache
def model() -> GruModel:
    return GruModel(random_gru(), CODE_NAMES, 7)


def plain_logit(file: GruFile, codes: list[float]) -> float:
    """The equations of a GRU, number by number."""
    width, hidden = file.width, file.hidden
    tables = {
        name: file.weights(name).astype(float).tolist()
        for name in ("embedding", "input_weights", "input_bias", "recurrent_weights", "recurrent_bias")
    }
    state = [0.0] * hidden
    for code in codes:
        if math.isnan(code):
            continue
        rest, digits = int(code), []
        for size in reversed(SIZES):
            rest, digit = divmod(rest, size)
            digits.insert(0, digit)
        rows = [tables["embedding"][offset + digit] for offset, digit in zip(OFFSETS.tolist(), digits)]
        x = [sum(row[place] for row in rows) for place in range(width)]

        def product(weights: list[float], values: list[float]) -> float:
            return sum(weight * value for weight, value in zip(weights, values))

        inputs = [product(w, x) + b for w, b in zip(tables["input_weights"], tables["input_bias"])]
        gates = [product(w, state) + b for w, b in zip(tables["recurrent_weights"], tables["recurrent_bias"])]
        z = [1 / (1 + math.exp(-inputs[h] - gates[h])) for h in range(hidden)]
        r = [1 / (1 + math.exp(-inputs[hidden + h] - gates[hidden + h])) for h in range(hidden)]
        n = [math.tanh(inputs[2 * hidden + h] + r[h] * gates[2 * hidden + h]) for h in range(hidden)]
        state = [(1 - z[h]) * n[h] + z[h] * state[h] for h in range(hidden)]
    return sum(w * s for w, s in zip(file.weights("output_weights").tolist(), state)) + file.output_bias


def test_the_scores_are_those_of_the_equations():
    rows = random_codes(30)
    rows[3] = np.nan
    rows[4, 1:3] = np.nan
    expected = [plain_logit(random_gru(), row) for row in rows.tolist()]
    assert Gru(random_gru()).logit(rows) == pytest.approx(expected, abs=1e-5)


@examples(20)  # each makes a session of ONNX Runtime
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_the_export_the_file_and_the_contributions_agree(seed, events, width, hidden):
    model = GruModel(random_gru(seed, events, width, hidden), tuple(map(str, range(events))), 1)
    rows = random_codes(50, events, seed)
    certificate = certify(model.predict, export(GRU_FILE, model.content(), events), rows, model.splits())
    assert certificate.largest_difference < 1e-5
    assert model.contributions(rows).sum(axis=1) == pytest.approx(Gru(model.parts).logit(rows), abs=1e-9)


def test_a_row_has_the_same_score_alone_and_in_a_batch():
    rows = random_codes(NUMPY_ROWS + 20)
    for predict in (model().predict, OnnxScorer(export(GRU_FILE, model().content(), EVENTS)).predict):
        alone = np.concatenate([predict(rows[row : row + 1]) for row in range(len(rows))])
        assert np.abs(alone - predict(rows)).max() < 1e-6
        assert len(predict(rows[:0])) == 0


@given(st.integers(0, 2**32 - 1))
def test_the_largest_weights_give_each_row_a_probability(seed):
    file = random_gru(seed)
    largest = {
        name: (np.sign(file.weights(name)) * np.float32(LARGEST_WEIGHT)).tobytes()
        for name, value in msgspec.structs.asdict(file).items()
        if isinstance(value, bytes)
    }
    gru = Gru(msgspec.structs.replace(file, output_bias=-1e308, **largest))
    with np.errstate(over="raise", invalid="raise"):
        scores = gru.predict(random_codes(20, seed=seed))
    assert ((scores >= 0) & (scores <= 1)).all()


def test_events_that_are_missing_change_nothing():
    rows = random_codes(40)
    padded = np.concatenate([np.full((40, 3), np.nan, np.float32), rows], axis=1)
    longer = random_gru(events=EVENTS + 3)
    assert np.array_equal(Gru(longer).predict(padded), Gru(random_gru()).predict(rows))
    runtime = OnnxScorer(export(GRU_FILE, msgspec.json.encode(longer), EVENTS + 3))
    assert runtime.predict(padded) == pytest.approx(Gru(longer).predict(padded), abs=1e-6)
    assert not Gru(longer).contributions(padded)[:, :3].any()


def test_a_calibration_folded_into_the_model_is_the_calibration():
    calibration, rows = Calibration(0.7, -0.4), random_codes(100)
    expected = calibration(model().predict(rows))
    assert model().calibrated(calibration).predict(rows) == pytest.approx(expected, abs=1e-6)


def test_the_fields_of_a_code_are_its_digits():
    codes = np.array([0, 1, CODES - 1, CODES_OF_KIND * 6])
    assert fields_of(codes)[[0, 2]].tolist() == [[0] * len(SIZES), [size - 1 for size in SIZES]]
    assert fields_of(codes)[1, -1] == 1
    assert code_text(int(codes[3])) == EVENT_KINDS[6] == "add_to_cart"


def bundle(directory: Path, **files: bytes):
    """A bundle of which some files are others."""
    content = gru_files(random_gru()) | {name.replace("_json", ".json"): value for name, value in files.items()}
    write_bundle(directory / "v1", manifest_of("v1", content, names=CODE_NAMES), content)
    return load_bundle(directory / "v1", 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "Input data was truncated"),
        (changed(random_gru(), format=2), "Invalid enum value 2 - at `$.format`"),
        (changed(random_gru(), hidden=0), "Expected `int` >= 1 - at `$.hidden`"),
        (changed(random_gru(), hidden=6), "key input_weights has 180 bytes, expected 216 for float32[18, 3]"),
        (
            changed(random_gru(), output_weights=b"\0\0\xc0\x7f" * 5),
            "key output_weights has a weight of magnitude nan, at most 1e+09 can serve",
        ),
        (
            changed(random_gru(), recurrent_bias=np.full(15, -2e38, "<f4").tobytes()),
            "key recurrent_bias has a weight of magnitude 2e+38, at most 1e+09 can serve",
        ),
        (changed(random_gru(), fields=FIELDS | {"kind": 18}), "key fields: it reads event codes of {'kind': 18, "),
    ],
)
def test_a_file_that_can_not_score_is_refused_with_the_rule(tmp_path, content, message):
    with pytest.raises(BundleError, match="not a GRU: ") as caught:
        bundle(tmp_path, gru_json=content)
    assert message in str(caught.value)


def test_a_graph_that_does_not_read_the_packed_events_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"the model has 5 features, the manifest names 4"):
        bundle(tmp_path, gru_json=msgspec.json.encode(random_gru(events=5)))
    swapped = (*CODE_NAMES[:2], CODE_NAMES[3], CODE_NAMES[2])
    with pytest.raises(BundleError, match=r"feature event_code_0 is event\(0\), expected event\(1\): a GRU reads the "):
        write_gru_bundle(tmp_path, "v2", names=swapped)
    with pytest.raises(BundleError, match=r"feature views is sum\(value\), expected event\(3\): a GRU reads the codes"):
        write_gru_bundle(tmp_path, "v3", names=("views", *CODE_NAMES[1:]))


def test_an_export_for_other_events_does_not_serve(tmp_path):
    other = export(GRU_FILE, msgspec.json.encode(random_gru(events=5)), 5)
    files = gru_files(random_gru()) | {EXPORT_FILE: other}
    write_bundle(tmp_path / "v1", manifest_of("v1", files, names=CODE_NAMES), files)
    with pytest.raises(BundleError, match=r"ONNX Runtime can't use model\.onnx: .*Expected: 5"):
        build_engine(load_bundle(tmp_path / "v1", 64), "auto")


def test_the_engine_auto_is_the_export(tmp_path):
    loaded = load_bundle(write_gru_bundle(tmp_path, "v1"), 64)
    for number in (0, 3, 2 * BLOCK_ROWS, 2 * BLOCK_ROWS + 1):
        rows = random_codes(number)
        for engine in ("auto", "onnx"):
            scores = build_engine(loaded, engine)(rows)
            assert scores.dtype == np.float32
            assert np.abs(scores - OnnxScorer(loaded.export).predict(rows)).max(initial=0) < 1e-6
        assert np.array_equal(build_engine(loaded, "native")(rows), Scorer(loaded).predict(rows))


def histories(users: int, seed: int = 3) -> list[np.ndarray]:
    """Packed events of users, some with more than a model reads."""
    rng = np.random.default_rng(seed)
    made = []
    for size in rng.integers(1, 2 * EVENTS, users):
        events = np.zeros(size, EVENT)
        events["time_ms"] = 1_700_000_000_000 + np.sort(rng.integers(0, 10_000_000, size))
        events["kind"] = rng.integers(0, len(EVENT_KINDS), size)
        events["page_type"], events["item"] = rng.integers(0, 10, size), rng.integers(0, 3, size)
        events["value"] = rng.choice([np.nan, 0.0, 19.99, 1e9], size)
        made.append(events)
    return made


def compared(tmp_path: Path, rollout: Rollout) -> Deployment:
    files = files_of(1, FEW.names[:2]) | {FEATURES_FILE: to_json(FEW)}
    write_bundle(tmp_path / "trees", manifest_of("trees", files, names=FEW.names[:2]), files)
    write_gru_bundle(tmp_path, "gru")
    options = Options(shadow_budget_s=60)
    loaded = {version: load_model(load_bundle(tmp_path / version, 64), options) for version in ("trees", "gru")}
    return Deployment(rollout, loaded, options)


def test_training_and_serving_give_a_sequence_model_the_same_bits():
    users = histories(200)
    records, sizes = np.concatenate(users), np.array([len(events) for events in users])
    ends = sizes.cumsum()
    computer = FeatureComputer(CODE_NAMES, 64, FEW)
    first_seen = np.array([events["time_ms"][0] for events in users])
    trained_on = computer.compute(
        records, ends - sizes, ends, sizes, first_seen, np.frombuffer(NO_PROFILE * len(users), PROFILE)
    )
    rows = np.zeros(len(records), USER_ROW)
    rows["kind"], rows["event"] = EVENT_ROW, records
    slots = np.repeat(np.arange(len(users), dtype=np.int32), sizes)
    served, _ = computer.append(rows, slots, UserSlots.empty(len(users), 64), 0)
    assert served[ends - 1].tobytes() == trained_on.tobytes()
    assert (trained_on[:, -1] < CODES).all()
    assert np.isnan(trained_on[sizes < EVENTS, 0]).all()


def test_trees_and_a_sequence_model_serve_in_one_job(tmp_path):
    users = histories(100)
    ids = [f"u{number}" for number in range(len(users))]
    arguments = (
        ids,
        [events.tobytes() for events in users],
        np.array([len(events) for events in users]),
        np.array([events["time_ms"][0] for events in users]),
        [None] * len(users),
    )
    plan = Rollout(
        champion="trees", salt="s", challengers=(Challenger(version="gru", share=0.5, at_most=0.5, start=0.2),)
    )
    serving = compared(tmp_path / "test", plan)
    found = serving.score(*arguments)
    by_gru = found.version == "gru"
    assert 20 < by_gru.sum() < 80
    vectors = serving.vectors("gru", found.features)
    expected = build_engine(load_bundle(tmp_path / "test" / "gru", 64), "auto")(vectors)
    assert np.abs(found.score - expected)[by_gru].max() < 1e-6
    in_shadow = compared(tmp_path / "shadow", add_shadow(first("trees"), "gru")).score(*arguments)
    assert set(in_shadow.version) == {"trees"}
    assert np.abs(in_shadow.shadows["gru"] - expected).max() < 1e-6


def test_a_score_is_explained_by_what_each_event_changed(tmp_path):
    loaded = load_bundle(write_gru_bundle(tmp_path, "v1"), 64)
    rows = random_codes(20)
    added = contributions_of(loaded)(rows)
    shorter = np.where(np.arange(EVENTS) == EVENTS - 1, np.float32(np.nan), rows)
    gru = Gru(random_gru())
    assert added[:, -2] == pytest.approx(gru.logit(rows) - gru.logit(shorter), abs=1e-9)


def test_drift_is_watched_by_the_kinds_of_events():
    rng = np.random.default_rng(1)
    kinds = rng.choice([1, 2, 6], (3_000, EVENTS), p=[0.5, 0.4, 0.1])
    rows = (kinds * CODES_OF_KIND + rng.integers(0, CODES_OF_KIND, kinds.shape)).astype(np.float32)
    sampling = Sampling(np.arange(3_000), np.arange(3_000) * 60_000, np.ones(3_000))
    content = reference_distributions(FEW, CODE_NAMES, rows, sampling, rng.random(3_000), sampling)
    newest = msgspec.json.decode(content, type=Reference).features["event_code_0"]
    assert newest.shares == pytest.approx([0.5, 0.4, 0.1], abs=0.05)
    assert newest.cells(np.array([6 * CODES_OF_KIND, 19 * CODES_OF_KIND])).tolist() == [2, 2]
    assert NEW not in newest.cells(np.array([0.0, CODES - 1]))
