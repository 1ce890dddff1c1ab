"""A model that another process serves, over the Open Inference Protocol v2 (KServe, Triton).

The bundle of such a model has `endpoint.json` in place of a model. Feature vectors travel by the protocol's binary
tensor data extension, because JSON has no NaN, which a missing feature is.
"""

import json
import math
import os
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
import urllib3
from msgspec import Meta

from udfs.config.text import END

HEADER_LENGTH = "Inference-Header-Content-Length"
#: The tolerance of a remote model's scores of its warm-up rows: it may run on another library and processor.
TOLERANCE = 1e-5

#: The share of requests that may be retried in the long run, and how many retries can be saved up: a retry budget, or
#: retries would multiply the load on a server that can't keep up (Beyer et al., Site Reliability Engineering, 2016,
#: chapter 21).
RETRY_SHARE, RETRIES_SAVED = 0.1, 10.0
_FIRST_PAUSE_S = 0.005
_RETRIED = {429, 502, 503, 504}
_DTYPES = {"FP32": "<f4", "FP64": "<f8"}

Text = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+" + END)]


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Address and protocol options of a remote model; a secret is only named, as an environment variable."""

    url: Annotated[str, Meta(pattern=r"^https?://[^/\s]+(/\S*)?" + END)]
    model: Text
    model_version: Text | None = None
    input: Text = "features"
    output: Text = "probabilities"
    column: Annotated[int, Meta(ge=0)] | None = None  # of a 2-D output, the one with the label's probability
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 100  # for a batch, retries included
    max_batch: Annotated[int, Meta(ge=1)] = 1_000  # rows in a request
    token_env: Text | None = None  # the variable with a bearer token

    @property
    def address(self) -> str:
        version = f"/versions/{self.model_version}" if self.model_version else ""
        return f"{self.url.rstrip('/')}/v2/models/{self.model}{version}"


class RemoteError(OSError):
    """An endpoint that gave no scores, or none that can be used; one line with endpoint, rule and value."""


class _TransientError(Exception):
    """A failure that may not recur on a retry."""


class RetryBudget:
    """A budget of retries: each request earns a fraction of a retry, and a retry spends a whole one."""

    def __init__(self):
        self._saved = RETRIES_SAVED

    def earn(self) -> None:
        self._saved = min(RETRIES_SAVED, self._saved + RETRY_SHARE)

    def spend(self) -> bool:
        """Spend a retry if one is allowed; returns whether it is."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


