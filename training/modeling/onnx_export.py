"""Export to ONNX, with a certificate that ONNX Runtime gives the same scores as the model's own library."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from scipy.special import logit

from udfs.features.event_codes import CODES, FIELDS
from udfs.models.backends import OnnxScorer
from udfs.models.blend import decode_blend
from udfs.models.bundle import BLEND_FILE, EXPORT_LIMIT, GRU_FILE, LIGHTGBM_FILE, LOGISTIC_FILE, load_booster
from udfs.models.gru import OFFSETS, GruFile, decode_gru
from udfs.models.lean_xgboost import xgboost
from udfs.models.regression import Regression, decode_regression

OPSET = 15
ML_OPSET = 1  # of the trees
IR_VERSION = 8  # the one of OPSET
_EDGE_ROWS = 2_000
_JOINED_FIELDS = ((0, 1), (2, 3), (4, 5, 6))  # of an event code
_KEEP_STATE = 100.0  # sigmoid(100 + what other inputs add) is 1 in float32


class ExportError(ValueError):
    """An export whose scores differ from the model's. The message has the difference."""


@dataclass(frozen=True)
class Certificate:
    """The numbers of holdout rows and edge rows that were compared, and the largest difference of their scores."""

    rows: int
    edge_rows: int
    largest_difference: float
    limit: float


def export(model_file: str, model: bytes, features: int) -> bytes:
    """Convert a bundle's model to ONNX: input float32[n, features], outputs `label` and `probabilities`."""
    if model_file == LOGISTIC_FILE:
        converted = _graph_of_regression(Regression(decode_regression(model)))
    elif model_file == BLEND_FILE:
        converted = _graph_of_blend(model, features)
    elif model_file == GRU_FILE:
        graph = _Graph(features)
        converted = graph.scoring(graph.gru_logit(decode_gru(model).file))
    elif model_file == LIGHTGBM_FILE:
        converted = _converted_lightgbm(model, features)
    else:
        converted = _graph_of_xgboost(load_booster(model), features)
    converted.graph.name = "purchase_intent"  # by default a random one: equal models are to be equal bytes
    return converted.SerializeToString()


def certify(
    predict,
    exported: bytes,
    holdout: np.ndarray,
    thresholds: Sequence[np.ndarray],
    limit: float = EXPORT_LIMIT,
    seed: int = 1,
) -> Certificate:
    """Compare an export with the model on the holdout float32[n, k] and on edge rows.

    `predict` gives the model's own probabilities; `thresholds` are the values that the model splits each feature at.
    Raises ExportError when a difference is above the limit.
    """
    edges = edge_rows(holdout, thresholds, seed)
    runtime = OnnxScorer(exported)
    largest = max(
        float(np.abs(predict(rows).astype(np.float64) - runtime.predict(rows)).max(initial=0.0))
        for rows in (holdout, edges)
    )
    if not largest <= limit:
        raise ExportError(f"ONNX Runtime's scores differ from the model's by up to {largest:.2e}: at most {limit:.0e}")
    return Certificate(len(holdout), len(edges), largest, limit)


