"""Train a model on clicks and write it as a bundle: `python -m training.train --simulate --out models/first`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np
import xgboost

from training.bundle import check_version, describe_model, refuse_existing, write_bundle
from training.dataset import (
    NO_UPDATES,
    Clicks,
    Dataset,
    ProfileUpdates,
    arrange,
    read_clicks,
    read_lines,
    read_profiles,
)
from training.labels import HORIZON_MS, eligible, purchase_within, roc_auc
from training.simulate import Clickstream, Simulation, simulate
from udfs.features import FEATURE_NAMES, FeatureComputer
from udfs.model import OBJECTIVE, Manifest, TrainingWindow

LABEL = f"a purchase by the same user within {HORIZON_MS // 60_000} minutes after the event"

#: With fewer buyers among the test users, chance moves the test AUC by several hundredths.
RELIABLE_USERS = 50

#: Shares of users, by name of the part.
PARTS = {"training": 0.7, "validation": 0.15, "test": 0.15}


class TrainingError(ValueError):
    """Data that no model can be trained on. The message is one line and says what to do."""


@dataclass(frozen=True)
class Training:
    """How to train. Equal settings and data give equal models, byte for byte.

    Raises ValueError when a value is out of range.
    """

    features: Sequence[str] = FEATURE_NAMES
    history_length: int = 64
    rounds: int = 300  # at most; fewer when the validation users stop gaining
    patience: int = 30  # rounds without gain before that
    max_depth: int = 4
    learning_rate: float = 0.1
    seed: int = 1
    threads: int = 2

    def __post_init__(self):
        for name in ("rounds", "patience", "max_depth", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: want at least 1")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate is {self.learning_rate}: want a number above 0, at most 1")


@dataclass(frozen=True)
class TrainedModel:
    """What `write_bundle` writes."""

    manifest: Manifest
    model: bytes


def train_model(
    clicks: Clicks,
    updates: ProfileUpdates = NO_UPDATES,
    training: Training = Training(),
    propensity: np.ndarray | None = None,
    version: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> TrainedModel:
    """Train on some users, stop early by others, test on the rest.

    `propensity` float64 is the true chance of the label for each payload that `clicks` was read from, where it is
    known; then the metrics hold the best AUC that was possible. `report` is told of progress, a line at a time.
    Raises TrainingError when a part lacks positive or negative labels, or no label has matured.
    """
    if not len(clicks.records):
        raise TrainingError(f"no click to train on: {clicks.rejected.total()} records read were all rejected")
    data = arrange(clicks, updates, training.history_length)
    rows, labels = _label(data)
    parts = _split(data, rows, labels, training.seed)
    for name, part in parts.items():
        report(
            f"{name}: {len(part)} events, {labels[part].mean():.2%} positive, of {_buyers(data, part, labels)} users"
        )

    computer = FeatureComputer(training.features, training.history_length)
    matrices = {name: data.features(computer, part) for name, part in parts.items()}
    report(f"computed {len(training.features)} features")
    booster = _boost(matrices, {name: labels[part] for name, part in parts.items()}, training, report)

    test = parts["test"]
    metrics = {
        "test_auc": roc_auc(labels[test], booster.inplace_predict(matrices["test"], missing=np.nan)),
        "test_events": len(test),
        "test_positive_share": float(labels[test].mean()),
        "test_positive_users": _buyers(data, test, labels),
        "training_events": len(parts["training"]),
        "rounds": booster.num_boosted_rounds(),
    }
    if propensity is not None:
        metrics["best_possible_test_auc"] = roc_auc(labels[test], propensity[data.positions[test]])
    model = bytes(booster.save_raw("ubj"))
    window = _window(data.records["time_ms"][parts["training"]])
    manifest = describe_model(model, training.features, training.history_length, LABEL, window, metrics, version)
    return TrainedModel(manifest, model)


def _label(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which rows to use, int64[k], and the labels of all, bool[n]."""
    kind, time_ms = data.records["kind"], data.records["time_ms"]
    labels, matured = purchase_within(data.user, time_ms, kind)
    rows = np.flatnonzero(eligible(kind, matured))
    if not rows.size:
        minutes = (time_ms.max() - time_ms.min()) / 60_000
        raise TrainingError(
            f"the clicks span {minutes:.0f} minutes, no label is known before {HORIZON_MS // 60_000}: use more hours"
        )
    return rows, labels


