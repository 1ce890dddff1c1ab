"""What the drift page shows of the topic and of a bundle's reference."""

import msgspec
import pytest

from dashboard.panels.drift import MAX_VERSIONS, WINDOWS, DriftPanel
from dashboard.panels.models import ModelPanel
from tests.support.bundles import make_bundle
from tests.support.own_features import declared
from tests.support.sample_records import feature_drift, sample
from tests.unit.udfs.measurement.test_drift import distribution
from training.promote import main as promote
from udfs.contracts.profiles import country_code
from udfs.features.declaration_file import to_json
from udfs.measurement.drift import REFERENCE_FILE, Distribution, Reference
from udfs.models.bundle import FEATURES_FILE


def test_a_feature_that_is_not_watched_is_told_with_the_reason():
    panel = DriftPanel()
    scarce = msgspec.structs.replace(feature_drift("b"), unwatched="window_rows")
    panel.add(sample("drift", model_version="v1", features=[feature_drift("a"), scarce]))
    told = {feature["name"]: feature["unwatched"] for feature in panel.summary()["features"]}
    assert told == {"a": None, "b": "window_rows"}


def test_the_versions_with_the_newest_windows_are_kept_in_whichever_order_records_arrive():
    ends = {f"v{number}": 60_000 * number for number in range(1, MAX_VERSIONS + 3)}
    for order in (list(ends), list(ends)[::-1], list(ends)[3:] + list(ends)[:3]):
        panel = DriftPanel()
        for version in order:
            panel.add(sample("drift", model_version=version, window_end=ends[version]))
        assert panel.versions() == list(ends)[:1:-1]


def test_the_newest_windows_are_kept_in_whichever_order_records_arrive():
    ends = [60_000 * number for number in range(1, WINDOWS + 2)]
    for order in (ends, ends[::-1]):
        panel = DriftPanel()
        for end in order:
            panel.add(sample("drift", model_version="v1", window_end=end))
        assert panel.summary("v1")["times"] == ends[1:]


@pytest.mark.parametrize(
    ("known", "bins"),
    [
        (distribution([0.2, 0.3, 0.5], edges=[0.5, 1_234.5]), ["below 0.5", "0.5 to 1234", "1234 or more"]),
        (distribution([1.0], edges=[]), ["all values"]),
        (distribution([1.0], values=[2.0]), ["2"]),
        (distribution([0.6, 0.3, 0.1], values=[1.0, 7.0], rare=[2.0, 3.0]), ["1", "7", "rare values"]),
    ],
)
def test_the_bins_of_a_feature_are_told_in_words(tmp_path, known: Distribution, bins):
    (tmp_path / REFERENCE_FILE).write_bytes(msgspec.json.encode(Reference({"a": known}, known)))
    assert ModelPanel(None, tmp_path).bins("v1", "a") == bins


CODES = {
    "page_type": {1: "home", 4: "product"},
    "event_kind": {9: "purchase", 100: "quiz_completed"},
    "plan": {1: "free", 2: "pro"},
    "device": {1: "desktop", 2: "mobile"},
    "country": {0: "unknown", country_code("DE"): "DE"},
    "profile_known": {0: "0", 1: "1"},
}


@pytest.mark.parametrize("has_registry", [False, True])
def test_the_bins_of_codes_have_the_names_that_the_features_give_them(tmp_path, has_registry):
    shares = [0.6, 0.3, 0.1]
    known = {name: distribution(shares, values=[*map(float, codes)], rare=[9.0, 8.0]) for name, codes in CODES.items()}
    score = distribution([1.0], values=[2.0])
    content = msgspec.json.encode(Reference(known, score))
    changes = {REFERENCE_FILE: content, FEATURES_FILE: to_json(declared(tmp_path))}
    bundle = make_bundle(tmp_path, "v1", changes=changes)
    uri = str(tmp_path / "registry") if has_registry else None
    if has_registry:
        assert promote(["stage", str(bundle), "--registry", uri]) == 0
    models = ModelPanel(uri, bundle)
    for name, codes in CODES.items():
        assert models.bins("v1", name) == [*codes.values(), "rare values"]
    assert models.bins("v1", "score") == ["2"]
    assert models.bins("v1", "another") is None


def test_the_bins_of_a_reference_of_an_earlier_release_are_told(tmp_path):
    old = {"edges": [1.0], "shares": [0.4, 0.6], "missing": 0.0, "design_effect": 2.0, "values": [0.0, 2.0, 3.0]}
    (tmp_path / REFERENCE_FILE).write_bytes(msgspec.json.encode({"features": {"a": old}, "score": old}))
    assert ModelPanel(None, tmp_path).bins("v1", "a") == ["below 1", "1 or more"]
