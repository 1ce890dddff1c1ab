"""Recorded logins: training gives each event the features that the job's own workers compute."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tests.support.fake_operator import rows_of
from tests.support.journeys import MINUTE, NOW, arrivals, journeys
from tests.unit.training.data.test_preparation import archive
from tests.unit.udfs.workers.test_logins import HISTORY_LENGTH, WITHIN_MS, Following
from training.data.examples import Examples, load_examples
from training.data.preparation import Preparation, prepare
from udfs.features.computer import FeatureComputer
from udfs.features.user_slots import USER_ROW, UserSlots
from udfs.measurement.labels import Label

BOUGHT = Label(events=("purchase",), horizon="10 min")
PREPARATION = Preparation(
    BOUGHT,
    history_length=HISTORY_LENGTH,
    duplicates_within_ms=WITHIN_MS,
    follow_logins=True,
    workers=1,
    bucket_events=15,
)


def live_features(directory, clicks: list[dict]) -> dict[int, bytes]:
    """The features of each scored click by its number, as the workers of the job compute them."""
    following, computer = Following(directory), FeatureComputer(history_length=HISTORY_LENGTH)
    users = UserSlots.empty(2 * len(clicks), HISTORY_LENGTH)
    slots: dict[bytes, int] = {}
    found = {}
    for number, click in enumerate(clicks):
        records = following([click])
        batch = rows_of(
            [record.content for record in records],
            [slots.setdefault(record.key, len(slots)) for record in records],
        )
        features, scored = computer.append(batch.heads(USER_ROW), batch.slots, users, WITHIN_MS)
        if scored.any():
            found[number] = features.tobytes()
    return found


def live_labels(clicks: list[dict], scored: set[int]) -> dict[int, bool]:
    """Whether a purchase of the user, or as the user of the same device, follows each scored click."""
    bought = [
        (one["event_time"], {one["user_id"], one["anonymous_id"]})
        for number, one in enumerate(clicks)
        if number in scored and one["event_name"] == "purchase"
    ]
    return {
        number: any(
            0 < at - clicks[number]["event_time"] <= BOUGHT.horizon_ms and clicks[number]["user_id"] in ids
            for at, ids in bought
        )
        for number in scored
    }


def prepared(directory, clicks: list[dict], arrival_ms: np.ndarray, partitions=1, **changes) -> tuple[Examples, int]:
    archive(directory / "clicks" / "part-0.parquet", clicks, arrival_ms, partitions)
    directories, summary = prepare(directory / "clicks", directory / "out", replace(PREPARATION, **changes))
    return load_examples(directories), summary.repeated


def positions(clicks: list[dict], partitions: int) -> list[tuple[int, int]]:
    """Partition and offset of each click in `archive`, which chooses the partition by user."""
    offsets, found = Counter(), []
    for one in clicks:
        partition = sum(one["user_id"].encode()) % partitions
        found.append((partition, offsets[partition]))
        offsets[partition] += 1
    return found


@pytest.mark.parametrize(
    ("seed", "partitions", "workers"),
    [(0, 1, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1, 1, 1), (2, 3, 2)])],
)
def test_features_and_labels_are_those_of_the_job(tmp_path, seed, partitions, workers):
    clicks = journeys(np.random.default_rng(seed), 150)
    arrival_ms = arrivals(clicks) + np.arange(len(clicks))  # so that no two in different partitions are the same
    wanted = live_features(tmp_path, clicks)
    labels = live_labels(clicks, set(wanted))
    examples, repeated = prepared(tmp_path, clicks, arrival_ms, partitions, workers=workers)
    assert repeated == len(clicks) - len(wanted) > 0
    rows = [number for number in wanted if clicks[number]["event_name"] != "purchase" and number < len(clicks) - 1]
    number_of = {position: number for number, position in enumerate(positions(clicks, partitions))}
    numbers = [number_of[position] for position in zip(examples.partition.tolist(), examples.offset.tolist())]
    assert sorted(numbers) == rows
    for number, features, label in zip(numbers, examples.features, examples.labels.tolist()):
        assert features.tobytes() == wanted[number], clicks[number]
        assert label == labels[number], clicks[number]
    assert 0 < examples.labels.sum() < len(examples)


def test_a_visitor_and_the_user_who_logs_in_are_on_one_side_of_a_split(tmp_path):
    clicks = journeys(np.random.default_rng(5), 150)
    connected = {frozenset((one["user_id"], one["anonymous_id"])) for one in clicks}
    examples, _ = prepared(tmp_path, clicks, arrivals(clicks))
    users = dict(zip(examples.offset.tolist(), examples.user.tolist()))
    by_id = {clicks[offset]["user_id"]: user for offset, user in users.items()}
    assert len(by_id) > 4
    for pair in connected:
        assert len({by_id[one] for one in pair if one in by_id}) <= 1
    assert len(set(by_id.values())) < len(by_id)


@pytest.mark.slow
def test_records_that_were_read_twice_count_once(tmp_path):
    clicks = journeys(np.random.default_rng(6), 100)
    arrival_ms = arrivals(clicks)
    archive(tmp_path / "clicks" / "part-1.parquet", clicks, arrival_ms, 1)
    twice, _ = prepared(tmp_path, clicks, arrival_ms, duplicates_within_ms=0)
    once, _ = prepared(tmp_path / "once", clicks, arrival_ms, duplicates_within_ms=0)
    twice, once = (examples.take(np.argsort(examples.offset)) for examples in (twice, once))
    assert twice.features.tobytes() == once.features.tobytes()
    assert twice.labels.tolist() == once.labels.tolist()


def test_a_login_that_is_sent_again_is_one_outcome(tmp_path):
    visit = {"user_id": "d", "anonymous_id": "d", "event_name": "view_item", "event_time": NOW, "event_id": "1"}
    page = {"user_id": "ada", "event_name": "page_view", "event_time": NOW + 1_000, "event_id": "2"}
    end = {"user_id": "z", "anonymous_id": "z", "event_name": "scroll", "event_time": NOW + 60 * MINUTE}
    clicks = [visit, visit | page, visit | page, end]
    two_pages = Label(page_views=2, horizon="10 min")
    examples, repeated = prepared(tmp_path, clicks, arrivals(clicks), label=two_pages)
    assert repeated == 1
    assert examples.labels.tolist() == [False] * len(examples)
    each, _ = prepared(tmp_path / "each", clicks, arrivals(clicks), label=two_pages, duplicates_within_ms=0)
    assert each.labels.any()


def test_rows_of_a_file_are_taken_in_the_order_of_their_times(tmp_path):
    clicks = sorted(
        {one.get("event_id", "last"): one for one in journeys(np.random.default_rng(1), 80)}.values(),
        key=lambda one: one["event_time"],
    )
    wanted = live_features(tmp_path, clicks)
    order = np.random.default_rng(2).permutation(len(clicks))
    file = tmp_path / "clicks.jsonl"
    file.write_text("".join(json.dumps(clicks[number]) + "\n" for number in order))
    directories, _ = prepare(file, tmp_path / "out", PREPARATION)
    examples = load_examples(directories)
    assert len(examples) > 40
    for row, features in zip(examples.offset.tolist(), examples.features):
        assert features.tobytes() == wanted[int(order[row])]


def test_a_login_changes_nothing_where_logins_are_not_followed(tmp_path):
    clicks = journeys(np.random.default_rng(3), 60)
    arrival_ms = arrivals(clicks)
    without = [{name: value for name, value in one.items() if name != "anonymous_id"} for one in clicks]
    first, _ = prepared(tmp_path / "1", clicks, arrival_ms, follow_logins=False)
    second, _ = prepared(tmp_path / "2", without, arrival_ms)
    first, second = (examples.take(np.argsort(examples.offset)) for examples in (first, second))
    assert first.features.tobytes() == second.features.tobytes()
    assert first.labels.tolist() == second.labels.tolist()


def test_where_each_event_counts_none_is_left_out(tmp_path):
    clicks = journeys(np.random.default_rng(4), 60)
    examples, repeated = prepared(tmp_path, clicks, arrivals(clicks), duplicates_within_ms=0)
    assert (repeated, len(set(examples.offset.tolist()))) == (0, len(examples))
