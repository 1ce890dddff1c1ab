"""Models with different declarations, compared on the same rows."""

from tests.support.own_features import declared, own_bundle
from training.retraining.gates import compare_models
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.features.declaration import merged
from udfs.models.bundle import load_bundle

CHAMPIONS = """
features:
  own:
    events: {value: "1 / count(over=30m)", unit: events, doc: events}
    carts: {value: "count(kind == add_to_cart)", unit: events, doc: carts}
"""
#: The same name for something else, and a kind that changes what `kind` means.
CANDIDATES = CHAMPIONS.replace("1 / count(over=30m)", "1 - 1 / count(over=30m)") + "kinds: {quiz_completed: 100}"


def test_a_champion_is_compared_on_what_its_own_features_are(tmp_path):
    declarations = {"champion": declared(tmp_path, CHAMPIONS), "candidate": declared(tmp_path, CANDIDATES)}
    bundles = {
        version: load_bundle(own_bundle(tmp_path, version, declaration, ("events", "carts")), 64)
        for version, declaration in declarations.items()
    }
    stream = simulate(Simulation(users=300, seed=1))
    both = merged(declarations["candidate"], [declarations["champion"]])[0]
    together = compare_models(simulated_examples(stream, declaration=both), bundles["candidate"], bundles["champion"])
    alone = {
        version: compare_models(simulated_examples(stream, declaration=declarations[version]), bundle, bundle).candidate
        for version, bundle in bundles.items()
    }
    assert together.champion == alone["champion"]
    assert together.candidate == alone["candidate"]
    assert together.champion.value != together.candidate.value
