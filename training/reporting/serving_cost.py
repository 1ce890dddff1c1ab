"""The serving cost per event with and without pruning, as a model with fewer features can need more trees; and with a
sequence model beside the others.

The cost is measured on this machine at this moment, so it is printed and not written to any file.
"""

from collections.abc import Callable
from time import perf_counter

import numpy as np

from training.bundles.trainer import TrainedModel
from training.data.examples import Examples
from training.modeling.family import ServedModel
from training.modeling.onnx_export import export
from udfs.contracts.profiles import NO_PROFILE, PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import from_json
from udfs.models.backends import OnnxScorer, Predict, in_blocks, native_predict
from udfs.models.bundle import FEATURES_FILE, GRU_FILE, find_model_file

BATCH_ROWS, BATCHES = 500, 40


def saving(trained: TrainedModel) -> str | None:
    """The cost per event with the kept features and with all features, in one line; None if all are kept.

    Measured in batches of rows of the holdout, on one thread as in the job.
    """
    if trained.unpruned is None:
        return None
    manifest, whole, holdout = trained.manifest, trained.unpruned, trained.evaluation.holdout
    declaration = from_json(trained.files[FEATURES_FILE], FEATURES_FILE)
    kept = native_predict(find_model_file(trained.files), trained.model)
    models = [
        ("the kept features", manifest.features, trained.evaluation.rounds, kept),
        ("all features", whole.names, whole.rounds, native_predict(whole.file, whole.content())),
    ]
    servers = [
        _server(FeatureComputer(names, manifest.history_length, declaration), predict, holdout)
        for _, names, _, predict in models
    ]
    costs = [
        f"{features:.1f} µs for features and {prediction:.1f} µs for prediction with {kind} "
        f"({len(names)} features{f', {rounds} trees' if rounds else ''})"
        for (kind, names, rounds, _), (features, prediction) in zip(models, _costs_us(servers, len(holdout)))
    ]
    return f"cost per event: {', '.join(costs)}; measured in batches of {BATCH_ROWS} on one thread of this machine"


def costs(trained: TrainedModel) -> str | None:
    """The cost per event of each family that was chosen among, in one line; None unless one is a sequence model.

    Trees and regressions have all features here, and a sequence model is the export that serves.
    """
    if all(model.file != GRU_FILE for model in trained.tried.values()):
        return None
    manifest, holdout = trained.manifest, trained.evaluation.holdout
    declaration = from_json(trained.files[FEATURES_FILE], FEATURES_FILE)
    servers = [
        _server(FeatureComputer(model.names, manifest.history_length, declaration), _served_predict(model), holdout)
        for model in trained.tried.values()
    ]
    measured = [
        f"{features:.1f} µs for features and {prediction:.1f} µs for prediction with {family}"
        for family, (features, prediction) in zip(trained.tried, _costs_us(servers, len(holdout)))
    ]
    return f"cost per event: {', '.join(measured)}; measured in batches of {BATCH_ROWS} on one thread of this machine"


def _served_predict(model: ServedModel) -> Predict:
    if model.file == GRU_FILE:
        return in_blocks(OnnxScorer(export(model.file, model.content(), len(model.names))).predict)
    return native_predict(model.file, model.content())


def _server(
    computer: FeatureComputer, predict: Callable[[np.ndarray], np.ndarray], examples: Examples
) -> Callable[[np.ndarray], list[float]]:
    """Make a function that scores rows as the job does and returns the times of start, features and scores in seconds.

    Lifetime and profile are not in the examples; their values do not affect the cost.
    """
    profiles = np.frombuffer(NO_PROFILE * BATCH_ROWS, PROFILE)

    def serve(rows: np.ndarray) -> list[float]:
        starts, ends = examples.starts[rows], examples.ends[rows]
        first_seen_ms = examples.events["time_ms"][starts]
        times = [perf_counter()]
        features = computer.compute(examples.events, starts, ends, ends - starts, first_seen_ms, profiles)
        times.append(perf_counter())
        predict(features)
        return [*times, perf_counter()]

    return serve


def _costs_us(servers: list[Callable[[np.ndarray], list[float]]], rows: int) -> np.ndarray:
    """Microseconds per row for features and for prediction, float64[servers, 2]: the median of the batches.

    Servers take turns, so that a busy machine slows them alike, and the order changes: the first one of a batch finds
    its histories outside the processor's caches.
    """
    rng = np.random.default_rng(1)
    taken_s = np.empty((BATCHES, len(servers), 2))
    for number in range(BATCHES):
        batch = rng.integers(0, rows, BATCH_ROWS)
        for at in sorted(range(len(servers)), reverse=number % 2 == 1):
            taken_s[number, at] = np.diff(servers[at](batch))
    return np.median(taken_s, axis=0) / BATCH_ROWS * 1e6
