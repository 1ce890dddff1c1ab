"""What candidate and champion are compared on: rows that neither was fitted to, with the features that each means."""

import dataclasses
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from tests.support.own_features import declared, own_bundle
from training.data.examples import Examples
from training.evaluation.champion import unseen_rows
from training.retraining.gates import FittedRowsError, compare_models
from training.simulation.clickstream import Clickstream, Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.features.declaration import merged
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import Bundle, TrainingWindow, load_bundle

CHAMPIONS = """
features:
  own:
    events: {value: "1 / count(over=30m)", unit: events, doc: events}
    carts: {value: "count(kind == add_to_cart)", unit: events, doc: carts}
"""
#: The same name for something else, and a kind that changes what `kind` means.
CANDIDATES = CHAMPIONS.replace("1 / count(over=30m)", "1 - 1 / count(over=30m)") + "kinds: {quiz_completed: 100}"


@cache
def shop() -> Clickstream:
    return simulate(Simulation(users=300, seed=1))


@pytest.mark.slow
def test_a_champion_is_compared_on_what_its_own_features_are(tmp_path):
    declarations = {"champion": declared(tmp_path, CHAMPIONS), "candidate": declared(tmp_path, CANDIDATES)}
    bundles = {
        version: load_bundle(own_bundle(tmp_path, version, declaration, ("events", "carts")), 64)
        for version, declaration in declarations.items()
    }
    both = merged(declarations["candidate"], [declarations["champion"]])[0]
    together = compare_models(simulated_examples(shop(), declaration=both), bundles["candidate"], bundles["champion"])
    alone = {
        version: compare_models(simulated_examples(shop(), declaration=declarations[version]), bundle, bundle).candidate
        for version, bundle in bundles.items()
    }
    assert together.champion == alone["champion"]
    assert together.candidate == alone["candidate"]
    assert together.champion.value != together.candidate.value


@cache
def shop_rows() -> Examples:
    return simulated_examples(shop())


def first_ms() -> int:
    return int(shop_rows().time_ms.min())


def last_ms() -> int:
    return int(shop_rows().time_ms.max())


def champion(end_ms: int) -> SimpleNamespace:
    end = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=end_ms)
    return SimpleNamespace(label=CONVERTED, training_window=TrainingWindow(end - timedelta(days=1), end))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_rows_that_the_champion_was_fitted_to_do_not_compare_it(share):
    end_ms = first_ms() + round(share * (last_ms() - first_ms()))
    unseen, champions = unseen_rows(shop_rows(), champion(end_ms), 2)
    rows = shop_rows().take(unseen)
    assert champions == 0
    assert rows.time_ms.min() > end_ms + CONVERTED.horizon_ms
    assert len(rows) == (shop_rows().time_ms > end_ms + CONVERTED.horizon_ms).sum()


def test_a_champion_of_an_older_time_is_compared_on_all_rows():
    rows, champions = unseen_rows(shop_rows(), champion(first_ms() - CONVERTED.horizon_ms - 1), 2)
    assert (len(rows), champions) == (len(shop_rows()), 0)


def test_where_too_few_rows_are_left_the_champion_has_the_advantage_and_the_gates_say_so(tmp_path):
    end_ms = last_ms() - 60_000
    rows, champions = unseen_rows(shop_rows(), champion(end_ms), 2)
    assert len(rows) == len(shop_rows())
    assert champions == (shop_rows().time_ms <= end_ms).sum() > 0
    declaration = declared(tmp_path, CHAMPIONS)
    bundle = load_bundle(own_bundle(tmp_path, "v1", declaration, ("events", "carts")), 64)
    mine = simulated_examples(shop(), declaration=declaration)
    told = str(compare_models(mine, bundle, ending(bundle, end_ms), positive_users=2))
    assert f"; {champions} of them are from the time that the champion was trained on, which favours it" in told
    assert "favours" not in str(compare_models(mine, bundle, bundle))
    few = compare_models(mine, bundle, ending(bundle, first_ms() + (last_ms() - first_ms()) // 2))
    assert few.rows < len(mine)
    assert few.champions == 0


def ending(bundle: Bundle, end_ms: int) -> Bundle:
    """The bundle, as if trained on events up to this time."""
    window = champion(end_ms).training_window
    return dataclasses.replace(bundle, manifest=replace(bundle.manifest, training_window=window))


def test_a_candidate_that_was_fitted_to_the_rows_is_not_compared_on_them(tmp_path):
    bundle = load_bundle(own_bundle(tmp_path, "v1", declared(tmp_path, CHAMPIONS), ("events", "carts")), 64)
    with pytest.raises(FittedRowsError, match="compare the model from before the refit"):
        compare_models(shop_rows(), ending(bundle, last_ms()), bundle)