def edge_rows(rows: np.ndarray, thresholds: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Rows with missing values, and with values at, just below and just above the splits: float32[_EDGE_ROWS, k]."""
    rng = np.random.default_rng(seed)
    made = rows[rng.integers(0, len(rows), _EDGE_ROWS)].copy()
    for column, splits in enumerate(thresholds):
        if len(splits):
            at = rng.choice(splits, _EDGE_ROWS).astype(np.float32)
            side = rng.integers(-1, 2, _EDGE_ROWS)
            with np.errstate(over="ignore"):  # LightGBM parts missing values from all others by a split at the end
                value = np.where(side < 0, np.nextafter(at, np.float32(-np.inf)), at)
                value = np.where(side > 0, np.nextafter(at, np.float32(np.inf)), value)
            hit = rng.random(_EDGE_ROWS) < 0.7
            made[hit, column] = value[hit]
    made[rng.random(made.shape) < 0.1] = np.nan
    return made


def _converted_lightgbm(model: bytes, features: int) -> onnx.ModelProto:
    booster = lightgbm.Booster(model_str=model.decode())
    converted = convert_lightgbm(booster, initial_types=_inputs(features), target_opset=OPSET, zipmap=False)
    # The converter says that there is one label, and ONNX Runtime warns of each batch that has more.
    converted.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    return converted


def _converted_xgboost(booster: xgboost.Booster, features: int) -> onnx.ModelProto:
    booster.feature_names = None  # the converter wants its own: f0, f1, ...
    return convert_xgboost(booster, initial_types=_inputs(features), target_opset=OPSET)


def _graph_of_xgboost(booster: xgboost.Booster, features: int) -> onnx.ModelProto:
    converted = _converted_xgboost(booster, features)
    attributes = {each.name: helper.get_attribute_value(each) for each in converted.graph.node[0].attribute}
    if any(attributes.get("class_weights", ())):
        return converted
    # Trees that have learnt nothing: the converter takes a single leaf for a regressor, whose output is no probability,
    # and ONNX Runtime's classifier gives a wrong score for leaves of 0 alone.
    graph = _Graph(features)
    return graph.scoring(graph.trees_sum(booster, 1.0, 0.0))


def _inputs(features: int) -> list[tuple[str, FloatTensorType]]:
    return [("features", FloatTensorType([None, features]))]


def _graph_of_regression(regression: Regression) -> onnx.ModelProto:
    graph = _Graph(len(regression.slope))
    total = graph.regression_sum(regression, 1.0)
    return graph.scoring(graph.add("Add", total, graph.constant([regression.base], np.float32)))


def _graph_of_blend(model: bytes, features: int) -> onnx.ModelProto:
    parts, graph = decode_blend(model), _Graph(features)
    regression, weight = Regression(parts.regression), 1 - parts.trees_weight
    total = graph.regression_sum(regression, weight)
    trees = graph.trees_sum(load_booster(parts.trees), parts.trees_weight, weight * regression.base)
    return graph.scoring(graph.add("Add", total, trees))


def _joined_embeddings(file: GruFile) -> tuple[np.ndarray, list[int], list[int], list[int]]:
    """Embeddings of several fields of an event code at once, float32[rows, width]: a look-up takes most of the time.

    The digit (code // stride) % size of such fields has its embedding in the table's row offset + digit.
    """
    sizes = list(FIELDS.values())
    parts = np.split(file.weights("embedding").astype(np.float64), OFFSETS[1:])
    tables, joined = [], [math.prod(sizes[field] for field in fields) for fields in _JOINED_FIELDS]
    for fields in _JOINED_FIELDS:
        table = np.zeros((1, file.width))
        for field in fields:
            table = (table[:, None] + parts[field]).reshape(-1, file.width)
        tables.append(table)
    strides = [math.prod(joined[place + 1 :]) for place in range(len(joined))]
    offsets = np.cumsum([0, *joined])[:-1].tolist()
    return np.concatenate(tables), joined, strides, offsets


class _Graph:
    """An ONNX graph in the making, with as few nodes as possible: each takes as long as some trees do for a row.

    `add` and the methods that end in `sum` add nodes, and return the name of their result.
    """

    def __init__(self, features: int):
        self._features, self._nodes, self._constants = features, [], []

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        name = f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Sequence[float] | np.ndarray, dtype: type) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def regression_sum(self, regression: Regression, weight: float) -> str:
        """A regression's logit times `weight`, without its base, float32[n, 1].

        It is computed in float64, as in udfs/models/regression.py, so that no scale of a feature is too small.
        """
        values = self.add("Cast", "features", to=TensorProto.DOUBLE)
        size = self.add("Log", self.add("Add", self.add("Abs", values), self.constant([1], np.float64)))
        slope = self.constant(weight * regression.slope, np.float64)
        scaled = self.add("Mul", self.add("Mul", self.add("Sign", values), slope), size)
        present = self.add("Add", scaled, self.constant(weight * regression.present, np.float64))
        missing = self.constant(weight * regression.missing, np.float64)
        added = self.add("Where", self.add("IsNaN", "features"), missing, present)
        total = self.add("ReduceSum", added, self.constant([1], np.int64), keepdims=1)
        return self.add("Cast", total, to=TensorProto.FLOAT)

    def trees_sum(self, booster: xgboost.Booster, weight: float, constant: float) -> str:
        """The logit of trees times `weight`, plus a constant, float32[n, 1].

        The trees are those of the converted model, without its last step.
        """
        base = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
        converted = _converted_xgboost(booster, self._features).graph.node[0]
        attributes = {
            attribute.name.replace("class_", "target_"): helper.get_attribute_value(attribute)
            for attribute in converted.attribute
            if attribute.name.startswith(("nodes_", "class_", "target_"))
        }
        attributes["target_weights"] = [weight * value for value in attributes["target_weights"]]
        base_values = [weight * float(logit(float(base.strip("[]")))) + constant]
        attributes |= {"n_targets": 1, "post_transform": "NONE", "base_values": base_values}
        return self.add("TreeEnsembleRegressor", "features", domain="ai.onnx.ml", **attributes)

    def gru_logit(self, file: GruFile) -> str:
        """A GRU's logit, float32[n, 1], of the features, which are event codes.

        A missing event is an input of its own. With its weight, z is 1 in float32: the state stays as it is.
        """
        table, sizes, strides, offsets = _joined_embeddings(file)
        missing = self.add("IsNaN", "features")
        known = self.add("Where", missing, self.constant(0, np.float32), "features")
        known = self.add("Clip", known, self.constant(0, np.float32), self.constant(CODES - 1, np.float32))
        last = self.constant([2], np.int64)
        codes = self.add("Unsqueeze", self.add("Cast", known, to=TensorProto.INT64), last)
        quotients = self.add("Div", codes, self.constant(strides, np.int64))
        places = self.add(
            "Add", self.add("Mod", quotients, self.constant(sizes, np.int64)), self.constant(offsets, np.int64)
        )
        embedded = self.add("Gather", self.constant(table, np.float32), places)
        events = self.add("ReduceSum", embedded, last, keepdims=0)
        marks = self.add("Unsqueeze", self.add("Cast", missing, to=TensorProto.FLOAT), last)
        inputs = self.add("Transpose", self.add("Concat", events, marks, axis=2), perm=[1, 0, 2])
        of_mark = np.repeat([_KEEP_STATE, 0, 0], file.hidden)
        weights = np.column_stack([file.weights("input_weights"), of_mark])
        biases = np.concatenate([file.weights("input_bias"), file.weights("recurrent_bias")])
        tensors = (weights, file.weights("recurrent_weights"), biases)
        constants = [self.constant(tensor[None], np.float32) for tensor in tensors]
        self._nodes.append(
            helper.make_node("GRU", [inputs, *constants], ["", "state"], hidden_size=file.hidden, linear_before_reset=1)
        )
        state = self.add("Squeeze", "state", self.constant([0], np.int64))
        output = self.constant(file.weights("output_weights")[:, None], np.float32)
        return self.add("Gemm", state, output, self.constant([file.output_bias], np.float32))

    def scoring(self, logits: str) -> onnx.ModelProto:
        """The model that returns the outputs of a converted classifier, given its logits float32[n, 1]."""
        both = self.add("Mul", logits, self.constant([-1, 1], np.float32))
        self._nodes.append(helper.make_node("Sigmoid", [both], ["probabilities"]))
        self._nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
        graph = helper.make_graph(
            self._nodes,
            "purchase_intent",
            [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, self._features])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2]),
            ],
            self._constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model
