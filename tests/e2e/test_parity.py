"""The running job computes what training computes, bit for bit: through broker, cluster, savepoint and rescaling."""

import random
from base64 import b64decode
from collections import Counter
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest

from training.data.dataset import ProfileUpdates, arrange, read_clicks, read_profiles
from training.data.sources import Record, click_records, file_records, profile_records
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.clicks import EARLIEST_TIME_MS
from udfs.features.computer import FeatureComputer
from udfs.mapping.definition import load_mapping
from udfs.models.backends import Scorer
from udfs.models.bundle import load_bundle

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[2]
RECORDED = {"taobao": "taobao_dev_events.csv.gz", "rees46": "rees46_2019-10-01_00-03h.csv.gz"}
DATA = PROJECT.parent / "shared" / "data"
EVENTS_OF_EACH = 8_000


def simulated() -> tuple[list[Record], list[dict]]:
    stream = simulate(Simulation(users=500, hours=12, seed=3, late_share=0.05))
    return list(islice(click_records(stream.clicks()), EVENTS_OF_EACH)), stream.profiles


def recorded(name: str) -> tuple[list[Record], list[dict]]:
    mapping = load_mapping(PROJECT / "conf" / "mappings" / f"{name}.yaml")
    with (DATA / RECORDED[name]).open("rb") as file:
        records = list(islice(file_records(file, mapping), EVENTS_OF_EACH))
    users = sorted({key.decode() for key, _, _ in records})[::3]
    return records, [{"user_id": user, "country": "CN", "membership_tier": "gold"} for user in users]


def test_logged_features_and_scores_equal_the_offline_ones_bit_for_bit(pipeline, bundle_directory):
    """Of simulated clicks, and of the recorded ones where they are there, all through one job."""
    sources = [simulated(), *(recorded(name) for name, file in RECORDED.items() if (DATA / file).exists())]
    clicks = [click for records, _ in sources for click in records]
    assert max(Counter(user for user, _, _ in clicks).values()) > 64  # a history that is full
    random.Random(0).shuffle(clicks)
    profiles = [profile for _, some in sources for profile in some]
    middle = len(clicks) // 2
    first_profiles, later_profiles = profiles[::2], profiles[1::2]

    pipe = pipeline("feature_log.user_share=1.0", "model.engine=native")
    pipe.send("profiles", profile_records(first_profiles))
    pipe.start()
    pipe.wait_until_consumed("profiles")
    pipe.send("clicks", clicks[:middle])
    pipe.read("feature_log", at_least=500)
    savepoint = pipe.stop()  # with clicks of the first half behind it, and clicks of it still to come
    pipe.start("job.parallelism=2", savepoint=savepoint)  # each task has half of the users that it had
    pipe.wait_until_consumed("clicks")
    pipe.send("profiles", profile_records(later_profiles))
    pipe.wait_until_consumed("profiles")
    pipe.send("clicks", clicks[middle:])
    logged = pipe.read("feature_log", at_least=len(clicks))

    records = pipe.read_records("clicks")
    position_of = {record.value: number for number, record in enumerate(records)}
    second_half = {position_of[value] for _, value, _ in clicks[middle:]}
    arrival = EARLIEST_TIME_MS + np.array([2 * (number in second_half) for number in range(len(records))])
    bundle = load_bundle(bundle_directory, 64)
    between = updates(first_profiles, 0, later_profiles, EARLIEST_TIME_MS + 1)
    offline = arrange(read_clicks((record.value for record in records), arrival), between)
    features = offline.features(FeatureComputer(bundle.manifest.features, 64))
    scores = Scorer(bundle).predict(features)
    row_of = {
        (records[position].partition, records[position].offset): row
        for row, position in enumerate(offline.positions.tolist())
    }

    assert len(logged) == len(row_of) == len(clicks)
    for entry in logged:
        row = row_of.pop((entry["source_partition"], entry["source_offset"]))
        assert b64decode(entry["features"]) == features[row].tobytes(), entry["event_id"]
        assert np.float32(entry["score"]) == scores[row]


def updates(first: list[dict], first_ms: int, later: list[dict], later_ms: int) -> ProfileUpdates:
    stamped = [profile | {"updated_at": first_ms} for profile in first]
    stamped += [profile | {"updated_at": later_ms} for profile in later]
    return read_profiles(map(msgspec.json.encode, stamped))
