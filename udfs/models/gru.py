"""A gated recurrent unit (GRU) over event codes as a file of a bundle: read, checked and scored with NumPy alone.

The model reads a user's last events, the oldest first, and keeps a state h. Each event x, the sum of the embeddings of
its code's fields, changes it (Cho and others, Learning phrase representations using RNN encoder-decoder for statistical
machine translation, 2014; in the form of cuDNN, PyTorch and ONNX's `linear_before_reset`):

    z = sigmoid(Wz x + bz + Rz h + cz)        r = sigmoid(Wr x + br + Rr h + cr)
    n = tanh(Wn x + bn + r (Rn h + cn))       h = (1 - z) n + z h

An event that is missing, because the user has fewer, leaves the state as it is. The logit is the output weights times
the last state, plus a bias.

ONNX Runtime serves the export of the same weights, which is several times faster.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from scipy.special import expit

from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line
from udfs.features.event_codes import CODES, FIELDS, MOST_EVENTS, fields_of

BLOCK_ROWS = 256  # the temporaries of a block fit into a processor's cache
#: Where the embeddings of each field begin in the table of all.
OFFSETS = np.cumsum([0, *FIELDS.values()])[:-1]
EMBEDDINGS = sum(FIELDS.values())
#: The largest weight by magnitude, far above those of a fitted model. No score of any row overflows with such weights.
LARGEST_WEIGHT = 1e9

Size = Annotated[int, Meta(ge=1, le=256)]


class GruFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a GRU's file, as JSON. Weights are float32 in little-endian order and rows; Base64 in the file."""

    format: Literal[1]
    fields: dict[str, int]  # the sizes of the fields of an event code
    events: Annotated[int, Meta(ge=1, le=MOST_EVENTS)]  # that it reads
    width: Size  # of an embedding
    hidden: Size  # the size of the state
    embedding: bytes  # [sum of sizes, width]
    input_weights: bytes  # W[3 hidden, width], of z, r and n in this order
    input_bias: bytes  # b[3 hidden]
    recurrent_weights: bytes  # R[3 hidden, hidden]
    recurrent_bias: bytes  # c[3 hidden]
    output_weights: bytes  # [hidden]
    output_bias: float

    def weights(self, name: str) -> np.ndarray:
        """The weights of a key in their shape, float32.

        Raises ValueError, one line, for another number of bytes and for weights that are too large or NaN.
        """
        shape = {
            "embedding": (EMBEDDINGS, self.width),
            "input_weights": (3 * self.hidden, self.width),
            "input_bias": (3 * self.hidden,),
            "recurrent_weights": (3 * self.hidden, self.hidden),
            "recurrent_bias": (3 * self.hidden,),
            "output_weights": (self.hidden,),
        }[name]
        content, expected = getattr(self, name), 4 * int(np.prod(shape))
        if len(content) != expected:
            raise ValueError(f"key {name} has {len(content)} bytes, expected {expected} for float32{list(shape)}")
        values = np.frombuffer(content, "<f4").reshape(shape)
        largest = float(np.abs(values).max())  # NaN counts as the largest
        if not largest <= LARGEST_WEIGHT:
            raise ValueError(
                f"key {name} has a weight of magnitude {largest:.3g}, at most {LARGEST_WEIGHT:.0e} can serve"
            )
        return values


class Gru:
    """A GRU that scores rows of event codes float32[n, events], the oldest event first, NaN where there is none."""

    def __init__(self, file: GruFile):
        """Raises ValueError, one line, if a file can't score."""
        if file.fields != FIELDS:
            raise ValueError(
                f"key fields: it reads event codes of {file.fields}, this code makes {FIELDS}: train again"
            )
        self.file = file
        names = ("embedding", "input_weights", "input_bias", "recurrent_weights", "recurrent_bias", "output_weights")
        embedding, weights, bias, self._recurrent, self._recurrent_bias, self._output = map(file.weights, names)
        self._inputs = embedding @ weights.T  # what each value of a field adds to Wx
        self._bias = bias

    def predict(self, codes: np.ndarray) -> np.ndarray:
        """Probabilities float64[n]."""
        return expit(self.logit(codes))

    def logit(self, codes: np.ndarray) -> np.ndarray:
        """Logits float64[n]."""
        starts = range(0, len(codes), BLOCK_ROWS)
        return np.concatenate([np.empty(0), *(self._states(codes[at : at + BLOCK_ROWS])[-1] for at in starts)])

    def contributions(self, codes: np.ndarray) -> np.ndarray:
        """What each event changed the logit by when it was read, float64[n, events + 1], the bias last.

        They add up to the logit (the additive decomposition of Murdoch and Szlam, Automatic rule extraction from long
        short term memory networks, 2017). An event's part depends on those before it, and not on those behind it.
        """
        blocks = [self._states(codes[at : at + BLOCK_ROWS]) for at in range(0, len(codes), BLOCK_ROWS)]
        logits = np.concatenate([np.empty((self.file.events + 1, 0)), *blocks], axis=1)
        return np.column_stack([np.diff(logits, axis=0).T, logits[0]])

    def _states(self, codes: np.ndarray) -> np.ndarray:
        """The logits before the first event and after each, float64[events + 1, n]."""
        hidden = self.file.hidden
        present = ~np.isnan(codes)
        whole = np.clip(np.where(present, codes, 0), 0, CODES - 1).astype(np.int64)
        logits = np.full((self.file.events + 1, len(codes)), self.file.output_bias)
        state = np.zeros((len(codes), hidden), np.float32)
        for number in range(self.file.events):
            has_event = present[:, number]
            if has_event.any():
                inputs = self._inputs[fields_of(whole[:, number]) + OFFSETS].sum(1) + self._bias
                gates = state @ self._recurrent.T + self._recurrent_bias
                z, r = np.split(expit(inputs[:, : 2 * hidden] + gates[:, : 2 * hidden]), 2, axis=1)
                n = np.tanh(inputs[:, 2 * hidden :] + r * gates[:, 2 * hidden :])
                state = np.where(has_event[:, None], (1 - z) * n + z * state, state)
            logits[number + 1] += state.astype(np.float64) @ self._output
        return logits


def decode_gru(content: bytes) -> Gru:
    """The GRU of a file. Raises ValueError, one line with key and rule."""
    try:
        file = msgspec.json.decode(content, type=GruFile)
    except NOT_JSON as error:
        raise ValueError(one_line(error)) from None
    return Gru(file)
