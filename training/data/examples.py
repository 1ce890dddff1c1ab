"""Labelled events with their features: what a model is trained on and evaluated by."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.data.dataset import Dataset
from training.data.downsampling import downsample_negatives
from udfs.features.computer import FeatureComputer
from udfs.measurement.labels import Label

BLOCK_ROWS = 50_000
LOGINS_FILE = "logins.npy"


@dataclass(frozen=True)
class Examples:
    """n labelled events, by user and arrival, with the m events of their users' histories."""

    names: tuple[str, ...]  # of the k features
    features: np.ndarray  # float32[n, k]
    labels: np.ndarray  # bool[n]
    weight: np.ndarray  # float32[n]: events that a row stands for, above 1 after negative downsampling
    user: np.ndarray  # int64[n], index into user_ids; ids that logins connect are one user, by one of them
    time_ms: np.ndarray  # int64[n]
    partition: np.ndarray  # int64[n], of the source
    offset: np.ndarray  # int64[n], of the source
    starts: np.ndarray  # int64[n]: a row's history is events[start:end], itself included
    ends: np.ndarray  # int64[n]
    events: np.ndarray  # EVENT[m]
    user_ids: np.ndarray  # str[users]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Examples":
        """Select rows; events and users stay."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ROW_FIELDS})


SHARED_FIELDS = ("events", "user_ids")
ROW_FIELDS = tuple(field.name for field in fields(Examples) if field.name not in ("names", *SHARED_FIELDS))


def make_examples(
    data: Dataset,
    label: Label,
    computer: FeatureComputer,
    partition: np.ndarray,
    offset: np.ndarray,
    data_end_ms: int | None = None,
    rows_from_ms: int = 0,
) -> Examples:
    """Label the events of a dataset and compute features; events before `rows_from_ms` are history only.

    `partition` and `offset` int64[payloads] are the source of each payload.
    """
    labels, usable = data.label(label, data_end_ms)
    rows = np.flatnonzero(usable & (data.records["time_ms"] >= rows_from_ms))
    matrix = np.empty((len(rows), len(computer.names)), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        matrix[start : start + len(block)] = data.features(computer, block)
    return examples_of(data, rows, labels[rows], computer.names, matrix, partition, offset)


def examples_of(
    data: Dataset,
    rows: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    features: np.ndarray,
    partition: np.ndarray,
    offset: np.ndarray,
) -> Examples:
    """The k chosen rows of a dataset, with labels bool[k] and features float32[k, names]."""
    return Examples(
        names=tuple(names),
        features=features,
        labels=labels,
        weight=np.ones(len(rows), np.float32),
        user=data.user[rows],
        time_ms=data.records["time_ms"][rows],
        partition=partition[data.positions[rows]],
        offset=offset[data.positions[rows]],
        starts=np.maximum(data.starts[rows], data.ends[rows] - data.history_length),
        ends=data.ends[rows],
        events=data.records,
        user_ids=np.array(data.user_ids, str),
    )


def save_examples(examples: Examples, directory: Path) -> None:
    """Write one file per field, so that labels can be read without the features."""
    directory.mkdir(parents=True)
    for field in fields(Examples):
        np.save(directory / f"{field.name}.npy", getattr(examples, field.name))


def saved_field(directory: Path, name: str) -> np.ndarray:
    """A field of the examples that `save_examples` wrote to a directory, read from disk where it is used."""
    return np.load(directory / f"{name}.npy", mmap_mode="r")


def save_logins(logins: set[tuple[str, str]], directory: Path) -> None:
    """Write pairs of ids that logins connect, for all examples in directories below this one."""
    np.save(directory / LOGINS_FILE, np.array(sorted(logins), str).reshape(-1, 2))


def load_examples(
    directories: list[Path], negative_share: float = 1.0, seed: int = 1, until_ms: int | None = None
) -> Examples:
    """Load examples of several directories, whose users differ, with a share of the negatives.

    With `until_ms`, only those with event times up to it; they do not depend on the later ones.
    See `downsample_negatives`. Only the kept rows are read, and their features are copied only once. Ids that logins
    connect become one user, so that no split has a visitor on one side and the user who logged in on the other.
    """
    if not directories:
        raise ValueError("no examples to load")
    numbered = enumerate(directories)
    pieces = [_Saved(directory, negative_share, seed + number, until_ms) for number, directory in numbered]
    joined = {name: np.concatenate([piece.whole(name) for piece in pieces]) for name in SHARED_FIELDS}
    plain = [name for name in ROW_FIELDS if name not in ("features", "weight")]
    joined |= {name: np.concatenate([piece.kept(name) for piece in pieces]) for name in plain}
    joined["names"] = tuple(pieces[0].whole("names").tolist())
    joined["weight"] = np.concatenate([piece.weight for piece in pieces])
    joined["features"] = np.empty((len(joined["labels"]), len(joined["names"])), np.float32)
    row, users, events = 0, 0, 0
    for piece in pieces:
        block = slice(row, row + len(piece.rows))
        joined["features"][block] = piece.kept("features")
        joined["user"][block] += users
        joined["starts"][block] += events
        joined["ends"][block] += events
        row = block.stop
        users += len(piece.whole("user_ids"))
        events += len(piece.whole("events"))
    logins = directories[0].parent / LOGINS_FILE
    if logins.exists():
        joined["user"] = first_of_connected(joined["user_ids"], np.load(logins))[joined["user"]]
    return Examples(**joined)


def first_of_connected(ids: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each of n ids the first one that pairs of ids connect it with, int64[n]; pairs of others are ignored."""
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, pairs, sorter=order), len(ids) - 1)
    index = order[place]
    index = index[(ids[index] == pairs).all(axis=1)]
    graph = coo_array((np.ones(len(index)), (index[:, 0], index[:, 1])), (len(ids), len(ids)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component]


class _Saved:
    """Saved examples in a directory, and the rows of them to keep."""

    def __init__(self, directory: Path, negative_share: float, seed: int, until_ms: int | None):
        self._directory = directory
        labels, weight = self.whole("labels"), self.whole("weight")
        rows = np.arange(len(labels)) if until_ms is None else np.flatnonzero(self.whole("time_ms") <= until_ms)
        kept, self.weight = downsample_negatives(labels[rows], weight[rows], negative_share, seed)
        self.rows = rows[kept]

    def whole(self, name: str) -> np.ndarray:
        return saved_field(self._directory, name)

    def kept(self, name: str) -> np.ndarray:
        return self.whole(name)[self.rows]
