"""What the archive's job wrote is what was accepted, and training computes from it what the score job logged."""

from dataclasses import replace

import numpy as np
import pytest

from training.data.examples import load_examples
from training.data.feature_log import FeatureLog
from training.data.preparation import Preparation, prepare
from training.data.sources import click_records, profile_records
from training.simulation.clickstream import Simulation, simulate
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.e2e

BROKEN_CLICKS = [(b"ada", b"{", None), (b"ada", None, None)]
BROKEN_PROFILE = (b"ada", b"[]", None)
DELETED_PROFILE = (b"ada", None, None)
BEFORE_ALL_CLICKS_MS = 1


def test_the_archive_holds_what_was_accepted_and_training_reads_it(pipeline, bundle_directory, tmp_path):
    stream = simulate(Simulation(users=200, hours=6, seed=4))
    pipe = pipeline("feature_log.user_share=1.0")
    profiles = [*profile_records(stream.profiles), DELETED_PROFILE, BROKEN_PROFILE]
    pipe.send("profiles", [(key, value, BEFORE_ALL_CLICKS_MS) for key, value, _ in profiles])
    pipe.start()
    pipe.wait_until_consumed("profiles")
    pipe.start_other("jobs.archive_clicks")
    pipe.send("clicks", [*click_records(stream.clicks()), *BROKEN_CLICKS])
    pipe.read("feature_log", at_least=len(stream))
    for role in ("profiles", "clicks", "feature_log"):
        pipe.wait_until_archived(role)

    broken = {"clicks": {value for _, value, _ in BROKEN_CLICKS}, "profiles": {BROKEN_PROFILE[1]}}
    for role, rejected in broken.items():
        accepted = [record for record in pipe.read_records(role) if record.value not in rejected]
        assert sorted(pipe.archived(role)) == [
            (record.partition, record.offset, record.value, record.timestamp) for record in accepted
        ]

    preparation = Preparation(CONVERTED, workers=1)
    manifest = load_bundle(bundle_directory, 64).manifest
    log = FeatureLog(pipe.archive_of("feature_log"), manifest.feature_schema_hash, manifest.features)
    clicks, profiles = pipe.archive_of("clicks"), pipe.archive_of("profiles")
    computed = load_examples(prepare(clicks, tmp_path / "computed", preparation, profiles)[0])
    logged = load_examples(prepare(clicks, tmp_path / "logged", replace(preparation, log=log))[0])
    assert len(computed)
    for name in ("partition", "offset", "labels"):
        assert np.array_equal(getattr(computed, name), getattr(logged, name))
    assert computed.features.tobytes() == logged.features.tobytes()
