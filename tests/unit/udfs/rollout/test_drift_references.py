"""References are found by the version that a score names; what can't be read is asked for again, but not at once."""

import json
import logging

import msgspec
import pytest

from tests.support.bundles import files_of, make_bundle
from tests.unit.udfs.measurement.test_drift import distribution, reference_of
from training.bundles.signing import write_new_key
from training.rollout.ledger import upload_bundle
from udfs.measurement.drift import REFERENCE_FILE, Reference
from udfs.models.bundle import BundleError, directory_files
from udfs.rollout.drift_references import References, decode_reference
from udfs.rollout.registry import Registry

REFERENCE = Reference({"a": distribution([0.5, 0.5])}, distribution([0.1, 0.9]))


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(str(tmp_path / "registry"))


def stage(registry: Registry, tmp_path, version: str, reference: bytes | None) -> None:
    directory = make_bundle(tmp_path / "made", version, changes={REFERENCE_FILE: reference})
    upload_bundle(registry, directory_files(directory))


def test_a_model_staged_while_the_job_runs_is_found_after_the_wait(registry, tmp_path, caplog):
    now = [0.0]
    references = References({}, registry.uri, retry_s=10.0, clock=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        assert references.find("v1") is None
    assert "v1" in caplog.text
    stage(registry, tmp_path, "v1", msgspec.json.encode(REFERENCE))
    assert references.find("v1") is None
    now[0] = 10.0
    assert references.find("v1") == REFERENCE


def test_a_version_is_read_once(registry, tmp_path):
    stage(registry, tmp_path, "v1", msgspec.json.encode(REFERENCE))
    references = References({}, registry.uri, retry_s=10.0)
    assert references.find("v1") == REFERENCE
    (tmp_path / "registry" / "bundles" / "v1" / REFERENCE_FILE).unlink()
    assert references.find("v1") == REFERENCE


def test_a_changed_reference_is_refused(registry, tmp_path):
    stage(registry, tmp_path, "v1", msgspec.json.encode(REFERENCE))
    (tmp_path / "registry" / "bundles" / "v1" / REFERENCE_FILE).write_bytes(b"{}")
    with pytest.raises(BundleError, match="reference.json: sha256 is"):
        References({}, registry.uri, 10.0).read("v1")


def test_with_trusted_keys_a_reference_of_an_unsigned_bundle_is_refused(registry, tmp_path):
    stage(registry, tmp_path, "v1", msgspec.json.encode(REFERENCE))
    public_key = write_new_key(tmp_path / "key.pem")
    references = References({}, registry.uri, 10.0, trusted_keys=(public_key,))
    with pytest.raises(BundleError, match="v1: not signed"):
        references.read("v1")


def test_a_reference_of_an_earlier_release_is_refused_and_says_what_to_do():
    plain = json.loads(msgspec.json.encode(REFERENCE))
    del plain["score"]["chance"]
    message = r"v1/reference.json: not a valid reference: .*missing required field `chance`.*: train again"
    with pytest.raises(BundleError, match=message):
        decode_reference(json.dumps(plain | {"score": plain["score"] | {"design_effect": 11.0}}).encode(), "v1")


def test_what_a_reference_without_means_does_not_watch_is_logged(caplog):
    decode_reference(msgspec.json.encode(REFERENCE), "v1")
    assert "v1/reference.json is of an earlier release: the means of numbers" in caplog.text
    caplog.clear()
    decode_reference(msgspec.json.encode(Reference({"a": reference_of("value", range(100))}, REFERENCE.score)), "v2")
    assert not caplog.text


def test_a_bundle_without_a_reference_is_refused_by_name(registry, tmp_path):
    assert REFERENCE_FILE not in files_of(1)
    stage(registry, tmp_path, "v1", None)
    with pytest.raises(BundleError, match="files must list reference.json: train again"):
        References({}, registry.uri, 10.0).read("v1")


def test_without_a_registry_only_the_bundle_s_version_is_known():
    references = References({"v1": REFERENCE}, None, 10.0)
    assert references.find("v1") == REFERENCE
    assert references.find("v2") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": None}, "noise"),
        ({"edges": [1.0, 2.0]}, "expected a share for each of 3 bins, got 2"),
        ({"values": [1.0], "rare": [2.0, 3.0], "shares": [1.0]}, "expected a share for each of 2 bins, got 1"),
        ({"values": [], "shares": [1.0]}, "expected a value or more, got none"),
        (
            {"chance": [[2, 1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 1, 1]]},
            "expected chance of ever longer windows, got .2, 1. ms",
        ),
        ({"rows": 0}, "rows"),
        ({"low": 0.0, "high": None}, "expected both of low and high or neither, got 0.0 and None"),
        ({"means": [1.0]}, "expected ever larger means of 2 bins, got .1.0."),
        ({"means": [2.0, 1.0]}, "expected ever larger means of 2 bins, got .2.0, 1.0."),
        ({"noise": 1e300}, "Expected `float` <= 1.*noise"),
        ({"chance": [[2**64, 1, 1, 0, 0, 1, 1]]}, "Expected `int` <= 1.*chance"),
    ],
)
def test_a_reference_that_can_not_be_used_is_refused_and_says_why(change, message):
    plain = json.loads(msgspec.json.encode(REFERENCE))
    plain["score"] |= change
    with pytest.raises(BundleError, match=f"v1/reference.json: not a valid reference: .*{message}"):
        decode_reference(json.dumps(plain).encode(), "v1")