class RemoteScorer:
    """Requests scores from an endpoint."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float] = time.monotonic):
        self._endpoint = endpoint
        self._clock = clock
        self._pool = urllib3.PoolManager(retries=False)
        self._budget = RetryBudget()

    def predict(self, matrix: np.ndarray) -> np.ndarray:
        """The probability of the label, float32[n], from feature rows float32[n, k], NaN for missing.

        Raises RemoteError when the endpoint does not return all of them in time, or returns something else.
        """
        deadline = self._clock() + self._endpoint.timeout_ms / 1000
        size = self._endpoint.max_batch
        parts = [self._ask(matrix[start : start + size], deadline) for start in range(0, len(matrix), size)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _ask(self, rows: np.ndarray, deadline: float) -> np.ndarray:
        pause = _FIRST_PAUSE_S
        self._budget.earn()
        while True:
            try:
                return self._ask_once(rows, deadline - self._clock())
            except _TransientError as error:
                if self._clock() + pause >= deadline or not self._budget.spend():
                    raise RemoteError(f"{self._endpoint.address}: {error}") from None
                time.sleep(pause)
                pause *= 2

    def _ask_once(self, rows: np.ndarray, seconds: float) -> np.ndarray:
        endpoint = self._endpoint
        if seconds <= 0:
            raise RemoteError(f"{endpoint.address}: no answer within {endpoint.timeout_ms} ms")
        header, tensor = encode_request(endpoint, rows)
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
        if endpoint.token_env:
            headers["Authorization"] = f"Bearer {self._token()}"
        try:
            answer = self._pool.request(
                "POST", f"{endpoint.address}/infer", body=header + tensor, headers=headers,
                timeout=urllib3.Timeout(total=seconds), redirect=False,
            )  # fmt: skip
        except urllib3.exceptions.HTTPError as error:
            raise _TransientError(f"{type(error).__name__} within {endpoint.timeout_ms} ms") from None
        if answer.status in _RETRIED:
            raise _TransientError(f"HTTP status {answer.status}")
        if answer.status != 200:
            raise RemoteError(f"{endpoint.address}: HTTP status {answer.status}: {_beginning(answer.data)}")
        try:
            return decode_answer(endpoint, answer.data, answer.headers.get(HEADER_LENGTH), len(rows))
        except ValueError as error:
            raise RemoteError(f"{endpoint.address}: {error}") from None

    def _token(self) -> str:
        """The token. Raises RemoteError, which does not show it."""
        name = self._endpoint.token_env
        token = os.environ.get(name, "").strip()  # the line break of the file that it comes from is no part of it
        if not token:
            raise RemoteError(f"{self._endpoint.address}: environment variable {name}, with its token, is not set")
        if not (token.isascii() and token.isprintable()):
            raise RemoteError(
                f"{self._endpoint.address}: environment variable {name} has characters that no HTTP header holds"
            )
        return token


def encode_request(endpoint: Endpoint, rows: np.ndarray) -> tuple[bytes, bytes]:
    """The JSON header and the binary tensor of an inference request for rows float32[n, k]."""
    tensor = np.ascontiguousarray(rows, "<f4").tobytes()
    parameters = {"binary_data_size": len(tensor)}
    inputs = {"name": endpoint.input, "shape": list(rows.shape), "datatype": "FP32", "parameters": parameters}
    outputs = {"name": endpoint.output, "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [inputs], "outputs": [outputs]}).encode(), tensor


def decode_answer(endpoint: Endpoint, body: bytes, header_length: str | None, rows: int) -> np.ndarray:
    """The scores float32[rows] of an answer, binary or JSON. Raises ValueError naming rule and value."""
    try:
        split = len(body) if header_length is None else int(header_length)
        outputs = json.loads(body[:split])["outputs"]
        output = next((entry for entry in outputs if entry["name"] == endpoint.output), None)
        if output is not None:
            values, shape = _values(outputs, output, body[split:]), [int(length) for length in output["shape"]]
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"not an answer of the protocol ({_shown(error)}): {_beginning(body)}") from None
    if output is None:
        names = ", ".join(str(entry["name"]) for entry in outputs)
        raise ValueError(f"no output is named {endpoint.output}, there are {_shown(names)}")
    if len(shape) == 2 and shape[1] > 1 and endpoint.column is None:
        raise ValueError(
            f"output {endpoint.output} has shape {shape}: set `column` in endpoint.json to the one with the score"
        )
    if shape[:1] != [rows] or len(shape) > 2 or values.size != math.prod(shape):
        shown = _shown(shape)
        raise ValueError(f"output {endpoint.output} has shape {shown} and {values.size} values for {rows} rows")
    table = values.reshape(rows, -1)
    column = endpoint.column or 0
    if column >= table.shape[1]:
        raise ValueError(f"output {endpoint.output} has {table.shape[1]} columns: column is {column}")
    with np.errstate(over="ignore"):
        scores = table[:, column].astype(np.float32)
    is_probability = (scores >= 0) & (scores <= 1)  # NaN is none
    if not is_probability.all():
        raise ValueError(f"output {endpoint.output} has values outside [0, 1], such as {scores[~is_probability][:1]}")
    return scores


def _values(outputs: list[dict[str, Any]], output: dict[str, Any], tensors: bytes) -> np.ndarray:
    if output["datatype"] not in _DTYPES:
        raise ValueError(f"datatype must be one of {', '.join(_DTYPES)} (got {output['datatype']})")
    if "data" in output:
        return np.array(output["data"], np.float64).ravel()
    # Binary tensors lie one behind the other, in the order of the outputs.
    sizes = [entry.get("parameters", {}).get("binary_data_size", 0) for entry in outputs]
    number = outputs.index(output)
    start = sum(sizes[:number])
    return np.frombuffer(tensors[start : start + sizes[number]], _DTYPES[output["datatype"]])


def _shown(problem: object) -> str:
    return _beginning(str(problem).encode(errors="replace"))


def _beginning(body: bytes) -> str:
    return " ".join(body[:200].decode(errors="replace").split())
