"""Cost of a prediction by engine and batch size, of shadows, and of a hot swap, in this process."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median

import msgspec
import numpy as np

from tools.bench.context import BenchContext
from tools.bench.hot_swap import batch_scorer, swap_figures, swap_words
from tools.console import note, step
from training.data.examples import Examples
from training.rollout.transitions import add_shadow, first
from udfs.models.backends import SIZES, measure_break_even
from udfs.models.bundle import Bundle, load_bundle
from udfs.serving.deployment import Deployment, LoadedModel, Options, load_model

BATCHES = (1, 8, 64, 512)
SHADOW_BATCHES = (64, 5_000)
SECONDS = 0.5  # of each comparison, at least
PAIRS = 7
SWAP_ROWS = 1_000  # of a batch


def measure(context: BenchContext) -> dict:
    """The figures of engines, shadows and a swap."""
    model = context.model
    step("Inference engines by batch size, and shadows")
    figures = inference_figures(load_bundle(model.bundle, 64), model.examples)
    for words in inference_words(figures).items():
        note(": ".join(words))
    step("Hot swap at full load")
    figures["swap"] = swap_figures(context.registry, model.examples, SWAP_ROWS)
    note(swap_words(figures["swap"]))
    return figures


def rows(figures: dict) -> list[tuple[str, str]]:
    """The rows of a table: measurement and result."""
    native_from = figures["native_from"]
    smallest = f"{native_from:,} rows" if native_from <= SIZES[-1] else f"none up to {SIZES[-1]:,} rows"
    break_even = ("smallest batch for which the native engine is faster", smallest)
    return [*inference_words(figures).items(), break_even, ("hot swap", swap_words(figures["swap"]))]


def inference_figures(bundle: Bundle, examples: Examples, seconds: float = SECONDS) -> dict:
    """Microseconds per row by engine and batch size, the break-even batch size, and the relative cost of shadows.

    The break-even is the batch size from which the native engine is faster; the cost of one and of two shadows is the
    time of a batch as a multiple of that without. Variants are run in turn, and each figure is the median of its turns.
    The bundle must have an export.
    """
    models = {engine: load_model(bundle, Options(engine=engine)) for engine in ("native", "onnx")}
    engines = {engine: model.predict for engine, model in models.items()}
    rows = np.ascontiguousarray(np.resize(bundle.warm_up.features, (max(BATCHES), len(bundle.manifest.features))))
    us_per_row = {}
    for size in BATCHES:
        calls = {engine: partial(predict, rows[:size]) for engine, predict in engines.items()}
        times = _times(calls, seconds)
        us_per_row[str(size)] = {engine: round(taken / size * 1e6, 2) for engine, taken in times.items()}
    return {
        "us_per_row": us_per_row,
        "native_from": measure_break_even(engines["onnx"], engines["native"], rows),
        "shadows": {str(size): _shadow_cost(bundle, examples, size, seconds) for size in SHADOW_BATCHES},
    }


def inference_words(figures: dict) -> dict[str, str]:
    """The measurements of engines and shadows, and their results in words."""
    words = {
        f"prediction, batch of {size}": ", ".join(f"{engine} {taken} µs per row" for engine, taken in times.items())
        for size, times in figures["us_per_row"].items()
    }
    for size, cost in figures["shadows"].items():
        words[f"batch of {size} with shadows, time relative to none"] = ", ".join(
            f"{name} {ratio}x" for name, ratio in cost.items()
        )
    return words


def _shadow_cost(bundle: Bundle, examples: Examples, rows: int, seconds: float) -> dict[str, float]:
    """Time of a batch with shadows, as a multiple of that without; the batch always waits for their scores."""
    options = Options(shadow_budget_s=60.0)
    model = load_model(bundle, options)
    version = bundle.manifest.version
    one_shadow = add_shadow(first(version), f"{version}-a")
    rollouts = {"none": first(version), "one": one_shadow, "two": add_shadow(one_shadow, f"{version}-b")}
    deployments = {
        name: Deployment(rollout, {known: _named(model, known) for known in rollout.versions}, options)
        for name, rollout in rollouts.items()
    }
    score = batch_scorer(examples, rows)
    try:
        calls = {name: partial(score, serving) for name, serving in deployments.items()}
        times = _times(calls, seconds)
    finally:
        for serving in deployments.values():
            serving.close()
    return {name: round(times[name] / times["none"], 2) for name in ("one", "two")}


def _named(model: LoadedModel, version: str) -> LoadedModel:
    return replace(model, manifest=msgspec.structs.replace(model.manifest, version=version))


def _times(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Seconds of each call: medians over turns, in each of which every call is repeated as often."""
    repeats = max(1, int(seconds / PAIRS / sum(_seconds(call, 1) for call in calls.values())))
    turns = [{name: _seconds(call, repeats) for name, call in calls.items()} for _ in range(PAIRS)]
    return {name: median(turn[name] for turn in turns) for name in calls}


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats
