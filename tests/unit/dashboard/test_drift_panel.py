"""What the drift page shows of the topic and of a bundle's reference."""

import msgspec
import pytest

from dashboard.panels.drift import DriftPanel
from dashboard.panels.models import ModelPanel
from tests.support.sample_records import feature_drift, sample
from tests.unit.udfs.measurement.test_drift import distribution
from udfs.measurement.drift import REFERENCE_FILE, Distribution, Reference


def test_a_feature_that_is_not_watched_is_told_with_the_reason():
    panel = DriftPanel()
    scarce = msgspec.structs.replace(feature_drift("b"), unwatched="window_rows")
    panel.add(sample("drift", model_version="v1", features=[feature_drift("a"), scarce]))
    told = {feature["name"]: feature["unwatched"] for feature in panel.summary()["features"]}
    assert told == {"a": None, "b": "window_rows"}


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
    assert ModelPanel(None, tmp_path).reference("v1", "a").bins == bins


def test_the_bins_of_a_reference_of_an_earlier_release_are_told(tmp_path):
    old = {"edges": [1.0], "shares": [0.4, 0.6], "missing": 0.0, "design_effect": 2.0, "values": [0.0, 2.0, 3.0]}
    (tmp_path / REFERENCE_FILE).write_bytes(msgspec.json.encode({"features": {"a": old}, "score": old}))
    assert ModelPanel(None, tmp_path).reference("v1", "a").bins == ["below 1", "1 or more"]
