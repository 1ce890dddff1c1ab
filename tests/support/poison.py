"""Models that take more time or memory than any model may, and checks that never end or end the process."""

import os
import signal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from udfs.models.bundle import Bundle

AS_OFTEN_AS_IT_GOES = 2**62


def endless(width: int) -> bytes:
    """An ONNX model whose Loop adds 1 to the features 2**62 times."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["features", "one"], ["more"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    nodes = [helper.make_node("Loop", ["trips", "", "input"], ["probabilities"], body=body)]
    return _model(nodes, width, trips=np.int64(AS_OFTEN_AS_IT_GOES))


def huge(width: int) -> bytes:
    """An ONNX model that fills 4 TiB with ones."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["ones"]),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
        helper.make_node("Add", ["input", "sum"], ["probabilities"]),
    ]
    return _model(nodes, width, shape=np.array([1 << 20, 1 << 20], np.int64))


def _model(nodes: list[onnx.NodeProto], width: int, **constants: np.ndarray) -> bytes:
    graph = helper.make_graph(
        nodes,
        "poison",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, width])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def wait_forever(bundle: Bundle) -> None:
    while True:
        signal.pause()


def end_process(bundle: Bundle) -> None:
    os.abort()


def allocate(bundle: Bundle) -> None:
    """Take 1 GiB in pieces, as a library does that grows a buffer."""
    kept = []
    for _ in range(64):
        kept.append(bytes(16 << 20))


def accept(bundle: Bundle) -> None:
    assert bundle.manifest.version == "v1"