def _buyers(data: Dataset, rows: np.ndarray, labels: np.ndarray) -> int:
    """How many users have a positive label: what an AUC's accuracy depends on, more than the number of events."""
    return len(np.unique(data.user[rows][labels[rows]]))


def split_users(user_ids: Sequence[str], seed: int) -> np.ndarray:
    """Which of PARTS each user is in, int64[users]: always the same one for a seed, whoever else is in the data."""
    # Not a CRC, of which the job samples users: CRCs of an id with different prefixes depend on each other.
    digests = b"".join(blake2b(f"{seed} {user_id}".encode(), digest_size=4).digest() for user_id in user_ids)
    place = np.frombuffer(digests, "<u4") / 2**32
    return np.searchsorted(np.cumsum(list(PARTS.values()))[:-1], place, side="right")


def _split(data: Dataset, rows: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Rows by part, all of a user in one of them."""
    part = split_users(data.user_ids, seed)[data.user[rows]]
    parts = {name: rows[part == number] for number, name in enumerate(PARTS)}
    for name, chosen in parts.items():
        positives = int(labels[chosen].sum())
        if positives in (0, len(chosen)):
            users = len(np.unique(data.user[chosen]))
            raise TrainingError(
                f"the {name} part has {positives} positive labels among {len(chosen)} events of {users} users: "
                "both classes are needed, use more users or more hours"
            )
    return parts


def _boost(matrices: dict, labels: dict, training: Training, report: Callable[[str], None]) -> xgboost.Booster:
    names, threads = list(training.features), training.threads
    fit = xgboost.QuantileDMatrix(
        matrices["training"], labels["training"], feature_names=names, missing=np.nan, nthread=threads
    )
    held_out = xgboost.QuantileDMatrix(
        matrices["validation"], labels["validation"], feature_names=names, missing=np.nan, nthread=threads, ref=fit
    )
    parameters = {
        "objective": OBJECTIVE,
        "eval_metric": ["auc", "logloss"],
        "tree_method": "hist",
        "max_depth": training.max_depth,
        "learning_rate": training.learning_rate,
        # A session's events are much alike: fewer independent observations than rows, so hold back.
        "subsample": 0.8,
        "colsample_bytree": 0.5,
        "min_child_weight": 20,
        "reg_lambda": 5,
        "seed": training.seed,
        "nthread": threads,
    }
    booster = xgboost.train(
        parameters,
        fit,
        training.rounds,
        evals=[(held_out, "validation")],
        early_stopping_rounds=training.patience,
        verbose_eval=False,
        callbacks=[_Progress(report)],
    )
    return booster[: booster.best_iteration + 1]


class _Progress(xgboost.callback.TrainingCallback):
    """Reports every so many rounds."""

    def __init__(self, report: Callable[[str], None], every: int = 25):
        self._report = report
        self._every = every

    def after_iteration(self, model: xgboost.Booster, epoch: int, evals_log: dict) -> bool:
        if epoch % self._every == 0:
            scores = {name: values[-1] for name, values in evals_log["validation"].items()}
            self._report(f"round {epoch}: validation AUC {scores['auc']:.4f}, log loss {scores['logloss']:.4f}")
        return False


def _window(time_ms: np.ndarray) -> TrainingWindow:
    start, end = (datetime.fromtimestamp(int(time) / 1000, UTC) for time in (time_ms.min(), time_ms.max()))
    return TrainingWindow(start, end)


def simulated_data(stream: Clickstream) -> tuple[Clicks, ProfileUpdates]:
    """A simulated stream by way of the bytes that Kafka would carry; every record is accepted."""
    clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
    return clicks, read_profiles(map(msgspec.json.encode, stream.profiles))


def main(arguments: list[str] | None = None) -> int:
    """Train a model of purchase intent and write it as a bundle."""
    options = _parser().parse_args(arguments)
    try:
        refuse_existing(options.out)
        check_version(options.version)
        training = Training(**{name: getattr(options, name) for name in _SETTINGS})
        clicks, updates, propensity = _read_data(options)
        print(f"{len(clicks.records)} clicks of {len(clicks.user_ids)} users, {len(updates.profiles)} profile updates")
        trained = train_model(clicks, updates, training, propensity, options.version, report=print)
        write_bundle(options.out, trained.manifest, trained.model)
    except (ValueError, OSError, EOFError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    print(summary(trained.manifest))
    print(f"wrote {options.out}")
    return 0


def summary(manifest: Manifest) -> str:
    """What came of a training, a few lines."""
    metrics = manifest.metrics
    best = metrics.get("best_possible_test_auc")
    is_rough = metrics["test_positive_users"] < RELIABLE_USERS
    return "\n".join(
        [
            f"model {manifest.version}: {metrics['rounds']:.0f} trees, {len(manifest.features)} features",
            f"test AUC {metrics['test_auc']:.4f}" + (f", best possible {best:.4f}" if best is not None else ""),
            f"test events {metrics['test_events']:.0f}, {metrics['test_positive_share']:.2%} positive, "
            f"of {metrics['test_positive_users']:.0f} users" + (": too few for a reliable AUC" if is_rough else ""),
        ]
    )


def _read_data(options: argparse.Namespace) -> tuple[Clicks, ProfileUpdates, np.ndarray | None]:
    """Clicks, profile updates and, where it is known, the true propensity."""
    if options.simulate:
        stream = simulate(Simulation(options.users, options.hours, options.data_seed))
        return *simulated_data(stream), stream.propensity
    clicks = _read("clicks", read_clicks, options.clicks)
    return clicks, _read("profiles", read_profiles, options.profiles) if options.profiles else NO_UPDATES, None


def _read(what: str, reader: Callable, path: Path):
    """Read a file and tell of the records that were not accepted."""
    data = reader(read_lines(path))
    if data.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in data.rejected.most_common())
        print(f"train: {path}: {data.rejected.total()} {what} rejected, as the job would: {reasons}", file=sys.stderr)
    elif not len(data.user_ids):
        raise TrainingError(f"{path}: no {what} in it, want a JSON object on each line")
    return data


_SETTINGS = ("history_length", "rounds", "max_depth", "learning_rate", "seed", "threads")


def _parser() -> argparse.ArgumentParser:
    training, simulation = Training(), Simulation()
    parser = argparse.ArgumentParser(prog="python -m training.train", description=main.__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--simulate", action="store_true", help="train on a simulated shop")
    source.add_argument("--clicks", type=Path, help="JSON Lines in order of arrival, plain or .gz")
    parser.add_argument("--profiles", type=Path, help="JSON Lines; `updated_at` (ms) says since when one holds")
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory, which must not exist yet")
    parser.add_argument("--version", help="of the model; by default the time and its hash")
    parser.add_argument("--users", type=int, default=simulation.users, help="to simulate")
    parser.add_argument("--hours", type=float, default=simulation.hours, help="to simulate")
    parser.add_argument("--data-seed", type=int, default=simulation.seed, help="of the simulation")
    parser.add_argument("--history-length", type=int, default=training.history_length, help="as the job has it")
    parser.add_argument("--rounds", type=int, default=training.rounds, help="at most")
    parser.add_argument("--max-depth", type=int, default=training.max_depth)
    parser.add_argument("--learning-rate", type=float, default=training.learning_rate)
    parser.add_argument("--seed", type=int, default=training.seed, help="of the split and of the training")
    parser.add_argument("--threads", type=int, default=training.threads)
    return parser


if __name__ == "__main__":
    sys.exit(main())
