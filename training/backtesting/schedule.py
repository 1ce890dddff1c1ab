"""The retraining schedule of a backtest: a model for each boundary, trained on what was known then.

A row counts as known once its horizon has passed. Rows dated later are not read: they change neither the model nor the
share of negatives that is kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from training.backtesting.replay import DecisionPolicy, ReplayWindow, Tenure
from training.bundles.trainer import TrainedModel, train_model
from training.data.downsampling import share_that_fits
from training.data.examples import load_examples, saved_field
from training.data.split import SplitError
from training.modeling.settings import Training
from udfs.measurement.labels import Label
from udfs.models.backends import native_predict
from udfs.models.bundle import find_model_file

RETRAINED = "retrained"


@dataclass(frozen=True)
class ScheduledTraining:
    """What a training of the schedule gave."""

    at_ms: int
    events: int  # whose labels were mature then
    positives: int
    version: str | None  # of the model that serves from then on; None: the one before goes on, if there is one
    why: str = ""  # there is no new model


def boundaries(window: ReplayWindow, every_ms: int) -> list[int]:
    """The times at which a model is trained, in ms: the beginning of the stretch, and every so often after it.

    >>> boundaries(ReplayWindow(from_ms=0, to_ms=10, known_ms=10, horizon_ms=1), every_ms=4)
    [0, 4, 8]
    """
    return list(range(window.from_ms, window.to_ms, every_ms))


def retrained(
    directories: Sequence[Path],
    window: ReplayWindow,
    every_ms: int,
    training: Training,
    label: Label,
    progress: Callable[[int, int, int], None] = lambda *_: None,
) -> tuple[DecisionPolicy, list[ScheduledTraining]]:
    """The policy that retrains, and its trainings; the examples in the directories have all features of the settings.

    `progress` is called with the trainings done, those in total, and the events of the last one.
    """
    tenures: list[Tenure] = []
    trainings: list[ScheduledTraining] = []
    times = boundaries(window, every_ms)
    for done, at_ms in enumerate(times, 1):
        until_ms = at_ms - label.horizon_ms
        events, positives = _count(directories, until_ms)
        try:
            model = train_until(directories, until_ms, events, positives, training, label)
        except SplitError as error:
            trainings.append(ScheduledTraining(at_ms, events, positives, None, str(error)))
        else:
            tenures.append(_tenure(at_ms, model, training.threads))
            trainings.append(ScheduledTraining(at_ms, events, positives, model.manifest.version))
        progress(done, len(times), events)
    return DecisionPolicy(RETRAINED, "retrained", tuple(tenures)), trainings


def train_until(
    directories: Sequence[Path], until_ms: int, events: int, positives: int, training: Training, label: Label
) -> TrainedModel:
    """Train on the rows up to a time, of which there are so many. Raises SplitError for too few, or one class."""
    if positives in (0, events):
        raise SplitError(f"{positives} of {events} events with a mature label are positive: both classes are needed")
    share = share_that_fits(events, positives, training.negative_share, training.max_rows)
    examples = load_examples(list(directories), share, training.seed, until_ms)
    # Comparisons are of no use here, and take as long as the training.
    return train_model(examples, replace(training, compare=(), rule=None), label)


def _count(directories: Sequence[Path], until_ms: int) -> tuple[int, int]:
    """The number of rows up to a time, and of the positives among them."""
    events = positives = 0
    for directory in directories:
        known = saved_field(directory, "time_ms") <= until_ms
        events += int(known.sum())
        positives += int(np.count_nonzero(saved_field(directory, "labels") & known))
    return events, positives


def _tenure(at_ms: int, model: TrainedModel, threads: int) -> Tenure:
    predict = native_predict(find_model_file(model.files), model.model, threads)
    return Tenure(at_ms, model.manifest.features, predict)
