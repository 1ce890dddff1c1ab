"""Fit a GRU with PyTorch, on the CPU: the only module that needs it (the extra `sequence`).

The loss is the log loss of the weighted rows: a proper score, so probabilities stay right where positives are rare,
and no class is sampled up. The bias starts at the log-odds of the label. Steps are Adam's (Kingma and Ba, Adam: a
method for stochastic optimization, 2015). Single steps are noisy, so the weights that are returned are exponential
moving averages (Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, dropout

from training.modeling.family import FitRows, Fitting
from udfs.features.event_codes import FIELDS, fields_of
from udfs.models.gru import EMBEDDINGS, OFFSETS, GruFile

#: Rows of a step, and steps of a round.
BATCH_ROWS, ROUND_STEPS = 256, 16
#: However many rounds the settings allow: a round here is much more than one of boosting.
MOST_ROUNDS, MOST_PATIENCE = 60, 8
#: Rows that early stopping is decided on.
EVAL_ROWS = 8_000
_AVERAGED = 0.98  # of the moving average that stays in a step
_KEEP_STATE = 100.0  # as in the export: z is 1 where there is no event


def fit_gru(train: FitRows, fitting: Fitting, eval_rows: FitRows | None) -> tuple[GruFile, int]:
    """Fit a GRU to rows of event codes; returns it with the number of its rounds.

    With `eval_rows`, it stops by the loss on some of them, and is the one of the best round. Equal arguments give equal
    weights on one machine; it uses `fitting.threads` threads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fitting.seed)
        threads = torch.get_num_threads()
        torch.set_num_threads(fitting.threads)
        try:
            return _fit(train, fitting, eval_rows)
        finally:
            torch.set_num_threads(threads)


def _fit(train: FitRows, fitting: Fitting, eval_rows: FitRows | None) -> tuple[GruFile, int]:
    rng = np.random.default_rng(fitting.seed)
    network = _Network(fitting, train)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(_AVERAGED)
    )
    optimizer = torch.optim.Adam(network.parameters(), fitting.parameters["learning_rate"])
    batches = _batches(train, rng)
    judged = None if eval_rows is None else _some(eval_rows, rng)
    best, best_loss, best_round = None, np.inf, 0
    for number in range(1, min(fitting.rounds, MOST_ROUNDS) + 1):
        network.train()
        for _ in range(ROUND_STEPS):
            rows = next(batches)
            optimizer.zero_grad()
            loss = _loss(network, rows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            averaged.update_parameters(network)
        if judged is None:
            continue
        with torch.no_grad():
            averaged.eval()
            loss = float(np.average([float(_loss(averaged, part)) for part in _parts(judged)], weights=_sizes(judged)))
        if loss < best_loss:
            best, best_loss, best_round = _file(averaged.module, fitting), loss, number
        elif number - best_round >= min(fitting.patience, MOST_PATIENCE):
            break
    if judged is None:
        return _file(averaged.module, fitting), number
    return best, best_round


class _Network(torch.nn.Module):
    def __init__(self, fitting: Fitting, train: FitRows):
        super().__init__()
        width, hidden = int(fitting.parameters["width"]), int(fitting.parameters["hidden"])
        self.dropout = fitting.parameters["dropout"]
        self.embedding = torch.nn.Embedding(EMBEDDINGS, width)
        torch.nn.init.normal_(self.embedding.weight, std=0.3)
        self.gru = torch.nn.GRU(width + 1, hidden, batch_first=True)
        with torch.no_grad():  # the input of a missing event, whose gradient is 0 from then on
            self.gru.weight_ih_l0[:, width] = 0
            self.gru.weight_ih_l0[hidden : 2 * hidden, width] = _KEEP_STATE
        self.output = torch.nn.Linear(hidden, 1)
        rate = float(np.clip(np.average(train.labels, weights=train.weight), 1e-6, 1 - 1e-6))
        torch.nn.init.constant_(self.output.bias, float(np.log(rate / (1 - rate))))

    def forward(self, codes: np.ndarray) -> torch.Tensor:
        """Logits float32[n] of event codes float32[n, events]."""
        missing = np.isnan(codes)
        places = torch.from_numpy(fields_of(np.where(missing, 0, codes).astype(np.int64)) + OFFSETS)
        events = dropout(self.embedding(places).sum(2), self.dropout, self.training)
        marks = torch.from_numpy(missing[:, :, None].astype(np.float32))
        _, state = self.gru(torch.cat([events, marks], 2))
        return self.output(dropout(state[0], self.dropout, self.training))[:, 0]


def _batches(train: FitRows, rng: np.random.Generator) -> Iterator[FitRows]:
    """Endless batches; each row comes once before any comes again."""
    weight = train.weight / train.weight.mean()
    while True:
        order = rng.permutation(len(train.labels))
        for start in range(0, len(order), BATCH_ROWS):
            rows = order[start : start + BATCH_ROWS]
            yield FitRows(train.features[rows], train.labels[rows], weight[rows])


def _some(rows: FitRows, rng: np.random.Generator) -> FitRows:
    chosen = rng.choice(len(rows.labels), min(EVAL_ROWS, len(rows.labels)), replace=False)
    return FitRows(rows.features[chosen], rows.labels[chosen], rows.weight[chosen])


def _parts(rows: FitRows) -> Iterator[FitRows]:
    for start in range(0, len(rows.labels), BATCH_ROWS):
        part = slice(start, start + BATCH_ROWS)
        yield FitRows(rows.features[part], rows.labels[part], rows.weight[part])


def _sizes(rows: FitRows) -> list[int]:
    return [len(part.labels) for part in _parts(rows)]


def _loss(network: torch.nn.Module, rows: FitRows) -> torch.Tensor:
    labels, weight = (torch.from_numpy(values.astype(np.float32)) for values in (rows.labels, rows.weight))
    return binary_cross_entropy_with_logits(network(rows.features), labels, weight)


def _file(network: _Network, fitting: Fitting) -> GruFile:
    """The weights as a bundle has them: PyTorch's gates are r, z and n."""
    width, hidden = network.embedding.embedding_dim, network.gru.hidden_size

    def content(tensor: torch.Tensor) -> bytes:
        return tensor.detach().numpy().astype("<f4").tobytes()

    def gates(tensor: torch.Tensor) -> torch.Tensor:
        r, z, n = tensor.detach().split(hidden)
        return torch.cat([z, r, n])

    return GruFile(
        format=1,
        fields=dict(FIELDS),
        events=len(fitting.names),
        width=width,
        hidden=hidden,
        embedding=content(network.embedding.weight),
        input_weights=content(gates(network.gru.weight_ih_l0)[:, :width]),
        input_bias=content(gates(network.gru.bias_ih_l0)),
        recurrent_weights=content(gates(network.gru.weight_hh_l0)),
        recurrent_bias=content(gates(network.gru.bias_hh_l0)),
        output_weights=content(network.output.weight[0]),
        output_bias=float(network.output.bias.detach()),
    )
