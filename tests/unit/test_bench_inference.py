"""The figures of the benchmark are there and make sense; how large they are is the machine's business."""

from jobs.bench_inference import BATCHES, SHADOW_BATCHES, inference_figures, inference_words
from jobs.bench_swap import swap_figures
from tests.unit.small_bundle import make_bundle
from training.examples import simulated_examples
from training.simulate import Simulation, simulate
from udfs.model import load_bundle


def test_each_engine_and_batch_size_has_a_figure_and_so_have_shadows(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path, "v1"), 64)
    figures = inference_figures(bundle, simulated_examples(simulate(Simulation(50, 6))), seconds=0.01)
    assert [*figures["us_per_row"]] == [str(size) for size in BATCHES]
    assert all(times.keys() == {"native", "onnx"} for times in figures["us_per_row"].values())
    assert all(taken > 0 for times in figures["us_per_row"].values() for taken in times.values())
    assert [*figures["shadows"]] == [str(size) for size in SHADOW_BATCHES]
    assert all(ratio > 0 for cost in figures["shadows"].values() for ratio in cost.values())
    assert len(inference_words(figures)) == len(BATCHES) + len(SHADOW_BATCHES)


def test_a_swap_is_measured_until_the_other_model_serves(tmp_path):
    examples = simulated_examples(simulate(Simulation(50, 6)))
    figures = swap_figures(make_bundle(tmp_path, "v1"), examples, 20, tmp_path / "registry")
    assert 0 < figures["median_ms"] <= figures["longest_before_ms"]
    assert figures["seconds_to_swap"] > 0
