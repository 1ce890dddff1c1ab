import json

import numpy as np
import pytest
import xgboost

from training.modeling.onnx_export import export
from udfs.models.backends import OnnxScorer
from udfs.models.bundle import XGBOOST_FILE, load_booster

ROWS = np.random.default_rng(0).random((50, 3), np.float32)


def trees(count: int, base: float, leaf: float | None = None, **parameters) -> bytes:
    """A model of trees; with `leaf`, each of them is this leaf alone."""
    parameters |= {"objective": "binary:logistic", "base_score": base, "nthread": 1}
    if leaf is not None:
        parameters["gamma"] = 1e9
    booster = xgboost.train(parameters, xgboost.DMatrix(ROWS, ROWS[:, 0] > 0.5), count)
    content = json.loads(booster.save_raw("json"))
    for tree in content["learner"]["gradient_booster"]["model"]["trees"] if leaf is not None else []:
        tree["split_conditions"] = tree["base_weights"] = [leaf]
    booster.load_model(bytearray(json.dumps(content).encode()))
    return bytes(booster.save_raw("ubj"))


@pytest.mark.parametrize("base", [0.02, 0.5])
@pytest.mark.parametrize("leaf", [None, 0.0, 0.25, -3.0])
@pytest.mark.parametrize("count", [1, 2])
def test_an_export_has_the_scores_of_its_trees_even_if_they_have_learnt_nothing(count, leaf, base):
    model = trees(count, base, leaf)
    exported = OnnxScorer(export(XGBOOST_FILE, model, ROWS.shape[1]))
    expected = load_booster(model).inplace_predict(ROWS)
    assert exported.predict(ROWS) == pytest.approx(expected, abs=1e-6)
