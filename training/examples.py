"""Labelled events with their features: what a model is trained on and evaluated by."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from training.dataset import Dataset
from training.labels import Label, label_events
from udfs.features import FeatureComputer
from udfs.history import EVENT

BLOCK_ROWS = 50_000


@dataclass(frozen=True)
class Examples:
    """n labelled events, by user and arrival, with the m events of their users' histories."""

    features: np.ndarray  # float32[n, k]
    labels: np.ndarray  # bool[n]
    weight: np.ndarray  # float32[n]: how many events a row stands for, above 1 where others like it were left out
    user: np.ndarray  # int64[n], index into user_ids
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
        """Only some rows; events and users stay."""
        whole = ("events", "user_ids")
        return Examples(
            **{
                field.name: getattr(self, field.name) if field.name in whole else getattr(self, field.name)[rows]
                for field in fields(self)
            }
        )


def make_examples(
    data: Dataset,
    label: Label,
    computer: FeatureComputer,
    partition: np.ndarray,
    offset: np.ndarray,
    data_end_ms: int | None = None,
    negative_share: float = 1.0,
    seed: int = 1,
) -> Examples:
    """Label the events of a dataset and compute the features of those to use.

    `partition` and `offset` int64[payloads] say where each payload came from. Of the negatives only a share is kept,
    by chance; each then weighs as much as those that it stands for, so that rates and probabilities stay right.
    """
    labels, usable = label_events(label, data.user, data.records, data_end_ms)
    drawn = np.random.default_rng(seed).random(len(labels)) < negative_share
    rows = np.flatnonzero(usable & (labels | drawn))
    matrix = np.empty((len(rows), len(computer.names)), np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        matrix[start : start + len(block)] = data.features(computer, block)
    return Examples(
        features=matrix,
        labels=labels[rows],
        weight=np.where(labels[rows], 1, 1 / negative_share).astype(np.float32),
        user=data.user[rows],
        time_ms=data.records["time_ms"][rows],
        partition=partition[data.positions[rows]],
        offset=offset[data.positions[rows]],
        starts=data.starts[rows],
        ends=data.ends[rows],
        events=data.records,
        user_ids=np.array(data.user_ids, str),
    )


def save_examples(examples: Examples, directory: Path) -> None:
    """One file a field, so that the features need not be loaded to look at the labels."""
    directory.mkdir(parents=True)
    for field in fields(Examples):
        np.save(directory / f"{field.name}.npy", getattr(examples, field.name))


def load_examples(directories: list[Path]) -> Examples:
    """The examples of several directories as one, of different users. Features are read straight into their place."""
    columns = {
        name: [np.load(directory / f"{name}.npy", mmap_mode="r") for directory in directories]
        for name in (field.name for field in fields(Examples))
    }
    if not directories:
        raise ValueError("no examples to load")
    joined = {name: np.concatenate(pieces) for name, pieces in columns.items() if name != "features"}
    sizes = [len(piece) for piece in columns["labels"]]
    joined["features"] = np.empty((sum(sizes), columns["features"][0].shape[1]), np.float32)
    row, users, events = 0, 0, 0
    for number, size in enumerate(sizes):
        block = slice(row, row + size)
        joined["features"][block] = columns["features"][number]
        joined["user"][block] += users
        joined["starts"][block] += events
        joined["ends"][block] += events
        row += size
        users += len(columns["user_ids"][number])
        events += len(columns["events"][number])
    joined["events"] = joined["events"].astype(EVENT, copy=False)
    return Examples(**joined)
