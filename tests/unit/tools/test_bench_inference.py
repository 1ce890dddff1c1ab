"""The figures of the benchmark are there and make sense; how large they are is the machine's business."""

from tests.support.bundles import make_bundle
from tools.bench import hot_swap, inference
from tools.bench.hot_swap import swap_figures, two_models
from tools.bench.inference import BATCHES, SHADOW_BATCHES, inference_figures
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.models.bundle import load_bundle


def test_each_engine_and_batch_size_has_a_figure_and_so_have_shadows(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path, "v1"), 64)
    figures = inference_figures(bundle, simulated_examples(simulate(Simulation(50, 6))), seconds=0.01)
    assert [*figures["us_per_row"]] == [str(size) for size in BATCHES]
    assert all(times.keys() == {"native", "onnx"} for times in figures["us_per_row"].values())
    assert all(taken > 0 for times in figures["us_per_row"].values() for taken in times.values())
    assert [*figures["shadows"]] == [str(size) for size in SHADOW_BATCHES]
    assert all(ratio > 0 for cost in figures["shadows"].values() for ratio in cost.values())
    swap = {"rows": 20, "longest_during_ms": 2.0, "longest_before_ms": 1.0}
    rows = inference.rows(figures | {"swap": swap})
    assert len(rows) == len(BATCHES) + len(SHADOW_BATCHES) + 2
    assert rows[-1][1] == "longest batch of 20 rows 2.0 ms during the swap, 1.0 ms before"


def test_a_swap_is_measured_until_the_other_model_serves_and_can_be_measured_again(tmp_path, monkeypatch):
    for name in ("POLL_SECONDS", "SECONDS_BEFORE", "SECONDS_AFTER"):
        monkeypatch.setattr(hot_swap, name, 0.02)
    examples = simulated_examples(simulate(Simulation(50, 6)))
    registry = two_models(make_bundle(tmp_path, "v1"), tmp_path / "registry")
    for _ in range(2):
        figures = swap_figures(registry, examples, 20)
        assert 0 < figures["median_ms"] <= figures["longest_before_ms"]
        assert figures["seconds_to_swap"] > 0
