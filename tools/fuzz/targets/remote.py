"""Answers of a remote model's server: the length of the JSON in the first line, as the header has it, then the body.

Contract: a probability for each row, or ValueError, after which another model stands in.
"""

import json

import numpy as np

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from udfs.models.remote import Endpoint, decode_answer

_ROWS = 3


def answers() -> Target:
    endpoint = Endpoint(url="http://h", model="m", column=1)

    def run(data: bytes) -> str:
        length, _, body = data.partition(b"\n")
        scores = decode_answer(endpoint, body, length.decode("latin-1") or None, _ROWS)
        if scores.shape != (_ROWS,) or scores.dtype != np.float32 or not ((scores >= 0) & (scores <= 1)).all():
            raise ContractError(f"scores {scores!r}")
        return "scored"

    return Target((_json_answer(), *map(_binary_answer, ("<f4", "<f8"))), run, (ValueError,))


def _json_answer() -> bytes:
    other = {"name": "label", "datatype": "INT64", "shape": [_ROWS], "data": [0, 1, 1]}
    output = {"name": "probabilities", "datatype": "FP32", "shape": [_ROWS, 2], "data": [0.5, 0.5, 0.9, 0.1, 0.0, 1.0]}
    return b"\n" + json.dumps({"model_name": "m", "outputs": [other, output]}).encode()


def _binary_answer(dtype: str) -> bytes:
    tensor = np.full((_ROWS, 2), 0.5, dtype).tobytes()
    output = {
        "name": "probabilities", "datatype": f"FP{8 * np.dtype(dtype).itemsize}", "shape": [_ROWS, 2],
        "parameters": {"binary_data_size": len(tensor)},
    }  # fmt: skip
    head = json.dumps({"outputs": [output]}).encode()
    return b"%d\n" % len(head) + head + tensor
