"""A GRU is trained, with PyTorch: `make test-sequence`. What serves it is tested without, in tests/unit/udfs/models."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

pytest.importorskip("torch", reason="the extra `sequence` is not installed")

from tests.conftest import QUICK
from tests.support.gru import random_codes
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.examples import Examples
from training.evaluation.rivals import fit_rival
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting
from training.modeling.gru_model import GruModel
from training.modeling.metrics import LabelledScores
from training.modeling.model_selection import TrainingRows
from training.modeling.onnx_export import certify, export
from training.reporting.facts import Background
from training.reporting.report import with_report
from training.reporting.serving_cost import costs
from training.rollout.admission import check_bundle
from training.train import summary
from udfs.contracts.packed_events import EVENT
from udfs.features.declaration_file import STANDARD
from udfs.features.event_codes import CODES_OF_KIND, fields_of
from udfs.models.backends import build_engine
from udfs.models.bundle import GRU_FILE, load_bundle

EVENTS = 6
NAMES = [f"event_code_{back}" for back in reversed(range(EVENTS))]
CARTED = 6


@cache
def rows(seed: int = 1, n: int = 6_000) -> FitRows:
    """The label depends on the order of events: it is likely if the last cart is the last event but one."""
    codes = random_codes(n, EVENTS, seed)
    last_but_one = fields_of(np.nan_to_num(codes[:, -2]).astype(np.int64))[:, 0]
    codes[np.arange(n) % 3 == 0, -2] = CARTED * CODES_OF_KIND
    last_but_one[np.arange(n) % 3 == 0] = CARTED
    rng = np.random.default_rng(seed)
    return FitRows(codes, rng.random(n) < np.where(last_but_one == CARTED, 0.8, 0.1), np.ones(n))


def fit(train: FitRows, judged: FitRows | None = None, **arguments) -> GruModel:
    parameters = FAMILIES["gru"].defaults | {"width": 4, "hidden": 6, "learning_rate": 0.02}
    arguments = {"rounds": 6, "threads": 1} | arguments
    return FAMILIES["gru"].fit(train, Fitting(NAMES, parameters, **arguments), judged)


@cache
def fitted() -> GruModel:
    return fit(rows(), rows(2))


def auc(model: GruModel, judged: FitRows) -> float:
    scores = model.predict(judged.features)
    return LabelledScores(judged.labels, scores, judged.weight, np.arange(len(scores))).roc_auc_of_all()


def test_it_learns_what_depends_on_the_order_of_events():
    assert auc(fitted(), rows(3)) > 0.8
    assert fitted().predict(rows(3).features).mean() == pytest.approx(rows(3).labels.mean(), abs=0.05)


def test_equal_arguments_give_equal_bytes_and_another_seed_others():
    assert fit(rows(), rows(2)).content() == fitted().content()
    assert fit(rows(), rows(2), seed=2).content() != fitted().content()


def test_without_rows_to_judge_it_takes_all_rounds():
    assert fit(rows(), rounds=2).rounds == 2


def test_it_stops_early_where_held_out_users_gain_nothing():
    rng = np.random.default_rng(5)
    noise = FitRows(rows().features[:600], rng.random(600) < 0.5, np.ones(600))
    assert fit(noise, rows(2), rounds=40, patience=2).rounds < 38


def test_the_export_of_what_was_trained_is_certified():
    content = fitted().content()
    certify(fitted().predict, export(GRU_FILE, content, EVENTS), rows(3).features, fitted().splits())


def test_weights_count():
    train = rows()
    weight = np.where(train.labels, 5.0, 1.0)
    heavy = fit(FitRows(train.features, train.labels, weight), rounds=3)
    assert heavy.predict(rows(3).features).mean() > fit(train, rounds=3).predict(rows(3).features).mean() + 0.1


@cache
def examples() -> Examples:
    """Examples with two standard features and the codes of events, of which the rows above are the last."""
    given = rows()
    n = len(given.labels)
    standard = np.random.default_rng(1).random((n, 2)).astype(np.float32)
    user = np.arange(n) // 20
    return Examples(
        names=(*STANDARD.names[:2], *NAMES),
        features=np.column_stack([standard, given.features]),
        labels=given.labels,
        weight=np.ones(n, np.float32),
        user=user,
        time_ms=np.arange(n) * 60_000,
        partition=np.zeros(n, np.int64),
        offset=np.arange(n),
        starts=np.arange(n),
        ends=np.arange(n) + 1,
        events=np.zeros(n, EVENT),
        user_ids=np.array([f"u{number}" for number in range(user[-1] + 1)]),
    )


SETTINGS = replace(
    QUICK, model="auto", sequence=True, features=STANDARD.names[:2], history_length=EVENTS, rounds=4,
    parameters={"teacher_share": 0.0, "width": 4, "hidden": 6, "learning_rate": 0.02},
)  # fmt: skip


def test_a_training_chooses_it_where_it_wins_and_writes_a_bundle_that_serves(tmp_path: Path):
    lines = []
    trained = train_model(examples(), SETTINGS, version="v1", log=lines.append)
    choice = trained.evaluation.choice
    assert choice.chosen.family == trained.evaluation.model == "gru"
    assert [one.family for one in choice.candidates] == ["logistic", "blend", "xgboost", "gru"]
    assert "torch" in trained.manifest.libraries
    assert " rounds, 6 features" in summary(trained.manifest)
    reported = with_report(trained, Background(("a test",), (), None))
    assert "a sequence model (GRU)" in reported.files["report.html"].decode()
    write_bundle(tmp_path / "v1", reported.manifest, reported.files)
    bundle = load_bundle(tmp_path / "v1", EVENTS)
    check_bundle(bundle)
    engine = build_engine(bundle, "auto")
    codes = examples().features[:, 2:]
    assert np.array_equal(engine(codes[:100]), build_engine(bundle, "onnx")(codes[:100]))
    assert "for prediction with gru; measured in batches" in costs(trained)


def test_it_can_be_compared_with():
    given = examples()
    half = TrainingRows.of(given, np.arange(len(given)), given.user % 2, 0.5)
    model = fit_rival("gru", half, given.names, replace(SETTINGS, rounds=2))
    assert len(model.predict(given.features)) == len(given)
